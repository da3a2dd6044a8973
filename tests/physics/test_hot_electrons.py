"""Free energy of hot electrons against mpmath, brute force over mu, finite differences and sums over levels."""

from __future__ import annotations

from itertools import pairwise

import mpmath
import numpy as np
import pytest
from helpers.densities import CASES, constant, free_electrons, gapped, grid

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import ElectronicTemperatureError
from petdos_md.physics.hot_electrons import (
    MAX_OCCUPATION,
    check_temperature,
    highest_temperature_K,
    hot_electrons,
    smearing_share,
    thermal_free_energy,
)

HOT = [2000.0, 5000.0, 20_000.0]


def brute_force(energies, dos, n_electrons, T) -> float:
    """max over mu of Omega + mu N, minus the same at T = 0, with piecewise linear g on 10 points a segment."""
    fine = np.linspace(energies[0], energies[-1], 10 * (len(energies) - 1) + 1)
    g, kT = np.interp(fine, energies, dos), BOLTZMANN_EV * T
    mu = np.linspace(energies[0], energies[-1], 1501)[:, None]

    def largest(omega) -> float:
        values = np.trapezoid(g * omega, fine, axis=1) + mu[:, 0] * n_electrons
        i = int(values.argmax())
        a, b, c = np.polyfit(mu[i - 1 : i + 2, 0] - mu[i, 0], values[i - 1 : i + 2], 2)
        return float(c - b * b / (4 * a)) if a < 0 else float(values[i])

    warm = largest(-kT * np.logaddexp(0.0, (mu - fine) / kT))
    return warm - largest(np.minimum(fine - mu, 0.0))


@pytest.mark.parametrize("name", ["constant", "free_electrons", "gapped", "rough", "smeared_gap"])
def test_free_energy_is_the_largest_over_mu(name: str) -> None:
    energies, dos, n_electrons, _ = CASES[name]()
    for T in HOT:
        found = float(thermal_free_energy(energies, dos, n_electrons, T))
        assert found == pytest.approx(brute_force(energies, dos, n_electrons, T), abs=3e-5 * n_electrons)


def test_free_energy_against_mpmath() -> None:
    """Twenty digits, segment by segment."""
    energies, dos, n_electrons, _ = free_electrons()
    energies, dos = energies[::5], dos[::5]
    T, mp = 8000.0, mpmath.mp.clone()
    mp.dps = 20
    kT = mp.mpf(BOLTZMANN_EV) * T
    points = [(mp.mpf(float(e)), mp.mpf(float(g))) for e, g in zip(energies, dos, strict=True)]

    def integral(h, edges=()):
        total = mp.mpf(0)
        for (a, ga), (b, gb) in pairwise(points):
            inside = [a, *(x for x in edges if a < x < b), b]
            total += mp.quad(lambda E, a=a, b=b, ga=ga, gb=gb: (ga + (gb - ga) * (E - a) / (b - a)) * h(E), inside)
        return total

    mu = mp.findroot(lambda m: integral(lambda E: 1 / (1 + mp.exp((E - m) / kT))) - n_electrons, (4.9, 5.0))
    level = mp.findroot(lambda m: integral(lambda E: 1 if m > E else 0, [m]) - n_electrons, (4.99, 5.01))
    warm = integral(lambda E: -kT * mp.log(1 + mp.exp((mu - E) / kT))) + mu * n_electrons
    cold = integral(lambda E: min(E - level, 0), [level]) + level * n_electrons
    found = hot_electrons(energies, dos, n_electrons, T)
    assert float(found.free_energy) == pytest.approx(float(warm - cold), rel=1e-10)
    assert float(found.chemical_potential) == pytest.approx(float(mu), abs=1e-10)


@pytest.mark.parametrize("smearing_eV", [0.0, 0.3])
@pytest.mark.parametrize("name", ["constant", "free_electrons", "gapped", "rough"])
def test_kernel_is_the_response(name: str, smearing_eV: float) -> None:
    """To a bump anywhere on the grid, electrons kept: a finite difference of F itself."""
    energies, dos, n_electrons, _ = CASES[name]()
    # In a clean gap E_F itself jumps to a band with a change of the count below it: a change that keeps it.
    changes = [
        0.02 * np.exp(-0.5 * ((energies - c) / 0.4) ** 2) for c in np.linspace(energies[0] + 1.5, energies[-1] - 1.5, 5)
    ]
    if name == "gapped":
        dos = dos + 0.05
    for T in (5000.0, 20_000.0):
        hot = hot_electrons(energies, dos, n_electrons, T, smearing_eV)
        for change in changes:
            up, down = (
                thermal_free_energy(energies, dos + s * 1e-3 * change, n_electrons, T, smearing_eV) for s in (1, -1)
            )
            expected = float(up - down) / 2e-3
            size = float(np.abs(hot.kernel) @ np.abs(change))
            assert float(hot.kernel @ change) == pytest.approx(expected, abs=2e-6 * size + 1e-11)


@pytest.mark.parametrize("smearing_eV", [0.0, 0.3])
def test_entropy_and_heat_capacity_are_derivatives(smearing_eV: float) -> None:
    for case in (free_electrons, gapped):
        energies, dos, n_electrons, _ = case()
        T = np.array([4000.0, 12_000.0])
        mid = hot_electrons(energies, dos, n_electrons, T, smearing_eV)
        up, down = (hot_electrons(energies, dos, n_electrons, T * (1 + s * 1e-3), smearing_eV) for s in (1, -1))
        np.testing.assert_allclose(mid.entropy, -(up.free_energy - down.free_energy) / (2e-3 * T), rtol=1e-5)
        np.testing.assert_allclose(mid.heat_capacity, (up.thermal_energy - down.thermal_energy) / (2e-3 * T), rtol=1e-4)
        np.testing.assert_allclose(mid.thermal_energy, mid.free_energy + T * mid.entropy, rtol=1e-12)


