"""Errors of means of AR(1) series, whose variance of the mean is known in closed form."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.signal

from petdos_md.analysis.reliability import assess, effective_correlation
from petdos_md.analysis.statistics import MIN_SAMPLES, mean_and_inefficiency, standard_error


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


def test_windowed_autocorrelation_is_that_of_all_pairs() -> None:
    """Two replicas, one of them shorter than the window: the sums pair by pair, and how many pairs lie within the window."""
    for lengths in ([40, 25], [60, 4]):
        bounds = np.cumsum([0, *lengths])
        x = np.concatenate([ar1(0.4, n, 1, seed)[:, 0] for seed, n in enumerate(lengths)])
        n, c = len(x), x - x.mean()
        owner = np.repeat([0, 1], lengths)
        i, j = np.meshgrid(np.arange(n), np.arange(n))
        same = owner[i] == owner[j]
        lag = np.abs(i - j)
        cov = [(c[i] * c[j])[same & (lag == t)].sum() / (2 if t else 1) / n for t in range(max(lengths))]
        tau = 2 * np.cumsum(cov) / cov[0] - 1
        window = next(t for t in range(len(tau)) if 2 * t >= 5 * max(tau[t], 1))
        kept = 1 - (same & (lag <= window)).sum() / n**2
        found = mean_and_inefficiency(x[:, None], np.ones(n), bounds)
        assert found[0][0] == pytest.approx(x.mean()) and found[1][0] == pytest.approx(x.var(ddof=1))
        assert found[2][0] == pytest.approx(tau[window] / kept * (n - 1) / n, rel=1e-10)


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


LENGTHS = (64, 80, 100, 128, 200, 256, 400, 512, 800, 1024)


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
@pytest.mark.parametrize("kind", ["one series", "weighted", "four replicas"])
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9, 0.97])
def test_errors_called_reliable_are_true(method: str, kind: str, phi: float) -> None:
    """The selection must not prefer underestimates."""
    columns, ever = 2000, False
    for n in LENGTHS:
        weights, segments, error = None, None, exact_error(phi, n)
        if kind == "four replicas":
            x = np.concatenate([ar1(phi, n // 4, columns, seed=10 * n + k) for k in range(4)])
            segments, error = np.repeat(np.arange(4), n // 4), exact_error(phi, n // 4) / 2
        else:
            x = ar1(phi, n, columns, seed=n)
        if kind == "weighted":
            weights = np.random.default_rng(n).uniform(0.2, 1.8, size=n)
            share, t = weights / weights.sum(), np.arange(n)
            error = float(np.sqrt(share @ phi ** np.abs(t[:, None] - t) @ share))
        estimate = standard_error(x, weights, method, segments)
        chosen = estimate.reliable
        if n < 20 * (1 + phi) / (1 - phi):
            assert chosen.mean() < 0.02
        # Of fewer than 2 % the mean is not known well enough.
        if chosen.mean() < 0.02:
            continue
        ever = ever or chosen.mean() > 0.5
        ratio, scatter = (
            estimate.error[chosen].mean() / error,
            estimate.error[chosen].std() / error / np.sqrt(chosen.sum()),
        )
        assert 0.85 - 1.5 * scatter <= ratio <= 1.25 + 1.5 * scatter, n
        deviations = np.abs(np.average(x[:, chosen], axis=0, weights=weights))
        assert (deviations < estimate.error[chosen]).mean() >= 0.58 - 1.5 * np.sqrt(0.24 / chosen.sum()), n
    assert ever or phi > 0.8


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
def test_uncorrelated_series_are_mostly_reliable_from_64_samples_on(method: str) -> None:
    shares = [standard_error(ar1(0.0, n, 2000, seed=n), method=method).reliable.mean() for n in (64, 100, 200)]
    assert shares[0] > 0.7 and shares[1] > 0.97 and shares[2] > 0.99


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
def test_fast_noise_seldom_hides_what_is_slow_and_small(method: str) -> None:
    """A tenth of the variance has the correlation time 200: 1000 samples are 60 independent ones rather than 1000."""
    n, columns = 1000, 400
    x = np.random.default_rng(4).normal(size=(n, columns)) + np.sqrt(0.1) * ar1(0.99, n, columns, seed=3)
    true = np.sqrt(1 / n + 0.1 * exact_error(0.99, n) ** 2)
    estimate = standard_error(x, method=method)
    assert x.mean(axis=0).std() == pytest.approx(true, rel=0.1) and true > 4 / np.sqrt(n)
    assert estimate.reliable.mean() < 0.2
    assert estimate.error[~estimate.reliable].mean() > 0.5 * true


@pytest.mark.parametrize(
    ("n", "share", "correlation", "most"), [(200, 0.3, 0.93, 0.3), (200, 0.5, 0.875, 0.2), (300, 0.3, 0.93, 0.25)]
)
def test_slow_parts_behind_noise_are_seldom_called_known(n: int, share: float, correlation: float, most: float) -> None:
    """Lags one by one are lost in the noise, their sum is not: an order chosen by Schwarz's criterion alone calls half to a third known."""
    noise = np.random.default_rng([n, 1]).normal(size=(n, 1500))
    x = np.sqrt(share) * ar1(correlation, n, 1500, seed=n) + np.sqrt(1 - share) * noise
    true = np.sqrt(share * exact_error(correlation, n) ** 2 + (1 - share) / n)
    estimate = standard_error(x)
    assert x.mean(axis=0).std() == pytest.approx(true, rel=0.06)
    assert estimate.error[estimate.reliable].mean() < 0.85 * true  # what is called known is too small
    assert estimate.reliable.mean() < most


