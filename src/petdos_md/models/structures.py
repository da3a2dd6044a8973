"""Whether a structure can be evaluated by a model.

>>> import ase.build
>>> check_structure(ase.build.bulk("Al"), [13, 14], "almgsi-lda")
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..base.errors import StructureError

LEAST_HEIGHT_A = 0.3
"""Distance of opposite faces of a cell in a periodic direction (angstrom): below it, an atom has thousands of images as neighbors."""


def check_structure(atoms: Atoms, atomic_types: Sequence[int], model: str) -> None:
    """Whether a structure can be evaluated.

    :param atomic_types: atomic numbers that the model knows
    :param model: its name, for messages
    :raises StructureError: if there are no atoms, numbers that are not finite, a cell without volume, or elements unknown to the model
    """
    if len(atoms) == 0:
        raise StructureError("the structure has no atoms, expected at least one")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureError(
            "positions or cell are not finite (NaN or infinite); the simulation has probably exploded, use a shorter timestep"
        )
    height = least_height(atoms)
    if height < LEAST_HEIGHT_A:
        raise StructureError(
            f"the cell is {height:.3g} angstrom thin in a periodic direction, expected {LEAST_HEIGHT_A:g} or more; give it a volume, reduce it, or "
            "make the structure not periodic"
        )
    unknown = sorted(set(atoms.numbers.tolist()) - set(atomic_types))
    if unknown:
        known = " ".join(chemical_symbols[n] for n in atomic_types)
        raise StructureError(
            f"element {chemical_symbols[unknown[0]]} is unknown to {model}, which knows {known}; give a model that was trained on it"
        )


def least_height(atoms: Atoms) -> float:
    """Smallest distance of opposite faces of the cell over the periodic directions (angstrom), infinite if there are none."""
    if not atoms.pbc.any():
        return float("inf")
    vectors = atoms.cell.array[atoms.pbc]
    heights = []
    for k, vector in enumerate(vectors):
        others = np.delete(vectors, k, axis=0)
        # What is left of the vector when its components along the others are taken away.
        along = np.linalg.lstsq(others.T, vector, rcond=None)[0] @ others if len(others) else np.zeros(3)
        heights.append(float(np.linalg.norm(vector - along)))
    return min(heights)
