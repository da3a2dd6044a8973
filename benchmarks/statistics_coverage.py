"""How true sampling errors are: reported against known errors of AR(1) series, by length and correlation.

    python benchmarks/statistics_coverage.py [--columns 2000] [--figure docs/images/sampling-coverage.png]

Prints tables of what is called reliable: reported error over true error, percentage of series whose error covers the
deviation of their mean (68 are due), percentage called reliable. Then what `FixedWidthStop` makes of simulations that are
watched as they run, on the compressed history that a running average keeps. Minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal
from matplotlib.figure import Figure

from petdos_md.analysis.statistics import ERROR_METHODS, standard_error
from petdos_md.analysis.stopping import FixedWidthStop

CORRELATIONS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.97)
LENGTHS = (64, 100, 128, 200, 256, 400, 512, 800, 1024, 1600, 3200, 6400)
SHARE = 0.4
"""Of the variance, where a slow process hides behind noise."""
LEAST_SHARE = 0.02
"""Means over fewer series are left out of the figure."""


class Cell(NamedTuple):
    """What was called reliable of one correlation and length; NaN if nothing was."""

    ratio: float
    coverage: float
    share: float


def main() -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=2000, help="series of each correlation and length")
    parser.add_argument("--figure", type=Path, help="where to draw, if anywhere")
    args = parser.parse_args()
    tables: dict[str, dict[tuple[float, int], Cell]] = {}
    for kind, make in KINDS.items():
        for method in ERROR_METHODS:
            cells = {(c, n): measure(make, c, n, args.columns, method) for c in CORRELATIONS for n in LENGTHS}
            print_table(f"{method}, {kind}: reported / true error, coverage %, called reliable %", cells)
            if kind == "one series":
                tables[method] = cells
    for method in ERROR_METHODS:
        hidden = {(c, n): measure(behind_noise, c, n, args.columns, method) for c in CORRELATIONS[1:] for n in LENGTHS}
        print_table(
            f"{method}, {100 * SHARE:.0f} % behind noise: reported / true error, coverage %, called reliable %", hidden
        )
    print_stopping(min(args.columns, 400))
    if args.figure is not None:
        draw(tables).savefig(args.figure, dpi=150)


class Ensemble(NamedTuple):
    """Many series of mean zero, and the true error of their means.

    ``x``: ``(n, columns)``; ``weights`` and ``segments``: as :func:`standard_error` takes them
    """

    x: np.ndarray
    weights: np.ndarray | None
    segments: np.ndarray | None
    error: float


def one_series(correlation: float, n: int, columns: int) -> Ensemble:
    """A single simulation."""
    return Ensemble(ar1(correlation, n, columns, seed=n), None, None, exact_error(correlation, n))


def weighted(correlation: float, n: int, columns: int) -> Ensemble:
    """Weights between 0.2 and 1.8 that know nothing of the series."""
    weights = np.random.default_rng(n).uniform(0.2, 1.8, size=n)
    share = weights / weights.sum()
    # Sum of p_i rho^|i - j| p_j, by a filter that runs forwards.
    before = scipy.signal.lfilter([0.0, correlation], [1.0, -correlation], share)
    return Ensemble(
        ar1(correlation, n, columns, seed=n), weights, None, float(np.sqrt(share @ share + 2 * share @ before))
    )


def replicas(correlation: float, n: int, columns: int) -> Ensemble:
    """Four simulations of the same system."""
    x = np.concatenate([ar1(correlation, n // 4, columns, seed=10 * n + k) for k in range(4)])
    return Ensemble(x, None, np.repeat(np.arange(4), n // 4), exact_error(correlation, n // 4) / 2)


KINDS: dict[str, Callable[[float, int, int], Ensemble]] = {
    "one series": one_series,
    "weighted": weighted,
    "four replicas": replicas,
}


def behind_noise(correlation: float, n: int, columns: int) -> Ensemble:
    """A slow process that makes up a part of the variance, the rest white noise: the hardest case, as the noise hides the correlation."""
    noise = np.random.default_rng([n, 1]).normal(size=(n, columns))
    x = np.sqrt(SHARE) * ar1(correlation, n, columns, seed=n) + np.sqrt(1 - SHARE) * noise
    return Ensemble(x, None, None, float(np.sqrt(SHARE * exact_error(correlation, n) ** 2 + (1 - SHARE) / n)))


def ar1(correlation: float, n: int, columns: int, seed: int) -> np.ndarray:
    """Stationary first-order series of unit variance, ``(n, columns)``."""
    noise = np.random.default_rng([seed, round(1000 * correlation)]).normal(size=(n, columns))
    noise[1:] *= np.sqrt(1 - correlation**2)
    return scipy.signal.lfilter([1.0], [1.0, -correlation], noise, axis=0)


def exact_error(correlation: float, n: int) -> float:
    """Standard error of the mean of ``n`` samples, in closed form."""
    g = (1 + correlation) / (1 - correlation)
    return float(np.sqrt((g - 2 * correlation * (1 - correlation**n) / (n * (1 - correlation) ** 2)) / n))


def measure(make: Callable[[float, int, int], Ensemble], correlation: float, n: int, columns: int, method: str) -> Cell:
    """Of the series that are called reliable."""
    series = make(correlation, n, columns)
    estimate = standard_error(series.x, series.weights, method, series.segments)
    chosen = estimate.reliable
    if not chosen.any():
        return Cell(np.nan, np.nan, 0.0)
    error = estimate.error[chosen]
    deviation = np.abs(np.average(series.x[:, chosen], axis=0, weights=series.weights))
    return Cell(error.mean() / series.error, 100 * float((deviation < error).mean()), 100 * float(chosen.mean()))


def print_table(title: str, cells: dict[tuple[float, int], Cell]) -> None:
    """One row a correlation, one column a length."""
    print(f"\n{title}\n{'':>6}" + "".join(f"{n:>16}" for n in LENGTHS))
    for correlation in sorted({c for c, _ in cells}):
        row = [cells[correlation, n] for n in LENGTHS]
        texts = ["-" if cell.share == 0 else f"{cell.ratio:.2f} {cell.coverage:3.0f} {cell.share:5.1f}" for cell in row]
        print(f"{correlation:6.2f}" + "".join(f"{text:>16}" for text in texts), flush=True)


def print_stopping(columns: int) -> None:
    """True error, and deviation of the mean, where a simulation stops, both relative to the target."""
    print("\nstopping at a target error (standard deviations of the series)")
    print(f"{'rho':>6} {'target':>7} {'true error':>11} {'rms deviation':>14} {'samples':>8} {'for the target':>15}")
    for target in (0.3, 0.1, 0.05):
        for correlation in CORRELATIONS:
            stops, means = stopped(correlation, target, columns)
            errors = np.array([exact_error(correlation, int(n)) for n in stops])
            ideal = (1 + correlation) / (1 - correlation) / target**2
            print(
                f"{correlation:6.2f} {target:7.2f} {errors.mean() / target:11.2f} {np.sqrt((means**2).mean()) / target:14.2f} "
                f"{np.median(stops):8.0f} {ideal:15.0f}",
                flush=True,
            )


def stopped(correlation: float, target: float, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples at the stop of each series, and its mean then.

    The value that the error is relative to is one standard deviation, so that it is known.
    """
    rule = FixedWidthStop(target)
    inefficiency = (1 + correlation) / (1 - correlation)
    n_most = int(max(6 * inefficiency / target**2, 1000 * inefficiency, 1000))
    x = ar1(correlation, n_most, columns, seed=n_most)
    stops, means = np.zeros(columns, dtype=int), np.zeros(columns)
    for n in filter(rule.due, range(n_most + 1)):
        running = np.flatnonzero(stops == 0)
        if not len(running):
            break
        history, weights = compressed(x[:n, running])
        estimate = standard_error(history, weights)
        met = [rule.met(float(e), 1.0, bool(r)) for e, r in zip(estimate.error, estimate.reliable, strict=True)]
        ended = running[np.array(met)]
        stops[ended], means[ended] = n, x[:n, ended].mean(axis=0)
    if (stops == 0).any():
        raise RuntimeError(f"{(stops == 0).sum()} series of {n_most} samples never stopped")
    return stops, means


