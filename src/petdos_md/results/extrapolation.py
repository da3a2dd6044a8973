"""A figure of how far frames are from the training set of their model.

>>> save(plot_extrapolation(result), "extrapolation.png")                     # doctest: +SKIP
"""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..models.rigidity import FAR_OUTSIDE, OUTSIDE
from .style import MARKERS, STYLE, Handle, Results, by_name, make_panels, system_color


def plot_extrapolation(results: Results, *, ax: Axes | None = None) -> Figure:
    """Extrapolation grades of frames over temperature: median, the middle half (thick), 5 to 95 % (thin) and the largest.

    Lines mark where 99 % of the training set are below, and above what frames are far outside it.

    :param results: a Dataset of :func:`petdos_md.analyze`, or several by name
    :param ax: axes to draw into; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if none of the models knows its training set
    """
    named = {name: data for name, data in by_name(results).items() if "extrapolation_grade" in data}
    if not named:
        raise ValueError("no result has extrapolation grades: the file of the model does not record its training set")
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 1, (6.2, 3.6))
        (axes,) = panels.axes
        handles: list[Handle] = []
        for i, data in enumerate(named.values()):
            handles.append(_grades(axes, data, i))
        largest = axes.plot([], [], color="0.25", marker="_", markersize=9, linestyle="none")[0]
        axes.legend([*handles, largest], [*(name or "frames" for name in named), "largest"], loc="best")
        axes.set_yscale("log")
        for grade, style, text in (
            (OUTSIDE, "--", "99 % of the training set"),
            (FAR_OUTSIDE, "-", "far outside"),
        ):
            axes.axhline(grade, color="0.35", linewidth=0.9, linestyle=style)
            axes.annotate(text, (1.0, grade), xycoords=("axes fraction", "data"), xytext=(0, 1.5),
                          textcoords="offset points", ha="right", va="bottom", fontsize=8, color="0.35")  # fmt: skip
        axes.set_xlabel(r"$T$ (K)")
        axes.set_ylabel("extrapolation grade")
        axes.margins(x=0.08)
        low, high = axes.get_ylim()
        axes.set_ylim(low, max(high, FAR_OUTSIDE * (FAR_OUTSIDE / low) ** 0.08))  # room for the words above the line
    return panels.figure


def _grades(axes: Axes, data: xr.Dataset, i: int) -> Handle:
    # Frames of one ensemble stand there once, however many temperatures of the electrons there are.
    x, first = np.unique(data.get("ensemble_temperature", data["temperature"]).values, return_index=True)
    quantiles = data["extrapolation_grade_quantiles"].values[first].T
    color = system_color(i)
    axes.vlines(x, quantiles[0], quantiles[4], color=color, linewidth=1.0)
    axes.vlines(x, quantiles[1], quantiles[3], color=color, linewidth=3.5)
    axes.plot(x, data["extrapolation_grade_max"].values[first], color=color, marker="_", markersize=9, linestyle="none")
    marker = MARKERS[i % len(MARKERS)]
    return axes.plot(
        x, np.asarray(quantiles[2]), color=color, marker=marker, markerfacecolor="white", linestyle="none"
    )[0]
