"""Error of the mean of a correlated series, for one column or thousands at once.

Frames of a simulation remember their predecessors, so that the naive error of a mean is too small. Two standard
remedies, which agree where the series is long enough:

>>> rng = np.random.default_rng(0)
>>> noise = rng.normal(size=4000)
>>> series = scipy.signal.lfilter([1.0], [1.0, -0.9], noise)             # AR(1): true error 10 / sqrt(4000) = 0.158
>>> estimate = standard_error(series)
>>> bool(0.10 < estimate.error < 0.22), bool(12 < estimate.autocorrelation_time < 30)
(True, True)

A series that is too short, or that never moved, has no error that could be told: the answer is NaN, never zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal

METHODS = ("autocorrelation", "blocking")
MIN_SAMPLES = 8
"""Shorter series get NaN: their own mean hides most of their fluctuation."""
MIN_EFFECTIVE = 10.0
"""With fewer independent samples an error estimate is itself uncertain by a quarter or more, and biased low."""

_WINDOW = 5.0  # Sokal's c: the sum of an exponential decay misses exp(-5) < 1 %
_MIN_BLOCKS = 4
_CHUNK_BYTES = 32e6


@dataclass(frozen=True)
class ErrorEstimate:
    """Error of a mean; every field has the shape of one sample of the series.

    :param error: standard error of the (weighted) mean; NaN if it cannot be told
    :param autocorrelation_time: statistical inefficiency ``1 + 2 sum_t rho(t)`` in samples: the spacing of
        independent samples, at least 1 (twice the ``tau_int`` of Sokal)
    :param n_effective: number of independent samples with the same error
    :param reliable: False where the error is a lower bound at best: fewer than :data:`MIN_EFFECTIVE` independent
        samples, or blocks that ran out before they were long enough
    """

    error: np.ndarray
    autocorrelation_time: np.ndarray
    n_effective: np.ndarray
    reliable: np.ndarray


def standard_error(
    series: np.ndarray,
    weights: np.ndarray | None = None,
    method: str = "autocorrelation",
    segments: np.ndarray | None = None,
) -> ErrorEstimate:
    """Standard error of the mean of correlated samples.

    ``autocorrelation``: sum of the autocovariance up to Sokal's self-consistent window (five times ``tau_int``),
    corrected for the bias that comes from subtracting the sample mean (U. Wolff, Comput. Phys. Commun. 156 (2004) 143).
    ``blocking``: block means of doubling length (H. Flyvbjerg, H. G. Petersen, J. Chem. Phys. 91 (1989) 461), at the
    first length ``B`` with ``B**3 > 2 n tau**2`` (R. M. Lee et al., Phys. Rev. E 83 (2011) 066706).

    Both pool several independent series (``segments``) around the common mean: replicas that disagree with each other
    raise the error, instead of each vouching for itself. Weighted means are linearised.

    :param series: ``(n, ...)``, evenly spaced in time within a segment
    :param weights: ``(n,)`` statistical weights, not negative; all equal if None
    :param method: ``autocorrelation`` or ``blocking``
    :param segments: ``(n,)`` labels of the independent series that the samples belong to; one series if None
    :returns: NaN where there are fewer than :data:`MIN_SAMPLES` samples or the series does not vary; check
        :attr:`ErrorEstimate.reliable`
    :raises ValueError: for an unknown method, or weights and segments that do not fit
    """
    if method not in METHODS:
        raise ValueError(f"unknown error method {method!r}, expected one of {', '.join(METHODS)}")
    series = np.asarray(series)
    if series.ndim == 0:
        raise ValueError("a series of samples needs at least one dimension, got a single number")
    n, shape = len(series), series.shape[1:]
    w = _normalized_weights(weights, n)
    bounds, order = _segment_bounds(segments, n)
    columns = series.reshape(n, int(np.prod(shape, dtype=int)))
    error, tau, n_eff = (np.full(columns.shape[1], np.nan) for _ in range(3))
    converged = np.zeros(columns.shape[1], dtype=bool)
    if n >= MIN_SAMPLES:
        estimate = _by_autocorrelation if method == "autocorrelation" else _by_blocking
        for part in _column_chunks(columns.shape[1], n):
            x = np.asarray(columns[:, part], dtype=np.float64)
            mean = w @ x / n
            centered = x - mean
            # Rounding of a constant must not pass for a fluctuation.
            moves = np.abs(centered).max(axis=0) > 64 * np.finfo(np.float64).eps * np.abs(mean)
            variance = np.where(moves, w @ centered**2 / (n - 1), np.nan)
            # Linearisation: the error of sum(w x) / sum(w) is that of the plain mean of w (x - mean) / mean(w).
            naive, inefficiency, converged[part] = estimate((w[:, None] * centered)[order], bounds)
            with np.errstate(invalid="ignore", divide="ignore"):
                error[part] = np.where(moves, np.sqrt(naive * inefficiency), np.nan)
                tau[part] = np.where(moves, inefficiency, np.nan)
                n_eff[part] = np.minimum(variance / error[part] ** 2, n)
    reliable = converged & (np.nan_to_num(n_eff, nan=0.0) >= MIN_EFFECTIVE)
    return ErrorEstimate(error.reshape(shape), tau.reshape(shape), n_eff.reshape(shape), reliable.reshape(shape))


def _by_autocorrelation(x: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Naive variance of the mean of centered columns, statistical inefficiency, and whether the latter converged."""
    n = len(x)
    lengths = np.diff(bounds)
    size = scipy.fft.next_fast_len(2 * int(lengths.max()), real=True)
    power = np.zeros((size // 2 + 1, x.shape[1]))
    for start, stop in itertools.pairwise(bounds):
        spectrum = scipy.fft.rfft(x[start:stop], size, axis=0)
        power += spectrum.real**2 + spectrum.imag**2
    # Divided by n, not by the number of pairs: lag t then carries the factor 1 - t/n of the variance of a mean.
    cov = scipy.fft.irfft(power, size, axis=0)[: lengths.max()] / n
    tiny = np.finfo(np.float64).tiny
    tau = 2 * np.cumsum(cov / np.maximum(cov[0], tiny), axis=0) - 1
    lag = np.arange(len(tau))[:, None]
    closed = 2 * lag >= _WINDOW * np.maximum(tau, 1.0)
    window = np.where(closed.any(axis=0), closed.argmax(axis=0), len(tau) - 1)
    columns = np.arange(x.shape[1])
    # Subtracting the sample mean lowers every covariance by the variance of the mean, the sought number itself. Pairs
    # exist within segments only, hence the sum over them.
    pairs = lengths.sum() + 2 * sum(
        np.where(window < length, window * length - window * (window + 1) / 2, length * (length - 1) / 2)
        for length in lengths.astype(np.float64)
    )
    shrink = 1.0 - pairs / float(n) ** 2
    # The window cannot take in nearly all pairs: then the series is one correlation time long and proves nothing.
    good = shrink > 0.25
    inefficiency = np.where(good, tau[window, columns] / np.where(good, shrink, 1.0), np.nan)
    naive = cov[0] / n
    # Below 1 the series would be better than independent samples: true of vibrations, but not provable from one window.
    return naive, np.where(good, np.maximum(inefficiency, 1.0), np.nan), good


def _by_blocking(x: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Naive variance of the mean of centered columns, statistical inefficiency, and whether the latter converged."""
    n = len(x)
    blocks = [x[start:stop] for start, stop in itertools.pairwise(bounds)]
    naive = (x**2).sum(axis=0) / (n * (n - 1))
    tiny = np.finfo(np.float64).tiny
    chosen = np.full(x.shape[1], np.nan)
    last = np.ones(x.shape[1])
    length = 1
    while sum(len(b) for b in blocks) >= _MIN_BLOCKS:
        flat = np.concatenate(blocks)
        # Blocks at the ends of segments are dropped, so that the mean of the rest differs from the common mean by a
        # little; what counts is the fluctuation around the common one.
        variance = (flat**2).sum(axis=0) / (len(flat) * (len(flat) - 1)) * (len(flat) * length / n)
        last = np.maximum(variance / np.maximum(naive, tiny), 1.0)
        chosen = np.where(np.isnan(chosen) & (float(length) ** 3 > 2 * n * last**2), last, chosen)
        if not np.isnan(chosen).any():
            break
        blocks = [_pairs(b) for b in blocks]
        length *= 2
    # Not converged at the longest blocks: the value found there is a lower bound.
    return naive, np.where(np.isnan(chosen), last, chosen), ~np.isnan(chosen)


def _pairs(x: np.ndarray) -> np.ndarray:
    half = len(x) // 2
    return 0.5 * (x[: 2 * half : 2] + x[1 : 2 * half : 2])


def _normalized_weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    """Weights with mean one."""
    if weights is None:
        return np.ones(n)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or (n and w.sum() <= 0):
        raise ValueError(f"weights must be {n} finite numbers, none negative and not all zero, got shape {w.shape}")
    return w * (n / w.sum()) if n else w


def _segment_bounds(segments: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the segments after a stable sort by label, and that order."""
    if segments is None:
        return np.array([0, n]), np.arange(n)
    labels = np.asarray(segments)
    if labels.shape != (n,):
        raise ValueError(f"segments must label each of the {n} samples, got shape {labels.shape}")
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.r_[True, labels[order][1:] != labels[order][:-1]]) if n else np.array([0])
    return np.r_[starts, n], order


def _column_chunks(n_columns: int, n: int) -> Iterator[slice]:
    step = max(1, int(_CHUNK_BYTES / (8 * 4 * max(n, 1))))
    for start in range(0, n_columns, step):
        yield slice(start, min(start + step, n_columns))