def compressed(x: np.ndarray, max_blocks: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Block means and their weights, as a running average keeps them: blocks double in length when there are too many."""
    length = 1
    while len(x) > max_blocks * length:
        length *= 2
    starts = np.arange(0, len(x), length)
    sizes = np.diff(np.r_[starts, len(x)]).astype(float)
    return np.add.reduceat(x, starts, axis=0) / sizes[:, None], sizes


def draw(tables: dict[str, dict[tuple[float, int], Cell]]) -> Figure:
    """Ratio and coverage against the length, a line for each correlation, a column for each method."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, len(tables), sharex=True, sharey="row", squeeze=False)
    styles = zip(CORRELATIONS, "osD^vX", ("-", "--", "-.", ":", "-", "--"), np.linspace(0, 0.6, 6), strict=True)
    looks = {c: {"marker": m, "ls": line, "color": str(grey), "ms": 5} for c, m, line, grey in styles}
    for column, (method, cells) in enumerate(tables.items()):
        for row, (field, low, high, due) in enumerate((("ratio", 0.85, 1.25, 1.0), ("coverage", 58, 100, 68.3))):
            ax = axes[row, column]
            ax.axhspan(low, high, color="0.93", zorder=0)
            ax.axhline(due, color="0.5", lw=0.8)
            for correlation, look in looks.items():
                shown = [n for n in LENGTHS if cells[correlation, n].share >= 100 * LEAST_SHARE]
                values = [getattr(cells[correlation, n], field) for n in shown]
                ax.plot(shown, values, label=f"{correlation:g}", **look)
        axes[0, column].set(title=method, xscale="log", ylim=(0.6, 1.4))
        axes[1, column].set(xlabel="samples", ylim=(40, 90))
    axes[0, 0].set_ylabel("reported / true error")
    axes[1, 0].set_ylabel("covered by ± one error (%)")
    axes[0, -1].legend(title="correlation of\nneighbors", fontsize=8, ncols=2)
    return figure


if __name__ == "__main__":
    main()
