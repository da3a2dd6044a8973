"""Structures from files in any format that ASE reads; what cannot be read is told in one line.

>>> read_structure("Al.cif")                                                    # doctest: +SKIP
>>> for number, atoms in read_frames("run.traj", "::10"):                       # doctest: +SKIP
...     ...
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

from ..base.errors import SettingError, StructureError


def read_structure(path: str) -> Atoms:
    """The last structure of a file.

    :param path: as ASE takes it, perhaps with ``@INDEX`` at its end
    :raises SettingError: if there is none
    :raises StructureError: if it has no atoms or numbers that are not finite
    """
    if not os.path.exists(path.split("@")[0]):
        raise SettingError(f"{path}: no such file; give a structure in any format that ASE reads")
    with _explained(path, "convert it, for example to .extxyz or .cif"):
        atoms = ase.io.read(path)
    atoms = atoms[-1] if isinstance(atoms, list) else atoms
    if len(atoms) == 0:
        raise StructureError(f"{path}: the structure has no atoms, expected at least one; give another file")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(f"{path}: its positions or cell are not finite (NaN or infinite); give another structure")
    return atoms


def read_frames(
    path: str | os.PathLike[str], index: str = ":", file_format: str | None = None
) -> Iterator[tuple[int, Atoms]]:
    """Frames of a file with their numbers in it, one by one.

    :param index: which, as a slice (``100::10``) or a single number
    :param file_format: ASE's name of the format, if the file name does not tell it
    :raises SettingError: if the file is missing, cannot be read, or the index is no slice
    """
    path, wanted = Path(path), _slice(index)
    if not path.exists():
        raise SettingError(f"{path}: no such file; give a trajectory in any format that ASE reads")
    simple = (wanted.start or 0) >= 0 and (wanted.step or 1) > 0 and (wanted.stop is None or wanted.stop >= 0)
    with _explained(path, "name its --format, or convert it to .extxyz"):
        # Numbers from the end need the length: then the file is read first. Otherwise frames come as they are read.
        if simple:
            frames = ase.io.iread(path, ":", format=file_format)
            yield from islice(enumerate(frames), wanted.start, wanted.stop, wanted.step)
        else:
            every = ase.io.read(path, ":", format=file_format)
            yield from list(enumerate(every))[wanted]


def _slice(index: str) -> slice:
    parts = index.split(":")
    try:
        if len(parts) == 1:
            number = int(index)
            return slice(number, number + 1 or None)
        wanted = slice(*(int(p) if p else None for p in parts))
    except (ValueError, TypeError):
        raise SettingError(f"got index {index!r}, expected a slice such as 100::10") from None
    if wanted.step == 0:
        raise SettingError(f"got index {index!r}, expected a slice with a step that is not zero")
    return wanted


@contextmanager
def _explained(path: str | Path, fix: str) -> Iterator[None]:
    """Turn what ASE says to a file that it cannot read into one line."""
    try:
        yield
    except Exception as error:  # each of ASE's many readers has its own
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().split("\n")[0]
        if " " not in reason:  # the name of a format, say, or nothing
            reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        raise SettingError(f"{path}: ASE cannot read it ({reason}); {fix}") from None
