"""Figures of results: the density of states and the electronic heat capacity, each with both errors.

>>> save(plot_dos(result), "dos.png")                                         # doctest: +SKIP
>>> save(plot_heat_capacity({"Al": al, "Si": si}), "heat_capacity.png")       # doctest: +SKIP

Functions return a :class:`matplotlib.figure.Figure` that is not registered with pyplot, so they leave no state behind and
need no display. Figures can be read in grey: temperatures differ in line style, systems in markers, errors in form.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..base.constants import BOLTZMANN_EV, SOMMERFELD
from ..physics.thermo import dos_at_fermi_level

Results = xr.Dataset | Mapping[str, xr.Dataset]
Handle = Any  # an artist, or a tuple of artists drawn over each other

SYSTEM_COLORS = ("#0b5394", "#c1440e", "#38761d", "#741b47", "#7f6000", "#444444")
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2, 1.2, 2, 1.2, 2)))
SYSTEM_LINES = ("-", (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "osD^vP"
MAX_CURVES = 5
"""Temperatures drawn in one panel; of more, an even choice is taken that keeps the lowest and the highest."""

STYLE: Any = {
    "font.size": 9.5,
    "axes.linewidth": 0.8,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.5,
}


def plot_dos(
    results: Results, *, reference: str = "fermi", energy_range: tuple[float, float] | None = None, sigmas: float = 1.0
) -> Figure:
    """Thermal-average DOS per atom, one panel for each system, one line for each temperature.

    Model error: light band. Sampling error: hatched band, mostly thinner than the line. A triangle marks each Fermi level.

    :param results: a Dataset of :func:`petdos_md.analyze`, or several by name
    :param reference: ``fermi`` puts zero at the Fermi level of each temperature; ``raw`` keeps the model's own axis and
        needs results with that reference
    :param energy_range: in eV on that axis; by default from below the valence band to 5 eV above the Fermi level
    :param sigmas: half width of the bands in standard errors
    :raises ValueError: if raw energies are asked for, but the results have none
    """
    named = _named(results)
    if reference not in ("fermi", "raw"):
        raise ValueError(f"reference={reference!r} given, expected 'fermi' or 'raw'")
    for name, data in named.items():
        if reference == "raw" and data.attrs["energy_reference"] != "raw":
            raise ValueError(
                f"{name or 'the result'}: energies are relative to the Fermi level; analyze with reference='raw'"
            )
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.2, 0.9 + 2.35 * len(named) if len(named) > 1 else 4.2)
        panels = figure.subplots(len(named), 1, sharex=True, squeeze=False)[:, 0]
        limits = energy_range or _common_range([_default_range(data, reference) for data in named.values()])
        for axes, (name, data) in zip(panels, named.items(), strict=True):
            _dos_panel(axes, data, reference, limits, sigmas)
            if name:
                axes.set_title(name, loc="left", pad=4)
        zero = r"$E - E_\mathrm{F}$ (eV)" if reference == "fermi" else r"$E$ (eV, model's own zero)"
        panels[-1].set_xlabel(zero)
        figure.supylabel("DOS (states / eV / atom)", fontsize=10)
        handles, labels = _band_legend(sigmas, any(np.isfinite(d["dos_model_std"]).any() for d in named.values()))
        if any(np.isfinite(d["dos_sampling_err"]).any() for d in named.values()):
            handles.append(Patch(facecolor="none", edgecolor="0.25", hatch="/////", linewidth=0.0))
            labels.append(f"sampling error ({_times(sigmas)})")
        if handles:
            figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


def plot_heat_capacity(results: Results, *, sommerfeld: bool = True, sigmas: float = 1.0) -> Figure:
    """Electronic heat capacity per atom over temperature.

    Model error: band (a wide light bar for a single temperature). Sampling error: bar with caps.

    :param results: a Dataset of :func:`petdos_md.analyze`, or several by name
    :param sommerfeld: draw pi^2/3 k_B^2 g(E_F) T with g(E_F) of the lowest temperature, thin and dotted
    :param sigmas: half width of band and bars in standard errors
    """
    named = _named(results)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.2, 4.2)
        axes = figure.subplots()
        handles: list[Handle] = []
        labels: list[str] = []
        for i, (name, data) in enumerate(named.items()):
            handles.append(_capacity_line(axes, data, i, sigmas))
            labels.append(name or r"$C_\mathrm{el}$")
            if sommerfeld and float(sommerfeld_slope(data)) > 0:
                t = np.array([0.0, float(data["temperature"].max()) * 1.04])
                line = sommerfeld_slope(data) * t / _per_atom(data, i=0)
                axes.plot(
                    t, line, color=system_color(i), linewidth=0.9, linestyle=":", label=f"sommerfeld {name}", zorder=1
                )
        bands, texts = _band_legend(
            sigmas, any(np.isfinite(d["heat_capacity_model_std"]).any() for d in named.values())
        )
        handles += bands
        labels += texts
        if any(np.isfinite(d["heat_capacity_sampling_err"]).any() for d in named.values()):
            # Without data, but with a finite error: matplotlib then draws the caps in the legend.
            handles.append(
                axes.errorbar([np.nan], [np.nan], [1.0], color="0.25", linestyle="none", capsize=3, elinewidth=1.3)
            )
            labels.append(f"sampling error ({_times(sigmas)})")
        if sommerfeld:
            handles.append(Line2D([], [], color="0.35", linewidth=0.9, linestyle=":"))
            labels.append(r"Sommerfeld, $\frac{\pi^2}{3} k_\mathrm{B}^2\, g(E_\mathrm{F})\, T$")
        axes.legend(handles, labels, loc="upper left", handler_map={tuple: HandlerTuple(ndivide=1)})
        axes.set_xlabel(r"$T$ (K)")
        axes.set_ylabel(r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)")
        top = max(float(data["temperature"].max()) for data in named.values())
        axes.set_xlim(0, top * 1.05)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def save(figure: Figure, path: str | Path, dpi: float = 160) -> Path:
    """Write a figure; the ending of the path tells the format."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=dpi)
    return Path(path)


