"""Thermodynamics of piecewise linear densities of states against identities, closed forms and differences."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.densities import CASES, STEP, TEMPERATURES, constant, gapped, rough, two_levels

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.physics import response, thermo
from petdos_md.physics.quantities import QUANTITIES, derive, kernels


@pytest.mark.parametrize("name", CASES)
def test_thermodynamic_identities(name):
    energies, dos, n_electrons, _ = CASES[name]()
    T = np.array(TEMPERATURES[3:-1])
    args = (energies, dos, n_electrons)
    U, S, F = (f(*args, T) for f in (thermo.internal_energy, thermo.entropy, thermo.free_energy))
    np.testing.assert_allclose(F, U - T * S, rtol=1e-13, atol=1e-13)
    C = thermo.heat_capacity(*args, T)
    np.testing.assert_allclose(thermo.heat_capacity_finite_difference(*args, T), C, rtol=2e-3)
    np.testing.assert_allclose(thermo.heat_capacity_finite_difference(*args, T, delta_K=T * 1e-4), C, rtol=2e-5)
    h = T * 1e-4
    np.testing.assert_allclose(
        T * (thermo.entropy(*args, T + h) - thermo.entropy(*args, T - h)) / (2 * h), C, rtol=2e-5
    )
    np.testing.assert_allclose(
        -(thermo.free_energy(*args, T + h) - thermo.free_energy(*args, T - h)) / (2 * h), S, rtol=1e-4, atol=1e-11
    )
    K0, K1, K2 = thermo.moments(*args, T)
    np.testing.assert_allclose(C, (K2 - K1**2 / K0) / T, rtol=1e-8)


def test_heat_capacity_of_a_gap_falls_as_exp_minus_half_gap():
    energies, dos, n_electrons, _ = two_levels()
    low, high = thermo.heat_capacity(energies, dos, n_electrons, [12.0, 12.5])
    assert 0 < low < high
    low, high = thermo.heat_capacity(energies, dos, n_electrons, [40.0, 41.0])
    inner = 1.4  # the inner edges of the triangles dominate: 1.5 eV less one step each
    rate = np.log(high / low) / (1 / (BOLTZMANN_EV * 40) - 1 / (BOLTZMANN_EV * 41))
    assert rate == pytest.approx(inner / 2, rel=0.01)


def test_result_moves_with_the_energy_reference():
    energies, dos, n_electrons, _ = rough()
    T = np.array([30.0, 3000.0])
    np.testing.assert_allclose(
        thermo.chemical_potential(energies + 7, dos, n_electrons, T),
        thermo.chemical_potential(energies, dos, n_electrons, T) + 7,
        rtol=1e-12,
    )
    for f in (thermo.heat_capacity, thermo.entropy, thermo.thermal_energy):
        np.testing.assert_allclose(f(energies + 7, dos, n_electrons, T), f(energies, dos, n_electrons, T), rtol=1e-9)


@pytest.mark.parametrize("name", ["constant", "free_electrons", "gapped", "rough"])
def test_kernels_are_derivatives(name):
    energies, dos, n_electrons, neutral = CASES[name]()
    T = np.array([100.0, 300.0, 3000.0, 20_000.0])
    if neutral:  # where mu answers linearly to a change of the band edges
        T = T[2:]
    rng = np.random.default_rng(4)
    for change in (np.cos(energies), rng.normal(size=len(energies))):
        change = change * (dos > 0)
        for f, kernel in (
            (thermo.chemical_potential, response.chemical_potential_kernel),
            (thermo.internal_energy, response.internal_energy_kernel),
            (thermo.heat_capacity, response.heat_capacity_kernel),
        ):
            linear = kernel(energies, dos, n_electrons, T) @ change

            def difference(h, f=f, change=change):
                return (
                    f(energies, dos + h * change, n_electrons, T) - f(energies, dos - h * change, n_electrons, T)
                ) / (2 * h)

            expected = (4 * difference(5e-5) - difference(1e-4)) / 3
            scale = np.abs(kernel(energies, dos, n_electrons, T)) @ np.abs(change)
            assert np.all(np.abs(linear - expected) < 1e-6 * scale), (f.__name__, linear / expected - 1)


def test_fermi_level_kernel_is_the_cold_limit_and_a_derivative():
    energies, dos, n_electrons, _ = rough()
    kernel = response.fermi_level_kernel(energies, dos, n_electrons)
    change = np.cos(energies)
    h = 1e-5
    difference = thermo.fermi_level(energies, dos + h * change, n_electrons)
    difference = (difference - thermo.fermi_level(energies, dos - h * change, n_electrons)) / (2 * h)
    assert kernel @ change == pytest.approx(float(difference), rel=1e-6)
    cold = response.chemical_potential_kernel(energies, dos, n_electrons, 0.1) @ change
    assert cold == pytest.approx(float(kernel @ change), rel=1e-3)
    assert np.isnan(response.fermi_level_kernel(*two_levels()[:3])).all()


def test_band_gap_is_the_width_below_the_threshold():
    energies, dos, n_electrons, _ = gapped()
    assert thermo.band_gap(energies, dos, n_electrons, 1, threshold=0.0) == pytest.approx(1.0, abs=1e-12)
    # On a straight edge of slope s, a threshold t shifts the edge by t / s.
    wedge = np.abs(energies) * 2
    n = float(np.sum((wedge[1:] + wedge[:-1])[: round(4 / STEP)]) * STEP / 2)
    assert thermo.band_gap(energies, wedge, n, 1, threshold=0.3) == pytest.approx(0.3, abs=1e-9)
    # By default 0.1 states/eV/atom; twice the atoms with twice the states have the same gap, the same states on more atoms a wider one.
    assert thermo.band_gap(energies, wedge, n, 1) == pytest.approx(0.1, abs=1e-9)
    assert thermo.band_gap(energies, np.stack([2 * wedge, wedge]), [2 * n, n], [2, 6]) == pytest.approx(
        [0.1, 0.6], abs=1e-9
    )
    # Empty bands beyond the energies: the gap ends with these.
    filled = np.where(energies < 0, wedge, 0.0)
    assert thermo.band_gap(energies, filled, n, 1, threshold=0.3) == pytest.approx(energies[-1] + 0.15, abs=1e-9)
    assert thermo.band_gap(*constant()[:3], 1) == 0
    both = thermo.band_gap(energies, np.stack([dos, dos + 1]), n_electrons, 1)
    assert both[0] > 0.9 and both[1] == 0
    with pytest.raises(ValueError, match="a positive number of atoms, got 0"):
        thermo.band_gap(energies, dos, n_electrons, 0)


def test_finite_difference_step_is_checked():
    energies, dos, n_electrons, _ = constant()
    with pytest.raises(ValueError, match="delta_K must lie between 0 and the temperature"):
        thermo.heat_capacity_finite_difference(energies, dos, n_electrons, 300.0, delta_K=300.0)


def test_kernels_of_many_are_those_of_each():
    """Derived quantities and their kernels broadcast over members and temperatures."""
    energies, dos, n_electrons, _ = rough()
    members, T = np.stack([dos, 1.01 * dos, dos * (1 + 0.01 * np.cos(energies))]), np.array([300.0, 2000.0])
    together = kernels(energies, members[:, None], n_electrons, T)
    assert set(together) == set(QUANTITIES) - {"gap", "heat_capacity_finite_difference"}
    for name, kernel in together.items():
        for i, j in np.ndindex(3, 2):
            alone = kernels(energies, members[i], n_electrons, T[j], [name])[name]
            found = np.broadcast_to(kernel, (3, 2, len(energies)))[i, j]
            np.testing.assert_allclose(found, alone, rtol=1e-12, atol=1e-12 * np.abs(alone).max(), err_msg=name)
    with pytest.raises(ValueError, match="no linear response is known for 'gap', expected one of chemical_potential"):
        kernels(energies, dos, n_electrons, 300.0, ["gap"])


def test_what_moves_with_the_zero_is_marked_so():
    """And what grows with the structure."""
    energies, dos, n_electrons, _ = rough()
    here = derive(energies, dos, n_electrons, 900.0, n_atoms=2)
    moved = derive(energies + 3.0, dos, n_electrons, 900.0, n_atoms=2)
    twice = derive(energies, 2 * dos, 2 * n_electrons, 900.0, n_atoms=4)
    for name, quantity in QUANTITIES.items():
        assert np.isclose(moved[name], here[name], rtol=1e-8, atol=0) != quantity.on_energy_axis, name
        assert twice[name] == pytest.approx(float(here[name]) * (2 if quantity.extensive else 1), rel=1e-8), name


@pytest.mark.parametrize("temperature_K", [150.0, 600.0, 2500.0])
def test_chemical_potential_in_a_gap_between_bands_that_end(temperature_K: float) -> None:
    """Bands of some kT with edges of different steepness, the upper one cut off where its DOS is large: mu by bisection on a fine grid."""
    energies = np.arange(-40, 41) * 0.05
    dos = np.where(energies < -0.5, 4.0, 0.0) + np.where(energies > 0.5, 20.0 * (energies - 0.5), 0.0)
    n = float(np.sum((dos[1:] + dos[:-1])[energies[:-1] < 0]) * 0.05 / 2)
    kT = BOLTZMANN_EV * temperature_K
    fine = np.linspace(energies[0], energies[-1], 400 * (len(energies) - 1) + 1)
    g = np.interp(fine, energies, dos)

    def excess(mu: float) -> float:
        """Electrons above minus holes below, which do not lose their digits against each other."""
        electrons = np.where(fine > 0, np.exp(-np.logaddexp(0, (fine - mu) / kT)), 0.0)
        holes = np.where(fine <= 0, np.exp(-np.logaddexp(0, (mu - fine) / kT)), 0.0)
        return float(np.trapezoid(g * (electrons - holes), fine))

    low, high = -0.5, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    found = float(thermo.chemical_potential(energies, dos, n, temperature_K))
    assert found == pytest.approx(low, abs=1e-5)


@pytest.mark.parametrize("temperature_K", [20.0, 60.0, 130.0])
def test_chemical_potential_deep_in_a_gap(temperature_K: float) -> None:
    """So cold that both bands are Boltzmann tails: mu = middle + kT/2 ln(p/n). The upper band is narrower than kT, and ends with the grid."""
    energies = np.arange(-80, 53) * 0.01
    dos = np.where(energies < -0.495, 3.0 * np.sqrt(np.clip(-0.5 - energies, 0, None)), 0.0)
    dos += np.interp(energies, [0.5, 0.51, 0.52], [0.0, 0.4, 0.5])
    n = float(np.sum((dos[1:] + dos[:-1])[energies[:-1] < 0]) * 0.01 / 2)
    kT = BOLTZMANN_EV * temperature_K
    fine = np.linspace(energies[0], energies[-1], 2000 * (len(energies) - 1) + 1)
    g = np.interp(fine, energies, dos)
    electrons = np.trapezoid(np.where(fine > 0, g * np.exp(np.minimum(0.5 - fine, 0.0) / kT), 0.0), fine)
    holes = np.trapezoid(np.where(fine < 0, g * np.exp(np.minimum(fine + 0.5, 0.0) / kT), 0.0), fine)
    found = float(thermo.chemical_potential(energies, dos, n, temperature_K))
    assert found == pytest.approx(kT / 2 * np.log(holes / electrons), abs=2e-7)


@pytest.mark.parametrize("mu", [6.0, -6.5])
def test_thermal_energy_at_a_level_beyond_the_states(mu):
    """As given by a caller who looks at a part of the states: int_{E_F}^{mu} g (E - mu) dE over one state/eV from -5 to 5 eV."""
    energies = np.linspace(-5.0, 5.0, 201)
    end = np.clip(mu, -5.0, 5.0)
    found = thermo.thermal_energy(energies, np.ones(201), 5.0, 300.0, mu=mu)
    assert float(found) == pytest.approx(end * (end / 2 - mu), rel=1e-12)
