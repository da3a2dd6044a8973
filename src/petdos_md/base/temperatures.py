"""When two ensemble temperatures are one, and what frames of one ensemble must have in common.

>>> same_temperature(300.0, 300.0001), same_temperature(300.0, 301.0)
(True, False)
>>> distinct_temperatures([600.0, 300.0, 300.0000001])
[300.0, 600.0]
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .errors import StructureError

TEMPERATURE_TOLERANCE = 1e-6
"""Relative difference below which two ensemble temperatures are one."""


def same_temperature(a: float, b: float) -> bool:
    """Whether two ensemble temperatures are one; unknown ones (NaN) are equal to each other."""
    return bool(abs(a - b) <= TEMPERATURE_TOLERANCE * max(abs(a), abs(b))) or (a != a and b != b)


def distinct_temperatures(temperatures_K: Iterable[float]) -> list[float]:
    """Ascending, those that are one within the tolerance listed once."""
    ladder: list[float] = []
    for value in np.unique(np.asarray(list(temperatures_K), dtype=np.float64)):
        if not ladder or not same_temperature(ladder[-1], float(value)):
            ladder.append(float(value))
    return ladder


def check_constant(
    temperature_K: float, n_atoms: Iterable[int], n_electrons: Iterable[float], known: bool = False
) -> None:
    """Frames of one average must have one number of atoms and of electrons.

    :param known: whether the number of electrons must be known, too
    :raises StructureError: if they do not
    """
    for what, values in (("atoms", np.unique(list(n_atoms))), ("electrons", np.unique(list(n_electrons)))):
        if len(values) > 1:
            raise StructureError(
                f"frames at {temperature_K:g} K have {values[0]:g} to {values[-1]:g} {what}, expected one number; "
                "average each composition in a trace of its own"
            )
        if what == "electrons" and known and not np.isfinite(values).all():
            raise StructureError(
                f"the number of electrons of the frames at {temperature_K:g} K is not known; give electrons={{'Al': 3, ...}} to "
                "DOSModel.load before the run, or n_electrons=... (of the structure) to the analysis"
            )
