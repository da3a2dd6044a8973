"""Figure of a ramp: temperature and heat capacity against time, and heating and cooling as two curves against temperature.

>>> save(plot_ramp(ramp("run.zarr")), "ramp.png")                            # doctest: +SKIP
"""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..base.constants import BOLTZMANN_EV
from .style import STYLE, GivenAxes, make_panels, model_error_patch, system_color, times_sigma

_CAPACITY = r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)"
PARTS = {"heating": (1, "-", "o"), "cooling": (0, "--", "s")}
"""Color, line and marker of each."""


def plot_ramp(data: xr.Dataset, *, ax: GivenAxes = None) -> Figure:
    """Three panels: temperature and C_el against time, C_el against temperature.

    :param data: of :func:`petdos_md.analysis.ramps.ramp`
    :param ax: three axes to draw into; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 3, (9.6, 3.4), 3)
        over_time, capacity, hysteresis = panels.axes
        y, std = (
            data[name].values / (data["n_atoms"].values * BOLTZMANN_EV)
            for name in ("heat_capacity", "heat_capacity_model_std")
        )
        series = _series(data)
        for rows in series:
            time = data["time"].values[rows]
            over_time.plot(time, data["temperature"].values[rows], color="0.25", marker=".", linewidth=1.1)
            capacity.plot(time, y[rows], color="0.25", marker=".", linewidth=1.1)
            capacity.fill_between(time, y[rows] - std[rows], y[rows] + std[rows], color="0.5", alpha=0.2, linewidth=0)
        _both_ways(hysteresis, data, y, std, series)
        over_time.set(xlabel="time (ps)", ylabel=r"$T$ (K)")
        capacity.set(xlabel="time (ps)", ylabel=_CAPACITY)
        hysteresis.set(xlabel=r"$T$ (K)", ylabel=_CAPACITY)
        handles, labels = hysteresis.get_legend_handles_labels()
        if np.isfinite(std).any():
            handles, labels = [*handles, model_error_patch()], [*labels, f"model error ({times_sigma(1)})"]
        hysteresis.legend(handles, labels, loc="best")
    return panels.figure


def _both_ways(axes: Axes, data: xr.Dataset, y: np.ndarray, std: np.ndarray, series: list[np.ndarray]) -> None:
    temperature, rate = data["temperature"].values, data["rate"].values
    for name, (k, line, marker) in PARTS.items():
        label = name
        for rows in series:
            mine = rows[(rate[rows] > 0) == (name == "heating")]
            mine = mine[np.isfinite(rate[mine]) & (rate[mine] != 0)]
            if not len(mine):
                continue
            order = mine[np.argsort(temperature[mine])]
            t = temperature[order]
            axes.fill_between(
                t, y[order] - std[order], y[order] + std[order], color=system_color(k), alpha=0.15, linewidth=0
            )
            axes.plot(
                t,
                y[order],
                color=system_color(k),
                linestyle=line,
                marker=marker,
                markersize=4,
                markerfacecolor="white",
                label=label,
            )
            label = "_" + name


def _series(data: xr.Dataset) -> list[np.ndarray]:
    """Windows of each trace and replica, in the order of time."""
    keys = [f"{trace} {replica}" for trace, replica in zip(data["trace"].values, data["replica"].values, strict=True)]
    return [np.flatnonzero(np.array(keys) == key) for key in dict.fromkeys(keys)]
