"""How much of the beginning of a simulation to leave out, because it is a relaxation rather than a fluctuation.

The start that leaves the most independent samples is the best one: J. D. Chodera, J. Chem. Theory Comput. 12 (2016) 1799,
10.1021/acs.jctc.5b00784. That maximum lies somewhere in a stationary series, too, so that a test says whether the drift is
real:

>>> rng = np.random.default_rng(0)
>>> series = rng.normal(size=1000) + 8.0 * np.exp(-np.arange(1000) / 50)
>>> found = detect_burn_in(series)
>>> bool(100 < found.start < 300), found.significant, found.n_effective_after > 5 * found.n_effective_before
(True, True, True)
>>> detect_burn_in(series[400:]).significant
False
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.special

from .statistics import MIN_SAMPLES, mean_and_inefficiency, normalized_weights, segment_bounds

FALSE_ALARMS = 0.03
"""Chance that a stationary series is called drifting, at most."""

_CANDIDATES = 40
_LATEST = 0.8  # of the longest segment
_WINDOWS = 6  # the first half, quarter, ... of the first half


@dataclass(frozen=True)
class BurnIn:
    """What to leave out.

    :param start: samples to leave out at the beginning of each segment
    :param n_effective_before: independent samples in the whole series, of the column that has fewest
    :param n_effective_after: the same without the first ``start`` samples
    :param significant: whether the beginning differs from the second half by more than chance
    """

    start: int
    n_effective_before: float
    n_effective_after: float
    significant: bool


def detect_burn_in(
    series: np.ndarray,
    weights: np.ndarray | None = None,
    segments: np.ndarray | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> BurnIn:
    """Find the initial drift of a series.

    Several columns share one start, which is best for the one with fewest independent samples. The drift is significant
    if, for any column, the mean over one of some windows at the beginning differs from that of the second half, in
    a Student test with the correlation of the second half (after J. Geweke, in Bayesian Statistics 4, Oxford 1992, p. 169),
    corrected for the number of tests.

    :param series: ``(n,)`` or ``(n, columns)``, in the order of time within a segment
    :param weights: ``(n,)`` statistical weights, not negative; all equal if None
    :param segments: ``(n,)`` labels of the independent series that the samples belong to; one series if None
    :param false_alarms: chance that a stationary series is called drifting, at most; less where many are looked at
    :returns: ``start`` is zero and nothing significant where there are too few samples for the test
    :raises ValueError: for another shape, or weights and segments that do not fit
    """
    x = np.asarray(series, dtype=np.float64)
    if x.ndim not in (1, 2):
        raise ValueError(f"a series must be of shape (n,) or (n, columns), got {x.shape}")
    w = normalized_weights(weights, len(x))
    bounds, order = segment_bounds(segments, len(x))
    unknown = BurnIn(0, float("nan"), float("nan"), False)
    if len(x) < 2 * MIN_SAMPLES:
        return unknown
    x, w = x.reshape(len(x), -1)[order], w[order]
    x = x[:, np.ptp(x, axis=0) > 0]
    if not x.shape[1]:
        return unknown
    starts = _candidates(int(np.diff(bounds).max()))
    counts = np.array([_n_effective(*_without(x, w, bounds, start)) for start in starts])
    best = int(counts.argmax())
    return BurnIn(int(starts[best]), float(counts[0]), float(counts[best]), _drifts(x, w, bounds, false_alarms))


def _candidates(longest: int) -> np.ndarray:
    """Close together where drifts end most often."""
    latest = max(int(_LATEST * longest), 1)
    spread = np.linspace(0, latest, _CANDIDATES)
    return np.unique(np.r_[0, np.geomspace(1, latest, _CANDIDATES), spread].astype(int))


def _without(
    x: np.ndarray, w: np.ndarray, bounds: np.ndarray, start: int, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples ``start`` to ``stop`` of each segment that has some, with their weights and bounds."""
    pieces = [slice(*piece) for piece in _pieces(bounds, start, stop)]
    sizes = [piece.stop - piece.start for piece in pieces]
    rows = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces]) if pieces else np.empty(0, int)
    return x[rows], w[rows], np.cumsum([0, *sizes])


def _pieces(bounds: np.ndarray, start: int, stop: int | None) -> Iterator[tuple[int, int]]:
    for first, last in itertools.pairwise(bounds):
        end = last if stop is None else min(first + stop, last)
        if first + start < end:
            yield int(first + start), int(end)


def _n_effective(x: np.ndarray, w: np.ndarray, bounds: np.ndarray) -> float:
    if len(x) < MIN_SAMPLES or not w.sum() > 0:
        return 0.0
    _, _, inefficiency = mean_and_inefficiency(x, w, bounds)
    # A series whose correlation time is unknown counts as one sample.
    return float(np.min(np.where(np.isfinite(inefficiency), len(x) / inefficiency, 1.0)))


def _drifts(x: np.ndarray, w: np.ndarray, bounds: np.ndarray, false_alarms: float) -> bool:
    longest = int(np.diff(bounds).max())
    late, late_w, late_bounds = _without(x, w, bounds, longest // 2)
    if len(late) < MIN_SAMPLES or not late_w.sum() > 0:
        return False
    mean, variance, inefficiency = mean_and_inefficiency(late, late_w, late_bounds)
    if not np.isfinite(inefficiency).any():
        return False
    n_late = len(late)
    # Half as many as a known correlation time would leave: short series underestimate it.
    freedom = np.maximum(n_late / inefficiency / 4, 1.0)
    windows = np.unique([longest // 2 >> k for k in range(_WINDOWS)])
    windows = windows[windows > 0]
    if not len(windows):  # each series is one sample: none has a beginning
        return False
    limit = scipy.special.stdtrit(freedom, 1.0 - false_alarms / (2 * len(windows) * x.shape[1]))
    for stop in windows:
        early, early_w, early_bounds = _without(x, w, bounds, 0, int(stop))
        if not early_w.sum() > 0:
            continue
        share = early_w / early_w.sum()
        square = variance * (_variance_of_mean(inefficiency, share, early_bounds) + inefficiency / n_late)
        with np.errstate(invalid="ignore", divide="ignore"):
            distance = np.abs(share @ early - mean) / np.sqrt(square)
        if (distance > limit).any():
            return True
    return False


def _variance_of_mean(inefficiency: np.ndarray, share: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Variance of the mean over short windows of a first-order process of unit variance, one window a segment.

    In closed form for ``L`` equal weights: ``(g - 2 rho (1 - rho^L) / (L (1 - rho)^2)) / L``.
    """
    rho = np.maximum((inefficiency - 1.0) / (inefficiency + 1.0), 0.0)
    total = np.zeros(len(rho))
    for first, last in itertools.pairwise(bounds):
        length = int(last - first)
        equal = (inefficiency - 2 * rho * (1 - rho**length) / (length * (1 - rho) ** 2)) / length
        # Unequal weights count as fewer samples, in proportion.
        part = share[first:last]
        total += np.maximum(equal * length * (part**2).sum(), equal * part.sum() ** 2)
    return total
