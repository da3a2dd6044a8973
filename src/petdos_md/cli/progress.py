"""What a long run prints while it runs: a bar in a terminal, a line per temperature elsewhere; and its results at the end.

>>> with MDProgress(n_simulations=3) as progress:                              # doctest: +SKIP
...     run_md(..., progress=progress)
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from tqdm import tqdm

from ..analysis.analyze import analyze
from ..analysis.running import RunningResult
from ..base.constants import BOLTZMANN_EV
from ..base.errors import PetdosError
from ..base.rounding import counted, two_digits, with_named_errors
from ..engines.md import Simulation
from ..models.model import DOSModel
from ..results.report import format_table

_REFRESH_S = 2.0
_SHARE = 0.02
"""Of the time that may go into describing the state: a pass over a large ensemble takes a second."""


class MDProgress:
    """Called after each step of :func:`petdos_md.engines.md.run_md`.

    :param n_simulations: temperatures of the run
    :param label: written before the temperature
    """

    def __init__(self, n_simulations: int, label: str = "") -> None:
        self.n_simulations, self.label = n_simulations, label
        self._bar: Any = None
        self._replica = -1
        self._next_s = 0.0

    def __call__(self, simulation: Simulation) -> None:
        """Show where the simulation is."""
        done = simulation.replica * simulation.steps_total + simulation.steps_done
        if self._bar is None:
            self._bar = tqdm(
                total=self.n_simulations * simulation.steps_total,
                initial=done,
                unit="step",
                disable=not sys.stderr.isatty(),
                dynamic_ncols=True,
                file=sys.stderr,
            )
        if simulation.replica != self._replica:
            self._replica = simulation.replica
            self._next_s = 0.0
            if self._bar.disable:
                print(
                    f"{self._name(simulation)}: from step {simulation.steps_done} of {simulation.steps_total}",
                    file=sys.stderr,
                )
        if not self._bar.disable:
            self._bar.update(done - self._bar.n)
            if (start := time.monotonic()) > self._next_s:
                self._bar.set_description_str(self._name(simulation))
                self._bar.set_postfix_str(describe(simulation), refresh=True)
                self._next_s = time.monotonic() + max(_REFRESH_S, (time.monotonic() - start) / _SHARE)
        if simulation.steps_done == simulation.steps_total or simulation.observer.converged:
            self.write(f"{self._name(simulation)}: {describe(simulation)}")

    def write(self, line: str) -> None:
        """A line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def __enter__(self) -> MDProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _name(self, simulation: Simulation) -> str:
        return f"{self.label + ' ' if self.label else ''}{simulation.temperature_K:g} K"


def describe(simulation: Simulation) -> str:
    """The running heat capacity and its errors in a few words."""
    if simulation.phase == "equilibrate":
        return "equilibrating"
    try:
        result = simulation.observer.result()
    except PetdosError:
        return "no result yet"
    heat, unit = result.heat_capacity, result.n_atoms * BOLTZMANN_EV
    shown = with_named_errors([x / unit for x in heat])
    skipped = f", {simulation.observer.n_skipped} skipped" if simulation.observer.n_skipped else ""
    return f"C_el = {shown} k_B/atom, {counted(result.n_samples, 'sample')}{skipped}{_extrapolation(result)}"


def _extrapolation(result: RunningResult) -> str:
    if math.isnan(result.grade_max):
        return ""
    far = f", {result.n_far_outside} far outside the training set" if result.n_far_outside else ""
    return f"{far}, extrapolation grade up to {two_digits(result.grade_max)}"


def print_outcome(trace: str, model: DOSModel, more: str = "") -> None:
    """The table of a run that is complete, a line more, and what to do next.

    :raises PetdosError: if there are no results, saying that the samples are safe
    """
    try:
        print(format_table(analyze(trace, model)))
    except PetdosError as error:
        raise type(error)(f"the run is complete and its samples are in {trace}, but: {error}") from None
    if more:
        print(more)
    print(f"samples: {trace}   next: petdos analyze {trace} -o OUT")
