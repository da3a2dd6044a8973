"""Electronic thermodynamics of a density of states: mu, E_F, U, S, F and C_el.

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> dos = np.full(401, 2.0)
>>> mu = chemical_potential(energies, dos, 20.0, [300.0, 600.0])
>>> C = heat_capacity(energies, dos, 20.0, [300.0, 600.0], mu=mu)
>>> np.allclose(C, np.pi**2 / 3 * BOLTZMANN_EV**2 * np.array([300.0, 600.0]) * 2.0, rtol=1e-12)
True

Conventions of all functions: ``energies`` (n,) in eV, strictly increasing; ``dos`` (..., n) in states/eV, both spins, linear
between the grid points and zero outside the grid; ``n_electrons`` (...) > 0; ``temperature_K`` (...) > 0. Leading
dimensions broadcast: the shape of a result is ``broadcast(dos.shape[:-1], n_electrons.shape, temperature_K.shape)``, so 128
members at 16 temperatures are ``dos[:, None, :]`` with ``temperature_K`` (16,). For this DOS the integrals are exact to
rounding at any temperature (see :mod:`petdos_md.physics.fermi_integrals`). Where several mu hold the electrons, because the DOS
dips below zero, :mod:`petdos_md.physics.occupation` says which is taken. ``mu`` spares the search when given; it must be the
chemical potential, as returned by :func:`chemical_potential`. How each responds to a change of the DOS:
:mod:`petdos_md.physics.response`. Errors: :class:`ValueError` for input that makes no sense,
:class:`~petdos_md.base.errors.ChemicalPotentialError` if no mu on the grid gives the number of electrons.

Rigid-band energies as in How et al., DOI 10.1039/D5DD00557D: U(T) = int g(E) E f(E; mu(T), T) dE and C_el = dU/dT at a
constant number of electrons.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..base.constants import BOLTZMANN_EV
from .broadcasting import Block, of_each_element, per_element
from .fermi_integrals import Array

GAP_THRESHOLD = 0.1
"""states/eV/atom up to which a DOS counts as empty (Fig. 3 of the article)."""


def fermi_level(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """Fermi level in eV: int_{-inf}^{E_F} g dE = n_electrons at T = 0, the middle in a gap.

    It is the limit of mu for T -> 0, unless ripples of a prediction in a gap leave several levels (see
    :mod:`petdos_md.physics.occupation`). In a clean gap, mu approaches it as (kT / 2) ln of the ratio of the band edges.
    """
    return per_element(energies, dos, n_electrons, None, None, lambda b: b.level)


def dos_at_fermi_level(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """g(E_F) in states/eV, with the Fermi level of T = 0."""
    return per_element(energies, dos, n_electrons, None, None, lambda b: b.occupation.at(b.element, b.level)[0])


def band_gap(
    energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike, n_atoms: ArrayLike, threshold: float = GAP_THRESHOLD
) -> Array:
    """Width in eV of the interval around the Fermi level in which g <= threshold; 0 if g(E_F) is above it.

    A rule of thumb for a smeared DOS, which closes gaps narrower than a few smearing widths and narrows the others.

    :param n_atoms: per structure, broadcasts as ``n_electrons``
    :param threshold: states/eV/atom
    """
    sizes = np.asarray(n_atoms, dtype=np.float64)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"a band gap needs a positive number of atoms, got {n_atoms!r}")
    if not threshold >= 0:
        raise ValueError(f"the threshold of a band gap is a number of states/eV >= 0, got {threshold}")

    def width(b: Block) -> Array:
        result = np.zeros(len(b.element))
        for q, (row, level) in enumerate(zip(b.element, b.level, strict=True)):
            result[q] = _interval_below(b.occupation.energies, b.occupation.values[row], level, threshold)
        return result

    return per_element(energies, np.asarray(dos) / sizes[..., None], np.asarray(n_electrons) / sizes, None, None, width)


def chemical_potential(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike, temperature_K: ArrayLike) -> Array:
    """mu in eV: int g f(E; mu, T) dE = n_electrons, by a bracketed iteration for every batch element."""
    return per_element(energies, dos, n_electrons, temperature_K, None, lambda b: b.mu)


def electron_number(energies: ArrayLike, dos: ArrayLike, mu: ArrayLike, temperature_K: ArrayLike) -> Array:
    """int g f(E; mu, T) dE, at any mu (eV); the result's shape is ``broadcast(dos.shape[:-1], mu.shape, temperature_K.shape)``."""

    def count(b: Block) -> Array:
        (thermal,) = b.integrals("N")
        below = np.concatenate(
            [np.zeros((len(b.occupation.values), 1)), np.cumsum(b.occupation.increments(), axis=1)], axis=1
        )
        partial, i = b.occupation.partial(b.element, b.mu)
        return below[b.element, i] + partial + thermal

    return per_element(energies, dos, 1.0, temperature_K, mu, count)


