"""Structures from files in any format that ASE reads, and some more; what cannot be read is reported in one line.

>>> read_structure("Al.cif")                                                    # doctest: +SKIP
>>> for number, atoms in read_frames("run.traj", "::10"):                       # doctest: +SKIP
...     ...

Frames come as they are read, so that a pipe will do. Their labels are in ``atoms.info`` (``step``, ``time_fs``, ...) where the file has
them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from ...base.errors import SettingError, StructureError
from .binary import SUFFIXES, read_binary
from .by_ase import read_any, read_database, read_lammps_data, read_traj
from .interpretation import Frame, Interpretation
from .lammps import read_dump
from .text import Lines, first_bytes, is_regular, open_bytes
from .xdatcar import read_xdatcar
from .xyz import read_xyz

logger = logging.getLogger(__name__)
Numbered = TypeVar("Numbered")

LINE_READERS = {"xyz": read_xyz, "extxyz": read_xyz, "lammps-dump-text": read_dump, "vasp-xdatcar": read_xdatcar}
"""Formats of text that are read here, by ASE's names."""
_UNCOMPRESSED = ("traj", "db", "netcdftrajectory", *SUFFIXES.values())
_N_ELEMENTS = 118


def read_structure(path: str, how: Interpretation | None = None, file_format: str | None = None) -> Atoms:
    """The last structure of a file, or that with the number in ``FILE@NUMBER`` if no file has that very name.

    :param how: what the file does not say
    :raises SettingError: if there is none
    :raises StructureError: if it has no atoms or numbers that are not finite
    """
    place, index = path, ":"
    if not os.path.lexists(os.path.expanduser(path)) and "@" in path:
        place, _, index = path.rpartition("@")
    last: Atoms | None = None
    for _, atoms in read_frames(place, index or ":", file_format, how):
        last = atoms
    if last is None:
        again = index != ":" and is_regular(Path(place).expanduser())
        n = sum(1 for _ in read_frames(place, ":", file_format, how)) if again else 0
        if n:
            numbers = f"s, got number {index}; give one from 0 to {n - 1}" if n > 1 else f", got number {index}; give 0"
            raise SettingError(f"{place}: has {n} structure{numbers}")
        raise SettingError(f"{place}: holds no structure; give another file")
    if len(last) == 0:
        raise StructureError(f"{path}: the structure has no atoms, expected at least one; give another file")
    if not (np.isfinite(last.positions).all() and np.isfinite(last.cell.array).all()):
        raise StructureError(f"{path}: its positions or cell are not finite (NaN or infinite); give another structure")
    return last


def read_frames(
    path: str | os.PathLike[str],
    index: str = ":",
    file_format: str | None = None,
    how: Interpretation | None = None,
) -> Iterator[tuple[int, Atoms]]:
    """Frames of a file with their numbers in it, one by one.

    :param index: which, as a slice (``100::10``) or a single number
    :param file_format: ASE's name of the format, if the file does not say it
    :param how: what the file does not say
    :raises SettingError: if the file is missing, cannot be read, or the index is no slice; whole frames before a broken one are
        yielded first
    """
    path, wanted = Path(path).expanduser(), frame_slice(index)
    how = how or Interpretation()
    yield from select(enumerate(_complete(_frames(path, file_format, how), str(path), how)), wanted)


def select(frames: Iterable[Numbered], wanted: slice) -> Iterator[Numbered]:
    """Those of a slice. Numbers from the end need the length: then all are read first; otherwise they come as they are read."""
    if (wanted.start or 0) >= 0 and (wanted.step or 1) > 0 and (wanted.stop is None or wanted.stop >= 0):
        return islice(frames, wanted.start, wanted.stop, wanted.step)
    return iter(list(frames)[wanted])


def frame_slice(index: str) -> slice:
    """The slice of an index as people write it, ``100::10`` or ``5``.

    :raises SettingError: if it is none
    """
    parts = index.split(":")
    try:
        numbers = [max(-sys.maxsize, min(int(p), sys.maxsize - 1)) if p.strip() else None for p in parts]
        if len(parts) == 1:
            number = numbers[0] or 0
            wanted = slice(number, number + 1 or None)
        else:
            wanted = slice(*numbers)
    except (ValueError, TypeError):
        raise SettingError(f"got index {index!r}, expected a slice such as 100::10") from None
    if wanted.step == 0 or not index.strip():
        raise SettingError(f"got index {index!r}, expected a slice with a step that is not zero")
    return wanted


