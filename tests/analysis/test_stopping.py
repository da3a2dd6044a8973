"""Stopping at a target error, on series whose true error at the stop is known in closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal

from petdos_md.analysis.statistics import standard_error
from petdos_md.analysis.stopping import FixedWidthStop
from petdos_md.base.errors import SettingError


def ar1(phi: float, n: int, columns: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(n, columns))
    noise[1:] *= np.sqrt(1 - phi**2)
    return scipy.signal.lfilter([1.0], [1.0, -phi], noise, axis=0)


def true_error(phi: float, n: np.ndarray) -> np.ndarray:
    g = (1 + phi) / (1 - phi)
    return np.sqrt((g - 2 * phi * (1 - phi**n) / (n * (1 - phi) ** 2)) / n)


def block_means(x: np.ndarray, max_blocks: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """As a running average keeps them."""
    length = 1
    while len(x) > max_blocks * length:
        length *= 2
    starts = np.arange(0, len(x), length)
    sizes = np.diff(np.r_[starts, len(x)]).astype(float)
    return np.add.reduceat(x, starts, axis=0) / sizes[:, None], sizes


def stops(x: np.ndarray, target: float, keep_all: bool) -> np.ndarray:
    """Samples at which each column stops, relative to a value of one."""
    rule, found = FixedWidthStop(target), np.zeros(x.shape[1], dtype=int)
    for n in filter(rule.due, range(len(x) + 1)):
        running = np.flatnonzero(found == 0)
        if not len(running):
            break
        history, weights = (x[:n, running], None) if keep_all else block_means(x[:n, running])
        estimate = standard_error(history, weights)
        met = [rule.met(e, 1.0, r) for e, r in zip(estimate.error, estimate.reliable, strict=True)]
        found[running[met]] = n
    assert (found > 0).all()
    return found


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("target", [0.3, 0.1])
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9, 0.97])
def test_true_error_at_the_stop(phi: float, target: float, keep_all: bool) -> None:
    if phi == 0.97 and keep_all:
        pytest.skip("the same on the compressed history, in less time")
    g, columns = (1 + phi) / (1 - phi), 100
    x = ar1(phi, int(1000 * g) + 100, columns, seed=round(100 * phi))
    found = stops(x, target, keep_all)
    errors = true_error(phi, found)
    assert np.sqrt((errors**2).mean()) <= 1.15 * target
    # What the mean has come to by then, and whether it took longer than it must: 70 independent samples make sure.
    deviations = np.array([x[:n, i].mean() for i, n in enumerate(found)])
    assert np.sqrt((deviations**2).mean()) <= 1.3 * target
    assert np.median(found) < 2 * max(g / target**2, 100 * g)


def test_looks_are_few_and_the_same_after_a_restart() -> None:
    looks = list(filter(FixedWidthStop(0.1, min_samples=32).due, range(20_001)))
    assert looks[:4] == [32, 40, 48, 56] and len(looks) < 70
    assert all(b - a >= 8 and (b <= 1.1 * a + 1 or b - a == 8) for a, b in itertools.pairwise(looks))
    assert (
        list(filter(FixedWidthStop(0.1, min_samples=32).due, range(10_000, 20_001)))
        == looks[-len(looks) :][next(i for i, n in enumerate(looks) if n >= 10_000) :]
    )


def test_what_is_not_reliable_or_not_known_does_not_stop() -> None:
    rule = FixedWidthStop(0.1)
    assert rule.met(0.1, 1.0, True) and rule.met(0.1, -1.0, True) and rule.met(0.19, 2.0, True)
    assert not rule.met(0.1, 1.0, False) and not rule.met(np.nan, 1.0, True) and not rule.met(0.2, 1.0, True)


@pytest.mark.parametrize("options", [{"target_error": 0.0}, {"min_samples": 0}, {"growth": 1.0}])
def test_bad_settings_are_named(options: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="expected a positive target error"):
        FixedWidthStop(**{"target_error": 0.1, **options})  # type: ignore[arg-type]
