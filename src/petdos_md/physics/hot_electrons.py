"""Free energy of hot electrons relative to the ground state, its response to the DOS, and how hot a grid lets electrons be.

A potential gives the energy E_0 of the electronic ground state. Electrons at T_e move the atoms on the free energy

    F(R; T_e) = E_0(R) + dF(R; T_e),   dF = F_el(T_e; N) - F_el(0; N),

with F_el from the DOS of the ground state at a constant number of electrons (Ben Mahmoud, Grasselli, Ceriotti, Phys. Rev. B 106
(2022) L121116, DOI 10.1103/PhysRevB.106.L121116).

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> dos, change = np.full(401, 2.0), 1e-6 * np.cos(energies)
>>> hot = hot_electrons(energies, dos, 20.0, 5000.0)
>>> bool(np.isclose(hot.free_energy, -np.pi**2 / 6 * 2.0 * (BOLTZMANN_EV * 5000.0) ** 2, rtol=1e-7))
True
>>> moved = hot_electrons(energies, dos + change, 20.0, 5000.0).free_energy - hot.free_energy
>>> bool(np.isclose(hot.kernel @ change, moved, rtol=1e-3))
True

At a fixed number of electrons F is the largest value of Omega(mu) + mu N over mu, Omega = -kT int g ln(1 + exp((mu - E) / kT)) dE, at
T = 0 as well. Where a prediction ripples in a gap, so that several mu hold the electrons, the largest is taken at both temperatures
(:mod:`petdos_md.physics.variational`): dF is continuous in the DOS and vanishes with T_e. In a clean gap all mu have the same value.

Arguments, shapes, units and errors as in :mod:`petdos_md.physics.thermo`. ``smearing_eV`` undoes a Gaussian of this width s in the DOS
to second order. An integral of g with h(E) becomes that with h - s^2 / 2 h'', so that Omega gains s^2 / 2 K_0 (K_0 = int g (-df/dE) dE) and
the ground state, where h has a kink, s^2 / 2 g(E_F); at kT >= s, where f is smooth on the scale of s, and refused below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..base.constants import BOLTZMANN_EV
from ..base.errors import ChemicalPotentialError, ElectronicTemperatureError, SettingError
from . import thermo
from .broadcasting import Block, per_element
from .fermi_integrals import Array, step_weights
from .variational import VariationalOccupation

MAX_OCCUPATION = 2e-3
"""Of the highest states of a DOS. If they went on as dense above, they would change dF by 0.12 %."""
LEAST_DENSITY = 0.02
"""states/eV/electron below which nothing is known of states: a model's prediction ends where its targets were undefined, below its grid."""
_HOTTEST_K = 1e6
_EMPTY = 2.5e-3  # states/eV/electron: where g(E_F) is far below it, a gap, the smearing did not change the ground state
_DELTA = 1e-3  # relative step of T in numerical derivatives


@dataclass(frozen=True)
class HotElectrons:
    """Electrons at T_e relative to their ground state; arrays of the broadcast shape.

    ``free_energy``: dF (eV); ``thermal_energy``: U(T_e) - U(0) (eV); ``entropy`` (eV/K); ``chemical_potential`` (eV);
    ``heat_capacity`` at a constant number of electrons (eV/K); ``kernel``: response of dF to the DOS, ``(..., n)``.
    """

    free_energy: Array
    thermal_energy: Array
    entropy: Array
    chemical_potential: Array
    heat_capacity: Array
    kernel: Array


def hot_electrons(
    energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike, temperature_K: ArrayLike, smearing_eV: float = 0.0
) -> HotElectrons:
    """Free energy, energy, entropy and response, with one search for mu.

    :param smearing_eV: width of the Gaussian to undo, 0 for none
    :raises ElectronicTemperatureError: for a width that is above kT
    """
    _check_smearing(temperature_K, smearing_eV)
    n = np.shape(energies)[0]

    def rows(b: Block) -> Array:
        free, kernel = _free_energy_and_kernel(b, smearing_eV)
        entropy, heat = _entropy_and_heat_capacity(b, smearing_eV)
        numbers = np.stack([free, free + b.temperature_K * entropy, entropy, b.mu, heat], axis=1)
        return np.concatenate([numbers, kernel], axis=1)

    found = per_element(energies, dos, n_electrons, temperature_K, None, rows, (5 + n,), VariationalOccupation)
    free, thermal, entropy, mu, heat = np.moveaxis(found[..., :5], -1, 0)
    return HotElectrons(free, thermal, entropy, mu, heat, found[..., 5:])


def thermal_free_energy(
    energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike, temperature_K: ArrayLike, smearing_eV: float = 0.0
) -> Array:
    """dF alone, in eV per structure."""
    _check_smearing(temperature_K, smearing_eV)
    return per_element(
        energies,
        dos,
        n_electrons,
        temperature_K,
        None,
        lambda b: _free_energy(b, smearing_eV),
        occupation=VariationalOccupation,
    )


def smearing_share(
    energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike, temperature_K: ArrayLike, smearing_eV: float
) -> Array:
    """What a Gaussian smearing of this width adds to dF, in eV per structure, to second order: s^2 / 2 (g(E_F) - K_0).

    A good estimate at kT >= s; below, it tells that dF is mostly smearing when it is as large as dF itself.
    """

    def share(b: Block) -> Array:
        (k0,) = b.integrals("K0")
        return smearing_eV**2 / 2 * (_ground_density(b)[0] - k0)

    return per_element(energies, dos, n_electrons, temperature_K, None, share, occupation=VariationalOccupation)


