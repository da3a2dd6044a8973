"""Electronic structure of all replicas and beads while i-PI runs: an output that lives in i-PI's own server.

>>> simulation = InteractiveSimulation(open("input.xml"))                            # doctest: +SKIP
>>> observer = attach(simulation, "almgsi-lda", "run.zarr", every=50)                # doctest: +SKIP
>>> simulation.run(1000)                                                             # doctest: +SKIP
>>> observer.close()                                                                 # doctest: +SKIP

The same from a terminal is ``petdos ipi input.xml --dos almgsi-lda --every 50 -o run.zarr``; for the stock ``i-pi input.xml``
see ``petdos ipi --snippet`` and ``docs/ipi.md``.

Only the server knows which ensemble a structure belongs to: replica exchange swaps temperatures and pressures between systems. A
sample is labelled by the ensemble at the moment of output, and its ``replica`` is the *ensemble slot*, so that the samples of one
replica have one temperature and one pressure throughout. Beads of a path integral are averaged into one sample (the DOS is linear
in features). Before i-PI writes any checkpoint, the samples up to that step are on disk; when a simulation resumes, those after its
checkpoint are dropped. So no interruption loses a sample or counts one twice.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ...base.errors import PredictionError, SettingError, StructureError, TraceError
from ...base.sample import Sample
from ...base.temperatures import same_temperature
from ...models.model import DOSModel
from ...traces.trace import Trace
from ..extrapolation import ExtrapolationWatch
from .asking import Asking, samples_with_forces
from .messages import say, warn
from .setup import Setup, check_version, labels, slots, structures, temperature_K

SAME_FRAME = 2e-4
"""Two feature vectors that differ by less, relative to the largest number, are of one frame: rounding of a RESTART file, another device."""

FLUSH_EVERY, FLUSH_INTERVAL_S = 1024, 60.0
"""Waiting for the disk is what sampling costs most beside the model, and only what is there before a checkpoint can be resumed."""


def check_start(output: str | os.PathLike[str], step: int) -> None:
    """Whether a simulation that starts at ``step`` may write to a trace; to be asked before i-PI opens its own files.

    :raises TraceError: if it starts at step 0 and the trace holds samples
    """
    path = _absolute(output)
    if step > 0 or not path.is_dir() or not any(path.iterdir()):
        return
    n = len(Trace.open(path, "r"))
    if n:
        raise TraceError(
            f"{path}: holds {n} samples, but the simulation starts at step 0; go on with RESTART, or write to another path"
        )


class Observer:
    """An output of an i-PI simulation; made by :meth:`attach`.

    Attributes: ``trace``, ``model``, ``setup``, ``every``, ``burn_in``; ``n_samples`` and ``n_skipped`` of this process;
    ``elapsed_s``, the time spent in it.
    """

    def __init__(
        self,
        simulation: Any,
        model: DOSModel,
        trace: Trace,
        setup: Setup,
        every: int,
        burn_in: int,
        max_failed: int,
        periodic: bool,
    ) -> None:
        self.model, self.trace, self.setup, self.every, self.burn_in = model, trace, setup, every, burn_in
        self.n_samples = self.n_skipped = 0
        self.elapsed_s = 0.0
        self._simulation, self._periodic, self._max_failed = simulation, periodic, max_failed
        self._asking = Asking(trace.path, model)
        self._extrapolation = ExtrapolationWatch(model, warn)
        self._checkpoints: list[Any] = []
        self._write_restart: Any = None
        self._last_step: int | None = None
        # After a signal, i-PI cleans up in one thread while another may be leaving Python, where traces are closed: unguarded,
        # the process could end in the middle of a flush.
        self._lock = threading.RLock()
        self._closed = False
        self._failed_in_a_row = 0
        # Whether samples wait in memory for a disk that was full, and the step up to which all samples are on it.
        self._waiting = False
        self._on_disk = int(simulation.step)

    @classmethod
    def attach(
        cls,
        simulation: Any,
        model: DOSModel | str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        every: int,
        burn_in: int = 0,
        max_failed: int = 10,
        periodic: bool = True,
        previous: str | os.PathLike[str] | None = None,
    ) -> Observer:
        """Sample an i-PI simulation that is bound (``Simulation.load_from_xml`` or ``InteractiveSimulation``) from now on.

        If the simulation resumes at step n, samples of the trace after step n are dropped: they will be taken again.

        :param model: the model; its name or path, too
        :param output: the trace; made if there is nothing, continued if the simulation resumes
        :param every: steps between samples; step 0 is never sampled
        :param burn_in: no samples at smaller steps
        :param max_failed: samplings in a row with a failure after which the simulation is ended, with a RESTART
        :param periodic: whether the cell is a real one, in all three directions
        :param previous: a trace that this simulation has come from; copied to ``output`` if that does not exist
        :raises SettingError: for settings that make no sense, an i-PI that is not supported, or a simulation that cannot be sampled
        :raises StructureError: if the model does not know an element or its number of electrons
        :raises TraceError: if the trace is of another model or simulation, or being written
        """
        check_version()
        for name, value, least in (("every", every, 1), ("burn_in", burn_in, 0), ("max_failed", max_failed, 1)):
            if not isinstance(value, int) or value < least:
                raise SettingError(f"got {name} = {value}, expected a whole number >= {least}")
        check_start(output, int(simulation.step))
        setup = Setup.of(simulation)
        model = DOSModel.of(model)
        for system in simulation.syslist:
            first = structures(system, periodic)[0]
            model.check(first)
            model.n_electrons(first)
        trace, setup = _open_trace(_absolute(output), model, setup, int(simulation.step), previous)
        observer = cls(simulation, model, trace, setup, every, burn_in, max_failed, periodic)
        try:
            observer._resume()
        except BaseException:
            trace.close()
            raise
        observer._join_outputs()
        observer._asking.set(observer._is_due(int(simulation.step) + 1))
        for message in setup.warnings(simulation):
            warn(message)
        if os.path.exists("EXIT"):
            warn("there is a file EXIT in this folder: i-PI will end at once; remove it")
        say(f"samples of {model.info.name} every {every} steps to {trace.path}")
        return observer

    def active(self) -> bool:
        """Called by i-PI at every step of a threaded simulation, in the main thread and before it hands out any output to other
        threads: the work is done here, so that no checkpoint can overtake it, and there is nothing left for :meth:`write`."""
        self._at_step()
        return False

    def write(self) -> None:
        """Called by i-PI at every step of a simulation without threads, before it writes any other output."""
        self._at_step()

    def flush(self) -> None:
        """Write samples to disk; a failure is counted and warned of, never raised."""
        with self._lock:
            if self._closed:
                return
            try:
                self.trace.flush()
            except TraceError as error:
                self._fail(self._not_written(error))
                return
            if self._waiting:
                self._waiting, self._failed_in_a_row = False, 0
            if self._last_step is not None:
                self._on_disk = self._last_step

    def close(self) -> None:
        """Write what is left and let go of the trace and the simulation; happens at the end of the process, too.

        :raises TraceError: if it cannot be written; the call may be repeated
        """
        with self._lock:
            try:
                self.trace.close()
            except TraceError as error:
                raise TraceError(self._not_written(error)) from None
            if self._closed:
                return
            self._closed = True
            self._asking.close()
            self._simulation.outputs.remove(self)
            self._simulation.chk.write = self._write_restart
        atexit.unregister(self._at_exit)

    def __repr__(self) -> str:
        skipped = f", {self.n_skipped} skipped" if self.n_skipped else ""
        return f"<petdos_md.ipi.Observer of {self.setup.formula}: {self.n_samples} samples{skipped}>"

    # -- helpers --------------------------------------------------------------------------------------------------

    def _at_step(self) -> None:
        # i-PI counts from -1 (the initial structure) and tells the user one more.
        step = int(self._simulation.step) + 1
        if step == self._last_step:
            return
        self._last_step = step
        start = time.perf_counter()
        try:
            if self._is_due(step):
                self._sample(step)
            if any(output.active() for output in self._checkpoints):
                self.flush()
        except Exception as error:  # nothing may end a simulation that took weeks without a RESTART
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._asking.set(self._is_due(step + 1))
            self.elapsed_s += time.perf_counter() - start

    def _is_due(self, step: int) -> bool:
        return step % self.every == 0 and step >= max(self.burn_in, 1)

    def _sample(self, step: int) -> None:
        systems, held = self._simulation.syslist, slots(self._simulation)
        samples, reasons = self._evaluate(systems)
        problems = set(reasons.values())
        for index in sorted(range(len(systems)), key=lambda i: held[i]):
            system, slot = systems[index], held[index]
            expected = self.setup.temperatures_K[slot]
            if index not in reasons and not same_temperature(temperature_K(system), expected):
                reasons[index] = "the temperature of the ensemble has changed"
                problems.add(f"{reasons[index]} from {expected:g} to {temperature_K(system):g} K")
            if index in reasons:
                self.n_skipped += self.trace.skip(reasons[index], step=step, replica=slot)
                continue
            known = {"step": step, "replica": slot, "temperature_K": expected}
            try:
                self.n_samples += self.trace.append(samples[index], **known, **labels(system))
                which = f"step {step} of replica {slot}"
                self._extrapolation.see(samples[index], which, partial(_first_bead, system, self._periodic))
            except TraceError as error:  # the disk is full: the trace keeps this sample, and must get those that follow
                problems.add(self._not_written(error))
        if problems:
            lost = f"{len(reasons)} of {len(systems)} replicas gave no sample: " if reasons else ""
            self._fail(f"step {step}: {lost}{'; '.join(sorted(problems))}")
        elif not self._waiting:
            self._failed_in_a_row = 0

    def _not_written(self, error: TraceError) -> str:
        """What to say; a checkpoint that is ahead of the trace would lose the samples between them."""
        self._waiting = True
        return f"{error} from a checkpoint up to step {self._on_disk}{'' if self._on_disk else ', the input'}"

    def _evaluate(self, systems: Sequence[Any]) -> tuple[dict[int, Sample], dict[int, str]]:
        """Samples by the number of the system, and the reason for each one that has none."""
        try:
            return dict(enumerate(self._batch(systems))), {}
        except Exception:  # one bad structure must not cost the samples of the others
            samples, reasons = {}, {}
            for index, system in enumerate(systems):
                try:
                    samples[index] = self._batch([system])[0]
                except StructureError:
                    reasons[index] = "positions or cell are not finite"
                except PredictionError:
                    reasons[index] = "prediction is not finite"
                except Exception as error:  # out of memory, a lost device, ...
                    reasons[index] = f"evaluation failed with {type(error).__name__}"
            return samples, reasons

    def _batch(self, systems: Sequence[Any]) -> list[Sample]:
        """One sample a system, from one call of the model for those whose features did not come with the forces."""
        beads = [structures(system, self._periodic) for system in systems]
        found = [samples_with_forces(*both, self.model) for both in zip(systems, beads, strict=True)]
        left = [atoms for of_system, known in zip(beads, found, strict=True) if known is None for atoms in of_system]
        evaluated = iter(self.model.evaluate(left) if left else [])
        return [_mean(known or [next(evaluated) for _ in range(self.setup.n_beads)]) for known in found]

    def _fail(self, message: str) -> None:
        self._failed_in_a_row += 1
        counted = f"failure {self._failed_in_a_row} of {self._max_failed} in a row"
        warn(f"{message} ({counted})" if self._failed_in_a_row <= self._max_failed else message)
        if self._failed_in_a_row == self._max_failed:
            from ipi.utils.softexit import softexit

            self._simulation.exit_status = "bad"
            # Not trigger(), which raises: the outputs and the RESTART state of this step are still to be written.
            softexit.cleanup(status="bad", message=f"petdos: {self._max_failed} failures in a row; see above.")

    def _resume(self) -> None:
        """Bring the trace to the step that the simulation resumes from.

        :raises TraceError: if the trace is of another simulation or being written
        """
        step = int(self._simulation.step)
        dropped = self.trace.truncate(step)
        if dropped:
            say(f"resuming at step {step}: {dropped} samples of later steps are dropped, to be taken again")
        self._check_same_structures(step)
        last_due = step - step % self.every
        if not self._is_due(last_due):
            return
        skipped = self.trace.attributes["skipped_last_step"]
        late = [
            slot
            for slot in range(len(self.setup.temperatures_K))
            if max(self.trace.last_step(slot) or 0, int(skipped.get(str(slot), 0))) < last_due
        ]
        if late and len(self.trace):
            at = min(self.trace.last_step(slot) or 0 for slot in late)
            warn(
                f"{self.trace.path}: the simulation resumes at step {step}, but samples of {len(late)} replicas end at step {at}; to "
                "have them all, resume from a checkpoint up to that step"
            )
        elif late:
            warn(f"{self.trace.path}: a new trace: samples before step {step}, if any, are in another one")

    def _check_same_structures(self, step: int) -> None:
        held = slots(self._simulation)
        known = {slot: index for index, slot in enumerate(held) if self.trace.has_step(step, slot)}
        if not known:
            return
        rows = np.flatnonzero(self.trace.step == step)
        stored = {int(self.trace.replica[row]): self.trace.features[int(row)] for row in rows}
        now, _ = self._evaluate(list(self._simulation.syslist))
        for slot, index in known.items():
            there = stored[slot].astype(np.float64)
            if index in now and np.abs(now[index].features - there).max() > SAME_FRAME * np.abs(there).max():
                raise TraceError(
                    f"{self.trace.path}: trace of another simulation: replica {slot} at step {step} has another structure; write "
                    "to another path"
                )

    def _at_exit(self) -> None:
        try:
            self.close()
        except TraceError as error:
            warn(str(error))

    def _join_outputs(self) -> None:
        from ipi.engine.outputs import CheckpointOutput

        self._checkpoints = [output for output in self._simulation.outputs if isinstance(output, CheckpointOutput)]
        # First, so that the samples of a step are on disk before a checkpoint claims them.
        self._simulation.outputs.insert(0, self)
        self._write_restart = self._simulation.chk.write

        def after_the_samples(*args: Any, **kwargs: Any) -> None:
            self.flush()
            self._write_restart(*args, **kwargs)

        self._simulation.chk.write = after_the_samples
        atexit.register(self._at_exit)


def _open_trace(
    path: Path, model: DOSModel, setup: Setup, step: int, previous: str | os.PathLike[str] | None
) -> tuple[Trace, Setup]:
    """The trace, locked for writing, and the setup with its numbers."""
    if previous is not None and step > 0 and not path.exists():
        Trace.merge(path, [previous], replicas="keep")
        say(f"{path}: copied from {previous}, where this simulation has come from")
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        known = Trace.open(path, "r").attributes
        timestep = known["timestep_fs"]
        setup = setup.agreed(str(path), known["metadata"], float("nan") if timestep is None else float(timestep))
    trace = Trace.open(
        path,
        model=model,
        engine="i-pi",
        timestep_fs=setup.timestep_fs,
        metadata=setup.metadata(),
        flush_every=FLUSH_EVERY,
        flush_interval_s=FLUSH_INTERVAL_S,
    )
    return trace, setup


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()


def _first_bead(system: Any, periodic: bool) -> Atoms:
    return structures(system, periodic)[0]


def _mean(samples: Sequence[Sample]) -> Sample:
    """The average over the beads of one system."""
    if len(samples) == 1:
        return samples[0]
    features = np.mean([sample.features.astype(np.float64) for sample in samples], axis=0)
    return replace(samples[0], features=features.astype(samples[0].features.dtype))


attach = Observer.attach
