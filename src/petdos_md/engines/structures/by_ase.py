"""Frames of files that ASE reads, with what its readers pass over in silence.

>>> for frame in read_traj(Path("run.traj")):                                   # doctest: +SKIP
...     frame.atoms.info
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.io.trajectory import TrajectoryReader

from ...base.errors import SettingError
from .interpretation import Frame, Interpretation
from .text import FrameError, open_bytes

logger = logging.getLogger(__name__)

_WITHOUT_ELEMENTS = {
    "lammps-dump-binary": "a binary dump of LAMMPS; convert it by `binary2txt`, or dump text",
    "cp2k-dcd": "DCD; leave --format out and give --topology, a structure with its elements",
}
_LIKE_A_MASS_U = 0.05
"""By so much a mass in a LAMMPS data file may differ from that of the element that it is taken for."""


def read_traj(path: Path) -> Iterator[Frame]:
    """Frames of an ASE trajectory.

    :raises FrameError: if one is cut
    """
    number = 0
    try:
        with TrajectoryReader(path) as file:
            for number in range(len(file)):  # named in messages
                atoms = file[number]
                yield Frame(atoms)
    except Exception as error:  # whatever ASE stumbles over in a damaged file
        if isinstance(error, SettingError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FrameError(path, number, f"is cut or damaged ({type(error).__name__}: {reason[:120]})") from None


def read_database(path: Path, kind: str) -> Iterator[Frame]:
    """Rows of an ASE database, of kind ``db`` or ``json``; their key-value pairs are labels."""
    import ase.db

    with ase.db.connect(path, type=kind) as database:
        for row in database.select(sort="id"):
            atoms = row.toatoms()
            atoms.info.update(row.key_value_pairs)
            yield Frame(atoms)


def read_lammps_data(path: Path, how: Interpretation) -> Iterator[Frame]:
    """A data file of LAMMPS; elements are those of ``how.species``, else those of the masses.

    :raises SettingError: if a mass is not that of an element
    """
    if how.types is not None:
        from ase.data import atomic_numbers

        types = {int(label): atomic_numbers[symbol] for label, symbol in how.types.items() if label.isdigit()}
        atoms = next(ase.io.iread(path, format="lammps-data", do_not_split_by_at_sign=True, Z_of_type=types))
    else:
        atoms = next(ase.io.iread(path, format="lammps-data", do_not_split_by_at_sign=True))
        masses = atoms.get_masses()
        usual = atomic_masses[np.clip(atoms.numbers, 0, len(atomic_masses) - 1)]
        bad = np.abs(masses - usual) > _LIKE_A_MASS_U
        if bad.any() or not _has_masses(path):
            what = f"an atom of mass {masses[bad][0]:g}" if bad.any() else "no masses"
            raise SettingError(
                f"{path}: has types and {what}, which name no elements; give --species, as in --species Al,Mg"
            )
    yield Frame(atoms)


def read_any(path: Path, file_format: str | None, name: str) -> Iterator[Frame]:
    """Frames of any other format.

    :param file_format: as the user gave it
    :param name: ASE's name of the format
    :raises SettingError: for formats without elements
    """
    if name in _WITHOUT_ELEMENTS:
        raise SettingError(f"{path}: is {_WITHOUT_ELEMENTS[name]}")
    states = name not in (
        "proteindatabank",
        "mol",
        "sdf",
        "gaussian-in",
        "gaussian-out",
        "turbomole",
        "nwchem-in",
        "orca-output",
    )
    number = -1
    frames = ase.io.iread(path, ":", format=file_format, do_not_split_by_at_sign=True)
    if name == "proteindatabank":
        frames = _models(frames, path)
    for number, atoms in enumerate(frames):
        _check_occupancy(atoms, f"{path}: frame {number}")
        yield Frame(atoms, states_pbc=states)
    if name == "vasp-xml" and b"</modeling>" not in _end(path):
        raise SettingError(f"{path}: is cut after frame {number}: it does not end with </modeling>")
    if name == "espresso-out" and b"JOB DONE" not in _end(path):
        logger.warning(
            "%s: the run did not end by itself (no JOB DONE); its %d whole frames are taken", path, number + 1
        )


def _models(frames: Iterator[Atoms], path: Path) -> Iterator[Atoms]:
    """Models of a PDB file: one CRYST1 holds for those behind it, and what ASE makes of ENDMDL before END is none.

    :raises SettingError: if atoms have no element, which their names do not say: CA is a carbon or calcium
    """
    with open_bytes(path) as stream:
        for line in stream:
            if line.startswith((b"ATOM  ", b"HETATM")) and not line[76:78].strip():
                raise SettingError(
                    f"{path}: atom {line[6:11].decode(errors='replace').strip()} has no element (columns 77 and 78), only the name "
                    f"{line[12:16].decode(errors='replace').strip()!r}; write the elements there, or give another format"
                )
    cell, pbc = np.zeros((3, 3)), np.zeros(3, dtype=bool)
    for atoms in frames:
        if len(atoms) == 0:
            continue
        if np.array_equal(atoms.cell.array, np.eye(3)):
            atoms.cell, atoms.pbc = np.zeros((3, 3)), False  # by convention, CRYST1 with lengths of 1 is no crystal
        elif atoms.cell.rank == 0:
            atoms.cell, atoms.pbc = cell, pbc
        else:
            cell, pbc = atoms.cell.array, atoms.pbc
        yield atoms


def _check_occupancy(atoms: Atoms, where: str) -> None:
    """ASE takes the first of the elements that share a site.

    :raises SettingError: if there are such sites
    """
    for site in (atoms.info.get("occupancy") or {}).values():
        if len(site) > 1 or min(site.values()) < 1:
            shown = ", ".join(f"{symbol} {share:g}" for symbol, share in site.items())
            raise SettingError(
                f"{where} has sites that are occupied in part ({shown}); give a supercell with whole atoms"
            )


def _has_masses(path: Path) -> bool:
    with open_bytes(path) as stream:
        return any(line.split(b"#")[0].strip() == b"Masses" for line in stream)


def _end(path: Path, size: int = 4096) -> bytes:
    end = b""
    with open_bytes(path) as stream:
        while block := stream.read(1 << 20):
            end = (end + block)[-size:]
    return end
