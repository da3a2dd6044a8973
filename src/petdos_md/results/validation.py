"""Figures of how good a model is: errors per subset, calibration of its error bars.

>>> result = validate_model(model, references)                            # doctest: +SKIP
>>> save(plot_errors(result), "errors.png")                               # doctest: +SKIP
>>> save(plot_calibration(result), "calibration.png")                     # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import scipy.special
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import LINE_STYLES, MARKERS, STYLE, GivenAxes, make_panels, system_color

if TYPE_CHECKING:  # torch and scipy.integrate take seconds to import, and most figures do without
    from ..validation.validate import Validation

_ERROR = r"error (eV$^{-1/2}$ electrons$^{-1}$ state)"


def plot_errors(result: Validation, *, ax: GivenAxes = None) -> Figure:
    """Errors of the DOS per subset with the symmetry error (Fig. 1 of the article), and the share of structures below an error
    (Fig. 2).

    :param ax: two axes to draw into; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 2, (8.4, 3.4), 2, width_ratios=(1.3, 1))
        _errors_of_subsets(panels.axes[0], result)
        _shares_below(panels.axes[1], result)
    return panels.figure


def plot_calibration(result: Validation, *, ax: GivenAxes = None) -> Figure:
    """z-score spread per channel, share of references within a multiple of the model error, and errors against model errors.

    :param ax: three axes to draw into; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, 3, (9.6, 3.5), 3)
        _spread_of_channels(panels.axes[0], result)
        _shares_within(panels.axes[1], result)
        _errors_against_model_errors(panels.axes[2], result)
    return panels.figure


def _errors_of_subsets(axes: Axes, result: Validation) -> None:
    subsets = result.subsets
    x = np.arange(len(subsets))
    summaries = [result.summary(subset) for subset in subsets]
    axes.plot(
        x,
        [s["dos_rmse"] for s in summaries],
        color=system_color(0),
        marker=MARKERS[0],
        linestyle="none",
        label="DOS RMSE",
    )
    symmetry = np.array([s["symmetry_error"] for s in summaries])
    if np.isfinite(symmetry).any():
        style: dict[str, Any] = {"color": system_color(1), "marker": MARKERS[1], "linestyle": "none"}
        axes.plot(x, 10 * symmetry, label="symmetry error x 10", **style)
    axes.axhline(result.summary()["dos_rmse"], color="0.4", linewidth=0.8, linestyle=":", label="all structures")
    axes.set_xticks(x, [s or "all" for s in subsets], rotation=35, ha="right", fontsize=8)
    axes.set_ylabel(_ERROR)
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.legend(fontsize=8)


def _shares_below(axes: Axes, result: Validation) -> None:
    shown = [s for s in result.subsets if len(result.comparisons_of(s)) >= 4]
    for k, subset in enumerate([None, *shown] if len(result.subsets) > 1 else [None]):
        errors = np.sort([c.error for c in result.comparisons_of(subset)])
        style: dict[str, Any] = {"color": "k", "linewidth": 1.8, "linestyle": "-", "label": "all"}
        if subset is not None:
            line = LINE_STYLES[k % len(LINE_STYLES)]
            style = {"color": system_color(k - 1), "linewidth": 0.9, "linestyle": line, "label": subset}
        share = np.r_[0, np.arange(1, len(errors) + 1) / len(errors)]
        axes.step(np.r_[errors[0], errors], share, where="post", **style)
    axes.set_xlabel(_ERROR)
    axes.set_ylabel("share of structures below")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=6.5, loc="lower right")


def _spread_of_channels(axes: Axes, result: Validation) -> None:
    from ..validation.metrics import Z_WANTED

    low, high = Z_WANTED
    axes.axhspan(low, high, color="0.92", linewidth=0, label=f"wanted: {low:g} to {high:g}")
    axes.legend(fontsize=6.5, loc="upper left")
    axes.axhline(1.0, color="k", linewidth=0.8)
    axes.plot(result.energies, result.channel_spread(), color=system_color(0), linewidth=1.1)
    levels = [c.fermi_level for c in result.comparisons if np.isfinite(c.fermi_level)]
    if levels:
        axes.axvline(float(np.mean(levels)), color="0.4", linewidth=0.8, linestyle=":")
        axes.annotate(
            r"mean $E_\mathrm{F}$", (float(np.mean(levels)), 0.03), xycoords=("data", "axes fraction"), xytext=(3, 0),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel=r"$E$ (eV, model's own zero)", ylabel="root mean square z-score of a channel", ylim=(0, 2.2))


def _shares_within(axes: Axes, result: Validation) -> None:
    k = np.linspace(0, 3.5, 141)
    axes.plot(k, scipy.special.erf(k / np.sqrt(2)), color="k", linewidth=1.8, label="Gaussian errors")
    flat = np.concatenate([c.z[np.isfinite(c.z)] for c in result.comparisons])
    axes.plot(k, [(np.abs(flat) <= x).mean() for x in k], color="0.5", linewidth=1.2, label="channels")
    for i, (name, rows) in enumerate(_drawn_integrals(result).items()):
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            continue
        z = np.abs(rows[:, 0] - rows[:, 1]) / rows[:, 2]
        style: dict[str, Any] = {"color": system_color(i), "linestyle": LINE_STYLES[(i + 1) % len(LINE_STYLES)]}
        axes.plot(k, [(z <= x).mean() for x in k], label=name.replace("_", " "), linewidth=1.1, **style)
    axes.set(xlabel="multiple of the model error", ylabel="share of references within", ylim=(0, 1.03), xlim=(0, 3.5))
    axes.legend(fontsize=6.5, loc="lower right")


def _errors_against_model_errors(axes: Axes, result: Validation) -> None:
    for i, (name, rows) in enumerate(_drawn_integrals(result).items()):
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            continue
        scale = abs(rows[:, 0].mean())
        axes.plot(
            rows[:, 2] / scale, np.abs(rows[:, 0] - rows[:, 1]) / scale, linestyle="none",
            marker=MARKERS[i % len(MARKERS)], markersize=3.5, markerfacecolor="none", color=system_color(i),
            label=name.replace("_", " "),
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="model error / mean", ylabel="|error| / mean")
    lower, upper = axes.get_xlim()
    line = np.array([lower, upper])
    axes.plot(line, line, color="k", linewidth=0.8, label="1 model error")
    axes.plot(line, 2 * line, color="k", linewidth=0.8, linestyle=":", label="2 model errors")
    axes.set_xlim(lower, upper)
    axes.legend(fontsize=6.5, loc="upper left")


def _drawn_integrals(result: Validation) -> dict[str, np.ndarray]:
    """(reference, prediction, model error) of every structure; mu, which is the Fermi level but for little, is left out."""
    names = [name for name in result.units if not name.startswith("chemical")]
    return {name: np.array([c.integrals[name] for c in result.comparisons]) for name in names}
