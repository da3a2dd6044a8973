"""Linear response of levels, energies and the heat capacity to a small change of the DOS at a constant number of electrons.

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> dos, change = np.full(401, 2.0), 1e-6 * np.cos(energies)
>>> kernel = chemical_potential_kernel(energies, dos, 20.0, 300.0)
>>> moved = thermo.chemical_potential(energies, dos + change, 20.0, 300.0) - thermo.chemical_potential(energies, dos, 20.0, 300.0)
>>> bool(np.isclose(kernel @ change, moved, rtol=1e-5))
True

A kernel has the shape (..., n): dX = sum_j kernel_j d(dos_j). It serves for the sampling error of X (the delta method) and for its
forces. Arguments, shapes, units and errors are those of :mod:`petdos_md.physics.thermo`; a kernel has the unit of X per state/eV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import thermo
from .broadcasting import Block, of_each_channel, per_element
from .fermi_integrals import Array, step_weights


def fermi_level_kernel(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """dE_F; NaN where g(E_F) <= 0 (a gap), where the Fermi level does not respond linearly."""

    def kernel(b: Block) -> Array:
        return _divide(-step_weights(b.occupation.energies, b.level)[0], b.occupation.at(b.element, b.level)[0])

    return per_element(energies, dos, n_electrons, None, None, kernel, extra=np.shape(energies))


def dos_at_fermi_level_kernel(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """dg(E_F): dg at the old level + g' dE_F; NaN where the Fermi level does not respond linearly."""

    def kernel(b: Block) -> Array:
        grid, level = b.occupation.energies, b.level
        value, slope, segment = b.occupation.at(b.element, level)
        result = slope[:, None] * _divide(-step_weights(grid, level)[0], value)
        q, i = np.arange(len(level)), np.clip(segment, 0, len(grid) - 2)
        width = grid[i + 1] - grid[i]
        result[q, i] += (grid[i + 1] - level) / width
        result[q, i + 1] += (level - grid[i]) / width
        return result

    return per_element(energies, dos, n_electrons, None, None, kernel, extra=np.shape(energies))


def ground_state_energy_kernel(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """dU(T = 0) = int_{-inf}^{E_F} dg (E - E_F) dE: the electrons that dg displaces come from the Fermi level."""

    def kernel(b: Block) -> Array:
        return step_weights(b.occupation.energies, b.level)[1]

    return per_element(energies, dos, n_electrons, None, None, kernel, extra=np.shape(energies))


@of_each_channel
def chemical_potential_kernel(b: Block) -> Array:
    """dmu; NaN where K_0 = dN/dmu <= 0, where mu does not respond linearly (no states within reach of kT)."""
    (k0,) = b.integrals("K0")
    return _divide(-_occupation_weights(b), k0)


@of_each_channel
def internal_energy_kernel(b: Block) -> Array:
    """dU, the response of mu being part of it: kernel = int hat_j f (E - mu - K_1 / K_0) dE. NaN where K_0 <= 0."""
    energy = step_weights(b.occupation.energies, b.mu)[1] + b.weights("U")
    k0, k1 = b.integrals("K0", "K1")
    return energy - _occupation_weights(b) * _divide(k1, k0)[:, None]


@of_each_channel
def free_energy_kernel(b: Block) -> Array:
    """dF = int dg [(E - mu) f - T s] dE: F = Omega + mu N is stationary in mu, so that dF is the change of Omega at fixed mu."""
    kT = b.kT[:, None]
    return step_weights(b.occupation.energies, b.mu)[1] + b.weights("U") - kT * b.weights("S")


@of_each_channel
def heat_capacity_kernel(b: Block) -> Array:
    """dC_el, the response of mu being part of it. Zero where :func:`~petdos_md.physics.thermo.heat_capacity` is held at zero."""
    k0, k1, k2, dk0, dk1, dk2 = b.integrals("K0", "K1", "K2", "dK0", "dK1", "dK2")
    physical = thermo.energy_variance(k0, k1, k2) > 0
    mean = np.where(physical, _divide(k1, k0), 0.0)
    response = np.where(physical, _divide(dk2 - mean * (2 * dk1 - mean * dk0), k0), 0.0)
    at_mu = b.weights("K2") - mean[:, None] * (2 * b.weights("K1") - mean[:, None] * b.weights("K0"))
    result = (at_mu - response[:, None] * _occupation_weights(b)) / b.temperature_K[:, None]
    return np.where(physical[:, None], result, 0.0)


def _occupation_weights(b: Block) -> Array:
    """int hat_j f dE, (q, n)."""
    return step_weights(b.occupation.energies, b.mu)[0] + b.weights("N")


def _divide(numerator: Array, k0: Array) -> Array:
    """numerator / k0, NaN where k0 is not positive."""
    k0 = k0.reshape(k0.shape + (1,) * (numerator.ndim - k0.ndim))
    return np.divide(numerator, k0, out=np.full_like(numerator, np.nan), where=np.broadcast_to(k0 > 0, numerator.shape))
