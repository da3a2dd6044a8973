"""The closest pair, against all distances with all images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms

from petdos_md.engines.structures.closeness import closest_pair


def brute_force(atoms: Atoms, within: float) -> float:
    """The smallest distance of any two atoms or images, over 7 x 7 x 7 cells."""
    shifts = [range(-3, 4) if periodic else [0] for periodic in atoms.pbc]
    best = np.inf
    for shift in itertools.product(*shifts):
        vectors = atoms.positions[:, None] - atoms.positions[None] + np.array(shift) @ atoms.cell.array
        lengths = np.linalg.norm(vectors, axis=2)
        if shift == (0, 0, 0):
            np.fill_diagonal(lengths, np.inf)
        best = min(best, lengths.min())
    return best if best < within else np.inf


@pytest.mark.parametrize("seed", range(40))
def test_closest_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    cell = np.diag(rng.uniform(0.8, 6, 3)) + rng.uniform(-0.3, 0.3, (3, 3))
    atoms = Atoms(f"Al{n}", rng.uniform(-8, 8, (n, 3)), cell=cell, pbc=rng.random(3) < 0.6)
    atoms.wrap()  # for the brute force; the reader's answer must not depend on it
    within = float(rng.uniform(0.3, 1.2))
    expected = brute_force(atoms, within)
    atoms.positions[0] += np.where(atoms.pbc, [3, -2, 5], 0) @ atoms.cell.array
    found = closest_pair(atoms, within)
    assert (np.inf if found is None else found[2]) == pytest.approx(expected, abs=2e-6)


def test_names_the_pair() -> None:
    atoms = Atoms("AlMgSi", [[0.1, 0, 0], [5, 5, 5], [9.99, 0, 0]], cell=[10, 10, 10], pbc=[True, False, True])
    assert closest_pair(atoms) == (0, 2, 0.11)
    atoms.pbc = False
    atoms.cell[1] = atoms.cell[0]  # without a volume, where nothing is periodic
    assert closest_pair(atoms) is None and closest_pair(atoms[:0]) is None
