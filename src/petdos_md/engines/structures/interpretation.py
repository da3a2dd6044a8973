"""What a file does not say: elements of its types, cell, periodic directions, units, topology.

>>> how = Interpretation(species="Al,Mg", cell=(4.05, 4.05, 4.05), pbc="xy", units="metal")
>>> how.types, how.periodic, how.length_A(None, "a.xyz")
({'1': 'Al', '2': 'Mg'}, (True, True, False), 1.0)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.geometry import cellpar_to_cell

from ...base.errors import SettingError
from .symbols import parse_species


class Unit(NamedTuple):
    """Length in angstrom and time in fs; None where the name says nothing of times."""

    length_A: float
    time_fs: float | None = None


UNITS = {
    "angstrom": Unit(1.0),
    "bohr": Unit(units.Bohr),
    "atomic_unit": Unit(units.Bohr),
    "nanometer": Unit(10.0),
    "picometer": Unit(0.01),
    "metal": Unit(1.0, 1e3),
    "real": Unit(1.0, 1.0),
    "electron": Unit(units.Bohr, 1.0),
    "nano": Unit(10.0, 1e6),
    "micro": Unit(1e4, 1e9),
    "si": Unit(1e10, 1e15),
    "cgs": Unit(1e8, 1e15),
}
"""Of lengths, by the names of i-PI, and the unit styles of LAMMPS."""


@dataclass(frozen=True)
class Interpretation:
    """How to read what a file leaves open; None means that the file must say it.

    :param species: elements by type, ``"Al,Mg"`` or ``"1=Al,2=Mg"``
    :param cell: A B C (angstrom) and perhaps alpha beta gamma (degrees), nine numbers (three vectors), or a file with that cell,
        for frames without a cell
    :param pbc: periodic directions: ``"xyz"``, ``"xy"``, ``"none"``, ...; by default those of the file, all if ``cell`` is given
    :param units: a name in :data:`UNITS`
    :param topology: a structure file with the elements of formats that have none (XTC, DCD, NetCDF)
    :raises SettingError: for values that make no sense
    """

    species: str | Sequence[str] | Mapping[str, str] | None = None
    cell: Sequence[float] | str | os.PathLike[str] | None = None
    pbc: str | None = None
    units: str | None = None
    topology: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _ = self.types, self.periodic
        if self.units is not None and self.units not in UNITS:
            raise SettingError(f"got units {self.units!r}, expected one of {', '.join(UNITS)}")
        if self.cell is not None and not isinstance(self.cell, str | os.PathLike):
            _ = self.vectors_A

    @cached_property
    def types(self) -> dict[str, str] | None:
        """Label -> symbol."""
        return parse_species(self.species)

    @cached_property
    def periodic(self) -> tuple[bool, bool, bool] | None:
        """By direction."""
        if self.pbc is None:
            return None
        text = "" if self.pbc == "none" else self.pbc
        if sorted(set(text)) != sorted(text) or not set(text) <= set("xyz"):
            raise SettingError(f"got pbc {self.pbc!r}, expected periodic directions such as xyz or xy, or none")
        return ("x" in text, "y" in text, "z" in text)

    @cached_property
    def vectors_A(self) -> np.ndarray | None:
        """The cell, ``(3, 3)`` angstrom."""
        if self.cell is None:
            return None
        if isinstance(self.cell, str | os.PathLike):
            return self._cell_of_file(self.cell)
        numbers = np.asarray(self.cell, dtype=float).ravel()
        if len(numbers) == 9 and np.isfinite(numbers).all():
            return numbers.reshape(3, 3)
        if len(numbers) not in (3, 6) or not np.isfinite(numbers).all() or not (numbers > 0).all():
            shown = " ".join(f"{x:g}" for x in numbers)
            raise SettingError(
                f"got the cell {shown}, expected A B C in angstrom, or A B C alpha beta gamma in degrees, all positive"
            )
        try:
            vectors = np.asarray(cellpar_to_cell(numbers if len(numbers) == 6 else [*numbers, 90, 90, 90]))
        except AssertionError:  # what ASE says to angles that do not meet
            vectors = np.zeros((3, 3))
        if not (np.isfinite(vectors).all() and abs(np.linalg.det(vectors)) > 0):
            angles = " ".join(f"{x:g}" for x in numbers[3:])
            raise SettingError(f"got a cell with the angles {angles}, which no cell has; expected three that fit")
        return vectors

    def length_A(self, of_file: str | None, where: object) -> float:
        """The unit of length.

        :param of_file: what the file says
        :raises SettingError: if the file says something else than the user, or something unknown
        """
        if of_file is None:
            return UNITS[self.units or "angstrom"].length_A
        if of_file not in UNITS:
            raise SettingError(f"{where}: lengths in {of_file!r}, expected one of {', '.join(UNITS)}; convert the file")
        length = UNITS[of_file].length_A
        if self.units is not None and not np.isclose(UNITS[self.units].length_A, length):
            raise SettingError(f"{where}: says itself that its units are {of_file}; leave --units {self.units} out")
        return length

    def complete(self, atoms: Atoms, where: str) -> None:
        """Give a frame the cell and the periodic directions that its file leaves open.

        :raises SettingError: if it has a cell of its own
        """
        if self.cell is not None:
            if atoms.cell.rank > 0:
                raise SettingError(f"{where} has a cell of its own; leave --cell out")
            atoms.cell = self.vectors_A
            atoms.pbc = True
        if self.periodic is not None:
            atoms.pbc = self.periodic
        if atoms.calc is not None and (self.cell is not None or self.periodic is not None):
            atoms.calc.atoms = atoms.copy()  # what the file says of the structure is still of this one

    @staticmethod
    def _cell_of_file(path: str | os.PathLike[str]) -> np.ndarray:
        from .files import read_structure  # which reads with an Interpretation

        atoms = read_structure(os.fspath(path))
        if atoms.cell.rank < 3:
            raise SettingError(f"{path}: has no cell of three vectors; give another file or --cell A B C")
        return np.array(atoms.cell.array)


class Frame(NamedTuple):
    """A structure as its file has it.

    :param atoms: labels are in ``info``: ``step``, ``time_fs``, ...
    :param states_pbc: whether the file says which directions are periodic
    """

    atoms: Atoms
    states_pbc: bool = True
