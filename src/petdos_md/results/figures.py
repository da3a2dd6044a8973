"""More figures: averages side by side, levels of frames, calibration of errors.

>>> save(plot_side_by_side({"solid": {"general": a, "bespoke": b}, "liquid": {"general": c}}), "phases.png")   # doctest: +SKIP
>>> save(plot_levels(frame_levels("run.zarr")), "levels.png")                                               # doctest: +SKIP

As in :mod:`petdos_md.results.plot`: readable in grey, without pyplot, every energy axis names its zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import scipy.special
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ..validation.validate import Z_WANTED, Validation
from .plot import LINE_STYLES, MARKERS, STYLE, Handle, new_figure, system_color

LABELS = {
    "fermi_level": r"$E_\mathrm{F}$ (eV, model's own zero)",
    "gap": "band gap (eV)",
    "dos_at_fermi_level": r"$g(E_\mathrm{F})$ (states / eV / structure)",
}


def plot_side_by_side(
    phases: Mapping[str, Mapping[str, xr.Dataset]],
    *,
    energy_range: tuple[float, float] = (-8.0, 4.0),
    sigmas: float = 1.0,
    columns: int = 3,
) -> Figure:
    """Thermal-average DOS per atom against E - E_F, one panel per phase, one line with its band per model (Fig. 6 of the article).

    Band: model error, the standard deviation over members, each averaged over frames. Sampling error: hatched.

    :param phases: by phase, then by model (or by temperature, ...), results of :func:`petdos_md.analyze` of one temperature
        each; of several, the first counts
    :param energy_range: relative to the Fermi level, eV
    :raises ValueError: if there is nothing to plot
    """
    if not phases or not all(phases.values()):
        raise ValueError("no results to plot, expected at least one for every phase")
    models = list(dict.fromkeys(name for of_phase in phases.values() for name in of_phase))
    n_columns = min(columns, len(phases))
    n_rows = -(-len(phases) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.2 + 2.9 * n_columns, 1.1 + 2.3 * n_rows)
        panels = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False)
        sampled = False
        for axes, (phase, of_phase) in zip(panels.flat, phases.items(), strict=False):
            top = 0.0
            for name, data in of_phase.items():
                k = models.index(name)
                at = data.isel(temperature=0) if "temperature" in data.dims else data
                raw = data.attrs["energy_reference"] == "raw"
                x = at["energy"].values - (float(at["fermi_level"]) if raw else 0.0)
                shown = (x >= energy_range[0]) & (x <= energy_range[1])
                y, std, err = (
                    at[v].values[shown] / float(at["n_atoms"]) for v in ("dos", "dos_model_std", "dos_sampling_err")
                )
                x, color = x[shown], system_color(k)
                axes.fill_between(x, y - sigmas * std, y + sigmas * std, color=color, alpha=0.2, linewidth=0)
                if np.isfinite(err).any():
                    sampled = True
                    axes.fill_between(
                        x,
                        y - sigmas * err,
                        y + sigmas * err,
                        facecolor="none",
                        edgecolor=color,
                        hatch="/////",
                        linewidth=0,
                    )
                axes.plot(x, y, color=color, linestyle=LINE_STYLES[k % len(LINE_STYLES)], linewidth=1.3)
                top = max(top, float(np.nanmax(y + np.nan_to_num(std))))
            axes.axvline(0.0, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
            axes.axhline(0.0, color="0.8", linewidth=0.6, zorder=0)
            axes.set_xlim(energy_range)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 5, 10]))
            axes.set_ylim(-0.02 * top, 1.1 * top)
            axes.set_title(phase, loc="left", pad=4)
        for axes in list(panels.flat)[len(phases) :]:
            axes.set_visible(False)
        figure.supxlabel(r"$E - E_\mathrm{F}$ (eV)", fontsize=10)
        figure.supylabel("DOS (states / eV / atom)", fontsize=10)
        handles: list[Handle] = [
            Line2D([], [], color=system_color(k), linestyle=LINE_STYLES[k % len(LINE_STYLES)])  # type: ignore[arg-type]
            for k in range(len(models))
        ]
        handles.append(Patch(facecolor="0.5", alpha=0.3, linewidth=0))
        times = "" if sigmas == 1 else f"{sigmas:g} "
        labels = [*models, rf"model error ($\pm${times}$\sigma$)"]
        if sampled:
            handles.append(Patch(facecolor="none", edgecolor="0.25", hatch="/////", linewidth=0))
            labels.append("sampling error")
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 2 * n_columns), fontsize=8)
    return figure


def plot_levels(data: xr.Dataset) -> Figure:
    """Fermi level, gap and DOS at the Fermi level against frames, one line with its model-error band per method.

    :param data: of :func:`petdos_md.analysis.levels.frame_levels`
    """
    methods = [method for method in ("raw", "denoised", "network") if f"gap_{method}" in data]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.2, 6.4)
        panels = figure.subplots(3, 1, sharex=True)
        known = [method for method in methods if any(np.isfinite(data[f"{q}_{method}"]).any() for q in LABELS)]
        for axes, (quantity, label) in zip(panels, LABELS.items(), strict=True):
            for method in known:
                k = methods.index(method)
                x, y, std = (
                    data["frame"].values,
                    data[f"{quantity}_{method}"].values,
                    data[f"{quantity}_{method}_model_std"].values,
                )
                axes.fill_between(x, y - std, y + std, color=system_color(k), alpha=0.18, linewidth=0)
                axes.plot(
                    x, y, color=system_color(k), linestyle=LINE_STYLES[k], linewidth=1.1, marker=MARKERS[k],
                    markevery=max(1, len(x) // 12), markersize=3.5, label=method,
                )  # fmt: skip
            axes.set_ylabel(label)
            _mark_temperatures(axes, data)
        panels[-1].set_xlabel("frame (series after series, by temperature)")
        handles, labels = panels[0].get_legend_handles_labels()
        if data.attrs["n_members"]:
            handles.append(Patch(facecolor="0.5", alpha=0.3, linewidth=0))
            labels.append(r"model error ($\pm\sigma$)")
        figure.legend(handles, labels, loc="outside upper center", ncols=4)
        figure.align_ylabels(panels)
    return figure


def _mark_temperatures(axes: matplotlib.axes.Axes, data: xr.Dataset) -> None:
    t = data["frame_temperature"].values
    starts = np.flatnonzero(np.r_[True, np.diff(t) != 0])
    for start in starts:
        if start:
            axes.axvline(start - 0.5, color="0.6", linewidth=0.7)
        axes.annotate(
            f"{t[start]:g} K", (start, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=8, color="0.35",
        )  # fmt: skip


def plot_errors(result: Validation) -> Figure:
    """Errors of the DOS per subset with the symmetry error (Fig. 1 of the article), and the share of structures below an error
    (Fig. 2)."""
    subsets = result.subsets
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 3.4)
        left, right = figure.subplots(1, 2, width_ratios=(1.3, 1))
        x = np.arange(len(subsets))
        summaries = [result.summary(subset) for subset in subsets]
        left.plot(x, [s["dos_rmse"] for s in summaries], color=system_color(0), marker=MARKERS[0], label="DOS RMSE")
        symmetry = np.array([s["symmetry_error"] for s in summaries])
        if np.isfinite(symmetry).any():
            left.plot(
                x, 10 * symmetry, color=system_color(1), marker=MARKERS[1], linestyle="--", label="symmetry error x 10"
            )
        left.axhline(result.summary()["dos_rmse"], color="0.4", linewidth=0.8, linestyle=":", label="all structures")
        left.set_xticks(x, [s or "all" for s in subsets], rotation=35, ha="right", fontsize=8)
        left.set_ylabel(r"error (eV$^{-1/2}$ electrons$^{-1}$ state)")
        left.set_ylim(bottom=0)
        left.legend(fontsize=8)
        shown = [s for s in subsets if len(result.of(s)) >= 4]
        for k, subset in enumerate([None, *shown] if len(subsets) > 1 else [None]):
            errors = np.sort([c.error for c in result.of(subset)])
            style = (
                {"color": "k", "linewidth": 1.8} if subset is None else {"color": system_color(k - 1), "linewidth": 0.9}
            )
            right.step(
                np.r_[errors[0], errors], np.r_[0, np.arange(1, len(errors) + 1) / len(errors)], where="post",
                linestyle="-" if subset is None else LINE_STYLES[k % len(LINE_STYLES)], label="all" if subset is None else subset, **style,
            )  # fmt: skip
        right.set_xlabel(r"error (eV$^{-1/2}$ electrons$^{-1}$ state)")
        right.set_ylabel("share of structures below")
        right.set_ylim(0, 1.02)
        right.legend(fontsize=6.5, loc="lower right")
    return figure


def plot_calibration(result: Validation) -> Figure:
    """z-score spread per channel, share of references within a multiple of the model error, and errors against model errors."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.6, 3.5)
        left, middle, right = figure.subplots(1, 3)
        left.axhspan(*Z_WANTED, color="0.92", linewidth=0)
        left.axhline(1.0, color="k", linewidth=0.8)
        left.plot(result.energies, result.channel_spread(), color=system_color(0), linewidth=1.1)
        level = float(np.mean([c.fermi_level for c in result.comparisons]))
        left.axvline(level, color="0.4", linewidth=0.8, linestyle=":")
        left.annotate(
            r"mean $E_\mathrm{F}$",
            (level, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=8,
        )
        left.set(xlabel=r"$E$ (eV, model's own zero)", ylabel="root mean square z-score of a channel", ylim=(0, 2.2))
        k = np.linspace(0, 3.5, 141)
        middle.plot(k, scipy.special.erf(k / np.sqrt(2)), color="k", linewidth=1.8, label="Gaussian errors")
        flat = np.concatenate([c.z[np.isfinite(c.z)] for c in result.comparisons])
        middle.plot(k, [(np.abs(flat) <= x).mean() for x in k], color="0.5", linewidth=1.2, label="channels")
        for i, name in enumerate(n for n in result.units if not n.startswith("chemical")):
            rows = np.array([c.integrals[name] for c in result.comparisons])
            z = np.abs(rows[:, 0] - rows[:, 1]) / rows[:, 2]
            style = {"color": system_color(i), "linestyle": LINE_STYLES[(i + 1) % len(LINE_STYLES)], "linewidth": 1.1}
            middle.plot(k, [(z <= x).mean() for x in k], label=name.replace("_", " "), **style)
            right.plot(
                rows[:, 2] / abs(rows[:, 0].mean()), np.abs(rows[:, 0] - rows[:, 1]) / abs(rows[:, 0].mean()),
                linestyle="none", marker=MARKERS[i % len(MARKERS)], markersize=3.5, markerfacecolor="none", color=system_color(i),
            )  # fmt: skip
        middle.set(
            xlabel="multiple of the model error", ylabel="share of references within", ylim=(0, 1.03), xlim=(0, 3.5)
        )
        middle.legend(fontsize=6.5, loc="lower right")
        right.set(xscale="log", yscale="log", xlabel="model error / mean", ylabel="|error| / mean")
        lower, upper = right.get_xlim()
        line = np.array([lower, upper])
        right.plot(line, line, color="k", linewidth=0.8)
        right.plot(line, 2 * line, color="k", linewidth=0.8, linestyle=":")
        right.set_xlim(lower, upper)
    return figure
