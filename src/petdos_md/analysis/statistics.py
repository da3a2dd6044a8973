"""Error of the mean of a correlated series, for one column or thousands at once.

Frames of a simulation remember their predecessors, so that the naive error of a mean is too small. There are two standard
remedies. They agree where the series is long enough.

>>> from scipy.signal import lfilter
>>> rng = np.random.default_rng(0)
>>> noise = rng.normal(size=4000)
>>> series = lfilter([1.0], [1.0, -0.9], noise)             # AR(1): true error 10 / sqrt(4000) = 0.158
>>> estimate = standard_error(series)
>>> bool(0.10 < estimate.error < 0.22), bool(12 < estimate.autocorrelation_time < 30)
(True, True)

The error of a series that is too short, or that never moved, is unknown: the answer is NaN, never zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.special

from .reliability import MIN_EFFECTIVE, MUCH_SLOWER, SAMPLES_PER_TIME, assess, effective_correlation, joined

ERROR_METHODS = ("autocorrelation", "blocking")
MIN_SAMPLES = 8
"""Shorter series get NaN: their own mean hides most of their fluctuation."""

_WINDOW = 5.0  # Sokal's c: the sum of an exponential decay misses exp(-5) < 1 %
_MIN_BLOCKS = 4
_CHUNK_BYTES = 32e6
_DISAGREEMENT = 0.02  # chance to see it among replicas that agree
_MIN_REPLICAS = 16  # whose scatter alone gives an error to 18 %


@dataclass(frozen=True)
class ErrorEstimate:
    """Error of a mean; every field has the shape of one sample of the series.

    :param error: standard error of the (weighted) mean; NaN if it is unknown
    :param autocorrelation_time: statistical inefficiency ``1 + 2 sum_t rho(t)`` in samples: the spacing of
        independent samples, at least 1 (twice the ``tau_int`` of Sokal)
    :param n_effective: number of independent samples with the same error
    :param reliable: False where the error is a lower bound at best: fewer samples than an upper bound of the correlation
        time asks for, or replicas that disagree and are few
    :param n_still_needed: samples still needed, in all, until the estimate can probably be called reliable; 0 where it is,
        infinite where more samples of the same replicas are no help, NaN where nothing is known
    """

    error: np.ndarray
    autocorrelation_time: np.ndarray
    n_effective: np.ndarray
    reliable: np.ndarray
    n_still_needed: np.ndarray


def standard_error(
    series: np.ndarray,
    weights: np.ndarray | None = None,
    method: str = "autocorrelation",
    segments: np.ndarray | None = None,
) -> ErrorEstimate:
    """Standard error of the mean of correlated samples.

    ``autocorrelation``: sum of the autocovariance up to Sokal's self-consistent window (five times ``tau_int``),
    corrected for the bias that comes from subtracting the sample mean (U. Wolff, Comput. Phys. Commun. 156 (2004) 143,
    10.1016/S0010-4655(03)00467-3). ``blocking``: block means of doubling length (H. Flyvbjerg, H. G. Petersen, J. Chem.
    Phys. 91 (1989) 461, 10.1063/1.457480), at the first length ``B`` with ``B**3 > 2 n tau**2`` (R. M. Lee et al., Phys.
    Rev. E 83 (2011) 066706, 10.1103/PhysRevE.83.066706).

    Both pool several independent series (``segments``) around the common mean. Where replicas disagree by more than their
    own fluctuations explain, in the F test of the analysis of variance, the scatter of their means is the error.
    Weighted means are linearised.

    Errors of series that are just about long enough are raised, by up to four fifths for those that pass by a hair, because
    those called reliable among them would be too small on the average (winner's curse). On the average of those that pass they are then
    up to some 40 % too large; where nearly all series of a process pass, less than 25 %.

    :param series: ``(n, ...)``, evenly spaced in time within a segment
    :param weights: ``(n,)`` statistical weights, not negative; all equal if None
    :param method: ``autocorrelation`` or ``blocking``
    :param segments: ``(n,)`` labels of the independent series that the samples belong to; one series if None
    :returns: NaN where there are fewer than :data:`MIN_SAMPLES` samples or the series does not vary; check
        :attr:`ErrorEstimate.reliable`
    :raises ValueError: for an unknown method, or weights and segments that do not fit
    """
    if method not in ERROR_METHODS:
        raise ValueError(f"unknown error method {method!r}, expected one of {', '.join(ERROR_METHODS)}")
    series = np.asarray(series)
    if series.ndim == 0:
        raise ValueError("a series of samples needs at least one dimension, got a single number")
    n, shape = len(series), series.shape[1:]
    w = normalized_weights(weights, n)
    bounds, order = segment_bounds(segments, n)
    columns = series.reshape(n, int(np.prod(shape, dtype=int)))
    error, tau, n_eff, missing = (np.full(columns.shape[1], np.nan) for _ in range(4))
    reliable = np.zeros(columns.shape[1], dtype=bool)
    if n >= MIN_SAMPLES:
        w = w[order]
        for part in _column_chunks(columns.shape[1], n):
            x = np.asarray(columns[:, part] if segments is None else columns[order, part], dtype=np.float64)
            fields = _of_columns(x, w, bounds, method)
            error[part], tau[part], n_eff[part], reliable[part], missing[part] = fields
    return ErrorEstimate(*(field.reshape(shape) for field in (error, tau, n_eff, reliable, missing)))


def mean_and_inefficiency(
    x: np.ndarray, w: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and statistical inefficiency of columns, as they come out of the autocorrelation.

    :param x: ``(n, columns)``, segment after segment
    :param w: ``(n,)`` weights, of any sum
    :param bounds: ``(n_segments + 1,)`` where segments begin and end
    :returns: each ``(columns,)``; NaN where an inefficiency is unknown
    """
    w = w * (len(x) / w.sum())
    mean = w @ x / len(x)
    centered = x - mean
    naive, inefficiency, _ = _by_autocorrelation(w[:, None] * centered, bounds)
    variance = w @ centered**2 / (len(x) - 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, variance, np.maximum(naive * inefficiency / variance * len(x), 1.0)


def _of_columns(x: np.ndarray, w: np.ndarray, bounds: np.ndarray, method: str) -> tuple[np.ndarray, ...]:
    """The fields of :class:`ErrorEstimate` for columns ``(n, columns)`` in the order of their segments."""
    n = len(x)
    mean = w @ x / n
    centered = x - mean
    # Rounding of a constant must not pass for a fluctuation.
    moves = np.abs(centered).max(axis=0) > 64 * np.finfo(np.float64).eps * np.abs(mean)
    variance = w @ centered**2 / (n - 1)
    # Linearisation: the error of sum(w x) / sum(w) is that of the plain mean of w (x - mean) / mean(w).
    weighted = centered if (w == 1.0).all() else centered * w[:, None]
    estimate = _by_autocorrelation if method == "autocorrelation" else _by_blocking
    naive, inefficiency, converged = estimate(weighted, bounds)
    reliability = assess(centered, weighted, w, bounds)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Behind fast noise the window closes, and the first long blocks are taken, before what is slow and small shows.
        missed = reliability.slow > MUCH_SLOWER * np.fmin(inefficiency, reliability.inefficiency)
        square = naive * np.where(missed, np.fmax(reliability.slow, inefficiency), inefficiency)
        scatter, replicas = _replica_scatter(weighted, w, bounds)
        disagree = _disagree(weighted, w, bounds, scatter, replicas)
        # A correlation that does not end within a replica leaves nothing else to go by, either.
        apart = disagree | (~converged & (replicas > 1.5))
        square = np.where(apart, scatter, square * reliability.inflation**2)
        n_eff = np.minimum(variance / square, n)
        needed = np.fmax(reliability.n_needed, n * MIN_EFFECTIVE / n_eff)
        needed = np.maximum(needed, np.where(missed, SAMPLES_PER_TIME * reliability.slow, 0.0))
        tau = square / naive
    few = missed | ~(converged & reliability.enough & (n_eff >= MIN_EFFECTIVE))
    few = np.where(disagree, replicas < _MIN_REPLICAS, few)
    missing = np.where(disagree, np.inf, np.maximum(np.ceil(needed - n), 1.0))
    known = moves & np.isfinite(square)
    return (
        np.where(known, np.sqrt(square), np.nan),
        np.where(known, np.maximum(tau, 1.0), np.nan),
        np.where(known, n_eff, np.nan),
        known & ~few,
        np.where(known & ~few, 0.0, np.where(moves, missing, np.nan)),
    )


def _replica_scatter(x: np.ndarray, w: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared error of the mean from the means of the replicas alone, and to how many of equal weight they amount.

    Without bias for means of equal variance, whatever the weights ``p`` of the replicas: the expectation of
    ``sum p^2 (m - mean)^2`` is ``sum p^2 - 2 sum p^3 + (sum p^2)^2`` times that variance, the square of the error
    ``sum p^2``.
    """
    n = len(x)
    share = np.add.reduceat(w, bounds[:-1]) / n
    second, third = (share**2).sum(), (share**3).sum()
    unbiased = 1.0 - 2.0 * third / second + second
    square = (np.add.reduceat(x, bounds[:-1], axis=0) ** 2).sum(axis=0) / float(n) ** 2 / max(unbiased, 1e-9)
    return square, 1.0 / second


def _disagree(x: np.ndarray, w: np.ndarray, bounds: np.ndarray, scatter: np.ndarray, replicas: float) -> np.ndarray:
    """Whether the means of the replicas scatter by more than the fluctuation within them explains."""
    n, n_replicas = len(x), len(bounds) - 1
    if replicas < 1.5 or n < 2 * n_replicas:
        return np.zeros(x.shape[1], dtype=bool)
    share = np.maximum(np.add.reduceat(w, bounds[:-1]), np.finfo(np.float64).tiny)
    means = np.add.reduceat(x, bounds[:-1], axis=0) / share[:, None]
    inside = x - w[:, None] * np.repeat(means, np.diff(bounds), axis=0)
    correlation = effective_correlation(inside, bounds, n_replicas)
    inefficiency = (1.0 + correlation) / (1.0 - correlation)
    square = (inside**2).sum(axis=0) / (n * (n - n_replicas)) * inefficiency
    # An error known from some independent samples has half as many degrees of freedom.
    freedom = np.maximum((n / inefficiency - n_replicas) / 2, 1.0)
    return scatter > square * scipy.special.fdtri(replicas - 1.0, freedom, 1.0 - _DISAGREEMENT)


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
    last, used = np.ones(x.shape[1]), np.ones(x.shape[1])
    length = 1
    while sum(len(b) for b in blocks) >= _MIN_BLOCKS:
        flat = np.concatenate(blocks)
        # Blocks at the ends of segments are dropped, so that the mean of the rest differs from the common mean by a
        # little; what counts is the fluctuation around the common one.
        variance = (flat**2).sum(axis=0) / (len(flat) * (len(flat) - 1)) * (len(flat) * length / n)
        last = np.maximum(variance / np.maximum(naive, tiny), 1.0)
        used = np.where(np.isnan(chosen), length, used)
        chosen = np.where(np.isnan(chosen) & (float(length) ** 3 > 2 * n * last**2), last, chosen)
        if not np.isnan(chosen).any():
            break
        blocks = [joined(b) for b in blocks]
        length *= 2
    # Blocks ran out: the longest ones do if they hold as many correlation times as the other method's window.
    converged = ~np.isnan(chosen) | (used >= _WINDOW / 2 * last)
    found = np.where(np.isnan(chosen), last, chosen)
    # Neighboring blocks are correlated still. With an exponential decay they lack (g^2 - 1) / 2 B of the inefficiency g.
    return naive, found + (found**2 - 1.0) / (2.0 * used), converged


def normalized_weights(weights: np.ndarray | None, n: int) -> np.ndarray:
    """Weights with mean one."""
    if weights is None:
        return np.ones(n)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any() or (n and w.sum() <= 0):
        raise ValueError(f"weights must be {n} finite numbers, none negative and not all zero, got shape {w.shape}")
    return w * (n / w.sum()) if n else w


def segment_bounds(segments: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
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
