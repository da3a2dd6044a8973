"""Fermi level and chemical potential in gaps, clean and with ripples below zero, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
from helpers.densities import CASES, STEP, constant, gapped, rough, two_levels

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.base.errors import ChemicalPotentialError
from petdos_md.physics import response, thermo
from petdos_md.physics.variational import VariationalOccupation


def test_chemical_potential_in_a_gap_is_that_of_boltzmann_tails():
    energies, dos, n_electrons, _ = two_levels()
    # 2 and 3 states, one triangle each: mu = (E_v + E_c)/2 + kT/2 ln(2/3) for kT << gap, whatever the triangles' width
    T = np.array([5.0, 20.0, 60.0, 150.0, 400.0])
    expected = -0.25 + BOLTZMANN_EV * T / 2 * np.log(2 / 3)
    np.testing.assert_allclose(thermo.chemical_potential(energies, dos, n_electrons, T), expected, rtol=1e-8)
    assert thermo.fermi_level(energies, dos, n_electrons) == pytest.approx(-0.25, abs=1e-14)
    # Rounding of the electron number is not doping.
    for residue in (1e-15, -1e-13, 9e-11, -9e-11):
        noisy = thermo.chemical_potential(energies, dos, n_electrons * (1 + residue), T)
        np.testing.assert_allclose(noisy, expected, rtol=1e-8)
    # A real excess is: mu then sits at the band.
    assert thermo.chemical_potential(energies, dos, n_electrons * (1 + 1e-8), 20.0) > 0.4
    assert thermo.chemical_potential(energies, dos, n_electrons * (1 - 1e-8), 20.0) < -0.9


def test_fermi_level_is_the_limit_of_the_chemical_potential():
    for name, case in CASES.items():
        energies, dos, n_electrons, _ = case()
        level = thermo.fermi_level(energies, dos, n_electrons)
        mu = thermo.chemical_potential(energies, dos, n_electrons, 1.0)
        assert mu == pytest.approx(float(level), abs=3 * BOLTZMANN_EV), name
        below = np.interp(level, energies, np.concatenate([[0], np.cumsum(dos[1:] + dos[:-1]) * STEP / 2]))
        assert below == pytest.approx(n_electrons, abs=STEP * np.abs(np.diff(dos)).max() / 8), name
        assert thermo.dos_at_fermi_level(energies, dos, n_electrons) == pytest.approx(
            np.interp(level, energies, dos), abs=1e-12
        )


def rippled(amplitude: float, seed: int) -> tuple:
    """A gap with ripples and the number of electrons of the clean valence band."""
    energies, dos, n_electrons, _ = gapped()
    ripples = np.random.default_rng(seed).normal(size=len(energies))
    return energies, dos + amplitude * ripples * (np.abs(energies - 0.05) < 0.6), n_electrons


def rising_roots(energies, dos, n_electrons, T) -> np.ndarray:
    mu = np.arange(-1.5, 1.5, 0.004)
    excess = thermo.electron_number(energies, dos, mu, T) - n_electrons
    i = np.flatnonzero((excess[:-1] < 0) & (excess[1:] >= 0))
    return mu[i] + 0.004 * excess[i] / (excess[i] - excess[i + 1])


def test_the_only_root_inside_a_ripple():
    """States between two points of the grid, as many below as above zero: the excess is negative at both and positive in between."""
    energies = np.linspace(-1, 1, 41)
    dos = np.interp(energies, [-0.8, -0.6, -0.4], [0.0, 10.0, 0.0], left=0, right=0)
    dos[20:22] = 0.04, -0.04
    # Below the ripple: 2 of the band and a triangle of 0.001; in it, 0.04 x - 0.8 x^2 with x in eV.
    level = thermo.fermi_level(energies, dos, 2 + 0.001 + 0.00025)
    assert level == pytest.approx((0.04 - np.sqrt(0.04**2 - 4 * 0.8 * 0.00025)) / 1.6, abs=1e-9)
    with pytest.raises(ChemicalPotentialError):
        thermo.fermi_level(energies, dos, 2 + 0.001 + 0.00051)


@pytest.mark.parametrize("amplitude", [1e-6, 1e-3, 0.03])
def test_root_in_a_rippled_gap_is_the_one_that_a_hot_system_cools_to(amplitude):
    """Brute force: all rising roots on a fine axis, the nearest one followed down in steps of 5 %."""
    several = 0
    for seed in range(6):
        energies, dos, n_electrons = rippled(amplitude, seed)
        ladder = 9000 * 0.95 ** np.arange(112)  # to 30 K
        (followed,) = rising_roots(energies, dos, n_electrons, ladder[0])
        for k, T in enumerate(ladder):
            roots = rising_roots(energies, dos, n_electrons, T)
            followed = roots[np.abs(roots - followed).argmin()]
            if k not in (29, 66, 111):
                continue
            several += len(roots) > 1
            mu = float(thermo.chemical_potential(energies, dos, n_electrons, T))
            assert mu == pytest.approx(followed, abs=0.001)
            assert thermo.electron_number(energies, dos, mu, T) == pytest.approx(n_electrons, rel=1e-12)
            K0, _, K2 = thermo.moments(energies, dos, n_electrons, T)
            assert K0 >= 0
            C = float(thermo.heat_capacity(energies, dos, n_electrons, T))
            assert 0 <= C <= max(K2 / T, 0)
    assert several  # else the test says nothing


def wide_gap_with_ripples(seed: int) -> tuple:
    """3 eV without states but for ripples of 0.005 states/eV."""
    energies = np.arange(-8, 8.0001, STEP)
    dos = 3 * np.sqrt(np.clip(-1.5 - energies, 0, None)) + 2 * np.sqrt(np.clip(energies - 1.5, 0, None))
    n_electrons = float(np.trapezoid(dos[energies < 0], dx=STEP))
    ripples = np.random.default_rng(seed).normal(size=len(energies))
    return energies, dos + 0.005 * ripples * (np.abs(energies) < 1.5 - 1e-9), n_electrons


def test_chemical_potential_in_ripples_is_continuous():
    T = np.arange(20.0, 6000.0, 5.0)
    elsewhere = 0
    for seed in range(60):
        case = wide_gap_with_ripples(seed)
        mu = thermo.chemical_potential(*case, T)
        assert np.abs(np.diff(mu)).max() < 0.05
        # What is asked for beside it does not matter.
        assert thermo.chemical_potential(*case, T[7]) == pytest.approx(mu[7], abs=1e-10)
        elsewhere += abs(mu[0] - float(thermo.fermi_level(*case))) > 0.1
    assert 5 < elsewhere < 20  # relaxation from the Fermi level would end at another root, and jump on the way


def test_integral_of_the_heat_capacity_is_the_difference_of_energies():
    """Gauss and Legendre; where C_el is not held at zero, that is."""
    x, w = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(1000.0, 3000.0, 101)
    T = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    weights = (np.diff(edges)[:, None] * w / 2).ravel()
    smooth = 0
    for seed in range(20):
        case = wide_gap_with_ripples(seed)
        C = thermo.heat_capacity(*case, T)
        K0, K1, K2 = thermo.moments(*case, T)
        cold, hot = thermo.internal_energy(*case, [1000.0, 3000.0])
        cold_thermal, hot_thermal = thermo.thermal_energy(*case, [1000.0, 3000.0])
        assert hot - cold == pytest.approx(hot_thermal - cold_thermal, rel=1e-7)
        assert weights @ ((K2 - K1**2 / K0) / T) == pytest.approx(hot_thermal - cold_thermal, rel=1e-6)
        if (C > 0).all():
            smooth += 1
            assert weights @ C == pytest.approx(hot_thermal - cold_thermal, rel=1e-6)
    assert smooth > 3


def test_fermi_level_in_ripples_is_a_rising_root_near_the_middle():
    """Brute force: the rising roots of the T = 0 count on a fine axis."""
    for seed in range(40):
        energies, dos, n_electrons = rippled(0.01, seed)
        fine = np.linspace(-1.2, 1.2, 48_001)
        count = np.interp(fine, energies, dos)
        below = np.concatenate([[0], np.cumsum(count[1:] + count[:-1]) * (fine[1] - fine[0]) / 2])
        start = np.trapezoid(dos[energies <= -1.2 + 1e-9], dx=STEP)
        excess = below + start - n_electrons
        roots = fine[1:][(excess[:-1] < 0) & (excess[1:] >= 0)]
        level = float(thermo.fermi_level(energies, dos, n_electrons))
        middle = (roots[0] + roots[-1]) / 2
        missing = np.interp(middle, fine, excess) < 0
        assert level == pytest.approx(min(roots[roots >= middle]) if missing else max(roots[roots <= middle]), abs=2e-4)


def test_small_ripples_leave_the_chemical_potential_of_the_clean_gap():
    energies, dos, n_electrons, _ = gapped()
    clean = thermo.chemical_potential(energies, dos, n_electrons, [1000.0, 3000.0])
    C = thermo.heat_capacity(energies, dos, n_electrons, [1000.0, 3000.0])
    previous = np.inf
    for amplitude in (1e-3, 1e-5, 1e-7):
        noisy = [rippled(amplitude, seed) for seed in range(10)]
        error = max(np.abs(thermo.chemical_potential(*args, [1000.0, 3000.0]) - clean).max() for args in noisy)
        assert error < 0.3 * previous
        previous = error
        worst = max(np.abs(thermo.heat_capacity(*args, [1000.0, 3000.0]) - C).max() for args in noisy)
        assert worst < 5e3 * BOLTZMANN_EV * amplitude
    assert previous < 1e-5


def test_errors_of_members_stay_bounded_in_a_rippled_gap():
    """At 300 K the bare formula gives members beyond any physical value; the rule keeps all within (0, K_2 / T)."""
    energies, dos, n_electrons, _ = gapped()
    ripples = np.random.default_rng(3).normal(size=(400, len(energies)))
    members = dos + 0.02 * ripples
    C = thermo.heat_capacity(energies, members, n_electrons, 300.0)
    K0, K1, K2 = thermo.moments(energies, members, n_electrons, 300.0)
    assert np.all((C >= 0) & (np.maximum(K2, 0) / 300 >= C))
    metal = np.pi**2 / 3 * BOLTZMANN_EV**2 * 300  # of 1 state/eV
    assert C.max() < metal
    with np.errstate(all="ignore"):
        bare = (K2 - K1**2 / K0) / 300
    assert np.nanmin(bare) < 0
    kernel = response.heat_capacity_kernel(energies, members[bare < 0], n_electrons, 300.0)
    assert np.all(kernel == 0)


def test_untrained_end_of_the_axis_has_no_say():
    energies, dos, n_electrons, _ = rough()
    below = np.concatenate([[0], np.cumsum(dos[1:] + dos[:-1]) * STEP / 2])
    bad = dos.copy()
    bad[below > n_electrons + 10] = -100.0  # the count falls through n_electrons again
    T = np.array([30.0, 300.0])
    assert thermo.fermi_level(energies, bad, n_electrons) == thermo.fermi_level(energies, dos, n_electrons)
    expected = thermo.chemical_potential(energies, dos, n_electrons, T)
    np.testing.assert_allclose(thermo.chemical_potential(energies, bad, n_electrons, T), expected, rtol=1e-12)


def test_heat_leaving_the_grid_is_an_error_not_a_fermi_level():
    """One electron in a wide band at 50 000 K: mu lies below the grid, though E_F is on it."""
    energies, dos, _, _ = constant()
    assert thermo.fermi_level(energies, dos, 0.5) == pytest.approx(-4.75)
    with pytest.raises(
        ChemicalPotentialError, match=r"at 50000 K: the 0.5 electrons of the DOS \[1\] of those given spread beyond"
    ):
        thermo.chemical_potential(energies, dos, 0.5, [300.0, 50_000.0])


def test_temperatures_that_rounding_swallows_are_named():
    case = gapped()[:3]
    for T in (1e-300, 5e-324, 9e-7, 1e300):
        with pytest.raises(
            ChemicalPotentialError, match=r"K, where kT is lost .*; expected 1e-06 to 1e\+12 K"
        ) as caught:
            thermo.chemical_potential(*case, T)
        assert "\n" not in str(caught.value)
    for dos in (gapped(), constant(), rough()):
        energies, g, n, _ = dos
        for T in (1e-6, 1e-3, 1.0):
            mu = float(thermo.chemical_potential(energies, g, n, T))
            assert mu == pytest.approx(float(thermo.fermi_level(energies, g, n)), abs=5e-4)


@pytest.mark.parametrize("ripple", [-0.45, 0.2, 0.45])
def test_fermi_level_below_a_ripple_in_a_gap(ripple: float) -> None:
    """States that come and go within a gap, as predictions have them: the middle between the valence band and the first of them."""
    energies = -4.0 + 0.05 * np.arange(161)
    dos = np.where(energies < -0.975, 2.0, 0.0) + np.where(energies > 1.025, 2.0 * (energies - 1.0), 0.0)
    at = round((ripple + 4.0) / 0.05)
    dos[at], dos[at + 1] = 0.3, -0.3
    n = float(np.sum(dos[1:at] + dos[: at - 1]) * 0.05 / 2)
    found = float(thermo.fermi_level(energies, dos, n))
    assert found == pytest.approx((-0.95 + ripple - 0.05) / 2, abs=1e-9)


def test_value_of_a_level_is_the_integral_of_what_is_missing():
    """Omega(mu) + mu N at T = 0, up to a constant: the integral of N minus the states below, on a grid of uneven steps."""
    rng = np.random.default_rng(4)
    energies = np.cumsum(rng.uniform(0.05, 0.3, 40))
    dos, n_electrons = rng.uniform(-0.2, 2.0, 40), 3.0
    mu = np.sort(rng.uniform(energies[0], energies[-1], 9))
    fine = np.unique(np.r_[np.linspace(energies[0], energies[-1], 400_001), energies, mu])
    missing = n_electrons - scipy.integrate.cumulative_trapezoid(np.interp(fine, energies, dos), fine, initial=0.0)
    expected = np.interp(mu, fine, scipy.integrate.cumulative_trapezoid(missing, fine, initial=0.0))
    found = VariationalOccupation(energies, dos[None], np.array([n_electrons])).surplus(np.zeros(9, int), mu)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
