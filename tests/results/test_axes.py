"""Figures go into the axes that are given: the same lines as in a figure of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers.synthetic import readout, samples, write
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import petdos_md as pm
from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.levels import frame_levels
from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.results.tables import to_table, write_csv
from petdos_md.traces.trace import Trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    frames = []
    for k, t in enumerate((500.0, 550.0)):
        rng = np.random.default_rng(k)
        for sample in samples(40, seed=k, temperature_K=t, replica=k):
            energy = -30.0 + rng.normal(scale=0.1)
            frames.append(replace(sample, weight=1.0, volume_A3=130.0, potential_energy_eV=energy))
    return write(tmp_path_factory.mktemp("axes") / "run.zarr", frames)


@pytest.fixture(scope="module")
def result(trace: Trace) -> xr.Dataset:
    return analyze(trace, readout())


@pytest.fixture(scope="module")
def drawers(trace: Trace, result: xr.Dataset) -> dict[str, tuple[int, Callable[..., Figure]]]:
    levels, reweighted = frame_levels(trace, readout()), reweighted_estimate(trace, None, readout())
    both = {"a": result, "b": result}
    return {
        "dos": (2, lambda axes: pm.plot.plot_dos(both, ax=axes)),
        "side by side": (2, lambda axes: pm.plot.plot_side_by_side({"x": both, "y": {"b": result}}, ax=axes)),
        "heat capacity": (1, lambda axes: pm.plot.plot_heat_capacity(both, ax=axes)),
        "levels": (3, lambda axes: pm.plot.plot_levels(levels, ax=axes)),
        "reweighted": (2, lambda axes: pm.plot.plot_reweighted(reweighted, result, ax=axes)),
    }


def lines(axes: Axes) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in axes.get_lines()]


@pytest.mark.parametrize("name", ["dos", "side by side", "heat capacity", "levels", "reweighted"])
def test_given_axes(drawers: dict[str, tuple[int, Callable[..., Figure]]], name: str) -> None:
    n, draw = drawers[name]
    own, figure = draw(None), Figure(figsize=(8, 8))
    axes = figure.subplots(n + 1, 1)
    chosen = axes[0] if n == 1 else axes[:n]
    assert draw(chosen) is figure and not lines(axes[n])
    for mine, theirs in zip(own.axes, axes[:n], strict=True):
        assert len(lines(mine)) > 0
        for a, b in zip(lines(mine), lines(theirs), strict=True):
            np.testing.assert_array_equal(a, b)
    # What the legends of a new figure say is said in the axes.
    said = {text.get_text() for legend in own.legends for text in legend.get_texts()}
    legend = axes[0].get_legend()
    assert legend is not None and said <= {text.get_text() for text in legend.get_texts()}
    assert len(axes[0].findobj(type(legend))) == 1  # two would lie on each other
    with pytest.raises(ValueError, match=rf"got {n + 1} axes, expected {n}, one for each panel"):
        draw(axes)


def test_one_reweighted_temperature_is_drawn(trace: Trace, result: xr.Dataset) -> None:
    """What the legend lists can be seen: line and bands have a width, around the values of that temperature."""
    reweighted = reweighted_estimate(trace, [450.0], readout())
    figure = pm.plot.plot_reweighted(reweighted, result)
    unit = BOLTZMANN_EV * float(reweighted["n_atoms"][0])
    value, model, sampling = (
        float(reweighted[f"heat_capacity{x}"][0]) / unit for x in ("", "_model_std", "_sampling_err")
    )
    above, below = figure.axes
    line = np.asarray(above.get_lines()[0].get_xydata())
    assert line[0, 0] < 450 < line[-1, 0] and line[:, 1] == pytest.approx(value)
    for axes, middle, half in ((above, value, model), (below, 0.0, 1e3 * sampling)):
        (band,) = (c for c in axes.collections if isinstance(c, PolyCollection))
        (low, high), (x0, x1) = band.get_datalim(axes.transData).intervaly, band.get_datalim(axes.transData).intervalx
        assert (low, high) == pytest.approx((middle - half, middle + half)) and x1 - x0 > 4


def test_tables_keep_every_digit(tmp_path: Path) -> None:
    values = np.array([0.1 + 0.2, 1e-300, np.nan, -1.7976931348623157e308, 12345678.9])
    data = xr.Dataset({"x": ("frame", values, {"units": "eV"}), "n": ("frame", np.arange(5), {"units": "1"})})
    write_csv(to_table(data, "frame"), tmp_path / "x.csv")
    header, *rows = (tmp_path / "x.csv").read_text().splitlines()
    assert header == "x (eV),n" and [row.split(",")[0] for row in rows] == [repr(float(x)) for x in values]
    assert [row.split(",")[1] for row in rows] == ["0", "1", "2", "3", "4"]
