"""An exported model against the stock one of its checkpoint, on structures of every kind.

>>> sorted(random_structures(["Al"], cutoff=4.5))[:3]
['300 atoms', 'cluster', 'dense beside dilute']
"""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
import torch

from .model import DOSModel

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest accepted deviation from the stock DOS, relative to the largest value of the latter."""
ROUNDING = 8
"""Machine epsilons of the sum of absolute terms by which members may differ in any case. Rigidities of nearly dependent features make
members whose large terms cancel: the stock evaluation then has no more correct digits either."""


def compare_models(exported: DOSModel, stock: Any, target: str) -> tuple[float, float]:
    """Largest relative deviations of DOS and members from the stock model, over all kinds of structures.

    Those of members are relative to their largest value, or to what makes :data:`ROUNDING` epsilons of their terms the tolerance.

    :param stock: of metatrain, PET or LLPR
    :param target: name of the DOS in it
    """
    reference = DOSModel.from_atomistic(stock.export(), exported.grid, target=target)
    symbols = [ase.data.chemical_symbols[n] for n in exported.atomic_types]
    worst_dos = worst_members = 0.0
    for atoms in random_structures(symbols, exported.cutoff).values():
        expected = reference.stock_dos(atoms)
        sample = exported.evaluate(atoms)
        difference = np.abs(exported.dos(sample) - expected).max()
        worst_dos = max(worst_dos, float(difference / np.abs(expected).max()))
        if exported.n_members:
            expected = reference.stock_members(atoms)
            difference = float(np.abs(exported.dos_members(sample) - expected).max())
            rounding = ROUNDING * torch.finfo(exported.dtype).eps * exported.readout.largest_terms(sample.features)
            largest = max(float(np.abs(expected).max()), rounding / TOLERANCE[exported.dtype])
            worst_members = max(worst_members, difference / largest)
    return worst_dos, worst_members


def random_structures(symbols: list[str], cutoff: float, seed: int = 0) -> dict[str, ase.Atoms]:
    """Structures of every kind of boundary and of very different numbers of neighbors.

    :param cutoff: of the model, angstrom
    """
    rng = np.random.default_rng(seed)

    def cloud(n: int, box: np.ndarray, pbc: Any) -> ase.Atoms:
        # A jittered lattice: random, but without atoms on top of each other.
        per_side = int(np.ceil(n ** (1 / 3)))
        sites = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
        scaled = (sites + rng.uniform(-0.15, 0.15, (n, 3))) / per_side
        return ase.Atoms(rng.choice(symbols, n), cell=box, scaled_positions=scaled, pbc=pbc)

    small = 0.75 * cutoff
    triclinic = np.array([[small, 0, 0], [0.4 * small, 0.9 * small, 0], [-0.3 * small, 0.2 * small, small]])
    dense = cloud(27, np.eye(3) * 6.5, (True, True, False))
    dilute = cloud(2, np.diag([6.5, 6.5, 12.0]), (True, True, False))
    dilute.positions[:, 2] += 9.0
    mixed = dense + dilute
    mixed.set_cell([6.5, 6.5, 30.0])
    return {
        "periodic": cloud(20, np.eye(3) * 7.5, True),
        "triclinic, smaller than the cutoff": cloud(3, triclinic, True),
        "slab": cloud(18, np.diag([7.0, 7.0, 7.0]), (True, True, False)),
        "wire": cloud(17, np.diag([8.0, 7.0, 7.0]), (True, False, False)),
        "cluster": cloud(9, np.eye(3) * 6.0, False),
        "one atom": ase.Atoms([symbols[0]]),
        "two atoms far apart": ase.Atoms([symbols[0], symbols[-1]], positions=[[0, 0, 0], [5 * cutoff, 0, 0]]),
        "dense beside dilute": mixed,
        "300 atoms": cloud(300, np.eye(3) * 18.0, True),
    }
