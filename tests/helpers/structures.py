"""Rattled cells of aluminium with the labels that data sets have."""

from __future__ import annotations

import ase.build
from ase import Atoms


def structures(n: int) -> list[Atoms]:
    """``n`` cells of 4 atoms, each with an index, a tag that names phase and temperature, and its number of electrons."""
    result = []
    for i in range(n):
        atoms = ase.build.bulk("Al", a=4.0 + 0.01 * i, cubic=True)
        atoms.rattle(0.05 + 0.02 * i, seed=i)
        atoms.info = {"index": i, "tag": f"{'hot' if i % 2 else 'cold'}-Al4-{100 * (i + 1)}K", "n_electrons": 12}
        result.append(atoms)
    return result