def _frames(path: Path, file_format: str | None, how: Interpretation) -> Iterator[Frame]:
    """All frames of a file, as it has them."""
    with open_bytes(path) as stream:
        start = first_bytes(stream, path)
        name = file_format or _format(path, start)
        if name not in ioformats and name not in SUFFIXES.values():
            raise SettingError(
                f"{path}: got --format {name}, which ASE does not know; `ase info --formats` lists its names"
            )
        if name in LINE_READERS:
            yield from LINE_READERS[name](Lines(stream, path), how)
            return
    if not is_regular(path):
        raise SettingError(f"{path}: {name} cannot be read from a pipe; write it to a file first")
    _check_not_compressed(path, name)
    if how.units is not None:
        raise SettingError(f"{path}: {name} has units of its own; leave --units out")
    if how.species is not None and name != "lammps-data":
        raise SettingError(f"{path}: {name} has no types; leave --species out")
    with _explained(path):
        if name == "traj":
            yield from read_traj(path)
        elif name in ("db", "json"):
            yield from read_database(path, name)
        elif name == "lammps-data":
            yield from read_lammps_data(path, how)
        elif name in SUFFIXES.values():
            yield from read_binary(path, how)
        else:
            yield from read_any(path, file_format, name)


def _complete(frames: Iterator[Frame], where: str, how: Interpretation) -> Iterator[Atoms]:
    """The atoms of frames with what the user knows beyond the file; says so once if no direction is periodic."""
    warned = how.pbc is not None
    for number, (atoms, states_pbc) in enumerate(frames):
        here = f"{where}: frame {number}"
        if len(atoms) and not (atoms.numbers.min() >= 1 and atoms.numbers.max() <= _N_ELEMENTS):
            odd = next(n for n in atoms.numbers.tolist() if not 1 <= n <= _N_ELEMENTS)
            what = "a ghost atom (X)" if odd == 0 else f"an atom of atomic number {odd}"
            raise SettingError(f"{here} has {what}, expected elements; take it out, or write the element that it is")
        how.complete(atoms, here)
        if not (warned or states_pbc or atoms.pbc.any()):
            warned = True
            logger.warning(
                "%s has no cell, so it is taken for a cluster in vacuum; give --cell A B C if it is periodic, --pbc none if not",
                here,
            )
        yield atoms


def _format(path: Path, start: bytes) -> str:
    """ASE's name of the format of a file, by its first bytes, else by its name."""
    name = path.name.lower()
    for ending in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(ending)
    suffix = Path(name).suffix
    if start.startswith(b"- of Ulm"):
        return "traj"
    if start.startswith(b"SQLite format 3"):
        return "db"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"ITEM:"):
        return "lammps-dump-text"
    if b"DUMPCUSTOM" in start[:32] or b"DUMPATOM" in start[:32]:
        return "lammps-dump-binary"
    if suffix in (".xyz", ".extxyz"):
        return "extxyz"
    if re.search(rb"^\s*Direct configuration\s*=", start, re.M):
        return "vasp-xdatcar"
    if re.search(rb"^\s*\d+\s+atoms\s*$", start, re.M) and b"xlo xhi" in start:
        return "lammps-data"
    if _is_of_ase(path, suffix):
        return "netcdftrajectory"
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    return _format_of_ase(path, start)


def _format_of_ase(path: Path, start: bytes) -> str:
    """As ASE finds it; for pipes and names that it does not know, whether the content is that of an xyz file."""
    name = ""
    if is_regular(path):
        with _explained(path), suppress(UnknownFileTypeError):
            name = str(filetype(str(path)))
    if name in ioformats:
        return name
    if start.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].strip().isdigit():
        return "extxyz"
    raise SettingError(
        f"{path}: ASE cannot read it (its format is not known); name its --format, or convert it to .extxyz"
    )


def _is_of_ase(path: Path, suffix: str) -> bool:
    """Whether a NetCDF file has atomic numbers: those of ASE do, where those of others have types under the same name."""
    if suffix != ".nc" or not is_regular(path):
        return False
    import netCDF4

    try:
        with netCDF4.Dataset(path) as file:
            return str(getattr(file, "program", "")) == "ASE"
    except OSError:
        return False


def _check_not_compressed(path: Path, name: str) -> None:
    if name not in _UNCOMPRESSED:
        return
    with open(path, "rb") as raw:
        if raw.read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7"):
            raise SettingError(f"{path}: {name} is read uncompressed only; decompress it first")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what ASE says to a file that it cannot read into one line."""
    try:
        yield
    except SettingError:
        raise
    except Exception as error:  # each of ASE's many readers has its own
        if isinstance(error, OSError) and error.errno is not None:
            raise SettingError(f"{path}: cannot be read: {error.strerror}; copy it to another place") from None
        reason = " ".join(str(error).split())[:200]
        if " " not in reason:  # the name of a format, say, or nothing
            reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise SettingError(
            f"{path}: ASE cannot read it ({reason}); name its --format, or convert it to .extxyz"
        ) from None
