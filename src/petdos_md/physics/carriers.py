"""Electrons and holes of a system with a gap.

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> dos = 2.0 * (np.abs(energies) > 0.5)
>>> n, p = carriers(energies, dos, thermo.electron_number(energies, dos, 0.0, 1.0), 900.0, n_atoms=1)
>>> bool(np.isclose(n, p, rtol=1e-6)), bool(1.5e-4 < n < 2e-4)
(True, True)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..base.errors import StructureError
from . import thermo
from .thermo import GAP_THRESHOLD


def carriers(
    energies: ArrayLike,
    dos: ArrayLike,
    n_electrons: ArrayLike,
    temperature_K: ArrayLike,
    *,
    n_atoms: int,
    threshold: float = GAP_THRESHOLD,
    strict: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Electrons above and holes below the middle of the gap, per structure, at the self-consistent chemical potential.

    n = int_{E_F}^inf g f dE, p = int_{-inf}^{E_F} g (1 - f) dE, E_F the middle of the gap; a neutral system has n = p.

    :param dos: ``(..., n)`` states/eV; shapes broadcast as in :mod:`petdos_md.physics.thermo`
    :param threshold: states/eV/atom below which the DOS counts as a gap
    :param strict: whether a DOS without a gap is an error; else its numbers are NaN
    :returns: n and p, each of the broadcast shape
    :raises StructureError: if one of the DOS has no gap, and that is an error
    """
    energies, dos = np.asarray(energies, dtype=float), np.asarray(dos, dtype=float)
    mu = thermo.chemical_potential(energies, dos, n_electrons, temperature_K)
    shape = mu.shape
    gap = np.broadcast_to(thermo.band_gap(energies, dos, n_electrons, n_atoms, threshold), shape)
    if strict and (gap <= 0).any():
        at = np.broadcast_to(thermo.dos_at_fermi_level(energies, dos, n_electrons), shape)[gap <= 0].flat[0] / n_atoms
        raise StructureError(
            f"carriers are counted in a gap, but the DOS at the Fermi level is {at:.3g} states/eV/atom (a gap has less than "
            f"{threshold:g}); this is a metal, or a gap that ripples and smearing fill: denoise by the network (--denoise=network), or do not count carriers"
        )
    level = np.broadcast_to(thermo.fermi_level(energies, dos, n_electrons), shape)
    temperature = np.broadcast_to(np.asarray(temperature_K, dtype=float), shape)
    every = np.broadcast_to(dos, (*shape, len(energies)))
    n, p = np.full(shape, np.nan), np.full(shape, np.nan)
    for where in map(tuple, np.argwhere(gap > 0)):
        g, middle = every[where], level[where]
        # A grid point at the middle of the gap, so that nothing is counted on the wrong side.
        here = float(np.interp(middle, energies, g))
        above, below = energies > middle, energies < middle
        up = np.r_[middle, energies[above]], np.r_[here, g[above]]
        down = np.r_[-middle, -energies[below][::-1]], np.r_[here, g[below][::-1]]
        n[where] = thermo.electron_number(*up, mu[where], temperature[where])
        p[where] = thermo.electron_number(*down, -mu[where], temperature[where])
    return n, p
