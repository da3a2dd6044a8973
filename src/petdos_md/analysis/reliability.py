"""How reliable the error of a mean is: a bound of the correlation time that does not come from the error itself.

Estimates of a correlation time scatter, and a series whose time comes out too short looks longer than it is. To call those
reliable whose estimate is small picks the underestimates. Three things keep that in bounds:

- The test asks for the number of samples that an *upper* bound of the correlation time needs, and the time comes from an
  autoregressive fit, which scatters less than a sum of autocorrelations (G. Schwarz, Ann. Stat. 6 (1978) 461,
  10.1214/aos/1176344136, for the order of the fit).
- What is slow and small hides behind fast noise: an order chosen by lags one by one leaves out many small correlations whose sum is not
  small. Where it is significant, the time is that of a slow process behind noise. Lag-one correlations of long block means look for
  what is slower still.
- A series that passes by a hair is likelier an underestimate than one that passes by far. Errors near the threshold are
  raised, as estimates that were selected for being significant are corrected (S. Zöllner, J. K. Pritchard, Am. J. Hum.
  Genet. 80 (2007) 605, 10.1086/512821). The raise, fitted to series of first order of all lengths and correlations that
  have at least one chance in a hundred to pass, vanishes exponentially with the distance from the threshold; below it,
  where nothing is called reliable, nothing is raised.

>>> noise = np.random.default_rng(0).normal(size=(2000, 1))
>>> found = [assess(x, x, np.ones(len(x)), np.array([0, len(x)])) for x in (noise, np.cumsum(noise, axis=0))]
>>> [bool(f.enough[0]) for f in found]            # white noise, and a random walk
[True, False]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

SAMPLES_PER_TIME = 55.0
"""Samples wanted for each unit of statistical inefficiency beyond one, at the upper bound of the latter; 110 integrated
correlation times of Sokal's. The scatter of an error is 1 / sqrt(n / inefficiency) for the best estimator, here 13 %."""
SAMPLES_AT_LEAST = 20.0
"""Samples wanted besides."""
SAMPLES_EVER = 62.0
"""Fewer are never enough, whatever they look like: a correlated series that looks like noise by chance, one in a hundred, has an
error that is too small by more than a third."""
MIN_EFFECTIVE = 20.0
"""Independent samples wanted by the cruder checks, those of the method itself and of block means."""

MUCH_SLOWER = 2.5
"""How many times that of long blocks may exceed other estimates of the inefficiency; more is seldom chance, and mostly
what they missed behind fast noise."""

_BOUND = 1.0  # standard deviations from the estimate to its upper bound
_RAISE = 8.0  # standard deviations that the correlation is raised by at the threshold
_DECAY = 2.0  # of the raise, for each standard deviation from the threshold
_MAX_INFLATION = 1.8
_ORDER = 6
_PENALTY = 2.0  # times Schwarz's: a higher order by accident hides correlation, and real oscillations are plain to see
_FEWEST_LAGS = 4  # that tell a decay from noise
_SIGNIFICANT = 2.0  # standard deviations of the sum of the autocorrelations that a fit may leave out
_MIN_BLOCKS = 32
_MANY_BLOCKS = 128  # shorter blocks may be smooth, so that neighbors say nothing of what is slow


@dataclass(frozen=True)
class Reliability:
    """How reliable the error of each column is; every field is of shape ``(columns,)``.

    :param enough: whether there are enough samples for the bound of the correlation time
    :param inflation: factor by which to raise the error
    :param n_needed: samples with which the series would probably be long enough
    :param inefficiency: statistical inefficiency of the autoregressive fit
    :param slow: statistical inefficiency that long block means point to; it scatters by half of itself
    """

    enough: np.ndarray
    inflation: np.ndarray
    n_needed: np.ndarray
    inefficiency: np.ndarray
    slow: np.ndarray


