"""Frames that know the temperature of their hot electrons: averages at it and by it, windows of time, series, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.synthetic import GRID, N_ELECTRONS, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.analysis.ramps import ramp
from petdos_md.base.errors import NoSamplesError, SettingError
from petdos_md.cli.main import main
from petdos_md.physics import thermo
from petdos_md.traces.trace import Trace

T_E = np.repeat([4000.0, 8000.0], 30)
FORGET = 1e-6  # float32 features, summed in another order


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Two ensembles of atoms; electrons of both at 4000 K, then at 8000 K."""
    frames = [
        replace(sample, electronic_temperature_K=float(hot))
        for replica, T in enumerate((300.0, 600.0))
        for sample, hot in zip(samples(60, replica, T, replica), T_E, strict=True)
    ]
    return write(tmp_path_factory.mktemp("hot") / "run.zarr", frames)


def mean_dos(trace: Trace, rows: np.ndarray) -> np.ndarray:
    weight = trace.weight[rows] / trace.weight[rows].sum()
    return readout().dos(weight @ trace.features[rows].astype(float))


def heat(dos: np.ndarray, T: float) -> float:
    return float(thermo.heat_capacity(GRID.energies, dos, N_ELECTRONS, T))


def test_averages_by_electronic_temperature(trace: Trace) -> None:
    """The frames of one T_e, electrons at it: by brute force."""
    for low, high, T in ((None, 5000.0, 4000.0), (5000.0, None, 8000.0), (8000.0, 8000.0, 8000.0)):
        data = analyze(trace, readout(), electronic_range_K=(low, high), electronic_temperatures_K="frames")
        assert data["temperature"].values.tolist() == [T, T] and data["n_samples"].values.tolist() == [30, 30]
        np.testing.assert_allclose(data["ensemble_temperature"], [300.0, 600.0], rtol=1e-12)
        for i, replica in enumerate((0, 1)):
            rows = np.flatnonzero((trace.replica == replica) & (trace.electronic_temperature_K == T))
            expected = heat(mean_dos(trace, rows), T)
            assert float(data["heat_capacity"][i]) == pytest.approx(expected, rel=FORGET)
    with pytest.raises(NoSamplesError, match=r"no samples with electrons between 5000\.0 and 6000\.0 K"):
        analyze(trace, readout(), electronic_range_K=(5000.0, 6000.0))


def test_mean_of_a_run_that_changes_comes_with_a_note(trace: Trace) -> None:
    data = analyze(trace, readout(), temperatures_K=[600.0], electronic_temperatures_K="frames")
    rows = np.flatnonzero(trace.replica == 1)
    weight = trace.weight[rows] / trace.weight[rows].sum()
    T = float(weight @ trace.electronic_temperature_K[rows])
    assert float(data["temperature"][0]) == pytest.approx(T) and 5000 < T < 7000
    assert float(data["electronic_temperature"][0]) == pytest.approx(T)
    assert float(data["heat_capacity"][0]) == pytest.approx(heat(mean_dos(trace, rows), T), rel=FORGET)
    notes = " ".join(data.attrs["notes"])
    assert "electrons changes along the run, 4000 to 8000 K" in notes and "give electronic_temperatures_K" not in notes
    assert "--electronic-range" in notes and "petdos ramp" in notes


def test_windows_of_time(trace: Trace) -> None:
    data = ramp(trace, readout(), window=30)
    assert data["electronic_temperature"].values.tolist() == [4000.0, 8000.0] * 2
    np.testing.assert_allclose(data["temperature"], [300.0, 300.0, 600.0, 600.0], rtol=1e-12)
    rows = np.arange(90, 120)
    assert float(data["heat_capacity"][3]) == pytest.approx(heat(mean_dos(trace, rows), 8000.0), rel=FORGET)


def test_series_of_levels(trace: Trace) -> None:
    data = frame_levels(trace, readout(), methods=("raw",), members=False)
    assert data["electronic_temperature"].values.tolist() == [*T_E, *T_E]


def test_cold_frames(tmp_path: Path) -> None:
    cold = write(tmp_path / "cold.zarr", samples(40, 0, 300.0))
    data = analyze(cold, readout())
    assert "electronic_temperature" not in data and not any(
        "electrons at" in note for note in data.attrs.get("notes", [])
    )
    assert "electronic_temperature" not in frame_levels(cold, readout(), methods=("raw",), members=False).coords
    assert np.isnan(ramp(cold, readout())["electronic_temperature"]).all()
    with pytest.raises(SettingError, match="frames at 300 K do not record the temperature of their electrons"):
        analyze(cold, readout(), electronic_temperatures_K="frames")


def test_several_free_energies_are_no_one_potential(trace: Trace) -> None:
    pytest.importorskip("pymbar")
    with pytest.raises(SettingError, match="of electrons at 4000 to 8000 K, whose free energies are not one potential"):
        reweighted_estimate(trace, [450.0], readout())


def test_commands_refuse_what_makes_no_sense(trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "out"), "--no-plots"]
    for words, told in (
        (["--electronic-range", "hot"], "expected FROM:TO in K"),
        (["--electronic-temperature", "frames", "--ttm", str(tmp_path / "x")], "--ttm needs a ladder"),
        (["--reweight", "--electronic-range", "5000:"], "no --electronic-range"),
    ):
        try:
            code = main(["analyze", str(trace.path), *out, *words])
        except SystemExit as ended:
            code = ended.code
        assert code != 0 and told in capsys.readouterr().err


@pytest.mark.parametrize("denoise", [False, True])
def test_errors_of_several_temperatures_of_electrons_are_those_of_each_alone(denoise: bool, tmp_path: Path) -> None:
    temperatures = [500.0, 2000.0, 6000.0]
    path = write(tmp_path / "a.zarr", samples(80, seed=3, temperature_K=700.0)).path
    options = {"denoise": denoise, "reference": "raw"}
    together = analyze(path, readout(), electronic_temperatures_K=temperatures, **options)
    for i, T in enumerate(temperatures):
        alone = analyze(path, readout(), electronic_temperatures_K=[T], **options)
        for name in ("heat_capacity", "chemical_potential", "entropy"):
            for ending in ("", "_sampling_err", "_model_std"):
                found, expected = (float(data[name + ending][k]) for data, k in ((together, i), (alone, 0)))
                assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)
        assert float(together["heat_capacity_sampling_err"][i]) > 0
