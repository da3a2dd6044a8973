"""The MBAR-reweighted average beside the plain one: a table, a file, a figure; behind ``petdos analyze --reweight``.

>>> write_reweighted(reweighted, plain, "results")          # doctest: +SKIP
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..analysis.mbar import QUANTITIES
from ..base.constants import BOLTZMANN_EV
from .plot import save

FILES = ("reweighted.csv", "reweighted.nc", "heat_capacity_reweighted.png")


def write_reweighted(
    reweighted: xr.Dataset, plain: xr.Dataset, out_dir: str | Path, *, plots: bool = True
) -> list[Path]:
    """Write :data:`FILES`: a row per temperature with the plain values where there are some, all data, the figure.

    :param reweighted: of :func:`petdos_md.analysis.mbar.reweighted_estimate`
    :param plain: of :func:`petdos_md.analyze`, of the same traces
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (FILES if plots else FILES[:2])]
    columns = [f"{name}{suffix}" for name in QUANTITIES for suffix in ("", "_model_std", "_sampling_err")]
    with paths[0].open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        units = [str(reweighted[name].attrs["units"]) for name in columns]
        named = [f"{name} ({unit})" for name, unit in zip(columns, units, strict=True)]
        writer.writerow(["temperature (K)", *named, "n_effective", "sampling_reliable", *(f"plain {n}" for n in named)])
        for i, temperature in enumerate(reweighted["temperature"].values):
            own = _same(plain, float(temperature))
            writer.writerow(
                [
                    repr(float(temperature)),
                    *(repr(float(reweighted[name][i])) for name in columns),
                    repr(float(reweighted["n_effective"][i])),
                    int(reweighted["sampling_reliable"][i]),
                    *("nan" if own is None else repr(float(own[name])) for name in columns),
                ]
            )
    paths[1].unlink(missing_ok=True)
    reweighted.to_netcdf(paths[1], engine="netcdf4")
    if plots:
        save(plot_reweighted(reweighted, plain), paths[2])
    return paths


def format_reweighted(reweighted: xr.Dataset, plain: xr.Dataset) -> str:
    """A table for the terminal: C_el in k_B per atom, ``value ± model ± sampling``, reweighted and from the temperature's own frames."""
    rows = [["T (K)", "reweighted C_el (k_B per atom)", "from its own frames"]]
    for i, temperature in enumerate(reweighted["temperature"].values):
        own = _same(plain, float(temperature))
        rows.append(
            [f"{temperature:g}", _explained(reweighted.isel(temperature=i)), "" if own is None else _explained(own)]
        )
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    notes = [str(note) for note in np.atleast_1d(reweighted.attrs.get("notes", []))]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def plot_reweighted(reweighted: xr.Dataset, plain: xr.Dataset) -> Figure:
    """Electronic heat capacity against temperature: the reweighted one as a line, the plain one as points; below, their difference,
    where sampling errors show that are too small to be seen above."""
    with matplotlib.rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6.2, 5.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        t, y, model, sampling = _curve(reweighted)
        own_t, own_y, _, own_err = _curve(plain)
        style = {"color": "#c1440e", "marker": "o", "markerfacecolor": "white", "markersize": 4.5, "linestyle": "none"}
        (line,) = axes.plot(t, y, color="#0b5394")
        points = axes.errorbar(own_t, own_y, own_err, capsize=3.5, **style)
        handles, labels = (
            [line, points],
            ["all temperatures, reweighted", r"own frames only, with sampling error ($\pm\sigma$)"],
        )
        if np.isfinite(model).any():
            handles.append(axes.fill_between(t, y - model, y + model, color="#0b5394", alpha=0.15, linewidth=0))
            labels.append(r"model error of the reweighted one ($\pm\sigma$)")
        band = below.fill_between(
            t, -1e3 * sampling, 1e3 * sampling, facecolor="none", edgecolor="#0b5394", hatch="/////", linewidth=0.6
        )
        handles.append(band)
        labels.append(r"sampling error of the reweighted one ($\pm\sigma$)")
        below.axhline(0.0, color="#0b5394", linewidth=1.2)
        known = np.isin(np.round(own_t, 3), np.round(t, 3))
        difference = own_y[known] - np.interp(own_t[known], t, y)
        below.errorbar(own_t[known], 1e3 * difference, 1e3 * own_err[known], capsize=3.5, **style)
        axes.legend(handles, labels, loc="upper left", frameon=False, fontsize=8.5)
        axes.set_ylabel(r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)")
        below.set_ylabel("own $-$ reweighted\n" + r"($10^{-3}\, k_\mathrm{B}$ / atom)")
        below.set_xlabel(r"$T$ (K)")
        for panel in (axes, below):
            panel.grid(color="0.92", linewidth=0.6)
            panel.set_axisbelow(True)
    return figure


def _curve(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    data = data.sortby("temperature")
    scale = 1.0 / (data["n_atoms"].values * BOLTZMANN_EV)
    names = ("heat_capacity", "heat_capacity_model_std", "heat_capacity_sampling_err")
    value, model, sampling = (data[name].values * scale for name in names)
    return data["temperature"].values, value, model, sampling


def _same(plain: xr.Dataset, temperature_K: float) -> xr.Dataset | None:
    found = np.flatnonzero(np.isclose(plain["temperature"].values, temperature_K, rtol=1e-6))
    return plain.isel(temperature=int(found[0])) if len(found) else None


def _explained(at: xr.Dataset) -> str:
    scale = 1.0 / (float(at["n_atoms"]) * BOLTZMANN_EV)
    numbers = [float(at[f"heat_capacity{suffix}"]) * scale for suffix in ("", "_model_std", "_sampling_err")]
    return " ± ".join("?" if math.isnan(x) else f"{x:.4f}" if k == 0 else f"{x:.2g}" for k, x in enumerate(numbers))