def assess(x: np.ndarray, weighted: np.ndarray, weights: np.ndarray, bounds: np.ndarray) -> Reliability:
    """Judge centered columns.

    :param x: ``(n, columns)``, series after series
    :param weighted: the same times their weights
    :param weights: ``(n,)``, their mean one
    :param bounds: ``(n_series + 1,)`` where they begin and end
    """
    n = len(x)
    n_weighted = float(effective_sample_size(weights))
    fitted, correlation = _correlations(weighted, bounds)
    if n_weighted < 0.99 * n:
        # Weights that fluctuate fast are noise on a slow series, and hide it.
        fitted, correlation = np.maximum((fitted, correlation), _correlations(x, bounds))
    spread = np.sqrt((1.0 - correlation**2) / n_weighted)
    margin = (_allowed(n_weighted) - correlation) / spread - _BOUND
    near = np.where(margin >= 0, np.exp(-_DECAY * np.maximum(margin, 0.0)), 0.0)
    higher = np.minimum(correlation + _RAISE * near * spread, 1.0 - 1e-9)
    # The variance of innovations is well known, so that the error goes as 1 / (1 - correlation).
    inflation = np.minimum((1.0 - correlation) / (1.0 - higher), _MAX_INFLATION)
    slow = _slow_inefficiency(weighted, bounds)
    inefficiency = (1.0 + fitted) / (1.0 - fitted)
    needed = np.maximum(_needed(correlation), MIN_EFFECTIVE * slow) * (n / n_weighted)
    return Reliability((margin >= 0) & (MIN_EFFECTIVE * slow <= n_weighted), inflation, needed, inefficiency, slow)


