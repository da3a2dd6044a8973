"""Figures of results, each with both errors; ``petdos_md.plot``.

>>> save(plot_dos(result), "dos.png")                                         # doctest: +SKIP
>>> save(plot_heat_capacity({"Al": al, "Si": si}), "heat_capacity.png")       # doctest: +SKIP
>>> figure, axes = matplotlib.pyplot.subplots()                               # doctest: +SKIP
>>> plot_heat_capacity(result, ax=axes)                                       # doctest: +SKIP

Functions draw into the axes they are given, or into a new :class:`matplotlib.figure.Figure` that is not registered with pyplot,
so that they leave no state behind and need no display; they return the figure. Figures can be read in grey: temperatures differ
in line style, systems in markers, errors in form. Every energy axis names its zero.
"""

from .dos import plot_dos, plot_side_by_side
from .extrapolation import plot_extrapolation
from .heat_capacity import plot_heat_capacity, sommerfeld_slope
from .levels import plot_levels
from .ramps import plot_ramp
from .reweighted import plot_reweighted
from .style import save
from .validation import plot_calibration, plot_errors

__all__ = [
    "plot_calibration",
    "plot_dos",
    "plot_errors",
    "plot_extrapolation",
    "plot_heat_capacity",
    "plot_levels",
    "plot_ramp",
    "plot_reweighted",
    "plot_side_by_side",
    "save",
    "sommerfeld_slope",
]