def ground_state_energy(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> Array:
    """U(T = 0) = int_{-inf}^{E_F} g E dE in eV per structure, on the energy reference of ``energies``."""
    return per_element(energies, dos, n_electrons, None, None, _ground_state_energy)


@of_each_element
def thermal_energy(b: Block) -> Array:
    """U(T) - U(0) in eV per structure, without the cancellation of a difference of :func:`internal_energy`.

    int g (E - mu) (f - theta) dE + int_{E_F}^{mu} g (E - mu) dE, which needs no difference of total energies. It is stationary
    with respect to mu, so an error of mu enters in second order only.
    """
    return thermal_energy_in_block(b)


@of_each_element
def internal_energy(b: Block) -> Array:
    """U(T) = int g E f dE in eV per structure, on the energy reference of ``energies``."""
    return _ground_state_energy(b) + thermal_energy_in_block(b)


@of_each_element
def entropy(b: Block) -> Array:
    """S = -k_B int g [f ln f + (1 - f) ln(1 - f)] dE in eV/K per structure."""
    return entropy_in_block(b)


@of_each_element
def free_energy(b: Block) -> Array:
    """F = U - T S in eV per structure, on the energy reference of ``energies``."""
    return _ground_state_energy(b) + (thermal_energy_in_block(b) - b.temperature_K * entropy_in_block(b))


@of_each_element
def heat_capacity(b: Block) -> Array:
    """C_el = dU/dT = (K_2 - K_1^2 / K_0) / T at a constant number of electrons, in eV/K per structure.

    For g >= 0 this lies between 0 and K_2 / T. Where ripples of a prediction in a gap make the formula negative (K_0 close
    to 0 or below it), C_el is 0: the insulator, which is also what the formula passes on its way, so C_el is continuous.
    """
    k0, k1, k2 = b.integrals("K0", "K1", "K2")
    return energy_variance(k0, k1, k2) / b.temperature_K


def moments(
    energies: ArrayLike,
    dos: ArrayLike,
    n_electrons: ArrayLike,
    temperature_K: ArrayLike,
    *,
    mu: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """K_n = int g (-df/dE) (E - mu)^n dE for n = 0, 1, 2, in states/eV, states and states eV."""

    def stacked(b: Block) -> Array:
        return np.stack(b.integrals("K0", "K1", "K2"), axis=-1)

    result = per_element(energies, dos, n_electrons, temperature_K, mu, stacked, extra=(3,))
    return result[..., 0], result[..., 1], result[..., 2]


def heat_capacity_finite_difference(
    energies: ArrayLike,
    dos: ArrayLike,
    n_electrons: ArrayLike,
    temperature_K: ArrayLike,
    *,
    delta_K: ArrayLike | None = None,
) -> Array:
    """C_el = [U(T + delta) - U(T - delta)] / (2 delta) in eV/K per structure.

    :param delta_K: in K, smaller than T (default: T / 1000)
    """
    temperature = np.asarray(temperature_K, dtype=float)
    delta = temperature / 1000 if delta_K is None else np.asarray(delta_K, dtype=float)
    if not (np.all(delta > 0) and np.all(delta < temperature)):
        raise ValueError(f"delta_K must lie between 0 and the temperature, got {delta} at {temperature} K")
    upper = thermal_energy(energies, dos, n_electrons, temperature + delta)
    lower = thermal_energy(energies, dos, n_electrons, temperature - delta)
    return (upper - lower) / (2 * delta)


def energy_variance(k0: Array, k1: Array, k2: Array) -> Array:
    """T C_el = K_2 - K_1^2 / K_0 in states eV, from :func:`moments`; zero where it would be negative or K_0 is not positive."""
    mean = np.divide(k1, k0, out=np.zeros_like(k0), where=k0 > 0)
    return np.where(k0 > 0, np.maximum(k2 - k1 * mean, 0.0), 0.0)


def _ground_state_energy(b: Block) -> Array:
    """int_{-inf}^{E_F} g E dE, segment by segment."""
    energies, g, level = b.occupation.energies, b.occupation.values, b.occupation.fermi_level
    below = np.arange(len(energies) - 1) < (np.searchsorted(energies, level, side="left") - 1)[:, None]
    left, right = energies[:-1], energies[1:]
    full = b.occupation.steps / 6 * (g[:, :-1] * (2 * left + right) + g[:, 1:] * (left + 2 * right))
    energy = np.sum(np.where(below, full, 0.0), axis=1)
    rows = np.arange(len(level))
    partial, i = b.occupation.partial(rows, level)
    d = level - energies[i]
    slope = b.occupation.at(rows, level)[1]
    energy += energies[i] * partial + d**2 * (g[rows, i] / 2 + slope * d / 3)
    return energy[b.element]


def thermal_energy_in_block(b: Block) -> Array:
    """The formula of :func:`thermal_energy`."""
    (thermal,) = b.integrals("U")
    energies, mu, level = b.occupation.energies, b.mu, b.level
    value, slope, _ = b.occupation.at(b.element, level)
    shift = mu - level
    moved = value * shift**2 / 2 + np.sign(shift) * slope * np.abs(shift) ** 3 / 6
    start = np.searchsorted(energies, np.minimum(mu, level), side="left")
    stop = np.searchsorted(energies, np.maximum(mu, level), side="left")
    between = np.flatnonzero(stop > start)
    element = b.element[between]
    for q, points, kinks in b.occupation.windows(element, start[between], stop[between]):
        m, e = mu[between[q], None], level[between[q], None]
        # A point at E_F counts as right of it, as in PiecewiseLinearDOS.at.
        crossed = np.where(m > e, (points >= e) & (points < m), (points < e) & (points > m))
        moved[between[q]] += np.sum(np.where(crossed, kinks * np.abs(m - points) ** 3, 0.0), axis=1) / 6
    moved -= b.occupation.values[b.element, -1] * np.maximum(mu - energies[-1], 0) ** 2 / 2
    moved -= b.occupation.values[b.element, 0] * np.maximum(energies[0] - mu, 0) ** 2 / 2
    return thermal - moved


def entropy_in_block(b: Block) -> Array:
    """The formula of :func:`entropy`."""
    (s,) = b.integrals("S")
    return BOLTZMANN_EV * s


def _interval_below(energies: Array, g: Array, level: float, limit: float) -> float:
    """Width of the interval around ``level`` in which the piecewise linear g does not exceed ``limit``."""
    if np.interp(level, energies, g) > limit:
        return 0.0
    i = int(np.clip(np.searchsorted(energies, level, side="left") - 1, 0, len(g) - 2))
    low, high = np.flatnonzero(g[: i + 1] > limit), np.flatnonzero(g[i + 1 :] > limit)
    left, right = energies[0], energies[-1]
    if len(low):
        j = low[-1]
        left = energies[j] + (energies[j + 1] - energies[j]) * (limit - g[j]) / (g[j + 1] - g[j])
    if len(high):
        j = i + 1 + high[0]
        right = energies[j] - (energies[j] - energies[j - 1]) * (limit - g[j]) / (g[j - 1] - g[j])
    return float(right - left)
