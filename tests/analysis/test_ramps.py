"""Melting and quenching: windows against brute force, heating and cooling kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import GRID, N_ELECTRONS, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.ramps import ramp
from petdos_md.base.errors import NoSamplesError, SettingError, TraceError
from petdos_md.cli.main import main
from petdos_md.physics import thermo
from petdos_md.results.plot import plot_ramp
from petdos_md.traces.trace import Trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Up and down between 300 and 1300 K in 25 frames each; what cools has one feature more than what warms up."""
    up = np.linspace(300.0, 1300.0, 25)
    frames = []
    for sample, t, cools in zip(samples(50, 3, 300.0), [*up, *up[::-1]], [False] * 25 + [True] * 25, strict=True):
        features = sample.features + np.array([0.5 * cools, 0, 0, 0, 0], np.float32)
        frames.append(replace(sample, temperature_K=float(t), features=features))
    return write(tmp_path_factory.mktemp("ramp") / "run.zarr", frames)


def test_windows_equal_brute_force(trace: Trace) -> None:
    data = ramp(trace, readout(), window=12)
    assert data["n_frames"].values.tolist() == [12, 12, 12, 14]
    rows = np.arange(12, 24)
    w = trace.weight[rows] / trace.weight[rows].sum()
    temperature, features = w @ trace.temperature_K[rows], w @ trace.features[rows].astype(float)
    at = data.isel(window=1)
    assert float(at["temperature"]) == pytest.approx(temperature) and float(at["time"]) == pytest.approx(
        w @ trace.time_fs[rows] / 1000
    )
    heat = [
        float(thermo.heat_capacity(GRID.energies, g, N_ELECTRONS, temperature)) for g in readout().members(features)
    ]
    own = float(thermo.heat_capacity(GRID.energies, readout().dos(features), N_ELECTRONS, temperature))
    assert float(at["heat_capacity"]) == pytest.approx(own, rel=1e-6)
    assert float(at["heat_capacity_model_std"]) == pytest.approx(np.std(heat, ddof=1), rel=1e-5)
    # 1000 K in 24 steps of 20 fs.
    assert float(data["rate"][0]) == pytest.approx(1000 / 0.48) and float(data["rate"][-1]) == pytest.approx(
        -1000 / 0.48
    )


def test_heating_and_cooling_are_two_curves(trace: Trace) -> None:
    data = ramp(trace, readout(), window=5)
    lines = {line.get_label(): line.get_xydata() for line in plot_ramp(data).axes[2].get_lines()}
    assert set(lines) == {"heating", "cooling"} and all(len(points) == 5 for points in lines.values())
    rising = data.isel(window=slice(0, 5))
    np.testing.assert_allclose(lines["heating"][:, 0], rising["temperature"])
    shift = np.abs(lines["heating"][:, 1] / np.interp(lines["heating"][:, 0], *lines["cooling"].T) - 1)
    assert shift.min() > 1e-3
    note = [n for n in analyze(trace, readout()).attrs["notes"] if "petdos ramp" in n]
    assert len(note) == 1


def test_choice_of_steps(trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = ramp(trace, readout(), window=5, steps=(None, 240))
    assert int(half["last_step"].max()) == 240 and (half["rate"] > 0).all()
    at = analyze(trace, readout(), steps=(0, 0))
    assert at["temperature"].values.tolist() == [300.0] and int(at["n_samples"][0]) == 1
    with pytest.raises(NoSamplesError, match="no samples between steps 1000 and None"):
        analyze(trace, readout(), steps=(1000, None))
    with pytest.raises(TraceError, match="no replica 5, there are: 0;"):
        ramp(trace, readout(), replicas=[0, 5])
    with pytest.raises(SettingError, match="window=0"):
        ramp(trace, readout(), window=0)
    with pytest.raises(SystemExit):
        main(["ramp", str(trace.path), "--steps", "5", "-o", str(tmp_path / "out")])
    assert "expected FROM:TO" in capsys.readouterr().err
