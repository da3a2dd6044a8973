"""Errors of means against random processes whose error is known: their autocovariance in closed form, summed over all pairs.

What a user may do to a series without changing its information must change nothing: units, the order of replicas, the scale of weights.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import scipy.signal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petdos_md.analysis.reliability import effective_sample_size
from petdos_md.analysis.statistics import ERROR_METHODS, standard_error

HERE = settings(
    max_examples=30,
    deadline=None,
    derandomize="PETDOS_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
METHODS = st.sampled_from(ERROR_METHODS)
COLUMNS = 300


class Process:
    """Stationary, of mean zero: a sum of independent first-order ones, a damped oscillation, a moving average, or a telegraph."""

    def __init__(self, kind: str, correlation: float, share: float) -> None:
        self.kind, self.correlation, self.share = kind, correlation, share

    def covariance(self, lags: np.ndarray) -> np.ndarray:
        """In closed form."""
        r = self.correlation
        if self.kind == "two times":
            return self.share * r**lags + (1 - self.share) * (lags == 0)
        if self.kind == "oscillation":  # the real part of a first-order process that turns by 1 radian a step
            return r**lags * np.cos(lags)
        if self.kind == "moving average":
            width = 1 + int(10 * r)
            return np.maximum(1 - lags / width, 0.0)
        return r**lags  # "telegraph": jumps between two values

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``(n, COLUMNS)``"""
        r = self.correlation
        if self.kind == "two times":
            return np.sqrt(self.share) * _first_order(r, n, rng) + np.sqrt(1 - self.share) * rng.normal(
                size=(n, COLUMNS)
            )
        if self.kind == "oscillation":
            turning = np.exp(1j * np.arange(n))[:, None]
            z = _first_order(r, n, rng) + 1j * _first_order(r, n, rng)
            return np.real(turning * z)
        if self.kind == "moving average":
            width = 1 + int(10 * r)
            noise = np.cumsum(np.r_[np.zeros((1, COLUMNS)), rng.normal(size=(n + width - 1, COLUMNS))], axis=0)
            return (noise[width:] - noise[:-width]) / np.sqrt(width)
        jumps = rng.random((n, COLUMNS)) < (1 - r) / 2
        return rng.choice([-1.0, 1.0], COLUMNS) * np.where(np.cumsum(jumps, axis=0) % 2, -1.0, 1.0)


def _first_order(r: float, n: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=(n, COLUMNS))
    noise[1:] *= np.sqrt(1 - r**2)
    return scipy.signal.lfilter([1.0], [1.0, -r], noise, axis=0)


PROCESSES = st.builds(
    Process,
    st.sampled_from(["two times", "oscillation", "moving average", "telegraph"]),
    st.floats(0.0, 0.9),
    st.floats(0.3, 1.0),
)


@HERE
@given(
    process=PROCESSES,
    lengths=st.lists(st.integers(200, 700), min_size=1, max_size=5),
    weighted=st.booleans(),
    method=METHODS,
    seed=st.integers(0, 2**32),
)
def test_what_is_called_reliable_is_true(
    process: Process, lengths: list[int], weighted: bool, method: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([process.draw(n, rng) for n in lengths])
    weights = rng.uniform(0.2, 1.8, len(x)) if weighted else np.ones(len(x))
    share, square, start = weights / weights.sum(), 0.0, 0
    for n in lengths:
        p = share[start : start + n]
        lags = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        square, start = square + p @ process.covariance(lags) @ p, start + n
    found = standard_error(x, weights, method, np.repeat(np.arange(len(lengths)), lengths))
    reliable = found.reliable
    if reliable.mean() < 0.25:
        return
    error, true = found.error[reliable], np.sqrt(square)
    # Anticorrelated samples are better than independent ones; nobody claims that. Where not nearly all series pass, errors are raised.
    most = np.inf if process.kind == "oscillation" else 1.25 if reliable.mean() > 0.95 else 1.5
    # In short series, what is slow hides behind noise: benchmarks/statistics_coverage.py counts how often.
    independent = float(process.covariance(np.array(0))) / square
    least = 0.85 if independent > 45 else 0.65
    assert least < error.mean() / true < most
    covered = (np.abs(share @ x[:, reliable]) < error).mean()
    assert independent < 45 or covered > 0.58 - 3 * np.sqrt(0.25 / reliable.sum())


@HERE
@given(
    n=st.integers(8, 300),
    n_replicas=st.integers(1, 6),
    scale=st.floats(1e-12, 1e12),
    offset=st.floats(-1e3, 1e3),
    factor=st.floats(1e-9, 1e9),
    method=METHODS,
    seed=st.integers(0, 2**32),
)
def test_what_changes_nothing(
    n: int, n_replicas: int, scale: float, offset: float, factor: float, method: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).cumsum(axis=0) * rng.uniform(0.1, 1.0, 3) + rng.normal(size=(n, 3))
    weights, segments = rng.uniform(0.1, 2.0, n), rng.integers(n_replicas, size=n)
    plain = standard_error(x, weights, method, segments)
    moved = standard_error(scale * (x + offset), weights, method, segments)
    scaled = standard_error(x, factor * weights, method, segments)
    order = np.argsort(segments, kind="stable")  # replicas one after the other, under other names
    sorted_ones = standard_error(x[order], weights[order], method, segments[order] * 17 + 5)
    for other, unit in ((moved, scale), (scaled, 1.0), (sorted_ones, 1.0)):
        np.testing.assert_allclose(other.error, plain.error * unit, rtol=1e-6)
        np.testing.assert_allclose(other.n_effective, plain.n_effective, rtol=1e-6)
        np.testing.assert_array_equal(other.reliable, plain.reliable)
        np.testing.assert_allclose(other.n_still_needed, plain.n_still_needed, rtol=1e-6, atol=1.0)


@HERE
@given(
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=50),
    factor=st.floats(1e-200, 1e200),
    zeros=st.integers(0, 9),
)
def test_effective_sample_size(weights: list[float], factor: float, zeros: int) -> None:
    """Of equal weights their number, else less, never below one; neither scale nor frames of weight zero matter."""
    w = np.array(weights)
    found = float(effective_sample_size(w))
    assert found == pytest.approx(sum(weights) ** 2 / sum(x * x for x in weights), rel=1e-9)
    assert 1 - 1e-9 <= found <= len(w) + 1e-9
    assert float(effective_sample_size(np.r_[np.zeros(zeros), w * factor])) == pytest.approx(found, rel=1e-9)
    assert float(effective_sample_size(np.full(len(w), w[0]))) == pytest.approx(len(w))
