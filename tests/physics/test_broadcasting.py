"""Many elements at once against loops, and input that makes no sense."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.densities import constant, rough

from petdos_md.base.errors import ChemicalPotentialError
from petdos_md.physics import response, thermo


def test_broadcasting_equals_loops():
    rng = np.random.default_rng(1)
    energies, dos, _, _ = rough()
    members = np.abs(dos + 0.2 * rng.normal(size=(70, 1, len(dos))))  # more than one block of rows
    T = np.array([50.0, 500.0, 5000.0])
    n_electrons = np.linspace(28, 34, 70)[:, None]
    functions = [thermo.chemical_potential, thermo.heat_capacity, thermo.entropy, thermo.internal_energy]
    for f in functions:
        together = f(energies, members, n_electrons, T)
        assert together.shape == (70, 3)
        for i in (0, 33, 63, 64, 69):
            for j in range(3):
                alone = f(energies, members[i, 0], n_electrons[i, 0], T[j])
                assert alone.shape == ()
                assert together[i, j] == pytest.approx(float(alone), rel=1e-13)
    mu = thermo.chemical_potential(energies, members, n_electrons, T)
    for f in functions[1:]:
        np.testing.assert_allclose(f(energies, members, n_electrons, T, mu=mu), f(energies, members, n_electrons, T))
    per_temperature = thermo.chemical_potential(energies, members[0, 0], np.array([28.0, 29.0, 30.0]), T)
    for j in range(3):
        assert per_temperature[j] == pytest.approx(
            float(thermo.chemical_potential(energies, members[0, 0], 28.0 + j, T[j])), rel=1e-13
        )
    assert response.heat_capacity_kernel(energies, members[:2], n_electrons[:2], T).shape == (2, 3, len(energies))
    assert thermo.fermi_level(energies, members, n_electrons).shape == (70, 1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"temperature_K": 0.0}, ValueError, "temperature_K must be positive"),
        ({"temperature_K": [300.0, -1.0]}, ValueError, r"temperature_K\[1\] must be positive and finite, got -1 K"),
        ({"temperature_K": np.nan}, ValueError, "got nan K"),
        ({"n_electrons": 0.0}, ChemicalPotentialError, "n_electrons must be positive, got 0"),
        ({"n_electrons": [3.0, np.nan]}, ValueError, r"n_electrons\[1\] must be finite"),
        (
            {"n_electrons": 20.5},
            ChemicalPotentialError,
            "from -5 to 5 eV holds 20 electrons when full, the structure has 20.5",
        ),
        ({"n_electrons": 20.0}, ChemicalPotentialError, "holds 20 electrons when full"),
        ({"n_electrons": [3.0, 30.0]}, ChemicalPotentialError, r"at 300 K: the DOS \[1\] of .* holds 20 .* has 30"),
        ({"energies": np.arange(3.0)}, ValueError, "3 channels in its last dimension"),
        ({"energies": -np.arange(201.0)}, ValueError, "strictly increasing"),
        ({"energies": np.arange(201.0) // 2}, ValueError, "strictly increasing"),
        (
            {"energies": np.r_[np.arange(200.0), np.inf]},
            ValueError,
            "strictly increasing axis of at least 2 finite values",
        ),
        ({"energies": np.arange(201.0)[None]}, ValueError, r"at least 2 finite values, got shape \(1, 201\)"),
        (
            {"energies": np.array([0.0]), "dos": np.array([1.0])},
            ValueError,
            r"at least 2 finite values, got shape \(1,\)",
        ),
        ({"n_electrons": np.ones(2), "temperature_K": np.ones(3)}, ValueError, "do not broadcast"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, error, words):
    energies, dos, _, _ = constant()
    arguments = {"energies": energies, "dos": dos, "n_electrons": 8.0, "temperature_K": 300.0, **change}
    for f in (thermo.chemical_potential, thermo.heat_capacity, response.heat_capacity_kernel):
        with pytest.raises(error, match=words) as caught:
            f(**arguments)
        assert "\n" not in str(caught.value)


def test_nan_dos_is_refused_with_its_place():
    energies, dos, _, _ = constant()
    members = np.stack([dos] * 3)
    members[1, 7] = np.nan
    with pytest.raises(ValueError, match=r"dos\[1\] has nan at -4.65 eV"):
        thermo.heat_capacity(energies, members, 8.0, 300.0)


def test_two_points_are_a_grid():
    """A constant DOS: mu is in the middle of a band that is half full, whatever the temperature."""
    mu = thermo.chemical_potential([-1.0, 1.0], [2.0, 2.0], 2.0, [300.0, 3000.0])
    np.testing.assert_allclose(mu, 0.0, atol=1e-12)