def test_long_blocks_tell_what_the_autoregressive_fit_misses() -> None:
    """A third of the variance has the correlation time 200, of 600 samples: the fit, which sees mostly noise, calls nearly all long enough."""
    n, columns = 600, 400
    x = np.sqrt(0.7) * np.random.default_rng(4).normal(size=(n, columns)) + np.sqrt(0.3) * ar1(0.99, n, columns, seed=3)
    x -= x.mean(axis=0)
    found = assess(x, x, np.ones(n), np.array([0, n]))
    assert np.median(found.inefficiency) < 8 < np.median(found.slow)
    slow = 20 * found.slow > n
    assert slow.mean() > 0.1 and not found.enough[slow].any()
    assert (found.n_needed[slow] >= 20 * found.slow[slow]).all()


def test_vibrations_sampled_finely_are_not_held_for_slow() -> None:
    """A damped oscillation: neighbors correlate by 0.95, but the mean converges faster than that of independent samples."""
    radius, angle = 0.97, 2 * np.pi / 25
    noise = np.random.default_rng(5).normal(size=(3000, 300))
    x = scipy.signal.lfilter([1.0], [1.0, -2 * radius * np.cos(angle), radius**2], noise, axis=0)[600:]
    estimate = standard_error(x)
    assert np.corrcoef(x[1:, 0], x[:-1, 0])[0, 1] > 0.9
    assert estimate.reliable.mean() > 0.9


def test_lags_count_where_half_of_the_samples_have_a_partner() -> None:
    """A slow series among single samples: its correlation is that of the whole only if it is half of it."""
    slow = ar1(0.95, 101, 1, seed=4)
    singles = np.random.default_rng(5).normal(size=(101, 1))
    for n, told in ((99, False), (101, True)):
        x = np.concatenate([slow[:n], singles[: 200 - n]])
        bounds = np.r_[0, np.arange(n, 201)]
        assert (effective_correlation(x - x.mean(axis=0), bounds)[0] > 0.1) == told


