"""Electronic structure during molecular dynamics with ASE: attach an observer, or ask a calculator.

>>> observer = DOSObserver(atoms, model, "run.zarr", temperature_K=300, dynamics=dyn)   # doctest: +SKIP
>>> dyn.attach(observer, interval=10)                                                   # doctest: +SKIP
>>> dyn.run(1000)                                                                       # doctest: +SKIP
>>> observer.result().heat_capacity                                                     # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics

from ..analysis.running import RunningAverage, RunningResult
from ..analysis.stopping import FixedWidthStop
from ..base.errors import ChemicalPotentialError, PredictionError, SettingError, TraceError
from ..base.sample import Sample
from ..models.model import DOSModel
from ..traces.checks import check_model
from ..traces.trace import Trace
from .ase_dynamics import check_dynamics, describe, electronic_temperature_K
from .calculator import DOSCalculator
from .extrapolation import ExtrapolationWatch
from .labels import checked_temperature_K, kinetic_temperature_K, known_energy
from .opening import check_electrons, drop_later_samples, open_trace, step_of_new_start
from .overlapped import OverlappedEvaluation

__all__ = ["DOSCalculator", "DOSObserver", "ObserverOptions"]

SAME_FRAME = 2e-6
"""Two feature vectors that differ by less, relative to the largest number, are of one frame: float32 rounding. A step of molecular
dynamics changes features a thousand times more."""
SAME_RESTORED_FRAME = 2e-4
"""The same for a frame that comes from a restart file, which may have fewer digits, or was evaluated on another device."""

NOT_FINITE = "prediction is not finite"
"""Why a frame was skipped."""


@dataclass(frozen=True)
class ObserverOptions:
    """Further keywords of :class:`DOSObserver`.

    :param burn_in: steps to skip at the beginning of a simulation, but not where one goes on from the last sample
    :param first_step: step at which the dynamics' own count is zero; by default 0, or what continues the numbering of the trace
    :param flush_every: samples after which the trace is flushed; by default the trace decides
    :param target_error: relative sampling error of the heat capacity at which ``converged`` becomes true
    :param min_samples: samples without which ``converged`` never becomes true
    :param on_sample: called with each new sample
    :param overlap: whether a sample is evaluated while the dynamics go on, and stored when the next one is due, ``result`` is asked for,
        or the observer is flushed or closed; by default with a model on a GPU
    :param metadata: what else tells this simulation from others, or is known better than the observer can find out
        (``{"bias": "none"}``); ``docs/trace-format.md`` lists the keys
    :raises SettingError: for a burn-in below 0 or a target error that is not positive
    """

    burn_in: int = 0
    first_step: int | None = None
    flush_every: int | None = None
    target_error: float | None = None
    min_samples: int = 32
    on_sample: Callable[[Sample], None] | None = None
    overlap: bool | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.burn_in < 0 or (self.target_error is not None and not self.target_error > 0):
            raise SettingError(
                f"got burn_in={self.burn_in}, target_error={self.target_error}; expected a burn-in >= 0 and a positive target error"
            )


class DOSObserver:
    """Takes samples of the electronic structure while ASE runs molecular dynamics; made for ``dyn.attach``.

    Safe across restarts. A new ``Dynamics`` object, which fires its step 0 again and counts from zero, continues the numbering of
    the trace. Dynamics that were restored (``dyn.nsteps = n``) go on from step n: samples of this replica after step n are dropped,
    which a warning says, and taken again. A frame that cannot be sampled (NaN) is skipped and counted, and the dynamics go on.

    What the kinetic temperature of a sample counts, :func:`petdos_md.engines.labels.kinetic_temperature_K` says.

    As a context manager it closes itself at the end. An observer that is made later in this process with the same path takes the
    trace over; to write with several at once, open one :class:`~petdos_md.traces.trace.Trace` and give it to all.

    :param atoms: what the dynamics move
    :param model: the model; its name or path, too
    :param trace: where samples go, open for writing, or its path (made if there is nothing)
    :param temperature_K: of the ensemble; a function without arguments if it changes during the run
    :param dynamics: the ASE dynamics, which know the step and the time; without it, calls are counted
    :param interval: of ``dyn.attach``; used for the step number if ``dynamics`` is not given
    :param replica: which simulation of the trace this is
    :param options: fields of :class:`ObserverOptions`: ``burn_in``, ``first_step``, ``flush_every``, ``target_error``,
        ``min_samples``, ``on_sample``, ``overlap``, ``metadata``

    Attributes: ``converged``; ``n_samples`` and ``n_skipped`` of this object; ``elapsed_s``, the time spent in it;
    ``trace``; ``running`` (:class:`~petdos_md.analysis.running.RunningAverage`), which includes what the trace held before;
    ``target_error``, ``min_samples`` and ``temperature_K``, which may be changed.

    :raises SettingError: if the temperature is missing or not positive, or ``dynamics`` is something else (an optimizer)
    :raises StructureError: if the model does not know an element or its number of electrons, or there are no atoms
    :raises TraceError: if the trace is of another model or simulation
    """

    def __init__(
        self,
        atoms: Atoms,
        model: DOSModel | str | os.PathLike[str],
        trace: Trace | str | os.PathLike[str],
        temperature_K: float | Callable[[], float] | None = None,
        *,
        dynamics: MolecularDynamics | None = None,
        interval: int = 1,
        replica: int = 0,
        **options: Any,
    ) -> None:
        self._options = chosen = ObserverOptions(**options)
        self.temperature_K = temperature_K  # an error now rather than after hours
        check_dynamics(dynamics)
        if interval < 1:
            raise SettingError(f"got interval={interval}, expected at least 1")
        self.atoms = atoms
        self.model = DOSModel.of(model)
        self.dynamics, self.interval, self.replica = dynamics, interval, replica
        self.burn_in, self.target_error, self.min_samples = chosen.burn_in, chosen.target_error, chosen.min_samples
        self.model.check(atoms)
        self.model.n_electrons(atoms)
        self._owns_trace = not isinstance(trace, Trace)
        self.trace = self._open(trace)
        self._timestep_fs = self.trace.timestep_fs if dynamics is None else dynamics.dt / units.fs
        self._calls = 0
        self._offset, self._start = chosen.first_step, chosen.burn_in
        self._go_on_from_restored_step()
        self.running = RunningAverage(self.model.readout)
        self._before: Sample | None = None  # the last sample of this replica when the observer was made
        self._stride = interval
        self._read_what_is_there()
        self._extrapolation = ExtrapolationWatch(self.model)
        self.n_samples = self.n_skipped = 0
        self.elapsed_s = 0.0
        overlap = self.model.device.type == "cuda" if chosen.overlap is None else chosen.overlap
        self._beside = OverlappedEvaluation(self.model) if overlap else None
        self._labels_beside: dict[str, Any] = {}
        self.converged = self._is_converged()

    def __call__(self) -> None:
        """Take a sample of the atoms as they are now, unless the trace has one of this step."""
        start = time.perf_counter()
        try:
            self._collect()
            self._observe()
        finally:
            self.elapsed_s += time.perf_counter() - start

    @property
    def temperature_K(self) -> float:
        """Of the ensemble now; may be set, for samples that follow. SettingError if it is no positive number or function of one."""
        return checked_temperature_K(self._temperature() if callable(self._temperature) else self._temperature)

    @temperature_K.setter
    def temperature_K(self, value: float | Callable[[], float] | None) -> None:
        self._temperature = value
        _ = self.temperature_K  # checks it

    def result(self, temperature_K: float | None = None, members: bool = True) -> RunningResult:
        """Averages so far, with model and sampling errors; see :meth:`petdos_md.analysis.running.RunningAverage.result`.

        :param temperature_K: by default that of the ensemble now
        :param members: whether to evaluate the ensemble for model errors
        :raises NoSamplesError: before there are samples
        """
        self._collect()
        return self.running.result(self.temperature_K if temperature_K is None else temperature_K, members=members)

    def irun(self, steps: int) -> Iterator[bool]:
        """Run the dynamics for some steps or until ``converged``; yields after each step whether it is.

        ASE's own loop cannot be stopped by an observer. The observer must be attached already.
        """
        if self.dynamics is None:
            raise SettingError("the observer knows no dynamics to run; give dynamics=... when making it")
        for _ in self.dynamics.irun(steps):
            yield self.converged
            if self.converged:
                return

    def run(self, steps: int) -> bool:
        """As :meth:`irun`, to the end; returns whether the target error was reached."""
        for _ in self.irun(steps):
            pass
        return self.converged

    def flush(self) -> None:
        """Store a sample that is being evaluated, and write what the trace has not written yet.

        :raises TraceError: if it cannot be written; the call may be repeated
        """
        self._collect()
        self.trace.flush()

    def close(self) -> None:
        """Write what is left, and let go of the trace if the observer has opened it; happens at exit, too.

        :raises TraceError: if it cannot be written; the call may be repeated
        """
        self._collect()
        if self._owns_trace:
            self.trace.close()
        else:
            self.trace.flush()

    def __enter__(self) -> DOSObserver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        skipped = f", {self.n_skipped} skipped" if self.n_skipped else ""
        return f"<DOSObserver of {self.atoms.get_chemical_formula()}: {self.running.n_samples()} samples{skipped}>"

    # -- helpers --------------------------------------------------------------------------------------------------

    def _open(self, trace: Trace | str | os.PathLike[str]) -> Trace:
        """The trace, with what is known of this simulation."""
        constant = None if callable(self._temperature) else self.temperature_K
        found = describe(self.atoms, self.dynamics, constant, self.replica)
        check_electrons(trace, found.get("electronic_temperature_K"))
        about: dict[str, Any] = {
            "engine": "ase",
            "timestep_fs": math.nan if self.dynamics is None else self.dynamics.dt / units.fs,
            "metadata": {**found, **(self._options.metadata or {})},
        }
        if not isinstance(trace, Trace):
            return open_trace(trace, model=self.model, **about)
        if len(trace):
            check_model(trace.path, trace.model, self.model.info)
        trace.describe(**about)
        return trace

    def _go_on_from_restored_step(self) -> None:
        """Dynamics with a count of their own were restored from a checkpoint: what came after it will be sampled again.

        :raises TraceError: if the trace has another structure at that step
        """
        if self.dynamics is None or self.dynamics.nsteps == 0:
            return
        step, trace = self._step(), self.trace
        if (trace.last_step(self.replica) or 0) > step and trace.has_step(step, self.replica):
            row = int(np.flatnonzero((trace.replica == self.replica) & (trace.step == step))[0])
            sample = self._evaluate()
            if not isinstance(sample, Sample) or not _same_frame(sample, trace[row], SAME_RESTORED_FRAME):
                raise TraceError(
                    f"{trace.path}: trace of another simulation: replica {self.replica} at step {step} has another structure than these "
                    "dynamics; restore the atoms of that step, set dynamics.nsteps = 0 to go on behind the trace, or write to another path"
                )
        drop_later_samples(trace, self.replica, step)

    def _read_what_is_there(self) -> None:
        for sample in self.trace:
            if sample.replica != self.replica:
                continue
            self.running.update(sample)
            # Rows are in the order in which they came, which need not be that of the steps.
            if self._before is None or _step(sample) > _step(self._before):
                self._stride = self.interval if self._before is None else _step(sample) - _step(self._before)
                self._before = sample

    def _observe(self) -> None:
        temperature = self.temperature_K
        self._calls += 1
        if self._offset is not None and (self._step() < self._start or self._known(self._step())):
            return
        beside = self._beside
        if beside is not None and self._offset is not None and self._can_be_evaluated() and self._shared() is None:
            beside.start(self.atoms)
            self._labels_beside = self._labels(temperature)
            return
        sample = self._evaluate()
        if self._offset is None:
            self._offset = self._find_offset(sample)
            if self._step() < self._start or self._known(self._step()):
                return
        self._store(sample, self._labels(temperature), self.atoms)

    def _labels(self, temperature_K: float) -> dict[str, Any]:
        """What a sample of the atoms as they are now is known by."""
        step = self._step()
        return {
            "replica": self.replica,
            "step": step,
            "time_fs": step * self._timestep_fs,
            "temperature_K": temperature_K,
            "kinetic_temperature_K": kinetic_temperature_K(self.atoms),
            "potential_energy_eV": known_energy(self.atoms),
            "electronic_temperature_K": electronic_temperature_K(self.atoms, self.dynamics),
        }

    def _collect(self) -> None:
        """Store the sample that was evaluated beside the dynamics, if there is one."""
        if self._beside is None or not self._beside.running:
            return
        labels = self._labels_beside
        try:
            sample: Sample | str = self._beside.collect()
        except PredictionError:
            sample = NOT_FINITE
        self._store(sample, labels, self._beside.atoms)

    def _store(self, sample: Sample | str, labels: dict[str, Any], atoms: Atoms | None) -> None:
        """:param sample: or the reason why there is none"""
        if isinstance(sample, str):
            self.n_skipped += self.trace.skip(sample, step=labels["step"], replica=self.replica)
            return
        sample = replace(sample, **labels)
        if not self.trace.append(sample):
            return
        grade = self.running.update(sample)
        self._extrapolation.see(sample, f"step {sample.step} of replica {self.replica}", atoms or self.atoms, grade)
        self.n_samples += 1
        if self._options.flush_every and self.n_samples % self._options.flush_every == 0:
            self.trace.flush()
        self.converged = self.converged or self._is_converged()
        if self._options.on_sample is not None:
            self._options.on_sample(sample)

    def _count(self) -> int:
        """Steps on the dynamics' own count."""
        return self.dynamics.nsteps if self.dynamics is not None else (self._calls - 1) * self.interval

    def _step(self) -> int:
        return self._count() + (self._offset or 0)

    def _known(self, step: int) -> bool:
        return self.trace.has_step(step, self.replica)

    def _find_offset(self, first: Sample | str) -> int:
        """What to add to the dynamics' count so that it continues the trace.

        Dynamics that start at zero are new and follow what the trace holds; if they start with the very frame that was
        sampled last, it has that step. Dynamics with a count of their own were restored from a checkpoint.
        """
        if self._before is None or self._count() > 0:
            return 0
        if isinstance(first, Sample) and _same_frame(first, self._before, SAME_FRAME):
            return _step(self._before)
        offset = step_of_new_start(self.trace, self._before, self._stride)
        self._start = offset + self.burn_in
        return offset

    def _evaluate(self) -> Sample | str:
        """A sample, or the reason why there is none."""
        if not self._can_be_evaluated():
            return "positions or cell are not finite"
        try:
            shared = self._shared()
            return self.model.evaluate(self.atoms) if shared is None else shared.get_sample(self.atoms)
        except PredictionError:
            return NOT_FINITE

    def _can_be_evaluated(self) -> bool:
        return bool(np.isfinite(self.atoms.positions).all() and np.isfinite(self.atoms.cell.array).all())

    def _shared(self) -> DOSCalculator | None:
        """The calculator of the atoms, if the sample comes with its forces."""
        calculator = self.atoms.calc
        same = (
            isinstance(calculator, DOSCalculator) and calculator.model.info.fingerprint == self.model.info.fingerprint
        )
        return calculator if same else None

    def _is_converged(self) -> bool:
        if self.target_error is None:
            return False
        rule = FixedWidthStop(self.target_error, self.min_samples)
        if not rule.due(self.running.n_samples(self.temperature_K)):
            return False
        try:
            result = self.result(members=False)
        except ChemicalPotentialError:
            return False
        heat = result.heat_capacity
        return rule.met(heat.sampling_err, heat.value, result.reliable)


def _same_frame(one: Sample, other: Sample, tolerance: float) -> bool:
    size = np.abs(other.features).max()
    return bool(np.abs(one.features.astype(np.float64) - other.features).max() <= tolerance * size)


def _step(sample: Sample) -> int:
    assert sample.step is not None  # a trace has numbered it
    return sample.step
