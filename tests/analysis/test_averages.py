"""Averages against brute force: every frame, every member, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import FINGERPRINT, GRID, N_ELECTRONS, N_MEMBERS, feature_series, info, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.running import RunningAverage
from petdos_md.analysis.transforms import frame_member_average
from petdos_md.base.errors import ModelError, NoSamplesError, StructureError
from petdos_md.models.readout import Readout
from petdos_md.physics import thermo


def test_members_of_the_mean_features_are_the_mean_of_the_members() -> None:
    r, features = readout(), feature_series(50, seed=1)
    weights = np.random.default_rng(2).uniform(0.1, 2.0, size=50)
    brute = np.zeros((N_MEMBERS, GRID.n))
    for frame in range(50):
        for member in range(N_MEMBERS):
            brute[member] += weights[frame] / weights.sum() * r.members(features[frame], member, member + 1)[0]
    linear = r.members(weights @ features.astype(float) / weights.sum())
    np.testing.assert_allclose(linear, brute, rtol=1e-12, atol=1e-12)
    # Small chunks, so that frames and members are cut in the middle.
    batched = frame_member_average(features, r, weights=weights, max_bytes=8 * GRID.n * 5 * 7)
    np.testing.assert_allclose(batched, brute, rtol=1e-12, atol=1e-12)


def test_nonlinear_transform_equals_brute_force_and_sees_the_right_frames() -> None:
    r, features = readout(), feature_series(23, seed=3)
    factors = np.random.default_rng(4).uniform(1, 2, size=23)
    calls = []

    def square(dos: np.ndarray, frames: slice) -> np.ndarray:
        return factors[frames, None, None] * dos**2

    done = frame_member_average(
        features, r, square, max_bytes=8 * GRID.n * 6 * 4, progress=lambda i, n: calls.append((i, n))
    )
    brute = np.mean([factors[i] * r.members(features[i]) ** 2 for i in range(23)], axis=0)
    np.testing.assert_allclose(done, brute, rtol=1e-12)
    assert calls[-1] == (23 * N_MEMBERS, 23 * N_MEMBERS) and [c[0] for c in calls] == sorted(c[0] for c in calls)
    central = frame_member_average(features, r, square, members=False)
    np.testing.assert_allclose(
        central, np.mean([factors[i] * r.dos(features[i]) ** 2 for i in range(23)], axis=0)[None]
    )


def test_no_frames() -> None:
    with pytest.raises(NoSamplesError, match="no frames to average"):
        frame_member_average(np.zeros((0, 5)), readout())


@pytest.mark.parametrize("n", [1, 7, 128, 1000])
def test_running_average_equals_the_trace(tmp_path: Path, n: int) -> None:
    frames = samples(n, seed=5, temperature_K=900.0)
    running = RunningAverage(readout())
    running.extend(frames)
    result = running.result()
    features, weights = np.array([s.features for s in frames], dtype=float), np.array([s.weight for s in frames])
    np.testing.assert_allclose(running.mean_features(), weights @ features / weights.sum(), rtol=1e-13)
    dataset = analyze(write(tmp_path / "a.zarr", frames), readout(), reference="raw").isel(temperature=0)
    np.testing.assert_allclose(result.dos, dataset["dos"], rtol=1e-12, atol=1e-12)
    for name in ("chemical_potential", "fermi_level", "heat_capacity"):
        value = getattr(result, name)
        assert value.value == pytest.approx(float(dataset[name]), rel=1e-10, abs=1e-12)
        assert value.model_std == pytest.approx(float(dataset[f"{name}_model_std"]), rel=1e-6, abs=1e-15)
        if n == 1:
            assert np.isnan(value.sampling_err) and np.isnan(float(dataset[f"{name}_sampling_err"]))
        elif n == 128:  # blocks are still single frames
            assert value.sampling_err == pytest.approx(float(dataset[f"{name}_sampling_err"]), rel=1e-6)
        elif n == 1000:
            assert value.sampling_err == pytest.approx(float(dataset[f"{name}_sampling_err"]), rel=0.25)
    assert result.n_samples == running.n_samples() == n


def test_running_error_is_that_of_many_repeats() -> None:
    """The spread of C_el over independent runs is the oracle of the error that each run tells of itself."""
    r, capacities, errors = readout(members=0), [], []
    for seed in range(60):
        running = RunningAverage(r)
        running.extend(replace(s, weight=1.0) for s in samples(700, seed=seed + 100, temperature_K=1500.0))
        heat = running.result().heat_capacity
        assert np.isnan(heat.model_std)
        capacities.append(heat.value)
        errors.append(heat.sampling_err)
    # 60 repeats tell the spread to 9 %.
    assert np.mean(errors) == pytest.approx(np.std(capacities, ddof=1), rel=0.25)


def test_memory_does_not_grow_and_blocks_keep_every_frame() -> None:
    running = RunningAverage(readout(members=0), max_blocks=16)
    frames = samples(1037, seed=8, temperature_K=500.0)
    running.extend(frames)
    state = running._states[500.0]
    series, weights, _ = state.history()
    assert len(series) <= 16
    assert weights.sum() == pytest.approx(sum(s.weight for s in frames), rel=1e-12)
    # Every block but the last holds consecutive frames: the first is the plain mean of its frames.
    length = state.blocks[0].length
    assert length == 128
    w = np.array([s.weight for s in frames[:length]])
    np.testing.assert_allclose(
        series[0], w @ np.array([s.features for s in frames[:length]], dtype=float) / w.sum(), rtol=1e-12
    )


def test_temperatures_and_replicas_are_kept_apart() -> None:
    r, running = readout(), RunningAverage(readout())
    runs = {(t, k): samples(40, seed=int(t) + k, temperature_K=t, replica=k) for t in (300.0, 600.0) for k in (0, 1)}
    for frames in zip(*runs.values(), strict=True):
        running.extend(frames)
    assert running.temperatures_K == [300.0, 600.0]
    for t in (300.0, 600.0):
        both = runs[t, 0] + runs[t, 1]
        w = np.array([s.weight for s in both])
        mean = w @ np.array([s.features for s in both], dtype=float) / w.sum()
        np.testing.assert_allclose(running.mean_features(t), mean, rtol=1e-12)
        members = thermo.heat_capacity(GRID.energies, r.members(mean), N_ELECTRONS, t)
        heat = running.result(t).heat_capacity
        own = float(thermo.heat_capacity(GRID.energies, r.dos(mean), N_ELECTRONS, t))
        assert heat.value == pytest.approx(own, rel=1e-12)
        assert heat.model_std == pytest.approx(members.std(ddof=1), rel=1e-9)
        plain = running.result(t, members=False).heat_capacity
        assert plain.value == heat.value and np.isnan(plain.model_std)
    with pytest.raises(ValueError, match="2 temperatures; say which: 300 K, 600 K"):
        running.result()


def test_what_cannot_be_averaged_is_refused() -> None:
    running = RunningAverage(readout())
    with pytest.raises(NoSamplesError, match="no samples yet"):
        running.result()
    sample = samples(1, seed=0, temperature_K=300.0)[0]
    with pytest.raises(ModelError, match="another model"):
        running.update(replace(sample, model=info(fingerprint="0" * 64)))
    running.update(sample)
    with pytest.raises(StructureError, match="frames at 300 K have 8 to 9 atoms"):
        running.update(replace(sample, n_atoms=9))
    with pytest.raises(NoSamplesError, match="no samples at 400 K; there are some at 300 K"):
        running.result(400.0)
    assert running.n_samples() == 1  # what was skipped left no mark
    lost = RunningAverage(readout())
    lost.update(replace(sample, n_electrons=float("nan")))
    with pytest.raises(StructureError, match=r"number of electrons .* is not known"):
        lost.result()
    weightless = RunningAverage(readout())
    weightless.update(replace(sample, weight=0.0))
    with pytest.raises(NoSamplesError, match="weight zero"):
        weightless.result()


def test_direct_models_average_alike() -> None:
    """The features of a direct model are the DOS itself."""
    r, features = readout(members=0), feature_series(30, seed=9)
    direct = Readout.for_direct(GRID, None, 0, FINGERPRINT)
    np.testing.assert_allclose(
        frame_member_average(r.dos(features), direct, members=False)[0], r.dos(features).mean(axis=0), rtol=1e-12
    )
