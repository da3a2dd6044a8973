"""Initial drifts, with pymbar's implementation of the same principle as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from petdos_md.analysis.equilibration import detect_burn_in


def ar1(phi: float, n: int, columns: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, columns))
    noise[1:] *= np.sqrt(1 - phi**2)
    return scipy.signal.lfilter([1.0], [1.0, -phi], noise, axis=0)


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("drift", [0.0, 8.0])
def test_as_many_independent_samples_as_pymbar_finds(phi: float, drift: float) -> None:
    timeseries = pytest.importorskip("pymbar.timeseries")
    n, shares, counts = 800, [], []
    for seed in range(6):
        x = ar1(phi, n, 1, seed)[:, 0] + drift * np.exp(-np.arange(n) / 50)
        found = detect_burn_in(x)
        _, _, most = timeseries.detect_equilibration(x, fast=False, nskip=10)
        rest = x[found.start :]
        shares.append(len(rest) / timeseries.statistical_inefficiency(rest) / most)
        counts.append(found.n_effective_after / most)
        assert found.significant == (drift > 0)
        assert found.n_effective_after >= found.n_effective_before
    # The start is as good as pymbar's by pymbar's own count, and so is the count.
    assert np.mean(shares) > 0.85 and min(shares) > 0.65
    assert 0.7 < np.mean(counts) < 1.3


@pytest.mark.parametrize(("phi", "spread"), [(0.0, 0.0), (0.8, 0.0), (0.0, 1.5)])
def test_stationary_series_are_seldom_called_drifting(phi: float, spread: float) -> None:
    """Also with weights of which few are large in the first half."""
    x = ar1(phi, 300, 120, seed=1)
    weights = np.exp(spread * np.random.default_rng(2).normal(size=x.shape))
    weights[150:] = 1.0
    alarms = [detect_burn_in(x[:, i], weights[:, i]).significant for i in range(120)]
    assert np.mean(alarms) <= 0.05


def test_the_drift_of_one_column_sets_the_start_of_all() -> None:
    x = ar1(0.5, 1000, 3, seed=2)
    x[:, 1] += 5.0 * np.exp(-np.arange(1000) / 60)
    together, alone = detect_burn_in(x), detect_burn_in(x[:, 1])
    assert together.significant and abs(together.start - alone.start) <= 100
    assert together.n_effective_after <= alone.n_effective_after * 1.01


def test_replicas_lose_the_same_beginning_each() -> None:
    n, replicas = 500, 4
    drift = 5.0 * np.exp(-np.arange(n) / 30)
    parts = [ar1(0.3, n, 1, seed=3 + k)[:, 0] + drift for k in range(replicas)]
    labels = np.repeat(np.arange(replicas), n)
    found = detect_burn_in(np.concatenate(parts), segments=labels)
    assert found.significant and 60 <= found.start <= 250
    # Interleaved in time the answer is the same.
    order = np.argsort(np.tile(np.arange(n), replicas), kind="stable")
    assert detect_burn_in(np.concatenate(parts)[order], segments=labels[order]) == found
    assert not detect_burn_in(
        np.concatenate([p[300:] for p in parts]), segments=np.repeat(np.arange(4), 200)
    ).significant


def test_samples_without_weight_do_not_drift() -> None:
    x = ar1(0.3, 600, 1, seed=5)[:, 0]
    x[:100] += 6.0
    assert detect_burn_in(x).significant
    weights = np.r_[np.zeros(100), np.ones(500)]
    assert not detect_burn_in(x, weights=weights).significant


def test_too_little_to_tell() -> None:
    for series in (np.empty(0), np.arange(10.0), np.full(100, 3.0)):
        found = detect_burn_in(series)
        assert found.start == 0 and not found.significant and np.isnan(found.n_effective_after)
    with pytest.raises(ValueError, match=r"shape \(n,\) or \(n, columns\)"):
        detect_burn_in(np.zeros((4, 4, 4)))
