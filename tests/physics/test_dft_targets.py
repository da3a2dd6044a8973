"""Oracles: the sum of Gaussians written as a double loop, the error function, counts of states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from petdos_md.base.grid import EnergyGrid
from petdos_md.physics.dft import defined_below, dos_target, gaussian_dos

GRID = EnergyGrid(start=-8.0, step=0.05, n=401)


@pytest.fixture
def bands() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    eigenvalues = np.sort(rng.uniform(-6.0, 10.0, size=(5, 12)), axis=1)
    weights = rng.uniform(0.5, 1.5, size=5)
    return eigenvalues, 2.0 * weights / weights.sum()


def test_gaussian_dos_is_the_double_sum_of_the_article(bands: tuple[np.ndarray, np.ndarray]) -> None:
    eigenvalues, weights = bands
    energies = np.array([-7.0, -2.3, 0.0, 4.1, 11.0])
    for smearing in (0.3, 0.1):
        expected = []
        for energy in energies:
            total = 0.0
            for k in range(5):
                for n in range(12):
                    x = (energy - eigenvalues[k, n]) / smearing
                    total += weights[k] * math.exp(-x * x / 2) / (smearing * math.sqrt(2 * math.pi))
            expected.append(total)
        np.testing.assert_allclose(gaussian_dos(eigenvalues, weights, energies, smearing), expected, rtol=1e-12)


def test_integral_counts_the_states(bands: tuple[np.ndarray, np.ndarray]) -> None:
    eigenvalues, weights = bands
    wide = np.arange(-12.0, 16.0, 0.05)
    total = 0.05 * gaussian_dos(eigenvalues, weights, wide).sum()
    assert total == pytest.approx(2.0 * 12, rel=1e-10)
    # Up to an energy it is a sum of error functions.
    fine = np.arange(-12.0, 2.0005, 0.001)
    partial = np.trapezoid(gaussian_dos(eigenvalues, weights, fine), dx=0.001)
    expected = sum(
        w * 0.5 * math.erfc((e - 2.0) / (0.3 * math.sqrt(2)))
        for w, row in zip(weights, eigenvalues, strict=True)
        for e in row
    )
    assert partial == pytest.approx(expected, rel=1e-5)


def test_target_ends_below_the_lowest_point_of_the_highest_band() -> None:
    eigenvalues = np.array([[-1.0, 5.0], [-0.5, 4.0]])
    assert defined_below(eigenvalues) == pytest.approx(3.1)
    target = dos_target(eigenvalues, np.array([1.0, 1.0]), GRID)
    energies = GRID.energies
    np.testing.assert_array_equal(np.isnan(target), energies > 3.1)
    np.testing.assert_allclose(
        target[energies <= 3.1], gaussian_dos(eigenvalues, np.array([1.0, 1.0]), energies[energies <= 3.1]), rtol=1e-12
    )
    # Bands that were not computed lie above the highest one and would change the defined part by their tail at most:
    # three standard deviations, 0.0044 of a Gaussian's height.
    missing = gaussian_dos(np.array([[5.0], [4.0]]), np.array([1.0, 1.0]), energies[energies <= 3.1])
    height = 1.0 / (0.3 * math.sqrt(2 * math.pi))
    assert missing.max() <= 1.01 * 2 * math.exp(-4.5) * height


def test_order_of_kpoints_and_splitting_of_weights_do_not_matter(bands: tuple[np.ndarray, np.ndarray]) -> None:
    eigenvalues, weights = bands
    reference = dos_target(eigenvalues, weights, GRID)
    np.testing.assert_allclose(dos_target(eigenvalues[::-1], weights[::-1], GRID), reference, rtol=1e-12)
    doubled = dos_target(np.repeat(eigenvalues, 2, axis=0), np.repeat(weights, 2) / 2, GRID)
    np.testing.assert_allclose(doubled, reference, rtol=1e-12)


@pytest.mark.parametrize(
    ("eigenvalues", "weights", "words"),
    [
        (np.zeros((3, 2)), np.ones(2), "shapes"),
        (np.zeros(3), np.ones(3), "shapes"),
        (np.array([[0.0, np.nan]]), np.ones(1), "finite"),
        (np.array([[-7.5, 0.0]]), np.ones(1), "start it at -8.40 eV"),
    ],
)
def test_unsuitable_input_is_refused(eigenvalues: np.ndarray, weights: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dos_target(eigenvalues, weights, GRID)


def test_smearing_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        gaussian_dos(np.zeros((1, 1)), np.ones(1), GRID.energies, smearing_eV=0.0)
