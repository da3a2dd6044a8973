"""Trajectories without elements, XTC, TRR, DCD and NetCDF, by MDAnalysis if it is installed.

>>> for frame in read_binary(Path("run.xtc"), Interpretation(topology="start.pdb")):         # doctest: +SKIP
...     frame.atoms.info["step"]

N. Michaud-Agrawal et al., J. Comput. Chem. 32, 2319 (2011), doi:10.1002/jcc.21787.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import cellpar_to_cell

from ...base.errors import SettingError
from .interpretation import Frame, Interpretation
from .text import FrameError

SUFFIXES = {".xtc": "XTC", ".trr": "TRR", ".dcd": "DCD", ".nc": "NCDF", ".ncdf": "NCDF"}
_WITH_STEPS = ("XTC", "TRR")
_XTC_HEAD, _DCD_FIRST = 96, 84
"""Bytes that hold the length of a frame; those in the first record of a DCD."""


def read_binary(path: Path, how: Interpretation) -> Iterator[Frame]:
    """All frames; steps and times where the format has them in known units (XTC, TRR).

    :raises SettingError: without MDAnalysis, or without elements
    :raises FrameError: if a frame is cut
    """
    kind = SUFFIXES[path.suffix.lower()]
    reader_for = _reader_for(path, kind)
    if how.topology is None:
        raise SettingError(f"{path}: {kind} has no elements; give --topology, a structure with the same atoms")
    from .files import read_structure  # which reads with an Interpretation

    topology = read_structure(str(how.topology))
    number = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with reader_for(str(path), convert_units=True) as reader:
                for step in reader:
                    yield Frame(_atoms(step, topology, kind, f"{path}: frame {number}", how), states_pbc=False)
                    number += 1
        except SettingError:
            raise
        except Exception as error:  # each of its readers has its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FrameError(path, number, f"is cut or damaged ({reason[:120]})") from None
    if not is_whole(path, kind):  # MDAnalysis passes over what is left of a frame
        raise FrameError(path, number, "is cut: the file ends within it")


def is_whole(path: Path, kind: str) -> bool:
    """Whether a file of kind XTC or DCD ends with the end of a frame; true for other kinds, and for a DCD of the other byte order.

    Layouts: https://manual.gromacs.org/current/reference-manual/file-formats.html; DCD is a row of Fortran records.
    """
    if kind not in ("XTC", "DCD"):
        return True
    size, at = path.stat().st_size, 0
    with open(path, "rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(_XTC_HEAD if kind == "XTC" else 4)
            length = _xtc_length(head) if kind == "XTC" else _record_length(head)
            if at == 0 and kind == "DCD" and length != _DCD_FIRST + 8:
                return True
            if length is None:
                return False
            at += length
    return at == size


def _xtc_length(head: bytes) -> int | None:
    """Bytes of a frame of XTC by its first 92; None if they are not all there."""
    if len(head) < 56:
        return None
    magic, n_atoms = struct.unpack(">2i", head[:8])
    if n_atoms <= 9:  # not compressed
        return 56 + 12 * n_atoms
    wide = magic == 2023  # whose length has 64 bits
    if len(head) < (96 if wide else 92):
        return None
    (n_bytes,) = struct.unpack(">q", head[88:96]) if wide else struct.unpack(">i", head[88:92])
    return (96 if wide else 92) + (n_bytes + 3) // 4 * 4


def _record_length(head: bytes) -> int | None:
    return struct.unpack("<i", head)[0] + 8 if len(head) == 4 else None


def _reader_for(path: Path, kind: str) -> Any:
    try:
        from MDAnalysis.coordinates.core import get_reader_for
    except ImportError:
        raise SettingError(
            f"{path}: {kind} is read by MDAnalysis, which is not installed; `pip install MDAnalysis`, or convert it to .extxyz"
        ) from None
    return get_reader_for(str(path), format=kind)


def _atoms(step: Any, topology: Atoms, kind: str, where: str, how: Interpretation) -> Atoms:
    if step.n_atoms != len(topology):
        raise SettingError(f"{where} has {step.n_atoms} atoms, the topology {len(topology)}; give that of this run")
    atoms = Atoms(topology.numbers, positions=np.array(step.positions, dtype=float))
    box = None if step.dimensions is None else np.array(step.dimensions, dtype=float)
    if box is not None and (box[:3] > 0).all():
        atoms.cell, atoms.pbc = cellpar_to_cell(box), True
    elif how.cell is None and topology.cell.rank == 3:
        atoms.cell, atoms.pbc = topology.cell.array, topology.pbc
    if kind in _WITH_STEPS:
        atoms.info.update(step=int(step.data["step"]), time_fs=1000.0 * float(step.time))
    return atoms
