"""What all figures share: colors, lines and markers that can be distinguished in grey, panels, legends.

>>> drawn = make_panels(None, n=2, size=(7.2, 4.2), sharex=True)
>>> len(drawn.axes), drawn.new
(2, True)

Figures are not registered with pyplot, so they leave no state behind and need no display.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

Results = xr.Dataset | Mapping[str, xr.Dataset]
Handle = Any  # an artist, or a tuple of artists drawn over each other
GivenAxes = Axes | Sequence[Axes] | np.ndarray | None

SYSTEM_COLORS = ("#0b5394", "#c1440e", "#38761d", "#741b47", "#7f6000", "#444444")
LINE_STYLES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2, 1.2, 2, 1.2, 2)))
SYSTEM_LINES = ("-", (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = "osD^vP"

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


SaveTarget = TypeVar("SaveTarget", bound="str | Path | BinaryIO")


def save(figure: Figure, path: SaveTarget, dpi: float = 160, **keywords: Any) -> SaveTarget:
    """Write a figure; the ending of the path gives the format.

    :param keywords: of ``Figure.savefig``, such as ``format`` where the path is an open file
    :returns: the path
    """
    # Words stay words, and the same figure gives the same file.
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "none", "svg.hashsalt": "petdos", "pdf.fonttype": 42}):
        figure.savefig(path, dpi=dpi, **keywords)
    return path


def save_svg(figure: Figure) -> str:
    """For a page: an element without a background and without a size, so that the page decides on both."""
    out = io.BytesIO()
    save(figure, out, format="svg", transparent=True)
    text = out.getvalue().decode()
    opening, rest = text[text.index("<svg") :].split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", opening) + ">" + rest


@dataclass(frozen=True)
class Panels:
    """Axes to draw into.

    :param new: whether the figure was made for them, so that legends and labels may stand outside them
    """

    figure: Figure
    axes: list[Axes]
    new: bool

    def legend(self, handles: list[Handle], labels: list[str], loc: str, **keywords: Any) -> None:
        """One legend for all: outside the panels of a new figure, else in the first of the axes, as part of the one it has."""
        if not handles:
            return
        if self.new:
            keywords["loc"] = f"outside {loc}"
            self.figure.legend(handles, labels, **keywords)
            return
        first = self.axes[0]
        own = first.get_legend()
        if own is not None:
            handles = [*own.legend_handles, *handles]
            labels = [*(text.get_text() for text in own.get_texts()), *labels]
        first.legend(handles, labels, frameon=True, framealpha=0.85, edgecolor="none")

    def label_y(self, label: str) -> None:
        """One label for all panels of a new figure, else one for each of the axes."""
        if self.new:
            self.figure.supylabel(label, fontsize=10)
        else:
            for axes in self.axes:
                axes.set_ylabel(label)

    def label_x(self, label: str) -> None:
        """As :meth:`label_y`."""
        if self.new:
            self.figure.supxlabel(label, fontsize=10)
        else:
            for axes in self.axes:
                axes.set_xlabel(label)


def make_panels(given: GivenAxes, n: int, size: tuple[float, float], columns: int = 1, **keywords: Any) -> Panels:
    """The axes given, or those of a new figure.

    :param n: panels that are needed
    :param size: of a new figure, inches
    :param columns: of a new figure
    :param keywords: of ``Figure.subplots``
    :raises ValueError: if another number of axes is given
    """
    if given is None:
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(-(-n // columns), columns, squeeze=False, **keywords).flat)
        for unused in panels[n:]:
            unused.set_visible(False)
        return Panels(figure, panels[:n], True)
    axes = list(np.ravel(np.asarray(given, dtype=object)))
    if len(axes) != n:
        raise ValueError(f"got {len(axes)} axes, expected {n}, one for each panel")
    return Panels(axes[0].figure, axes, False)


def by_name(results: Results) -> dict[str, xr.Dataset]:
    """Results by name, the name of a single one being empty.

    :raises ValueError: if there are none
    """
    named = {"": results} if isinstance(results, xr.Dataset) else dict(results)
    if not named:
        raise ValueError("no results to plot, expected at least one")
    return named


def system_color(i: int) -> str:
    """Color of the i-th system, method or model."""
    return SYSTEM_COLORS[i % len(SYSTEM_COLORS)]


def model_error_patch() -> Patch:
    """What stands for the band of a model error in a legend."""
    return Patch(facecolor="0.5", alpha=0.3, linewidth=0)


def sampling_error_patch() -> Patch:
    """What stands for the band of a sampling error in a legend."""
    return Patch(facecolor="none", edgecolor="0.25", hatch="/////", linewidth=0)


def times_sigma(sigmas: float) -> str:
    """Half width of a band."""
    return r"$\pm\sigma$" if sigmas == 1 else rf"$\pm{sigmas:g}\,\sigma$"


def any_finite(results: Mapping[str, xr.Dataset], variable: str) -> bool:
    """Whether one of the results knows a variable."""
    return any(bool(np.isfinite(data[variable]).any()) for data in results.values())
