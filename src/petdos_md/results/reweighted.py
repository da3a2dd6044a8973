"""The MBAR-reweighted average beside the plain one: a table, files, a figure; behind ``petdos analyze --reweight``.

>>> write_reweighted(reweighted, plain, "results")          # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..base.rounding import with_errors
from .folder import make_folder
from .netcdf import write_netcdf
from .normalization import in_units, unit_and_scale
from .style import STYLE, GivenAxes, Handle, make_panels, save, system_color
from .tables import column_label, to_table, write_csv

FILES = ("reweighted.csv", "reweighted.nc")
FIGURE = "heat_capacity_reweighted"


def write_reweighted(
    reweighted: xr.Dataset,
    plain: xr.Dataset,
    out_dir: str | Path,
    *,
    plots: bool = True,
    normalization: str | None = None,
    formats: Sequence[str] = ("png",),
) -> list[Path]:
    """Write :data:`FILES`: a row per temperature with the plain values where there are some, all data, the figure.

    :param reweighted: of :func:`petdos_md.analysis.mbar.reweighted_estimate`
    :param plain: of :func:`petdos_md.analyze`, of the same traces
    :param normalization: what extensive quantities refer to, as in :func:`petdos_md.results.report.write_report`
    :param formats: of the figure
    :returns: paths of the files
    :raises SettingError: if the folder is a trace
    """
    folder = make_folder(out_dir)
    paths = [folder / name for name in FILES]
    if plots:
        figure = plot_reweighted(reweighted, plain, normalization=normalization)
        paths += [save(figure, folder / f"{FIGURE}.{ending}") for ending in formats]
    reweighted, plain = (in_units(data, normalization or "cell") for data in (reweighted, plain))
    quantities = [str(name) for name in reweighted.data_vars if f"{name}_sampling_err" in reweighted]
    columns = [f"{name}{ending}" for name in quantities for ending in ("", "_model_std", "_sampling_err")]
    table = to_table(reweighted[[*columns, "n_effective", "sampling_reliable"]], "temperature")
    own = [_at_temperature(plain, float(temperature)) for temperature in reweighted["temperature"].values]
    for name in columns:
        values = [math.nan if at is None else float(at[name]) for at in own]
        table[f"plain {column_label(reweighted[name])}"] = values
    write_csv(table, paths[0])
    write_netcdf(reweighted, paths[1])
    return paths


def format_reweighted(reweighted: xr.Dataset, plain: xr.Dataset, normalization: str | None = None) -> str:
    """A table for the terminal: C_el, ``value ± model ± sampling``, reweighted and from the temperature's own frames.

    :param normalization: what it refers to; k_B per atom if None
    """
    reweighted, plain = (in_units(data, normalization or "kB") for data in (reweighted, plain))
    rows = [["T (K)", f"reweighted C_el ({reweighted['heat_capacity'].attrs['units']})", "from its own frames"]]
    for i, temperature in enumerate(reweighted["temperature"].values):
        own = _at_temperature(plain, float(temperature))
        rows.append(
            [
                f"{temperature:g}",
                _heat_capacity_text(reweighted.isel(temperature=i)),
                "" if own is None else _heat_capacity_text(own),
            ]
        )
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    notes = [str(note) for note in np.atleast_1d(reweighted.attrs.get("notes", []))]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def plot_reweighted(
    reweighted: xr.Dataset, plain: xr.Dataset, *, ax: GivenAxes = None, normalization: str | None = None
) -> Figure:
    """Electronic heat capacity against temperature: the reweighted one as a line, the plain one as points; below, their difference,
    where sampling errors show that are too small to be seen above.

    :param ax: two axes to draw into; a new figure if None
    :param normalization: what it refers to; k_B per atom if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    unit, _ = unit_and_scale(reweighted, "heat_capacity", normalization or "kB")
    reweighted, plain = (in_units(data, normalization or "kB") for data in (reweighted, plain))
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 2, (6.2, 5.2), sharex=True, height_ratios=(2.4, 1))
        above, below = panels.axes
        entries = [*_curves(above, reweighted, plain), _differences(below, reweighted, plain)]
        above.legend([h for h, _ in entries], [label for _, label in entries], loc="upper left")
        shown = unit.replace("k_B", r"$k_\mathrm{B}$").replace("/", " / ")
        above.set_ylabel(rf"$C_\mathrm{{el}}$ ({shown})")
        below.set_ylabel(f"own $-$ reweighted\n($10^{{-3}}$ {shown})")
        below.set_xlabel(r"$T$ (K)")
        for panel in panels.axes:
            panel.grid(color="0.92", linewidth=0.6)
            panel.set_axisbelow(True)
    return panels.figure


