"""Atoms in the same place, or closer than any bond: what no model was trained on, and what it answers all the same.

>>> from ase import Atoms
>>> closest_pair(Atoms("Al2", [[0, 0, 0], [3.98, 0, 0]], cell=[4, 4, 4], pbc=True))
(0, 1, 0.02)
"""

from __future__ import annotations

import logging

import numpy as np
from ase import Atoms
from ase.cell import Cell
from scipy.spatial import cKDTree

logger = logging.getLogger(__name__)

CLOSE_A = 0.5
"""Atoms nearer than this (angstrom) are warned of; the shortest bond, that of H2, has 0.74."""
SAME_PLACE_A = 1e-3
"""Nearer than this (angstrom), an atom is there twice."""
_warned: set[str] = set()


def warn_if_close(atoms: Atoms, where: str) -> None:
    """Say so once in a process for doubled atoms, and once for close ones.

    :param where: what the structure is, for the message
    """
    if len(_warned) == 2:
        return
    found = closest_pair(atoms)
    if found is None:
        return
    i, j, distance_A = found
    kind = "doubled" if distance_A < SAME_PLACE_A else "close"
    if kind in _warned:
        return
    _warned.add(kind)
    symbols = atoms.get_chemical_symbols()
    logger.warning(
        "%s: atoms %d (%s) and %d (%s) are %.3g angstrom apart%s; the model gives numbers for that, which mean nothing",
        where,
        i,
        symbols[i],
        j,
        symbols[j],
        distance_A,
        ": one is there twice" if kind == "doubled" else "",
    )


def closest_pair(atoms: Atoms, within_A: float = CLOSE_A) -> tuple[int, int, float] | None:
    """Two atoms, from 0, or one and its own image, and their distance (angstrom); None if no pair is as close."""
    if len(atoms) == 0:
        return None
    cell = Cell(np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)).complete().array
    inverse = np.linalg.inv(cell)
    heights_A = 1 / np.linalg.norm(inverse, axis=0)
    fractions, owner = atoms.positions @ inverse, np.arange(len(atoms))
    fractions[:, atoms.pbc] %= 1.0
    for k in np.flatnonzero(atoms.pbc):  # what is close to one face has an image behind the opposite one
        near = fractions[:, k] * heights_A[k] < within_A
        fractions = np.concatenate([fractions, fractions[near] + np.eye(3)[k]])
        owner = np.concatenate([owner, owner[near]])
    positions = fractions @ cell
    pairs = cKDTree(positions).query_pairs(within_A, output_type="ndarray")
    if len(pairs) == 0:
        return None
    distances_A = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    closest = int(np.argmin(distances_A))
    i, j = sorted(owner[pairs[closest]].tolist())
    return i, j, round(float(distances_A[closest]), 6)