def effective_sample_size(weights: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2: equally weighted samples with the same statistical error, if samples are independent.

    L. Kish, Survey Sampling (Wiley, 1965).

    :param weights: ``(..., n)``, not negative and not all zero, of any sum
    :returns: ``(...)``
    """
    weights = np.asarray(weights, dtype=np.float64)
    # Squares of weights below 1e-154 vanish.
    weights = weights / weights.max(axis=-1, keepdims=True)
    return np.asarray(weights.sum(axis=-1) ** 2 / (weights**2).sum(axis=-1))


def joined(x: np.ndarray) -> np.ndarray:
    """Means of neighbors, half as many."""
    half = len(x) // 2
    return 0.5 * (x[: 2 * half : 2] + x[1 : 2 * half : 2])


def _allowed(n: float) -> float:
    """Largest upper bound of the lag-one correlation that ``n`` samples are enough for; below zero if none."""
    inefficiency = 1.0 + (n - SAMPLES_AT_LEAST) / SAMPLES_PER_TIME
    return (inefficiency - 1.0) / (inefficiency + 1.0) if n >= SAMPLES_EVER else -1.0


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of inefficiencies, and of the samples that they need."""
    times = np.linspace(0.0, np.log(1e8), 400)
    correlations = np.tanh(times / 2)
    low, high = np.full(len(times), 8.0), 4 * SAMPLES_PER_TIME * np.exp(times)
    for _ in range(60):
        middle = np.sqrt(low * high)
        bound = correlations + _BOUND * np.sqrt((1 - correlations**2) / middle)
        enough = bound <= np.array([_allowed(n) for n in middle])
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return times, np.log(high)


def _needed(correlation: np.ndarray) -> np.ndarray:
    times, samples = _table()
    return np.exp(np.interp(2 * np.arctanh(correlation), times, samples))


def effective_correlation(x: np.ndarray, bounds: np.ndarray, n_means: int = 1) -> np.ndarray:
    """Lag-one correlation of the first-order process with the inefficiency of the autoregressive fit, not below zero.

    :param n_means: number of means that were subtracted from ``x``: one, or one of each series
    """
    return _correlations(x, bounds, n_means)[0]


def _correlations(x: np.ndarray, bounds: np.ndarray, n_means: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`effective_correlation`, of the fit and with what is slow behind noise."""
    n = len(x)
    lengths = np.diff(bounds)
    # Lags that half of the samples have a partner at.
    order = next((t - 1 for t in range(1, _ORDER + 1) if 2 * np.maximum(lengths - t, 0).sum() < n), _ORDER)
    square = np.einsum("ij,ij->j", x, x) / n
    square = np.maximum(square, np.finfo(np.float64).tiny)
    rho = np.zeros((order + 1, x.shape[1]))
    rho[0] = 1.0
    for t in range(1, order + 1):
        rho[t] = _lagged(x, bounds, t) / np.maximum(lengths - t, 0).sum() / square
    found = np.array(_inefficiencies(rho, n))
    correlation = (found - 1.0) / (found + 1.0)
    # M. G. Kendall, Biometrika 41 (1954) 403 (10.1093/biomet/41.3-4.403): the mean is unknown, too.
    fitted, whole = np.clip(correlation + (1.0 + 3.0 * correlation) * n_means / n, 0.0, 1.0 - 1e-6)
    return fitted, whole


def _inefficiencies(rho: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Of an autoregressive fit (Levinson's recursion over orders, the best by Schwarz's criterion), and with what it leaves out if that is slow.

    :param rho: ``(order + 1, columns)`` autocorrelations
    """
    n_lags = len(rho) - 1
    best = np.full(rho.shape[1], np.inf)
    inefficiency = np.ones(rho.shape[1])
    residual = np.ones(rho.shape[1])
    coefficients = np.empty((0, rho.shape[1]))
    chosen, chosen_order = np.zeros((n_lags, rho.shape[1])), np.zeros(rho.shape[1], dtype=int)
    for order in range(1, n_lags + 1):
        predicted = (coefficients * rho[order - 1 : 0 : -1]).sum(axis=0)
        reflection = np.clip((rho[order] - predicted) / residual, -0.9999, 0.9999)
        coefficients = np.concatenate([coefficients - reflection * coefficients[::-1], reflection[None]])
        residual = residual * (1.0 - reflection**2)
        criterion = n * np.log(residual) + _PENALTY * order * np.log(n)
        better = criterion < best
        best = np.where(better, criterion, best)
        found = residual / np.maximum(1.0 - coefficients.sum(axis=0), 1e-4) ** 2
        inefficiency = np.where(better, found, inefficiency)
        chosen[:order] = np.where(better, coefficients, chosen[:order])
        chosen_order = np.where(better, order, chosen_order)
    if n_lags < _FEWEST_LAGS:
        return inefficiency, inefficiency
    missed = (rho - _continued(rho, chosen, chosen_order))[1:].sum(axis=0)
    significant = missed > _SIGNIFICANT * np.sqrt(n_lags * np.maximum(inefficiency, 1.0) / n)
    return inefficiency, np.where(significant, np.fmax(inefficiency, _inefficiency_behind_noise(rho, n)), inefficiency)


def _continued(rho: np.ndarray, coefficients: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Autocorrelations of a fit: those of the data up to its order, then its own; ``(n_lags + 1, columns)``."""
    fitted = np.ones_like(rho)
    for t in range(1, len(rho)):
        own = sum(c * fitted[abs(t - k)] for k, c in enumerate(coefficients, 1))
        fitted[t] = np.where(t <= order, rho[t], own)
    return fitted


def _inefficiency_behind_noise(rho: np.ndarray, n: int) -> np.ndarray:
    """Of a first-order process behind white noise, whose autocorrelations are ``s r**t``; NaN where they are not.

    ``r`` is the ratio of their sums over lags 2 to k and 1 to k - 1, here with one standard deviation added, ``s`` follows from the sum.
    """
    n_lags = len(rho) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        first, then = rho[1:-1].sum(axis=0), rho[2:].sum(axis=0)
        # What differs between both sums is a lag at each end, of variance 1 / n.
        r = np.clip(then / first + np.sqrt(2.0 * 2.0 / n) / np.abs(first), 0.0, 0.98)
        share = np.clip(rho[1:].sum(axis=0) * (1.0 - r) / (r * (1.0 - r**n_lags)), 0.0, 1.0)
        return 1.0 + 2.0 * share * r / (1.0 - r)


def _slow_inefficiency(x: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Largest inefficiency that long block means point to, their own correlations included."""
    n = len(x)
    naive = np.maximum(np.einsum("ij,ij->j", x, x) / n, np.finfo(np.float64).tiny)
    largest, length = np.ones(x.shape[1]), 1
    while len(x) >= _MIN_BLOCKS:
        pairs = np.maximum(np.diff(bounds) - 1, 0).sum()
        if pairs < _MIN_BLOCKS // 2:
            break
        if len(x) < _MANY_BLOCKS:
            square = np.maximum(np.einsum("ij,ij->j", x, x) / len(x), np.finfo(np.float64).tiny)
            next_one = np.clip(_lagged(x, bounds, 1) / pairs / square, 0.0, 0.999)
            largest = np.maximum(largest, length * square / naive * (1.0 + next_one) / (1.0 - next_one))
        parts = [joined(x[a:b]) for a, b in itertools.pairwise(bounds)]
        x, bounds = np.concatenate(parts), np.cumsum([0, *map(len, parts)])
        length *= 2
    return largest


def _lagged(x: np.ndarray, bounds: np.ndarray, lag: int) -> np.ndarray:
    """Sum of products of samples ``lag`` apart within each series."""
    total = np.einsum("ij,ij->j", x[:-lag], x[lag:])
    crossing = np.fromiter(_crossing(bounds, lag), dtype=int)
    return total - np.einsum("ij,ij->j", x[crossing], x[crossing + lag]) if len(crossing) else total


def _crossing(bounds: np.ndarray, lag: int) -> Iterator[int]:
    """Samples whose partner ``lag`` later is of another series."""
    n = int(bounds[-1])
    previous = 0
    for border in bounds[1:-1]:
        yield from range(max(int(border) - lag, previous), min(int(border), n - lag))
        previous = int(border)
