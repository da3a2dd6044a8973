"""Which steps a trace holds, in memory that does not grow with them: sampling every so many steps is one run of numbers.

>>> keys = Keys(lambda replica, step: False)
>>> for step in range(0, 1_000_000, 50):
...     keys.add(0, step)
>>> keys.has(0, 999_950), keys.has(0, 999_960), keys.last(0), keys.n_runs
(True, False, 999950, 1)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import itemgetter

import numpy as np

MAX_RUNS = 512
"""Runs of a replica that are kept; with more (steps without any order), the first ones are looked up in the trace itself."""

Run = tuple[int, int, int]
"""First step, last step, stride; 0 for a single step, or for a range of which the trace knows more."""


class Keys:
    """The (replica, step) pairs of a trace.

    :param stored: looks a pair up among the samples themselves, including those that are only in memory
    """

    def __init__(self, stored: Callable[[int, int], bool]) -> None:
        self._stored = stored
        self._runs: dict[int, list[Run]] = {}

    @property
    def n_runs(self) -> int:
        """What the memory grows with."""
        return sum(map(len, self._runs.values()))

    def has(self, replica: int, step: int) -> bool:
        runs = self._runs.get(replica)
        at = _position(runs, step) if runs else -1
        if runs is None or at < 0:
            return False
        known = _contains(runs[at], step)
        return self._stored(replica, step) if known is None else known

    def last(self, replica: int) -> int | None:
        runs = self._runs.get(replica)
        return runs[-1][1] if runs else None

    def add(self, replica: int, step: int) -> None:
        runs = self._runs.setdefault(replica, [])
        if not runs or step > runs[-1][1]:
            _append(runs, (step, step, 0))
        else:
            _insert(runs, step)
        if len(runs) > MAX_RUNS:
            half = len(runs) // 2
            runs[:half] = [(runs[0][0], runs[half - 1][1], 0)]

    def add_rows(self, replica: np.ndarray, step: np.ndarray) -> None:
        """Add the pairs of rows that follow each other in the trace; both ``(n,)``."""
        for number in np.unique(replica).tolist():
            steps = np.unique(step[replica == number])
            first, last = int(steps[0]), int(steps[-1])
            strides = np.diff(steps)
            before = self.last(number)
            if len(steps) > 1 and (before is None or first > before) and (strides == strides[0]).all():
                _append(self._runs.setdefault(number, []), (first, last, int(strides[0])))
            else:
                for value in steps.tolist():
                    self.add(number, value)


def _position(runs: list[Run], step: int) -> int:
    """Of the last run that does not begin after a step, -1 if there is none."""
    return bisect_right(runs, step, key=itemgetter(0)) - 1


def _contains(run: Run, step: int) -> bool | None:
    """Whether a step at or after the beginning of a run belongs to it, None if the run does not know."""
    first, last, stride = run
    if step > last:
        return False
    if stride:
        return (step - first) % stride == 0
    return True if first == last else None


def _joined(run: Run, new: Run) -> Run | None:
    """A run together with later steps that go on with its stride, None if they do not."""
    first, last, stride = run
    gap = new[0] - last
    if (first == last or stride == gap) and new[2] in (0, gap):
        return first, new[1], gap
    return None


def _append(runs: list[Run], new: Run) -> None:
    """Add a run of steps that are later than all others."""
    joined = _joined(runs[-1], new) if runs else None
    if joined:
        runs[-1] = joined
    else:
        runs.append(new)


def _insert(runs: list[Run], step: int) -> None:
    """Add a step that is not later than all others."""
    at = _position(runs, step)
    known = _contains(runs[at], step) if at >= 0 else False
    if known is not False:
        return
    single = (step, step, 0)
    if at < 0 or step > runs[at][1]:
        joined = _joined(runs[at], single) if at >= 0 else None
        if joined:
            runs[at] = joined
        else:
            runs.insert(at + 1, single)
        return
    first, last, stride = runs[at]
    below = step - (step - first) % stride
    runs[at : at + 1] = [_run(first, below, stride), single, _run(below + stride, last, stride)]


def _run(first: int, last: int, stride: int) -> Run:
    return first, last, stride if last > first else 0