def test_slow_parts_of_replicas_are_those_of_brute_force() -> None:
    """Means of blocks within each series, pairs of blocks counted one by one."""
    rng = np.random.default_rng(6)
    lengths = [96, 64, 130, 40, 77]
    series = [ar1(0.9, n, 1, seed=10 + i)[:, 0] + rng.normal() for i, n in enumerate(lengths)]
    whole = np.concatenate(series)
    mean, variance = whole.mean(), whole.var()
    largest, length, parts = 1.0, 1, [x - mean for x in series]
    while sum(map(len, parts)) >= 32:
        pairs = [a * b for x in parts for a, b in itertools.pairwise(x)]
        blocks = np.concatenate(parts)
        if len(pairs) < 16:
            break
        if len(blocks) < 128:
            square = np.mean(blocks**2)
            next_one = np.clip(np.mean(pairs) / square, 0.0, 0.999)
            largest = max(largest, length * square / variance * (1 + next_one) / (1 - next_one))
        parts = [np.array([(x[i] + x[i + 1]) / 2 for i in range(0, len(x) - 1, 2)]) for x in parts]
        length *= 2
    centered = (whole - mean)[:, None]
    found = assess(centered, centered, np.ones(len(whole)), np.cumsum([0, *lengths]))
    assert found.slow[0] == pytest.approx(largest, rel=1e-12) and largest > 2


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_samples_missing_are_those_that_make_it_reliable(phi: float) -> None:
    n, columns = 48 if phi == 0 else 100, 400
    short = standard_error(ar1(phi, n, columns, seed=6))
    assert (short.n_still_needed[short.reliable] == 0).all() and (short.n_still_needed[~short.reliable] >= 1).all()
    enough = int(n + np.median(short.n_still_needed[~short.reliable]))
    share = [standard_error(ar1(phi, m, columns, seed=7)).reliable.mean() for m in (enough, 2 * enough)]
    assert share[0] > 0.25 and share[1] > 0.95
    # One series that is told what it needs does not have it at half of that.
    assert phi == 0 or standard_error(ar1(phi, enough // 2, columns, seed=8)).reliable.mean() < 0.15


@pytest.mark.parametrize("method", ["autocorrelation", "blocking"])
@pytest.mark.parametrize("lengths", [[100] * 8, [40, 60, 80, 100, 120, 140, 160, 100]])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_frozen_replicas_have_the_error_of_brute_force(method: str, lengths: list[int], is_weighted: bool) -> None:
    """Each replica fluctuates around a state of its own; the spread of the means of many such runs is the oracle."""
    columns, n, rng = 2000, sum(lengths), np.random.default_rng(9)
    parts = [0.3 * ar1(0.5, size, columns, seed=k) + rng.normal(size=(1, columns)) for k, size in enumerate(lengths)]
    x, segments = np.concatenate(parts), np.repeat(np.arange(8), lengths)
    weights = rng.uniform(0.2, 1.8, size=n) if is_weighted else None
    brute = np.average(x, axis=0, weights=weights).std()
    estimate = standard_error(x, weights, method, segments)
    assert np.sqrt((estimate.error**2).mean()) == pytest.approx(brute, rel=0.05)
    # More of the same replicas do not help, and eight are too few to be sure.
    assert not estimate.reliable.any() and np.isinf(estimate.n_still_needed).all()
    if not is_weighted and len(set(lengths)) == 1:
        means = x.reshape(8, 100, columns).mean(axis=1)
        np.testing.assert_allclose(estimate.error, means.std(axis=0, ddof=1) / np.sqrt(8), rtol=1e-10)


def test_many_frozen_replicas_are_reliable_together() -> None:
    rng = np.random.default_rng(10)
    x = 0.3 * rng.normal(size=(20 * 50, 500)) + np.repeat(rng.normal(size=(20, 500)), 50, axis=0)
    estimate = standard_error(x, segments=np.repeat(np.arange(20), 50))
    assert estimate.reliable.mean() > 0.99
    assert estimate.error.mean() == pytest.approx(1 / np.sqrt(20), rel=0.1)


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
