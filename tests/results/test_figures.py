"""Figures hold the numbers of the data, and commands write what they say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers.figures import band
from helpers.synthetic import N_ATOMS, readout, samples, write
from matplotlib.collections import PolyCollection

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.cli.main import main
from petdos_md.models.model import DOSModel
from petdos_md.results.plot import plot_levels, plot_side_by_side
from petdos_md.traces.trace import Trace


def test_side_by_side(tmp_path: Path) -> None:
    """Lines per atom against E - E_F of each model, in the panel of its phase, with the members' band."""
    results = {}
    for k, (phase, model) in enumerate((("solid", "a"), ("solid", "b"), ("liquid", "b"))):
        trace = write(tmp_path / f"{k}.zarr", samples(40, seed=k, temperature_K=300.0 * (k + 1)))
        results[phase, model] = analyze(trace, readout(), reference=("raw", "fermi")[k % 2])
    figure = plot_side_by_side(
        {"solid": {m: results["solid", m] for m in "ab"}, "liquid": {"b": results["liquid", "b"]}},
        energy_range=(-5.0, 3.0),
    )
    for panel, models in ((0, "ab"), (1, "b")):
        axes = figure.axes[panel]
        phase = axes.get_title(loc="left")
        bands = [c for c in axes.collections if isinstance(c, PolyCollection)]
        for k, name in enumerate(models):
            data = results[phase, name].isel(temperature=0)
            x = data["energy"].values - (
                float(data["fermi_level"]) if (k == 0 and name == "a") or phase == "liquid" else 0.0
            )
            shown = (x >= -5) & (x <= 3)
            line = axes.get_lines()[k]
            np.testing.assert_allclose(line.get_xdata(), x[shown], atol=1e-12)
            np.testing.assert_allclose(line.get_ydata(), data["dos"].values[shown] / N_ATOMS)
            _, low, high = band(bands[2 * k])
            np.testing.assert_allclose(
                np.median(high - low), np.median(2 * data["dos_model_std"].values[shown] / N_ATOMS), rtol=0.05
            )
    assert "E_" in figure._supxlabel.get_text() and [t.get_text() for t in figure.legends[0].get_texts()][:2] == [
        "a",
        "b",
    ]
    with pytest.raises(ValueError, match="no results to plot"):
        plot_side_by_side({"solid": {}})


def test_levels_figure(tmp_path: Path) -> None:
    frames = [s for k, t in enumerate((300.0, 900.0)) for s in samples(12, seed=k, temperature_K=t, replica=k)]
    data = frame_levels(write(tmp_path / "a.zarr", frames), readout())
    figure = plot_levels(data)
    lines = {line.get_label(): line for line in figure.axes[2].get_lines()}
    for method in ("raw", "denoised"):
        np.testing.assert_allclose(lines[method].get_ydata(), data[f"dos_at_fermi_level_{method}"])
    assert "network" not in lines and "own zero" in figure.axes[0].get_ylabel()


@pytest.fixture
def trace(metal: DOSModel, aluminium, tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    with Trace.open(tmp_path / "run.zarr", model=metal) as trace:
        for step in range(10):
            aluminium.positions += rng.normal(scale=0.02, size=aluminium.positions.shape)
            trace.append(metal.evaluate(aluminium), step=step, temperature_K=600.0)
    return str(tmp_path / "run.zarr")


def test_levels_command(trace: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["levels", trace, "-o", str(out), "--method", "raw", "denoised"]) == 0
    told = capsys.readouterr().out
    data = frame_levels(trace, methods=("raw", "denoised"))
    found = re.search(r"fermi level \(eV\) +(\S+) ± (\S+) ±", told)
    assert found and float(found[1]) == pytest.approx(float(data["fermi_level_raw_mean"][0]), abs=1e-3)
    assert float(found[2]) == pytest.approx(float(data["fermi_level_raw_mean_model_std"][0]), rel=0.1)
    assert "denoised: Fermi level from the integral" in told
    rows = list(csv.DictReader((out / "series.csv").open()))
    assert [float(row["fermi_level_denoised (eV)"]) for row in rows] == data["fermi_level_denoised"].values.tolist()
    (row,) = csv.DictReader((out / "levels.csv").open())
    assert float(row["gap_raw_mean (eV)"]) == float(data["gap_raw_mean"][0])
    with xr.open_dataset(out / "levels.nc") as stored:
        np.testing.assert_array_equal(stored["dos_at_fermi_level_raw"], data["dos_at_fermi_level_raw"])
    assert (out / "levels.png").stat().st_size > 10000
    assert main(["levels", trace, "-o", str(out), "--denoise=network"]) == 2
    assert "no network for the Fermi level lies beside the model" in capsys.readouterr().err


def test_analyze_command(trace: str, tmp_path: Path, capsys) -> None:
    """Denoising, weights, units and temperatures of the electrons, as they are typed."""
    (tmp_path / "w.txt").write_text("step weight\n" + "\n".join(f"{i} {i}" for i in range(10)))
    command = [
        "analyze",
        trace,
        "-o",
        str(tmp_path / "out"),
        "--denoise=integration",
        "--weights",
        str(tmp_path / "w.txt"),
    ]
    command += ["--units", "mol", "--no-plots", "--electronic-temperature=300:900:300"]
    assert main(command) == 0
    from petdos_md.results.normalization import in_units

    expected = in_units(
        analyze(trace, denoise="integration", weights=tmp_path / "w.txt", electronic_temperatures_K=[300, 600, 900]),
        "mol",
    )
    rows = list(csv.DictReader((tmp_path / "out/thermo.csv").open()))
    assert [float(r["temperature (K)"]) for r in rows] == [300, 600, 900]
    np.testing.assert_allclose(
        [float(r["heat_capacity (J/mol/K)"]) for r in rows], expected["heat_capacity"], rtol=1e-7
    )
    out = capsys.readouterr().out
    assert "J/mol/K" in out and "per cell" not in out and "k_B" not in out
    with xr.open_dataset(tmp_path / "out/dos.nc") as stored:
        assert stored["heat_capacity"].attrs["units"] == "J mol-1 K-1"
        np.testing.assert_array_equal(stored["heat_capacity"], expected["heat_capacity"])
    assert float(rows[0]["effective_sample_size"]) == pytest.approx(45**2 / 285)
    capsys.readouterr()
    for wrong in ("300:100:50", "0:5:1", "a,b", "300:600", "-5"):
        assert main([*command[:-1], f"--electronic-temperature={wrong}"]) == 2
    assert "expected T1,T2,... or FIRST:LAST:STEP in K" in capsys.readouterr().err
    assert main(["analyze", trace, "-o", str(tmp_path / "out"), "--carriers"]) == 2
    assert "this is a metal" in capsys.readouterr().err
