"""Figures of the electronic heat capacity over temperature.

>>> save(plot_heat_capacity({"Al": al, "Si": si}), "heat_capacity.png")       # doctest: +SKIP
"""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from ..base.constants import SOMMERFELD
from ..physics.thermo import dos_at_fermi_level
from .normalization import unit_and_scale
from .style import (
    MARKERS,
    STYLE,
    SYSTEM_LINES,
    Handle,
    Results,
    any_finite,
    by_name,
    make_panels,
    model_error_patch,
    system_color,
    times_sigma,
)
from .tables import electrons_apart


def plot_heat_capacity(
    results: Results,
    *,
    sommerfeld: bool = True,
    sigmas: float = 1.0,
    ax: Axes | None = None,
    normalization: str | None = None,
) -> Figure:
    """Electronic heat capacity over temperature, in k_B per atom unless another normalization is asked for.

    Model error: band (a wide light bar for a single temperature). Sampling error: bar with caps.

    :param results: a Dataset of :func:`petdos_md.analyze`, or several by name
    :param sommerfeld: draw pi^2/3 k_B^2 g(E_F) T with g(E_F) of the lowest temperature, thin and dotted, where there is no gap
    :param sigmas: half width of band and bars in standard errors
    :param ax: axes to draw into; a new figure if None
    :param normalization: ``cell``, ``atom``, ``mol`` or ``kB``
    :returns: the figure of the axes
    """
    named, chosen = by_name(results), normalization or "kB"
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 1, (6.2, 4.2))
        (axes,) = panels.axes
        handles: list[Handle] = []
        labels: list[str] = []
        drawn = False
        for i, (name, data) in enumerate(named.items()):
            unit, scale = unit_and_scale(data, "heat_capacity", chosen)
            handles.append(_capacity_line(axes, data.assign(scale=("temperature", scale)), i, sigmas))
            labels.append(name or r"$C_\mathrm{el}$")
            if sommerfeld and sommerfeld_slope(data) > 0 and not _is_gapped(data):
                _sommerfeld_line(axes, data, i, name, scale[0])
                drawn = True
        if any_finite(named, "heat_capacity_model_std"):
            handles.append(model_error_patch())
            labels.append(f"model error ({times_sigma(sigmas)})")
        if any_finite(named, "heat_capacity_sampling_err"):
            # Without data, but with a finite error: matplotlib then draws the caps in the legend.
            handles.append(
                axes.errorbar([np.nan], [np.nan], [1.0], color="0.25", linestyle="none", capsize=3, elinewidth=1.3)
            )
            labels.append(f"sampling error ({times_sigma(sigmas)})")
        if drawn:
            handles.append(Line2D([], [], color="0.35", linewidth=0.9, linestyle=":"))
            labels.append(r"Sommerfeld, $\frac{\pi^2}{3} k_\mathrm{B}^2\, g(E_\mathrm{F})\, T$")
        axes.legend(handles, labels, loc="best", handler_map={tuple: HandlerTuple(ndivide=1)})
        hot = any(electrons_apart(data) for data in named.values())
        axes.set_xlabel(r"$T_\mathrm{e}$ (K)" if hot else r"$T$ (K)")
        axes.set_ylabel(rf"$C_\mathrm{{el}}$ ({_in_math(unit)})")
        axes.set_xlim(0, 1.05 * max(float(data["temperature"].max()) for data in named.values()))
        axes.set_ylim(bottom=0)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
    return panels.figure


def sommerfeld_slope(data: xr.Dataset) -> float:
    """pi^2/3 k_B^2 g(E_F) in eV/K^2 per structure, with g(E_F) of the lowest temperature."""
    at = data.isel(temperature=int(np.argmin(data["temperature"].values)))
    energies = at["energy"].values
    if data.attrs["energy_reference"] == "raw":
        g = float(dos_at_fermi_level(energies, at["dos"].values, float(at["electrons"])))
    else:
        g = float(np.interp(0.0, energies, at["dos"].values))
    return float(SOMMERFELD * g)


def _is_gapped(data: xr.Dataset) -> bool:
    """Whether there is a gap at the lowest temperature: the few states that smearing leaves in it make no metal."""
    at = data.isel(temperature=int(np.argmin(data["temperature"].values)))
    return float(at["gap"]) > 0


def _in_math(unit: str) -> str:
    return unit.replace("k_B", r"$k_\mathrm{B}$").replace("/", " / ")


def _sommerfeld_line(axes: Axes, data: xr.Dataset, i: int, name: str, scale: float) -> None:
    t = np.array([0.0, float(data["temperature"].max()) * 1.04])
    line = sommerfeld_slope(data) * t * scale
    axes.plot(t, line, color=system_color(i), linewidth=0.9, linestyle=":", label=f"sommerfeld {name}", zorder=1)


def _capacity_line(axes: Axes, data: xr.Dataset, i: int, sigmas: float) -> Handle:
    data = data.sortby("temperature")
    t = data["temperature"].values
    scale = data["scale"].values
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
