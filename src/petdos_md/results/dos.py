"""Figures of thermal-average densities of states.

>>> save(plot_dos(result), "dos.png")                                                                         # doctest: +SKIP
>>> save(plot_side_by_side({"solid": {"general": a, "bespoke": b}, "liquid": {"general": c}}), "phases.png")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .style import (
    LINE_STYLES,
    STYLE,
    GivenAxes,
    Handle,
    Results,
    any_finite,
    by_name,
    make_panels,
    model_error_patch,
    sampling_error_patch,
    system_color,
    times_sigma,
)

_OWN_ZERO = ", with shifts of the zero"
MAX_CURVES = 5
"""Temperatures drawn in one panel; of more, an even choice is taken that keeps the lowest and the highest."""


def plot_dos(
    results: Results,
    *,
    reference: str = "fermi",
    energy_range: tuple[float, float] | None = None,
    sigmas: float = 1.0,
    ax: GivenAxes = None,
    normalization: str | None = None,
) -> Figure:
    """Thermal-average DOS, per atom unless another normalization is asked for; one panel for each system, one line for each temperature.

    Model error: light band, of the lowest and the highest temperature where there are more than two. Sampling error: hatched band, mostly
    thinner than the line. A triangle marks each Fermi level. Results that differ in the temperature of the electrons alone share one DOS, which
    is drawn once.

    :param results: a Dataset of :func:`petdos_md.analyze`, or several by name
    :param reference: ``fermi`` puts zero at the Fermi level of each temperature; ``raw`` keeps the model's own axis and
        needs results with that reference. Bands of a raw result are wider than those of one analyzed with
        ``reference="fermi"``: they contain shifts of the members' energies against each other, as the legend then says
    :param energy_range: in eV on that axis; by default from below the valence band to 5 eV above the Fermi level
    :param sigmas: half width of the bands in standard errors
    :param ax: axes to draw into, one for each system; a new figure if None
    :param normalization: ``cell`` for the DOS of the structure; all others are per atom
    :returns: the figure of the axes
    :raises ValueError: if raw energies are asked for but the results have none, or the number of axes is another
    """
    named = by_name(results)
    if reference not in ("fermi", "raw"):
        raise ValueError(f"reference={reference!r} given, expected 'fermi' or 'raw'")
    for name, data in named.items():
        if reference == "raw" and data.attrs["energy_reference"] != "raw":
            raise ValueError(
                f"{name or 'the result'}: energies are relative to the Fermi level; analyze with reference='raw' (--reference raw)"
            )
    with matplotlib.rc_context(STYLE):
        height = 0.9 + 2.35 * len(named) if len(named) > 1 else 4.2
        panels = make_panels(ax, len(named), (7.2, height), sharex=True)
        limits = energy_range or _common_range([_default_range(data, reference) for data in named.values()])
        for panel, (name, data) in zip(panels.axes, named.items(), strict=True):
            _dos_panel(panel, _distinct(data, normalization), reference, limits, sigmas)
            if name:
                panel.set_title(name, loc="left", pad=4)
        zero = r"$E - E_\mathrm{F}$ (eV)" if reference == "fermi" else r"$E$ (eV, model's own zero)"
        panels.axes[-1].set_xlabel(zero)
        panels.label_y("DOS (states / eV)" if normalization == "cell" else "DOS (states / eV / atom)")
        entries: list[tuple[Handle, str]] = []
        if any_finite(named, "dos_model_std"):
            own_zero = reference == "fermi" and any(d.attrs["energy_reference"] == "raw" for d in named.values())
            entries.append((model_error_patch(), f"model error ({times_sigma(sigmas)}{_OWN_ZERO if own_zero else ''})"))
        if any_finite(named, "dos_sampling_err"):
            entries.append((sampling_error_patch(), f"sampling error ({times_sigma(sigmas)})"))
        panels.legend([h for h, _ in entries], [label for _, label in entries], "upper right", ncols=2)
    return panels.figure


def plot_side_by_side(
    phases: Mapping[str, Mapping[str, xr.Dataset]],
    *,
    energy_range: tuple[float, float] = (-8.0, 4.0),
    sigmas: float = 1.0,
    columns: int = 3,
    ax: GivenAxes = None,
) -> Figure:
    """Thermal-average DOS per atom against E - E_F, one panel per phase, one line with its band per model (Fig. 6 of the article).

    Band: model error, the standard deviation over members, each averaged over frames. Sampling error: hatched.

    :param phases: by phase, then by model (or by temperature, ...), results of :func:`petdos_md.analyze` of one temperature
        each; of several, the first counts
    :param energy_range: relative to the Fermi level, eV
    :param columns: of panels in a new figure
    :param ax: axes to draw into, one for each phase; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if there is nothing to plot, or the number of axes is another
    """
    if not phases or not all(phases.values()):
        raise ValueError("no results to plot, expected at least one for every phase")
    models = list(dict.fromkeys(name for of_phase in phases.values() for name in of_phase))
    n_columns = min(columns, len(phases))
    size = 1.2 + 2.9 * n_columns, 1.1 + 2.3 * -(-len(phases) // n_columns)
    with matplotlib.rc_context(STYLE):
        panels = make_panels(ax, len(phases), size, n_columns, sharex=True)
        for panel, (phase, of_phase) in zip(panels.axes, phases.items(), strict=True):
            tops = [_model_line(panel, d, models.index(m), energy_range, sigmas) for m, d in of_phase.items()]
            _finish_panel(panel, energy_range, (-0.02 * max(tops), 1.1 * max(tops)), nbins=7)
            panel.set_title(phase, loc="left", pad=4)
        panels.label_x(r"$E - E_\mathrm{F}$ (eV)")
        panels.label_y("DOS (states / eV / atom)")
        handles: list[Handle] = [
            Line2D([], [], color=system_color(k), linestyle=LINE_STYLES[k % len(LINE_STYLES)])  # type: ignore[arg-type]
            for k in range(len(models))
        ]
        handles.append(model_error_patch())
        labels = [*models, f"model error ({times_sigma(sigmas)})"]
        if any(any_finite(of_phase, "dos_sampling_err") for of_phase in phases.values()):
            handles.append(sampling_error_patch())
            labels.append("sampling error")
        panels.legend(handles, labels, "upper center", ncols=min(len(labels), 2 * n_columns), fontsize=8)
    return panels.figure


def _model_line(axes: Axes, data: xr.Dataset, k: int, limits: tuple[float, float], sigmas: float) -> float:
    """Draw the k-th model; returns the height of its line and band."""
    at = data.isel(temperature=0) if "temperature" in data.dims else data
    x = _axis(at, data.attrs["energy_reference"], "fermi")
    shown = (x >= limits[0]) & (x <= limits[1])
    y, std, err = (at[v].values[shown] / float(at["n_atoms"]) for v in ("dos", "dos_model_std", "dos_sampling_err"))
    x, color = x[shown], system_color(k)
    axes.fill_between(x, y - sigmas * std, y + sigmas * std, color=color, alpha=0.2, linewidth=0)
    if np.isfinite(err).any():
        axes.fill_between(
            x, y - sigmas * err, y + sigmas * err, facecolor="none", edgecolor=color, hatch="/////", linewidth=0
        )
    axes.plot(x, y, color=color, linestyle=LINE_STYLES[k % len(LINE_STYLES)], linewidth=1.3)
    return float(np.nanmax(y + np.nan_to_num(std)))


def _distinct(data: xr.Dataset, normalization: str | None) -> xr.Dataset:
    """One entry for each DOS, with what it is divided by."""
    data = data.assign(per=data["n_atoms"] * 0 + 1 if normalization == "cell" else data["n_atoms"])
    ensembles = data["ensemble_temperature"].values if "ensemble_temperature" in data else data["temperature"].values
    if data.sizes["temperature"] > 1 and np.ptp(ensembles) == 0 and bool((data["dos"] == data["dos"][0]).all()):
        return data.isel(temperature=[0]).assign_coords(temperature=ensembles[:1])
    return data


def _dos_panel(axes: Axes, data: xr.Dataset, reference: str, limits: tuple[float, float], sigmas: float) -> None:
    chosen = _chosen(data.sizes["temperature"])
    colors = matplotlib.colormaps["plasma"](np.linspace(0.0, 0.72, max(len(chosen), 2)))
    highest, rightmost = 0.0, -np.inf
    for k, i in enumerate(chosen):
        at = data.isel(temperature=i)
        scale = 1.0 / float(at["per"])
        x = _axis(at, data.attrs["energy_reference"], reference)
        shown = (x >= limits[0]) & (x <= limits[1])
        x, y = x[shown], at["dos"].values[shown] * scale
        model, sampling = (sigmas * scale * at[f"dos_{e}"].values[shown] for e in ("model_std", "sampling_err"))
        label = f"{float(at['temperature']):g} K"
        style = LINE_STYLES[k % len(LINE_STYLES)]
        if len(chosen) <= 2 or k in (0, len(chosen) - 1):
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
        axes.annotate(
            r"$E_\mathrm{F}$", (0.0, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", color="0.35",
        )  # fmt: skip
    else:
        axes.annotate(r"$E_\mathrm{F}$", (rightmost, 0.0), xytext=(6, 3), textcoords="offset points", color="0.35")
    heights = min(0.0, -0.02 * highest), 1.08 * highest
    _finish_panel(axes, limits, heights, nbins=9, mark_zero=reference == "fermi")
    axes.legend(loc="upper left", handlelength=2.6)


def _finish_panel(
    axes: Axes, limits: tuple[float, float], heights: tuple[float, float], nbins: int, mark_zero: bool = True
) -> None:
    if mark_zero:
        axes.axvline(0.0, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    axes.axhline(0.0, color="0.8", linewidth=0.6, zorder=0)
    axes.set_xlim(limits)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=nbins, integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(*heights)


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