def sommerfeld_slope(data: xr.Dataset) -> float:
    """pi^2/3 k_B^2 g(E_F) in eV/K^2 per structure, with g(E_F) of the lowest temperature."""
    at = data.isel(temperature=int(np.argmin(data["temperature"].values)))
    energies = at["energy"].values
    if data.attrs["energy_reference"] == "raw":
        g = float(dos_at_fermi_level(energies, at["dos"].values, float(at["electrons"])))
    else:
        g = float(np.interp(0.0, energies, at["dos"].values))
    return float(SOMMERFELD * g)


def _dos_panel(axes: Axes, data: xr.Dataset, reference: str, limits: tuple[float, float], sigmas: float) -> None:
    chosen = _chosen(data.sizes["temperature"])
    colors = matplotlib.colormaps["plasma"](np.linspace(0.0, 0.72, max(len(chosen), 2)))
    highest, rightmost = 0.0, -np.inf
    for k, i in enumerate(chosen):
        at = data.isel(temperature=i)
        scale = 1.0 / float(at["n_atoms"])
        x = _axis(at, data.attrs["energy_reference"], reference)
        shown = (x >= limits[0]) & (x <= limits[1])
        x, y = x[shown], at["dos"].values[shown] * scale
        model, sampling = (sigmas * scale * at[f"dos_{e}"].values[shown] for e in ("model_std", "sampling_err"))
        label = f"{float(at['temperature']):g} K"
        style = LINE_STYLES[k % len(LINE_STYLES)]
        axes.fill_between(x, y - model, y + model, color=colors[k], alpha=0.18, linewidth=0, zorder=1)
        axes.fill_between(
            x, y - sampling, y + sampling, facecolor=(*colors[k][:3], 0.35), edgecolor=(*colors[k][:3], 0.9),
            hatch="/////", linewidth=0, zorder=2,
        )  # fmt: skip
        axes.plot(x, y, color=colors[k], linestyle=style, label=label, zorder=3 + k)
        level = 0.0 if reference == "fermi" else float(at["fermi_level"])
        if reference == "raw":
            axes.plot(level, 0, marker="v", color=colors[k], markersize=6, clip_on=False, zorder=10)
            rightmost = max(rightmost, level)
        highest = max(highest, float(np.nanmax(y + np.nan_to_num(model))))
    if reference == "fermi":
        axes.axvline(0.0, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.annotate(
            r"$E_\mathrm{F}$", (0.0, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", color="0.35",
        )  # fmt: skip
    else:
        axes.annotate(r"$E_\mathrm{F}$", (rightmost, 0.0), xytext=(6, 3), textcoords="offset points", color="0.35")
    axes.axhline(0.0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(min(0.0, -0.02 * highest), 1.08 * highest)
    axes.legend(loc="upper left", handlelength=2.6)


def _capacity_line(axes: Axes, data: xr.Dataset, i: int, sigmas: float) -> Handle:
    data = data.sortby("temperature")
    t = data["temperature"].values
    scale = 1.0 / (data["n_atoms"].values * BOLTZMANN_EV)
    y, model, sampling = (
        data[name].values * scale for name in ("heat_capacity", "heat_capacity_model_std", "heat_capacity_sampling_err")
    )
    color = system_color(i)
    if np.isfinite(model).any():
        if len(t) > 1:
            axes.fill_between(t, y - sigmas * model, y + sigmas * model, color=color, alpha=0.18, linewidth=0, zorder=2)
        else:
            axes.errorbar(t, y, sigmas * model, color=color, alpha=0.25, elinewidth=9, linestyle="none", zorder=2)
    (line,) = axes.plot(t, y, color=color, linestyle=SYSTEM_LINES[i % len(SYSTEM_LINES)], zorder=3)
    (points,) = axes.plot(
        t,
        y,
        color=color,
        marker=MARKERS[i % len(MARKERS)],
        markersize=4.5,
        markerfacecolor="white",
        linestyle="none",
        zorder=5,
    )
    axes.errorbar(
        t, y, sigmas * sampling, color=color, linestyle="none", capsize=3.5, elinewidth=1.3, capthick=1.3, zorder=4
    )
    return (line, points)


def _axis(at: xr.Dataset, has: str, wanted: str) -> np.ndarray:
    energies = at["energy"].values
    return energies - float(at["fermi_level"]) if has == "raw" and wanted == "fermi" else energies


def _default_range(data: xr.Dataset, reference: str) -> tuple[float, float]:
    """From just below the lowest band to 5 eV above the Fermi level, which is about as far as models are trained."""
    at = data.isel(temperature=0)
    x, y = _axis(at, data.attrs["energy_reference"], reference), at["dos"].values
    level = 0.0 if reference == "fermi" else float(at["fermi_level"])
    # Where a hundredth of the electrons is reached: unlike a threshold of the DOS, that is not fooled by ripples below the bands.
    filled = np.cumsum(y) * (x[1] - x[0])
    below = np.flatnonzero((filled < 0.01 * float(at["electrons"])) & (x < level))
    low = x[below[-1]] - 1.0 if len(below) else x[0]
    return max(float(x[0]), float(low)), min(float(x[-1]), level + 5.0)


def _common_range(ranges: list[tuple[float, float]]) -> tuple[float, float]:
    return min(r[0] for r in ranges), max(r[1] for r in ranges)


def _chosen(n: int) -> list[int]:
    return sorted({round(x) for x in np.linspace(0, n - 1, min(n, MAX_CURVES))})


def _band_legend(sigmas: float, model: bool) -> tuple[list[Handle], list[str]]:
    if not model:
        return [], []
    return [Patch(facecolor="0.5", alpha=0.3, linewidth=0)], [f"model error ({_times(sigmas)})"]


def _times(sigmas: float) -> str:
    return r"$\pm\sigma$" if sigmas == 1 else rf"$\pm{sigmas:g}\,\sigma$"


def _per_atom(data: xr.Dataset, i: int) -> float:
    return float(data["n_atoms"][i]) * BOLTZMANN_EV


def system_color(i: int) -> str:
    return SYSTEM_COLORS[i % len(SYSTEM_COLORS)]


def _named(results: Results) -> dict[str, xr.Dataset]:
    named = {"": results} if isinstance(results, xr.Dataset) else dict(results)
    if not named:
        raise ValueError("no results to plot, expected at least one")
    return named


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
