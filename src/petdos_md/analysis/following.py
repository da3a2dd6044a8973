"""A trace while it is written, by whatever engine: averages and errors so far, and how far they are from a target.

>>> follower = Follower("run.zarr", target_error=0.01)                     # doctest: +SKIP
>>> follower.update()                                                      # doctest: +SKIP
>>> [(at.result.temperature_K, at.n_to_target) for at in follower.states]  # doctest: +SKIP

The sampling error falls as the square root of the number of samples: with ``n`` samples and the relative error ``e``, ``n (e / target)^2`` are
needed in all. New samples are read once; memory does not grow with the trace.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np

from ..base.errors import PetdosError, SettingError, TraceError
from ..models.readout import Readout
from ..traces.trace import Trace
from .inputs import find_readout
from .running import RunningAverage, RunningResult

ROWS = 512
"""Samples taken in at a time."""


@dataclass(frozen=True, eq=False)
class TemperatureState:
    """What is known of one temperature.

    :param result: averages and errors
    :param n_seen: samples so far at each point of ``capacities``
    :param capacities: the heat capacity (eV/K per structure) that was known with these many samples
    :param n_to_target: more samples to the target of the sampling error; 0 if it is reached, NaN if that is not known
    """

    result: RunningResult
    n_seen: np.ndarray
    capacities: np.ndarray
    n_to_target: float

    @property
    def relative_error(self) -> float:
        """Sampling error of C_el relative to its value; NaN if it is not known."""
        return _relative_error(self.result)


class Follower:
    """Reads what is new in a trace.

    :param path: of the trace, which may not be there yet
    :param model: as for :func:`petdos_md.analyze`
    :param burn_in: leave out earlier steps
    :param target_error: relative sampling error of the heat capacity
    :raises SettingError: if the target is not positive
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Readout | None = None,
        burn_in: int = 0,
        target_error: float = 0.01,
    ) -> None:
        if not 0 < target_error < math.inf:
            raise SettingError(f"got a target error of {target_error:g}, expected a positive number, relative to C_el")
        self.path, self.target_error = os.fspath(path), target_error
        self._model, self._burn_in = model, burn_in
        self._trace: Trace | None = None
        self._running: RunningAverage | None = None
        self._n_read, self._last_key = 0, (0, 0)
        self._arrivals: list[tuple[float, int]] = []
        self.states: list[TemperatureState] = []
        self.message = ""

    @property
    def trace(self) -> Trace | None:
        """The trace, once it is there."""
        return self._trace

    @property
    def n_samples(self) -> int:
        """Samples in the trace, with those of the burn-in."""
        return self._n_read

    @property
    def samples_per_s(self) -> float:
        """How fast they come, of the last minutes; NaN if none came while it was watched."""
        if len(self._arrivals) < 2 or self._arrivals[-1][1] == self._arrivals[0][1]:
            return math.nan
        (first_s, first), (last_s, last) = self._arrivals[0], self._arrivals[-1]
        return (last - first) / (last_s - first_s)

    @property
    def converged(self) -> bool:
        """Whether every temperature has reached the target."""
        return bool(self.states) and all(state.n_to_target == 0 for state in self.states)

    def update(self) -> int:
        """Take in what is new; returns how many samples that were.

        :raises ModelError: if the model of the trace is not there
        """
        if self._trace is None and not os.path.isdir(self.path):
            self.message = f"waiting for {self.path}"
            return 0
        try:
            new = self._read()
        except TraceError as error:
            self.message = str(error)
            return 0
        self._arrivals = [*self._arrivals, (time.monotonic(), self._n_read)][-60:]
        if new:
            self.states, self.message = self._describe()
        elif not self.states and not self.message:
            self.message = "no samples yet"
        return new

    def _read(self) -> int:
        if self._trace is None:
            self._trace = Trace.open(self.path, "r")
        n = self._trace.refresh()
        if n < self._n_read or (self._n_read and self._key(self._n_read - 1) != self._last_key):
            self._running, self._n_read = None, 0  # its writer has dropped samples
        if n == self._n_read:
            return 0
        if self._running is None:
            self._running = RunningAverage(find_readout(self._model, self._trace.model, self.path))
        before = self._n_read
        for start in range(before, n, ROWS):
            for sample in self._trace[start : min(start + ROWS, n)]:
                if sample.step is None or sample.step >= self._burn_in:
                    self._running.update(sample)
        self._n_read, self._last_key = n, self._key(n - 1)
        return n - before

    def _key(self, row: int) -> tuple[int, int]:
        assert self._trace is not None
        sample = self._trace[row]
        return sample.replica, sample.step or 0

    def _describe(self) -> tuple[list[TemperatureState], str]:
        assert self._running is not None
        states, message = [], ""
        for temperature in self._running.temperatures_K:
            try:
                result = self._running.result(temperature)
                seen, capacities = self._running.convergence(temperature)
            except PetdosError as error:
                message = str(error)
                continue
            relative = _relative_error(result)
            wanted = math.nan
            if math.isfinite(relative):
                wanted = math.ceil(result.n_samples * (relative / self.target_error) ** 2)
            # Where an error is a lower bound, so is what it takes to lower it.
            missing = math.nan if math.isnan(wanted) else max(0.0, wanted - result.n_samples)
            if not result.reliable and math.isfinite(missing):
                missing = max(missing, result.n_still_needed)
            states.append(TemperatureState(result, seen, capacities, missing))
        return states, message


def _relative_error(result: RunningResult) -> float:
    heat = result.heat_capacity
    return heat.sampling_err / heat.value if heat.value > 0 else math.nan