def highest_state_eV(energies: ArrayLike, dos: ArrayLike, n_electrons: float) -> float:
    """The last energy of one DOS ``(n,)`` with more than LEAST_DENSITY."""
    grid, filled = np.asarray(energies), np.flatnonzero(np.asarray(dos) > LEAST_DENSITY * n_electrons)
    return float(grid[filled[-1]]) if len(filled) else float(grid[0])


def highest_temperature_K(energies: ArrayLike, dos: ArrayLike, n_electrons: float) -> float:
    """T_e at which the highest states of one DOS ``(n,)`` have the occupation MAX_OCCUPATION; to 0.1 %."""
    low, high, top = 10.0, _HOTTEST_K, highest_state_eV(energies, dos, n_electrons)
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        try:
            mu = float(thermo.chemical_potential(energies, dos, n_electrons, middle))
        except ChemicalPotentialError:
            mu = math.inf
        low, high = (middle, high) if _fits(top, mu, middle) else (low, middle)
    return low


def check_temperature(energies: ArrayLike, dos: ArrayLike, n_electrons: float, temperature_K: float, mu: float) -> None:
    """Whether the states of one DOS ``(n,)`` reach high enough for electrons this hot.

    :param mu: their chemical potential (eV)
    :raises ElectronicTemperatureError: if not; says up to which temperature they do
    """
    top = highest_state_eV(energies, dos, n_electrons)
    if not _fits(top, mu, temperature_K):
        highest = highest_temperature_K(energies, dos, n_electrons)
        raise ElectronicTemperatureError(
            f"electrons at {temperature_K:g} K fill more than {MAX_OCCUPATION:g} of the states at {top:.4g} eV, where those that the model knows "
            f"end; expected at most {float(f'{highest:.3g}'):g} K for this structure, or a model of states further up"
        )


def _fits(top: float, mu: float, temperature_K: float) -> bool:
    return top - mu >= BOLTZMANN_EV * temperature_K * math.log(1 / MAX_OCCUPATION - 1)


def _check_smearing(temperature_K: ArrayLike, smearing_eV: float) -> None:
    coldest = float(np.min(temperature_K))
    if not 0 <= smearing_eV < math.inf:
        raise SettingError(f"got a smearing of {smearing_eV} eV, expected a width of 0 or more")
    if smearing_eV > BOLTZMANN_EV * coldest * (1 + 1e-9):
        least = math.ceil(smearing_eV / BOLTZMANN_EV)
        raise ElectronicTemperatureError(
            f"a smearing of {smearing_eV:g} eV cannot be undone at {coldest:g} K, where kT is {BOLTZMANN_EV * coldest:.3g} eV; expected {least} K or "
            "more, or no correction"
        )


def _free_energy(b: Block, smearing_eV: float) -> Array:
    free = thermo.thermal_energy_in_block(b) - b.temperature_K * thermo.entropy_in_block(b)
    if smearing_eV:
        (k0,) = b.integrals("K0")
        free = free + smearing_eV**2 / 2 * (k0 - _ground_density(b)[0])
    return free


def _free_energy_and_kernel(b: Block, smearing_eV: float) -> tuple[Array, Array]:
    grid, kT = b.occupation.energies, b.kT[:, None]
    # mu and E_F are stationary: the responses of Omega and of its ground state at fixed mu and E_F.
    kernel = step_weights(grid, b.mu)[1] + b.weights("U") - kT * b.weights("S") - step_weights(grid, b.level)[1]
    if smearing_eV:
        k0, dk0 = b.integrals("K0", "dK0")
        occupations = step_weights(grid, b.mu)[0] + b.weights("N")
        of_k0 = b.weights("K0") - (dk0 / k0)[:, None] * occupations
        kernel = kernel + smearing_eV**2 / 2 * (of_k0 - _ground_density(b)[1])
    return _free_energy(b, smearing_eV), kernel


def _entropy_and_heat_capacity(b: Block, smearing_eV: float) -> tuple[Array, Array]:
    if not smearing_eV:
        return thermo.entropy_in_block(b), thermo.energy_variance(*b.integrals("K0", "K1", "K2")) / b.temperature_K
    up, down = (_entropy_without_smearing(_at(b, 1 + sign * _DELTA), smearing_eV) for sign in (1, -1))
    return _entropy_without_smearing(b, smearing_eV), (up - down) / (2 * _DELTA)


def _entropy_without_smearing(b: Block, smearing_eV: float) -> Array:
    """-dF/dT at constant N: T dK_0/dT = dK_1/dmu at fixed mu, and mu moves by -K_1 / (T K_0)."""
    k0, k1, dk0, dk1 = b.integrals("K0", "K1", "dK0", "dK1")
    return thermo.entropy_in_block(b) - smearing_eV**2 / 2 * (dk1 - dk0 * k1 / k0) / b.temperature_K


def _at(b: Block, factor: float) -> Block:
    return Block(b.occupation, b.element, b.temperature_K * factor, None)


def _ground_density(b: Block) -> tuple[Array, Array]:
    """g(E_F), gently cut off to zero in a gap, where E_F does not respond linearly, and its response to the DOS."""
    grid, level = b.occupation.energies, b.level
    value, slope, segment = b.occupation.at(b.element, level)
    g, g0 = np.maximum(value, 0.0), _EMPTY * b.occupation.n_electrons[b.element]
    cut = g**3 / (g**2 + g0**2)
    by_g_over_g = g * (g**2 + 3 * g0**2) / (g**2 + g0**2) ** 2  # d cut / dg, divided by g
    kernel = -(slope * by_g_over_g)[:, None] * step_weights(grid, level)[0]
    q, i = np.arange(len(level)), np.clip(segment, 0, len(grid) - 2)
    width = grid[i + 1] - grid[i]
    kernel[q, i] += by_g_over_g * g * (grid[i + 1] - level) / width
    kernel[q, i + 1] += by_g_over_g * g * (level - grid[i]) / width
    return cut, kernel
