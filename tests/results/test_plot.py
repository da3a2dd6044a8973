"""Figures and files hold the numbers of the dataset, and the axes say what they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from helpers.figures import band
from helpers.synthetic import N_ATOMS, readout, samples, write
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from petdos_md.analysis.analyze import analyze
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.results.plot import plot_dos, plot_heat_capacity, save
from petdos_md.results.report import FIGURES, FILES, format_table, write_report


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    frames = [s for k, t in enumerate((300.0, 900.0)) for s in samples(60, seed=k, temperature_K=t, replica=k)]
    return analyze(write(tmp_path_factory.mktemp("plot") / "run.zarr", frames), readout(), reference="raw")


def line(figure: Figure, panel: int, label: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [x for x in figure.axes[panel].get_lines() if x.get_label() == label]
    return np.asarray(found.get_xdata()), np.asarray(found.get_ydata())


@pytest.mark.parametrize("reference", ["fermi", "raw"])
def test_dos_lines_and_bands_are_the_data(result: xr.Dataset, reference: str) -> None:
    figure = plot_dos(result, reference=reference, energy_range=(-6.0, 3.0))
    bands = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    for i, temperature in enumerate(("300 K", "900 K")):
        at = result.isel(temperature=i)
        x, y = line(figure, 0, temperature)
        expected = at["energy"].values - (float(at["fermi_level"]) if reference == "fermi" else 0.0)
        inside = (expected >= -6.0) & (expected <= 3.0)
        np.testing.assert_allclose(x, expected[inside])
        np.testing.assert_allclose(y, at["dos"].values[inside] / N_ATOMS)
        for collection, name in zip(bands[2 * i : 2 * i + 2], ("dos_model_std", "dos_sampling_err"), strict=True):
            at_x, low, high = band(collection)
            keep = np.isin(np.round(x, 9), np.round(at_x, 9))
            half = at[name].values[inside][keep] / N_ATOMS
            np.testing.assert_allclose((high - low) / 2, half, atol=1e-12)
            np.testing.assert_allclose((high + low) / 2, y[keep], atol=1e-12)
    label = figure.axes[-1].get_xlabel()
    assert label == {"fermi": r"$E - E_\mathrm{F}$ (eV)", "raw": r"$E$ (eV, model's own zero)"}[reference]


def test_interpolated_results_are_drawn_as_they_are(result: xr.Dataset, tmp_path: Path) -> None:
    frames = samples(60, seed=0, temperature_K=300.0)
    fermi = analyze(write(tmp_path / "run.zarr", frames), readout(), reference="fermi")
    x, y = line(plot_dos(fermi, energy_range=(-3, 3)), 0, "300 K")
    expected = np.interp(x, fermi["energy"].values, fermi["dos"].values[0]) / N_ATOMS
    np.testing.assert_allclose(y, expected, atol=1e-12)
    with pytest.raises(ValueError, match="energies are relative to the Fermi level; analyze with reference='raw'"):
        plot_dos(fermi, reference="raw")


def test_several_systems_get_a_panel_or_a_line_each(result: xr.Dataset) -> None:
    double = result.copy()
    double["dos"], double["heat_capacity"] = 2 * result["dos"], 2 * result["heat_capacity"]
    figure = plot_dos({"one": result, "two": double}, energy_range=(-3, 3))
    np.testing.assert_allclose(line(figure, 1, "900 K")[1], 2 * line(figure, 0, "900 K")[1])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    capacity = plot_heat_capacity({"one": result, "two": double}).axes[0]
    curves = [x for x in capacity.get_lines() if x.get_marker() in ("o", "s")]
    np.testing.assert_allclose(curves[1].get_ydata(), 2 * np.asarray(curves[0].get_ydata()))
    legend = capacity.get_legend()
    assert legend is not None and [t.get_text() for t in legend.get_texts()][:2] == ["one", "two"]


def test_heat_capacity_and_its_errors_are_the_data(result: xr.Dataset) -> None:
    axes = plot_heat_capacity(result).axes[0]
    per_atom = 1 / (N_ATOMS * BOLTZMANN_EV)
    (points,) = [x for x in axes.get_lines() if x.get_marker() == "o"]
    np.testing.assert_allclose(points.get_xdata(), [300.0, 900.0])
    np.testing.assert_allclose(points.get_ydata(), result["heat_capacity"].values * per_atom)
    (fill,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
    _, low, high = band(fill)
    np.testing.assert_allclose((high - low) / 2, result["heat_capacity_model_std"].values * per_atom)
    segments = [bars.lines[2][0].get_segments() for bars in axes.containers]
    # Another container, without data, is there for the legend.
    (drawn,) = [s for s in segments if len(s) == 2 and np.isfinite(s).all()]
    lengths = [segment[1, 1] - segment[0, 1] for segment in drawn]
    np.testing.assert_allclose(lengths, 2 * result["heat_capacity_sampling_err"].values * per_atom)
    (sommerfeld,) = [x for x in axes.get_lines() if str(x.get_label()).startswith("sommerfeld")]
    slope = sommerfeld.get_ydata()[1] / sommerfeld.get_xdata()[1]
    # Cold free electrons obey the Sommerfeld law but for the curvature of the DOS.
    assert slope * 300 == pytest.approx(float(result["heat_capacity"][0]) * per_atom, rel=0.02)


def test_plotting_leaves_no_state(result: xr.Dataset, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    save(plot_dos(result), tmp_path / "a.png")
    save(plot_heat_capacity(result), tmp_path / "b.pdf")
    assert plt.get_fignums() == [] and dict(matplotlib.rcParams) == before
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "b.pdf").read_bytes()[:4] == b"%PDF"


def test_results_without_errors_are_drawn_without_them(tmp_path: Path) -> None:
    frames = samples(4, seed=2, temperature_K=300.0)
    bare = analyze(write(tmp_path / "run.zarr", frames), readout(members=0))
    save(plot_dos(bare), tmp_path / "a.png")
    axes = plot_heat_capacity(bare).axes[0]
    legend = axes.get_legend()
    assert legend is not None and not any("error" in t.get_text() for t in legend.get_texts())


def test_report_files_hold_every_number(result: xr.Dataset, tmp_path: Path) -> None:
    short = result.copy()
    errors = result["heat_capacity_sampling_err"]
    short["heat_capacity_sampling_err"] = errors.copy(data=errors.values * [np.nan, 1.0])
    paths = write_report(short, tmp_path / "out", formats=("png", "pdf"))
    figures = [f"{name}.{ending}" for name in FIGURES for ending in ("png", "pdf")]
    assert [p.name for p in paths] == [*FILES[:4], *figures, *FILES[4:]] and all(p.stat().st_size > 0 for p in paths)
    with paths[0].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["temperature (K)"] for row in rows] == ["300", "900"]
    for name in ("heat_capacity", "heat_capacity_model_std", "entropy_sampling_err"):
        column = f"{name} (eV/K)"
        np.testing.assert_allclose([float(row[column]) for row in rows], result[name], rtol=1e-7)
    assert rows[0]["heat_capacity_sampling_err (eV/K)"] == "nan"
    assert rows[0]["n_samples"] == "60"
    summary = json.loads(paths[2].read_text())
    assert summary["values"]["heat_capacity"] == result["heat_capacity"].values.tolist()
    assert summary["values"]["heat_capacity_sampling_err"][0] is None
    assert summary["units"]["entropy"] == "eV/K"
    with xr.open_dataset(paths[1]) as again:
        xr.testing.assert_equal(again.load(), short)
    write_report(result, tmp_path / "out", plots=False)  # a second report replaces the first


def test_table_is_aligned_and_rounds_the_data(result: xr.Dataset) -> None:
    lines = format_table(result).splitlines()
    width = len(lines[2])
    assert all(len(row) == width for row in lines[:5])
    value, model, sampling = (float(x) for x in lines[3].rsplit("  ", 1)[1].split("±"))
    at, per_atom = result.isel(temperature=0), 1 / (N_ATOMS * BOLTZMANN_EV)
    larger = max(float(at["heat_capacity_model_std"]), float(at["heat_capacity_sampling_err"])) * per_atom
    for shown, name in ((value, ""), (model, "_model_std"), (sampling, "_sampling_err")):
        assert shown == pytest.approx(float(at[f"heat_capacity{name}"]) * per_atom, abs=0.06 * larger)
    tiny = result.copy()
    tiny["heat_capacity_sampling_err"] = 1e-5 * result["heat_capacity_sampling_err"]
    assert all(float(x) > 0 for x in format_table(tiny).splitlines()[3].rsplit("  ", 1)[1].split("±"))
    bare = result.copy()
    bare["heat_capacity_sampling_err"] = np.nan * result["heat_capacity_sampling_err"]
    assert "± ?" in format_table(bare)