_POINTS = {
    "color": system_color(1),
    "marker": "o",
    "markerfacecolor": "white",
    "markersize": 4.5,
    "linestyle": "none",
    "capsize": 3.5,
}


def _curves(axes: Axes, reweighted: xr.Dataset, plain: xr.Dataset) -> list[tuple[Handle, str]]:
    own_t, own_y, _, own_err = _heat_capacities(plain)
    t, y, model, _ = _drawn(_heat_capacities(reweighted), own_t)
    (line,) = axes.plot(t, y, color=system_color(0))
    points = axes.errorbar(own_t, own_y, own_err, **_POINTS)  # type: ignore[arg-type]
    entries: list[tuple[Handle, str]] = [
        (line, "all temperatures, reweighted"),
        (points, r"own frames only, with sampling error ($\pm\sigma$)"),
    ]
    if np.isfinite(model).any():
        band = axes.fill_between(t, y - model, y + model, color=system_color(0), alpha=0.15, linewidth=0)
        entries.append((band, r"model error of the reweighted one ($\pm\sigma$)"))
    return entries


def _differences(axes: Axes, reweighted: xr.Dataset, plain: xr.Dataset) -> tuple[Handle, str]:
    t, y, _, sampling = _heat_capacities(reweighted)
    own_t, own_y, _, own_err = _heat_capacities(plain)
    style = {"facecolor": "none", "edgecolor": system_color(0), "hatch": "/////", "linewidth": 0.6}
    at, _, _, half = _drawn((t, y, y, sampling), own_t)
    band = axes.fill_between(at, -1e3 * half, 1e3 * half, **style)  # type: ignore[arg-type]
    axes.axhline(0.0, color=system_color(0), linewidth=1.2)
    known = np.isin(np.round(own_t, 3), np.round(t, 3))
    difference = own_y[known] - np.interp(own_t[known], t, y)
    axes.errorbar(own_t[known], 1e3 * difference, 1e3 * own_err[known], **_POINTS)  # type: ignore[arg-type]
    return band, r"sampling error of the reweighted one ($\pm\sigma$)"


def _drawn(curves: tuple[np.ndarray, ...], others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Temperatures and what there is at them; one temperature alone as a short line, which can be seen.

    :param others: temperatures in the same figure
    """
    t, *values = curves
    if len(t) != 1:
        return curves
    half = max(0.02 * float(np.ptp(np.append(others, t))), 0.005 * float(t[0]))
    return np.array([t[0] - half, t[0] + half]), *(np.repeat(x, 2) for x in values)


def _heat_capacities(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Temperatures, heat capacities, their model and sampling errors."""
    data = data.sortby("temperature")
    names = ("heat_capacity", "heat_capacity_model_std", "heat_capacity_sampling_err")
    value, model, sampling = (data[name].values for name in names)
    return data["temperature"].values, value, model, sampling


def _at_temperature(plain: xr.Dataset, temperature_K: float) -> xr.Dataset | None:
    found = np.flatnonzero(np.isclose(plain["temperature"].values, temperature_K, rtol=1e-6))
    return plain.isel(temperature=int(found[0])) if len(found) else None


def _heat_capacity_text(at: xr.Dataset) -> str:
    return with_errors([float(at[f"heat_capacity{suffix}"]) for suffix in ("", "_model_std", "_sampling_err")])
