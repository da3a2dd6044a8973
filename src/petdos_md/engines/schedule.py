"""Temperature of the electrons in time: a number, or points in time between which it is linear.

>>> schedule = TemperatureSchedule.parse("0:300,100:20000,1100:2000")
>>> schedule.at(50.0), schedule.at(600.0), schedule.at(5000.0)
(10150.0, 11000.0, 2000.0)
>>> TemperatureSchedule.parse("8000").as_metadata(), TemperatureSchedule.parse("0:300,5:600").as_metadata()
(8000.0, [[0.0, 300.0], [5.0, 600.0]])
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ..base.errors import ElectronicTemperatureError
from ..models.hot_electrons import checked_electronic_temperature_K


@dataclass(frozen=True)
class TemperatureSchedule:
    """Points of a piecewise linear course, constant before the first and after the last.

    :param points: (time in fs, temperature in K), times ascending
    :raises ElectronicTemperatureError: if there are none, times do not ascend, or a temperature is not positive
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [t for t, _ in self.points]
        good = all(math.isfinite(t) for t in times) and all(0 < T < math.inf for _, T in self.points)
        if not self.points or not good or any(b <= a for a, b in pairwise(times)):
            raise _unreadable(self)

    @classmethod
    def parse(cls, text: str) -> TemperatureSchedule:
        """``8000``, or ``TIME:T,TIME:T,...``.

        :raises ElectronicTemperatureError: for anything else
        """
        try:
            pairs = [tuple(float(x) for x in part.split(":")) for part in text.split(",")]
        except ValueError:
            pairs = []
        if len(pairs) == 1 and len(pairs[0]) == 1:
            return cls(((0.0, checked_electronic_temperature_K(pairs[0][0])),))
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise _unreadable(text)
        return cls(tuple((pair[0], pair[1]) for pair in pairs))

    @classmethod
    def of(cls, value: Any) -> TemperatureSchedule:
        """Of a number, text, a schedule, or a list as :meth:`as_metadata` gives it.

        :raises ElectronicTemperatureError: for anything else
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, list | tuple):
            return cls(tuple((float(t), float(T)) for t, T in value))
        return cls.parse(str(value))

    def at(self, time_fs: float) -> float:
        """The temperature at a time, K."""
        times, values = np.array(self.points).T
        return float(np.interp(time_fs, times, values))

    def as_metadata(self) -> float | list[list[float]]:
        """A number, or a list of points, as a trace keeps it."""
        return self.points[0][1] if len(self.points) == 1 else [list(point) for point in self.points]

    def __str__(self) -> str:
        if len(self.points) == 1:
            return f"{self.points[0][1]:g}"
        return ",".join(f"{t:g}:{T:g}" for t, T in self.points)


def _unreadable(given: object) -> ElectronicTemperatureError:
    return ElectronicTemperatureError(
        f"got the electronic temperature {given}, expected a positive number of K, or TIME:T,TIME:T,... with ascending times in fs"
    )