def test_ground_state_is_the_limit_also_in_a_gap_with_ripples() -> None:
    """dF -> 0, and dF is never positive: at any T_e the free energy is below that of the ground state."""
    energies, dos, n_electrons, _ = gapped()
    for seed in range(4):
        ripples = np.random.default_rng(seed).normal(size=len(energies)) * (np.abs(energies - 0.05) < 0.6)
        for amplitude in (0.0, 0.003, 0.03):
            cold = thermal_free_energy(energies, dos + amplitude * ripples, n_electrons, [0.5, 5.0])
            assert np.all(np.abs(cold) < 2e-5)


def test_free_energy_is_continuous_where_levels_of_a_rippled_gap_change_places() -> None:
    """Along a path of DOS on which the level of largest value jumps: no step of dF beyond the slope of the path."""
    energies, dos, n_electrons, _ = gapped()
    one, other = (
        0.02 * np.random.default_rng(seed).normal(size=len(energies)) * (np.abs(energies - 0.05) < 0.6)
        for seed in (1, 2)
    )
    path = np.array([dos + (1 - x) * one + x * other for x in np.linspace(0, 1, 401)])
    for T in (300.0, 6000.0):
        hot = hot_electrons(energies, path, n_electrons, T)
        steps = np.diff(hot.free_energy)
        slopes = np.einsum("in,in->i", hot.kernel[:-1], np.diff(path, axis=0))
        slopes_after = np.einsum("in,in->i", hot.kernel[1:], np.diff(path, axis=0))
        low, high = np.minimum(slopes, slopes_after), np.maximum(slopes, slopes_after)
        assert np.all(steps > low - 1e-6) and np.all(steps < high + 1e-6)


def levels(gap_eV: float) -> tuple[np.ndarray, float]:
    """Levels of two bands of parabolic density, two electrons each, and their number of electrons."""
    x = (np.arange(4000) + 0.5) / 4000
    return np.concatenate([-4.0 * x ** (2 / 3), gap_eV + 4.0 * x ** (2 / 3)]), 4000 * 2 / 4000 * 4


@pytest.mark.parametrize(("gap_eV", "improvement"), [(0.5, 5), (1.0, 5)])
def test_smearing_is_undone(gap_eV: float, improvement: float) -> None:
    """Sums over the levels themselves, against their DOS with a Gaussian of 0.3 eV; the electrons fill the lower band."""
    eps, n_electrons = levels(gap_eV)
    weight, s = n_electrons / 4000, 0.3
    energies = grid(-7, 8)
    gauss = np.exp(-0.5 * ((energies - eps[:, None]) / s) ** 2) / (s * np.sqrt(2 * np.pi))
    dos = weight * gauss.sum(axis=0)
    for T in (5000.0, 10_000.0):
        kT = BOLTZMANN_EV * T
        mu = np.linspace(-0.5, gap_eV + 0.5, 20_001)[:, None]
        omega = np.array(
            [-kT * np.logaddexp(0.0, (m - eps) / kT).sum() * weight + m[0] * n_electrons for m in mu[::40]]
        )
        exact = omega.max() - weight * eps[:4000].sum()
        smeared = float(thermal_free_energy(energies, dos, n_electrons, T))
        undone = float(thermal_free_energy(energies, dos, n_electrons, T, s))
        assert abs(smeared - exact) > improvement * abs(undone - exact)
        share = float(smearing_share(energies, dos, n_electrons, T, s))
        assert smeared - undone == pytest.approx(share, rel=1e-9)


def test_states_that_end_too_low() -> None:
    """A constant DOS that the electrons fill to the middle: mu is there at any T, and f of the last state is 2e-3 at (E_end - mu) / ln 499."""
    energies, dos, _, _ = constant()
    for end in (5.0, 4.0):  # of the grid, and below it
        known = np.where(energies <= end, dos, 0.0)
        expected = end / (np.log(1 / MAX_OCCUPATION - 1) * BOLTZMANN_EV)
        highest = highest_temperature_K(energies, known, 10.0)
        assert highest == pytest.approx(expected, rel=4e-3)
        check_temperature(energies, known, 10.0, 0.99 * expected, mu=0.0)
        with pytest.raises(ElectronicTemperatureError, match=f"expected at most {float(f'{highest:.3g}'):g} K"):
            check_temperature(energies, known, 10.0, 1.02 * expected, mu=0.0)


def test_smearing_below_kT_is_refused() -> None:
    energies, dos, n_electrons, _ = constant()
    with pytest.raises(ElectronicTemperatureError, match="expected 3482 K or more"):
        hot_electrons(energies, dos, n_electrons, 3000.0, 0.3)


def test_members_and_temperatures_broadcast() -> None:
    energies, dos, n_electrons, _ = constant()
    members = dos + 0.1 * np.random.default_rng(0).normal(size=(3, 1, len(energies)))
    hot = hot_electrons(energies, members, n_electrons, [3000.0, 6000.0])
    assert hot.free_energy.shape == (3, 2) and hot.kernel.shape == (3, 2, len(energies))
    alone = hot_electrons(energies, members[2, 0], n_electrons, 6000.0)
    assert hot.free_energy[2, 1] == pytest.approx(float(alone.free_energy), rel=1e-12)
