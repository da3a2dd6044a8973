"""Denoising by brute force, and a network that says where electrons hold, for several tests."""

from __future__ import annotations

import numpy as np
import scipy.integrate
import torch

from helpers.synthetic import GRID
from petdos_md.physics.networks import DOSNetwork, Network

E, STEP = GRID.energies, GRID.step


def brute_force(
    dos: np.ndarray, level: float, n_electrons: float, n_atoms: int, threshold: float = 0.1, slope: float = 100.0
) -> np.ndarray:
    """Eqs. 11-16 with sums over pairs of channels, for one DOS; SciPy's quadrature does the last integral."""
    n = len(dos)
    offsets = np.arange(-24, 25)
    kernel = np.exp(-0.5 * (offsets * STEP / 0.3) ** 2)
    mirrored = np.r_[dos[1:25][::-1], dos, dos[-25:-1][::-1]]
    smooth = np.array([kernel @ mirrored[i : i + 49] for i in range(n)]) / kernel.sum() / n_atoms
    thresholded = dos / (1 + np.exp(-slope * (smooth - threshold)))
    inside = level > E
    below = scipy.integrate.trapezoid(
        np.r_[thresholded[inside], np.interp(level, E, thresholded)], np.r_[E[inside], level]
    )
    return thresholded * n_electrons / below


def random_network(target: str = "fermi_level", grid=GRID, seed: int = 0, level: float | None = None) -> Network:
    """A network with random weights; its answers vary with the DOS around ``level`` (on the axis of the grid)."""
    torch.manual_seed(seed)
    module = DOSNetwork(grid.n)
    with torch.no_grad():
        module.fc2.weight.mul_(20.0)
        if level is not None:
            module.fc2.bias.fill_(level - grid.start)
    return Network(module, grid, target, f"random {target}")
