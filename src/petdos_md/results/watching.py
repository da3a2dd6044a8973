"""A trace while it is written, to look at: lines for a terminal, a figure, a page that reloads itself.

>>> sparkline([1.0, 2.0, 3.0, 2.0], 4)
'▁▅█▅'
>>> amount(94), amount(12345), amount(float("nan"))
('94', '12 000', '?')
>>> print(watch_text(follower, width=100))                                 # doctest: +SKIP
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from datetime import datetime

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..analysis.following import Follower, TemperatureState
from ..base.constants import BOLTZMANN_EV
from ..base.rounding import counted, two_digits, with_errors
from .page_style import in_html, page_start
from .style import LINE_STYLES, STYLE, GivenAxes, make_panels, sampling_error_patch, save_svg, system_color

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24


def watch_text(follower: Follower, width: int = 100) -> list[str]:
    """Lines: a heading, one row per temperature, a footing.

    :param width: of the terminal, in characters; in a narrow one, columns that can be missed are left out and notes are broken
    """
    lines = [*textwrap.wrap(_heading(follower), width), ""]
    if follower.states:
        lines += [*_table(follower, width), ""]
        lines += [line for note in _notes(follower) for line in textwrap.wrap(note, width, subsequent_indent="  ")]
    if follower.message:
        lines += textwrap.wrap(follower.message, width)
    return lines


def watch_page(follower: Follower, refresh_s: float) -> str:
    """A page that reloads itself and needs no other file."""
    esc = html.escape
    head, *cells = _rows(follower)
    rows = "".join("<tr>" + "".join(f"<td>{esc(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    names = "".join(f"<th>{in_html(name)}</th>" for name in head)
    figure = f"<figure>{save_svg(plot_convergence(follower.states))}</figure>" if follower.states else ""
    notes = "".join(f"<p class='small'>{in_html(note)}</p>" for note in [*_notes(follower), follower.message] if note)
    return (
        page_start(_heading(follower), f'<meta http-equiv="refresh" content="{refresh_s:g}">') + "\n"
        f"<header><h1>Electronic heat capacity</h1><p>{esc(_heading(follower))}</p></header>"
        f'<div class="wide"><table class="numbers"><thead><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>{figure}{notes}'
        f"<p class='small'>Written {datetime.now():%Y-%m-%d %H:%M:%S}; reloads itself every {refresh_s:g} s.</p></main></body></html>\n"
    )


def plot_convergence(states: Sequence[TemperatureState], *, ax: GivenAxes = None) -> Figure:
    """The heat capacity against the number of samples that it was known from, one panel for each temperature.

    Hatched: the sampling error now.

    :param ax: axes to draw into, one for each temperature; a new figure if None
    :returns: the figure of the axes
    :raises ValueError: if the number of axes is another
    """
    with matplotlib.rc_context(STYLE):
        n_columns = min(len(states), 3)
        size = 1.0 + 2.6 * max(n_columns, 2), 0.9 + 2.0 * -(-len(states) // n_columns)
        panels = make_panels(ax, len(states), size, n_columns)
        for k, (panel, state) in enumerate(zip(panels.axes, states, strict=True)):
            _convergence_panel(panel, state, k)
        panels.label_x("samples")
        panels.label_y(r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)")
        panels.legend([sampling_error_patch()], [r"sampling error now ($\pm\sigma$)"], "upper right")
    return panels.figure


def sparkline(values: Sequence[float] | np.ndarray, width: int) -> str:
    """A curve as a row of bars, from its smallest to its largest value."""
    y = np.asarray(values, dtype=float)
    y = y[np.isfinite(y)]
    if not len(y):
        return ""
    if len(y) > width:
        y = y[np.round(np.linspace(0, len(y) - 1, width)).astype(int)]
    low, high = y.min(), y.max()
    level = np.zeros(len(y)) if high == low else (y - low) / (high - low)
    return "".join(BARS[round(float(x) * (len(BARS) - 1))] for x in np.floor(level * 7 + 0.5) / 7)


def amount(n: float) -> str:
    """A number of samples, of large ones the first two digits."""
    if not math.isfinite(n):
        return "?"
    size = 10 ** max(int(math.log10(max(n, 1.0))) - 1, 0)
    return f"{math.ceil(n) if size == 1 else round(n / size) * size:,}".replace(",", " ")


def _convergence_panel(axes: Axes, state: TemperatureState, k: int) -> None:
    unit = state.result.n_atoms * BOLTZMANN_EV
    heat, color = state.result.heat_capacity, system_color(k)
    if math.isfinite(heat.sampling_err):
        low, high = (heat.value - heat.sampling_err) / unit, (heat.value + heat.sampling_err) / unit
        axes.axhspan(low, high, facecolor="none", edgecolor=color, hatch="/////", linewidth=0)
    style = LINE_STYLES[k % len(LINE_STYLES)]
    axes.plot(state.n_seen, state.capacities / unit, color=color, linestyle=style)
    axes.plot(state.n_seen[-1:], [heat.value / unit], color=color, marker="o", markerfacecolor="white", markersize=4.5)
    axes.set_title(f"{state.result.temperature_K:g} K", loc="left", pad=4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.ticklabel_format(axis="y", useOffset=False)


def _table(follower: Follower, width: int) -> list[str]:
    rows = _rows(follower)
    kept = list(range(len(rows[0])))
    widths = [max(len(row[k]) for row in rows) for k in kept]
    for name in ("sampling", "grade", "samples"):
        if name in rows[0] and sum(widths[k] + 2 for k in kept) - 2 > width:
            kept.remove(rows[0].index(name))
    room = min(SPARK_WIDTH, width - sum(widths[k] + 2 for k in kept))
    curves = ["so far", *(sparkline(_shown(state), room) for state in follower.states)] if room >= 8 else []
    lines = ["  ".join(row[k].rjust(widths[k]) for k in kept)[:width] for row in rows]
    return [f"{line}  {curve}" for line, curve in zip(lines, curves, strict=True)] if curves else lines


def _rows(follower: Follower) -> list[list[str]]:
    graded = _is_graded(follower.states)
    return [_names(follower), *(_cells(state, graded, follower.target_error) for state in follower.states)]


def _shown(state: TemperatureState) -> np.ndarray:
    """Without the first samples, whose jumps would hide what came later."""
    return state.capacities[state.n_seen >= 0.05 * state.n_seen[-1]]


def _names(follower: Follower) -> list[str]:
    graded = ["grade"] * _is_graded(follower.states)
    return ["T (K)", "samples", *graded, "C_el (k_B/atom)", "sampling", f"to {100 * follower.target_error:g} %"]


def _is_graded(states: Sequence[TemperatureState]) -> bool:
    """Whether the model knows its training set."""
    return any(math.isfinite(state.result.grade_max) for state in states)


def _cells(state: TemperatureState, graded: bool, target_error: float) -> list[str]:
    result, heat = state.result, state.result.heat_capacity
    unit = result.n_atoms * BOLTZMANN_EV
    error = state.relative_error
    shown = "?" if math.isnan(error) else ("" if result.reliable else "> ") + f"{100 * error:.2g} %"
    grade = ["?" if math.isnan(result.grade_max) else two_digits(result.grade_max)] * graded
    return [
        f"{result.temperature_K:g}",
        f"{result.n_samples}",
        *grade,
        with_errors([x / unit for x in heat]),
        shown,
        _to_target(state, target_error),
    ]


def _is_to_be_known(state: TemperatureState, target_error: float) -> bool:
    return not state.result.reliable and state.relative_error <= target_error and 0 < state.n_to_target < math.inf


def _to_target(state: TemperatureState, target_error: float) -> str:
    """Where the error looks small enough but is a lower bound, what is missing is samples to know it."""
    if state.n_to_target == 0:
        return "reached"
    if math.isnan(state.n_to_target):
        return "?"
    if math.isinf(state.n_to_target):
        return "more replicas"
    return f"{amount(state.n_to_target)} {'to know' if _is_to_be_known(state, target_error) else 'more'}"


def _heading(follower: Follower) -> str:
    trace = follower.trace
    if trace is None:
        return follower.path
    rate = follower.samples_per_s
    speed = "" if math.isnan(rate) else f", {60 * rate:.3g} a minute"
    skipped = f", {trace.n_skipped} skipped" if trace.n_skipped else ""
    engine = f" ({trace.engine})" if trace.engine else ""
    return (
        f"{follower.path}{engine}: {counted(follower.n_samples, 'sample')}{skipped}{speed}, {datetime.now():%H:%M:%S}"
    )


def _notes(follower: Follower) -> list[str]:
    notes = ["C_el ± model error ± sampling error; sampling: the sampling error as a share of C_el"]
    left = [
        state.n_to_target for state in follower.states if math.isfinite(state.n_to_target) and state.n_to_target > 0
    ]
    rate = follower.samples_per_s
    if left and math.isfinite(rate) and rate > 0:
        notes.append(
            f"at this pace, {_duration(sum(left) / rate)} to {100 * follower.target_error:g} % at every temperature"
        )
    if _is_graded(follower.states):
        notes.append(
            "grade: largest distance of a sample from the training set of the model; 99 % of that set are below 1"
        )
    far = sum(state.result.n_far_outside for state in follower.states)
    if far:
        notes.append(
            f"{'1 sample is' if far == 1 else f'{far} samples are'} far outside the training set: neither the DOS nor its model error is to be trusted there"
        )
    for state in follower.states:
        if math.isfinite(state.result.runaway_K):
            notes.append(
                f"{state.result.temperature_K:g} K: the simulation ran away from its ensemble, its kinetic temperature is {state.result.runaway_K:.3g} K; "
                "is the time step too long, or does something heat it?"
            )
    if any(not state.result.reliable for state in follower.states):
        notes.append("> : too few independent samples yet, the sampling error is a lower bound")
    if any(_is_to_be_known(state, follower.target_error) for state in follower.states):
        notes.append(
            f"to know: below {100 * follower.target_error:g} % for all that is known, and so many more samples make sure"
        )
    return notes


def _duration(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"about {seconds / size:.0f} {name}"
    return f"about {seconds:.0f} s"
