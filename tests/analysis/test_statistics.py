"""Errors of means of AR(1) series, whose variance of the mean is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from petdos_md.analysis.statistics import MIN_SAMPLES, standard_error


def ar1(phi: float, n: int, columns: int, seed: int) -> np.ndarray:
    """Stationary series of unit variance with autocorrelation ``phi**t``, shape ``(n, columns)``."""
    noise = np.random.default_rng(seed).normal(size=(n, columns)) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return scipy.signal.lfilter([1.0], [1.0, -phi], noise, axis=0)


def exact_error(phi: float, n: int) -> float:
    """Standard error of the mean of ``n`` samples, without approximation."""
    t = np.arange(1, n)
    return float(np.sqrt((1 + 2 * np.sum((1 - t / n) * phi**t)) / n))


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [500, 1000, 4000])
def test_known_variance_of_the_mean(method: str, phi: float, n: int) -> None:
    estimate = standard_error(ar1(phi, n, 200, seed=7), method=method)
    assert np.mean(estimate.error) == pytest.approx(exact_error(phi, n), rel=0.2)
    assert np.sqrt(np.mean(estimate.error**2)) == pytest.approx(exact_error(phi, n), rel=0.2)
    # The closed form of the oracle itself against the spread of the means over many series.
    means = ar1(phi, n, 4000, seed=8).mean(axis=0)
    assert means.std() == pytest.approx(exact_error(phi, n), rel=0.05)


@pytest.mark.parametrize("phi", [0.5, 0.9])
def test_autocorrelation_time_and_effective_samples(phi: float) -> None:
    n = 20000
    estimate = standard_error(ar1(phi, n, 20, seed=3))
    inefficiency = (1 + phi) / (1 - phi)
    assert estimate.autocorrelation_time.mean() == pytest.approx(inefficiency, rel=0.1)
    assert estimate.n_effective.mean() == pytest.approx(n / inefficiency, rel=0.1)
    assert estimate.reliable.all()


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
def test_replicas_are_pooled_without_crossing_their_borders(method: str) -> None:
    phi, n, replicas = 0.9, 500, 8
    parts = [ar1(phi, n, 200, seed=20 + r) for r in range(replicas)]
    labels = np.repeat(np.arange(replicas), n)
    pooled = standard_error(np.concatenate(parts), method=method, segments=labels)
    assert pooled.error.mean() == pytest.approx(exact_error(phi, n) / np.sqrt(replicas), rel=0.1)
    # Interleaved in time, as a replica exchange run writes them, the answer is the same.
    order = np.argsort(np.tile(np.arange(n), replicas), kind="stable")
    mixed = standard_error(np.concatenate(parts)[order], method=method, segments=labels[order])
    np.testing.assert_allclose(mixed.error, pooled.error, rtol=1e-12)


def test_replicas_that_disagree_raise_the_error() -> None:
    n, offsets = 400, np.array([-3.0, -1.0, 1.0, 3.0])
    parts = [ar1(0.0, n, 1, seed=40 + i)[:, 0] + offset for i, offset in enumerate(offsets)]
    estimate = standard_error(np.concatenate(parts), segments=np.repeat(np.arange(4), n))
    # Four frozen replicas are four samples: 1.3, not the 0.06 of 1600 independent ones.
    expected = offsets.std(ddof=1) / 2
    assert np.isnan(estimate.error) or estimate.error > 0.5 * expected


def test_weights_equal_to_zero_drop_samples_and_constant_weights_change_nothing() -> None:
    series = ar1(0.5, 2000, 5, seed=11)
    plain = standard_error(series)
    np.testing.assert_allclose(standard_error(series, weights=np.full(2000, 7.0)).error, plain.error, rtol=1e-12)
    # Independent samples: sum(w^2 sigma^2) / sum(w)^2 in closed form.
    noise = np.random.default_rng(12).normal(size=(4000, 200))
    weights = np.random.default_rng(13).uniform(0.0, 4.0, size=4000)
    expected = np.sqrt(np.sum(weights**2)) / np.sum(weights)
    assert standard_error(noise, weights=weights).error.mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
def test_what_cannot_be_told_is_nan_and_never_zero(method: str) -> None:
    for n in (0, 1, 2, MIN_SAMPLES - 1):
        assert np.isnan(standard_error(np.arange(n, dtype=float), method=method).error)
    constant = standard_error(np.full((100, 2), 0.1), method=method)
    assert np.isnan(constant.error).all() and not constant.reliable.any()


def test_a_series_of_few_correlation_times_is_not_called_reliable() -> None:
    for method in ("autocorrelation", "blocking"):
        estimate = standard_error(ar1(0.97, 100, 200, seed=5), method=method)
        assert estimate.reliable.mean() < 0.1


def test_columns_are_independent_of_each_other_and_of_shape() -> None:
    series = ar1(0.5, 300, 6, seed=2)
    together = standard_error(series.reshape(300, 2, 3)).error
    alone = np.array([standard_error(series[:, i]).error for i in range(6)])
    np.testing.assert_allclose(together.ravel(), alone, rtol=1e-12)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="unknown error method 'bootstrap'"):
        standard_error(np.zeros(20), method="bootstrap")
    with pytest.raises(ValueError, match="weights must be 20 finite numbers"):
        standard_error(np.zeros(20), weights=np.ones(19))
    with pytest.raises(ValueError, match="segments must label each of the 20 samples"):
        standard_error(np.zeros(20), segments=np.ones(3))
