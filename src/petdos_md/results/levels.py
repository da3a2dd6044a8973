"""Figures of what is read off every frame: Fermi level, gap, DOS at the Fermi level.

>>> save(plot_levels(frame_levels("run.zarr")), "levels.png")             # doctest: +SKIP
"""

from __future__ import annotations

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import (
    LINE_STYLES,
    MARKERS,
    STYLE,
    GivenAxes,
    Handle,
    make_panels,
    system_color,
    times_sigma,
)

LABELS = {
    "fermi_level": r"$E_\mathrm{F}$ (eV, model's own zero)",
    "gap": "band gap (eV)",
    "dos_at_fermi_level": r"$g(E_\mathrm{F})$ (states / eV / structure)",
}


def plot_levels(data: xr.Dataset, *, ax: GivenAxes = None) -> Figure:
    """Fermi level, gap and DOS at the Fermi level against frames, one line per method; bars at some frames are its model errors.

    :param data: of :func:`petdos_md.analysis.levels.frame_levels`
    :param ax: three axes to draw into; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    methods = [method for method in ("raw", "denoised", "network") if f"gap_{method}" in data]
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 3, (7.2, 6.4), sharex=True)
        known = [method for method in methods if any(np.isfinite(data[f"{q}_{method}"]).any() for q in LABELS)]
        for panel, (quantity, label) in zip(panels.axes, LABELS.items(), strict=True):
            for place, method in enumerate(known):
                k = methods.index(method)
                x, y, std = (
                    data["frame"].values,
                    data[f"{quantity}_{method}"].values,
                    data[f"{quantity}_{method}_model_std"].values,
                )
                # Each method marks frames of its own, so that bars stand side by side.
                apart = max(len(known), len(x) // 12)
                marked = slice(place * (apart // len(known)), None, apart)
                panel.plot(
                    x, y, color=system_color(k), linestyle=LINE_STYLES[k], linewidth=1.1, marker=MARKERS[k],
                    markevery=marked, markersize=3.5, label=method,
                )  # fmt: skip
                if np.isfinite(std).any():
                    panel.errorbar(
                        x[marked], y[marked], std[marked], color=system_color(k), linestyle="none", elinewidth=0.8,
                        capsize=2, label="_model_error",
                    )  # fmt: skip
            panel.set_ylabel(label)
            _mark_temperatures(panel, data)
        panels.axes[-1].set_xlabel("frame (series after series, by temperature)")
        drawn, labels = panels.axes[0].get_legend_handles_labels()
        handles: list[Handle] = list(drawn)
        if data.attrs["n_members"]:
            handles.append(
                panels.axes[0].errorbar([np.nan], [np.nan], [1.0], color="0.25", linestyle="none", capsize=2)
            )
            labels.append(f"model error ({times_sigma(1)})")
        panels.legend(handles, labels, "upper center", ncols=4)
        if panels.new:
            panels.figure.align_ylabels(panels.axes)
    return panels.figure


def _mark_temperatures(axes: Axes, data: xr.Dataset) -> None:
    t = data["frame_temperature"].values
    starts = np.flatnonzero(np.r_[True, np.diff(t) != 0])
    for start in starts:
        if start:
            axes.axvline(start - 0.5, color="0.6", linewidth=0.7)
        axes.annotate(
            f"{t[start]:g} K", (start, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8, color="0.35",
        )  # fmt: skip
