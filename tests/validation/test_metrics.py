"""Oracles: brute force over shifts, known shifts of known curves, normal random numbers."""

from __future__ import annotations

import numpy as np
import pytest

from petdos_md.validation.metrics import align, chance_interval, dos_rmse, shifted_target, z_scores

STEP = 0.05


def brute_force(target: np.ndarray, prediction: np.ndarray, max_shift: int) -> tuple[int, float]:
    """Eqs. 3 and 4 read literally: one shift after the other, one channel after the other."""
    best = (0, np.inf)
    for shift in range(-max_shift, max_shift + 1):
        total = 0.0
        for i, value in enumerate(target):
            if np.isnan(value):
                continue
            j = i + shift
            other = prediction[j] if 0 <= j < len(prediction) else 0.0
            total += STEP * (value - other) ** 2
        for j in range(min(shift, len(prediction))):
            total += STEP * prediction[j] ** 2
        if total < best[1]:
            best = (shift, total)
    return best


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("lengths", [(40, 40), (40, 55), (55, 40)])
def test_align_finds_the_best_of_all_shifts(seed: int, lengths: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    target = np.convolve(rng.random(lengths[0]), np.ones(5) / 5, mode="same")
    target[int(rng.integers(20, lengths[0])) :] = np.nan
    prediction = np.convolve(rng.random(lengths[1]), np.ones(5) / 5, mode="same")
    for max_shift in (0, 3, 12):
        shift, squared = brute_force(target, prediction, max_shift)
        found = align(target, prediction, STEP, max_shift)
        assert found.shift == shift
        assert found.squared_error == pytest.approx(squared, rel=1e-12)


def gaussians(centers: list[float], energies: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * ((energies[:, None] - np.array(centers)) / 0.3) ** 2).sum(axis=1)


@pytest.mark.parametrize("channels", [-37, 0, 12])
def test_a_rigid_shift_is_no_error(channels: int) -> None:
    energies = np.arange(-10, 10, STEP)
    target = gaussians([-3.0, -1.0, 2.0], energies)
    target[energies > 4.0] = np.nan
    prediction = gaussians([-3.0, -1.0, 2.0], energies - channels * STEP)
    prediction[energies > 7.0] = 5.0  # whatever the model says above the limit
    best = align(target, prediction, STEP)
    assert best.shift == channels
    assert best.squared_error == pytest.approx(0.0, abs=1e-12)
    moved = shifted_target(target, channels)
    defined = np.isfinite(moved)
    np.testing.assert_allclose(prediction[defined], moved[defined], atol=1e-6)


def test_states_that_a_shift_hides_below_the_target_count() -> None:
    target = np.zeros(30)
    target[10] = 1.0
    prediction = np.zeros(30)
    prediction[[2, 18]] = 1.0
    # Moved down by eight channels, the upper peak fits and the lower one leaves the window: it must not look perfect.
    assert align(target, prediction, STEP, 20).squared_error == pytest.approx(STEP)
    # Above the limit of a target a model may say what it likes.
    target[15:] = np.nan
    assert align(target, prediction, STEP, 20)[:2] == (-8, 0.0)


def test_rmse_is_per_electron_and_squared_over_structures() -> None:
    target = np.zeros(21)
    predictions = [np.full(21, 0.2), np.full(21, 0.4)]
    rmse, errors = dos_rmse([target, target], predictions, np.array([2.0, 10.0]), STEP, max_shift=0)
    expected = [np.sqrt(21 * 0.04 * STEP) / 2.0, np.sqrt(21 * 0.16 * STEP) / 10.0]
    np.testing.assert_allclose(errors, expected, rtol=1e-12)
    assert rmse == pytest.approx(np.sqrt((expected[0] ** 2 + expected[1] ** 2) / 2))


def test_z_scores_of_members_that_are_drawn_like_the_target() -> None:
    rng = np.random.default_rng(0)
    n, members = 2000, 64
    sigma = np.linspace(0.1, 3.0, n)
    center = rng.standard_normal(n)
    ensemble = center + sigma * rng.standard_normal((members, n))
    target = center + sigma * rng.standard_normal(n)
    target[:5] = np.nan
    z = z_scores(target, ensemble)
    np.testing.assert_array_equal(np.isnan(z), np.arange(n) < 5)
    # Mean and spread of the members are estimates: Student's t with 63 degrees of freedom, and 1/64 of the mean's variance.
    expected = np.sqrt(63 / 61 * (1 + 1 / 64))
    assert np.nanstd(z) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    ("target", "prediction", "max_shift", "words"),
    [
        (np.full(4, np.nan), np.zeros(4), 1, "undefined"),
        (np.zeros(4), np.array([0.0, np.nan, 0.0, 0.0]), 1, "not finite"),
        (np.zeros((2, 4)), np.zeros(4), 1, "shapes"),
        (np.zeros(4), np.zeros(4), -1, "negative"),
    ],
)
def test_unsuitable_input_is_refused(target: np.ndarray, prediction: np.ndarray, max_shift: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        align(target, prediction, STEP, max_shift)


def test_lists_must_fit_and_shifts_must_leave_something() -> None:
    with pytest.raises(ValueError, match="1 targets, 2 predictions"):
        dos_rmse([np.zeros(3)], [np.zeros(3)] * 2, np.ones(1), STEP)
    with pytest.raises(ValueError, match="at least one"):
        dos_rmse([], [], np.ones(0), STEP)
    with pytest.raises(ValueError, match="cannot shift"):
        shifted_target(np.zeros(4), 4)


@pytest.mark.parametrize(("n_structures", "n_members"), [(42, 32), (5, 8)])
def test_chance_interval_against_drawn_ensembles(n_structures: int, n_members: int) -> None:
    """z-scores of perfectly calibrated ensembles: errors and members' deviations of one distribution, members alike for all structures."""
    rng = np.random.default_rng(1)
    n = 40_000
    errors = rng.standard_normal((n, n_structures))
    spread = rng.standard_normal((n, n_members)).std(axis=1, ddof=1)
    found = np.sqrt(((errors / spread[:, None]) ** 2).mean(axis=1))
    low, high = chance_interval(n_structures, n_members)
    # 200 of 40 000 are expected on each side, their scatter is 14.
    assert (found < low).sum() == pytest.approx(200, abs=60)
    assert (found > high).sum() == pytest.approx(200, abs=60)
    # Structures whose members scatter independently of each other stay inside.
    alone = rng.standard_normal((5000, n_structures, n_members)).std(axis=2, ddof=1) if n_structures < 10 else None
    if alone is not None:
        root = np.sqrt(((errors[:5000] / alone) ** 2).mean(axis=1))
        assert ((root < low) | (root > high)).mean() < 0.01 + 0.006


def test_chance_interval_of_many_channels() -> None:
    low, high = chance_interval(np.array([5, 42]), 32, level=0.9)
    assert low.shape == (2,) and (low < 1).all() and (high > 1).all() and high[0] > high[1]
    with pytest.raises(ValueError, match="2 members"):
        chance_interval(5, 1)
