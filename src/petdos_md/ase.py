"""Electronic structure during molecular dynamics with ASE: attach an observer, or ask a calculator.

>>> observer = DOSObserver(atoms, model, "run.zarr", temperature_K=300, dynamics=dyn)   # doctest: +SKIP
>>> dyn.attach(observer, interval=10)                                                   # doctest: +SKIP
>>> dyn.run(1000)                                                                       # doctest: +SKIP
>>> observer.result().heat_capacity                                                     # doctest: +SKIP

With a model that also has an energy head, one forward pass drives the dynamics and gives the sample:

>>> atoms.calc = DOSCalculator(model, temperature_K=300)                                # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.abc import GetPropertiesMixin
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.md.md import MolecularDynamics

from . import thermo
from .averages import RunningAverage, RunningResult
from .errors import ChemicalPotentialError, ModelError, PredictionError, SettingError, TraceError
from .model import DOSModel
from .sample import Sample
from .stopping import FixedWidthStop
from .trace import Trace

DOS_PROPERTIES = ("dos", "fermi_level", "chemical_potential", "electronic_heat_capacity")
"""What :class:`DOSCalculator` adds to the properties of the potential."""
SAME_FRAME = 2e-6
"""Two psi that differ by less, relative to the largest number, are of one frame: float32 rounding. A step of molecular
dynamics changes psi a thousand times more."""


class DOSObserver:
    """Takes samples of the electronic structure while ASE runs molecular dynamics; made for ``dyn.attach``.

    Safe across restarts: steps that the trace holds already are not sampled again, and a new ``Dynamics`` object, which
    fires its step 0 again and counts from zero, continues the numbering of the trace. A frame that cannot be sampled (NaN)
    is refused and counted, and the dynamics go on.

    :param atoms: what the dynamics move
    :param model: the model; its name or path, too
    :param trace: where samples go, open for writing, or its path (made if there is nothing)
    :param temperature_K: of the ensemble; a function without arguments if it changes during the run
    :param dynamics: the ASE dynamics, which know the step and the time; without it, calls are counted
    :param interval: of ``dyn.attach``; used for the step number if ``dynamics`` is not given
    :param replica: which simulation of the trace this is
    :param burn_in: steps to skip at the beginning of a simulation, but not where one goes on from the last sample
    :param first_step: step at which the dynamics' own count is zero; by default 0, or what continues the numbering of the trace
    :param flush_every: samples after which the trace is flushed; by default the trace decides
    :param target_error: relative sampling error of the heat capacity at which ``converged`` becomes true
    :param min_samples: samples without which ``converged`` never becomes true
    :param on_sample: called with each new sample

    Attributes: ``converged``; ``n_samples`` and ``n_refused`` of this object; ``elapsed_s``, the time spent in it;
    ``trace``; ``running`` (:class:`~petdos_md.averages.RunningAverage`), which includes what the trace held before.

    :raises SettingError: if the temperature is missing or not positive
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
        burn_in: int = 0,
        first_step: int | None = None,
        flush_every: int | None = None,
        target_error: float | None = None,
        min_samples: int = 32,
        on_sample: Callable[[Sample], None] | None = None,
    ) -> None:
        self.atoms = atoms
        self.model = model if isinstance(model, DOSModel) else DOSModel.load(os.fspath(model))
        self.dynamics, self.interval, self.replica, self.burn_in = dynamics, interval, replica, burn_in
        self.target_error, self.min_samples = target_error, min_samples
        self._temperature, self._on_sample, self._flush_every = temperature_K, on_sample, flush_every
        self.temperature_K()  # an error now rather than after hours
        if interval < 1 or burn_in < 0 or (target_error is not None and not target_error > 0):
            raise SettingError(
                f"got interval={interval}, burn_in={burn_in}, target_error={target_error}; expected an interval >= 1, a "
                "burn-in >= 0 and a positive target error"
            )
        self.model.check(atoms)
        self.model.n_electrons(atoms)
        timestep_fs = math.nan if dynamics is None else dynamics.dt / units.fs
        if not isinstance(trace, Trace):
            trace = Trace.open(trace, model=self.model, engine="ase", timestep_fs=timestep_fs)
        self.trace = trace
        self._timestep_fs = trace.timestep_fs if math.isnan(timestep_fs) else timestep_fs
        self.running = RunningAverage(self.model.readout)
        self._before: Sample | None = None  # the last sample of this replica when the observer was made
        self._stride = interval
        for sample in _samples(trace, self.model, replica):
            self.running.update(sample)
            # Rows are in the order in which they came, which need not be that of the steps.
            if self._before is None or _step(sample) > _step(self._before):
                self._stride = interval if self._before is None else _step(sample) - _step(self._before)
                self._before = sample
        self.n_samples = self.n_refused = 0
        self.elapsed_s = 0.0
        self._stop = None if target_error is None else FixedWidthStop(target_error, min_samples)
        self.converged = self._is_converged()
        self._offset = first_step
        self._start = burn_in
        self._calls = 0

    def __call__(self) -> None:
        """Take a sample of the atoms as they are now, unless the trace has one of this step."""
        start = time.perf_counter()
        try:
            self._observe()
        finally:
            self.elapsed_s += time.perf_counter() - start

    def temperature_K(self) -> float:
        """The temperature of the ensemble now.

        :raises SettingError: if it is missing or not positive
        """
        value = self._temperature() if callable(self._temperature) else self._temperature
        if value is None or not 0 < value < math.inf:
            raise SettingError(f"got temperature_K={value}, expected the temperature of the ensemble, positive, in K")
        return float(value)

    def result(self, temperature_K: float | None = None, members: bool = True) -> RunningResult:
        """Averages so far, with model and sampling errors; see :meth:`petdos_md.averages.RunningAverage.result`.

        :param temperature_K: by default that of the ensemble now
        :param members: whether to evaluate the ensemble for model errors
        :raises NoSamplesError: before there are samples
        """
        return self.running.result(self.temperature_K() if temperature_K is None else temperature_K, members=members)

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

    def __repr__(self) -> str:
        refused = f", {self.n_refused} refused" if self.n_refused else ""
        return f"<DOSObserver of {self.atoms.get_chemical_formula()}: {self.running.n_samples()} samples{refused}>"

    # -- helpers --------------------------------------------------------------------------------------------------

    def _observe(self) -> None:
        temperature = self.temperature_K()
        self._calls += 1
        if self._offset is not None and (self._step() < self._start or self._known(self._step())):
            return
        sample = self._evaluate()
        if self._offset is None:
            self._offset = self._find_offset(sample)
        step = self._step()
        if step < self._start or self._known(step):
            return
        if isinstance(sample, str):
            self.n_refused += self.trace.refuse(sample, step=step, replica=self.replica)
            return
        sample = replace(
            sample,
            replica=self.replica,
            step=step,
            time_fs=step * self._timestep_fs,
            temperature_K=temperature,
            kinetic_temperature_K=self.atoms.get_temperature() if self.atoms.has("momenta") else math.nan,
            potential_energy_eV=known_energy(self.atoms),
        )
        if not self.trace.append(sample):
            return
        self.running.update(sample)
        self.n_samples += 1
        if self._flush_every and self.n_samples % self._flush_every == 0:
            self.trace.flush()
        self.converged = self.converged or self._is_converged()
        if self._on_sample is not None:
            self._on_sample(sample)

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
        if isinstance(first, Sample):
            size = np.abs(self._before.psi).max()
            if np.allclose(first.psi, self._before.psi, rtol=0.0, atol=SAME_FRAME * size):
                return _step(self._before)
        offset = _step(self._before) + self._stride
        self._start = offset + self.burn_in
        return offset

    def _evaluate(self) -> Sample | str:
        """A sample, or the reason why there is none."""
        if not (np.isfinite(self.atoms.positions).all() and np.isfinite(self.atoms.cell.array).all()):
            return "positions or cell are not finite"
        calculator = self.atoms.calc
        try:
            if (
                isinstance(calculator, DOSCalculator)
                and calculator.model.info.fingerprint == self.model.info.fingerprint
            ):
                return calculator.get_sample(self.atoms)
            return self.model.evaluate(self.atoms)
        except PredictionError:
            return "prediction is not finite"

    def _is_converged(self) -> bool:
        n = self.running.n_samples(self.temperature_K())
        if self._stop is None or not self._stop.due(n):
            return False
        try:
            result = self.result(members=False)
        except ChemicalPotentialError:
            return False
        heat = result.heat_capacity
        return self._stop.met(heat.sampling_err, heat.value, result.reliable)


class DOSCalculator(Calculator):
    """Energy and forces of a potential, electronic structure of a model, in one ASE calculator.

    Adds the properties ``dos`` (states/eV per structure, on ``model.grid``), ``fermi_level`` and ``chemical_potential`` (eV,
    on the model's own axis) and ``electronic_heat_capacity`` (eV/K per structure, at fixed number of electrons). They are
    computed when asked for, ``calc.get_property("dos", atoms)`` or ``calc.results["dos"]``, so that forces alone cost nothing
    extra.

    :param model: the DOS model; its name or path, too
    :param potential: any ASE calculator; None for the energy head of the model itself
    :param temperature_K: of the electrons, for chemical potential and heat capacity
    :raises ModelError: if there is no potential and the model has no energy head
    :raises SettingError: if the temperature is not positive
    """

    def __init__(
        self,
        model: DOSModel | str | os.PathLike[str],
        potential: Any = None,
        temperature_K: float | None = None,
    ) -> None:
        super().__init__()
        self.model = model if isinstance(model, DOSModel) else DOSModel.load(os.fspath(model))
        if potential is None and not self.model.has_energy:
            raise ModelError(f"{self.model.info.name} has no energy output; give potential=, any ASE calculator")
        if potential is not None and not isinstance(potential, GetPropertiesMixin):
            raise SettingError(f"potential is a {type(potential).__name__}, expected an ASE calculator")
        if temperature_K is not None and not 0 < temperature_K < math.inf:
            raise SettingError(f"got temperature_K={temperature_K}, expected a positive temperature in K")
        self.potential, self.temperature_K = potential, temperature_K
        own = ["energy", "free_energy", "forces", "stress"]
        if potential is not None:
            own = list(getattr(potential, "implemented_properties", own))
        self.implemented_properties = [*own, *DOS_PROPERTIES]
        self._sample: Sample | None = None

    def get_sample(self, atoms: Atoms) -> Sample:
        """The model's sample of these atoms; that of the last calculation if it was for them."""
        if self.check_state(atoms):
            self.reset()
            self.atoms = atoms.copy()
        return self._get_sample(atoms)

    def reset(self) -> None:
        """Forget the last calculation."""
        super().reset()
        self._sample = None

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """As ASE calls it."""
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results, self._sample = {}, None
        if not isinstance(self.results, _Results):
            self.results = _Results(self, self.results)
        structure = self.atoms if atoms is None else atoms
        assert structure is not None
        for name in properties:
            if name in self.results:
                continue
            if name in DOS_PROPERTIES:
                self.results[name] = self._electronic(name, structure)
            elif self.potential is not None:
                self.results[name] = self.potential.get_property(name, structure)
            else:
                self._forward(structure)

    def _forward(self, atoms: Atoms) -> None:
        """One pass for everything."""
        self._sample, energy, forces, stress = self.model.evaluate_with_forces(atoms)
        self.results.update(energy=energy, free_energy=energy, forces=forces)
        if stress is not None:
            self.results["stress"] = stress.reshape(9)[[0, 4, 8, 5, 2, 1]]

    def _get_sample(self, atoms: Atoms) -> Sample:
        if self._sample is None:
            self._sample = self.model.evaluate(atoms)
        return self._sample

    def _electronic(self, name: str, atoms: Atoms) -> Any:
        if "dos" not in self.results:
            self.results["dos"] = self.model.dos(self._get_sample(atoms))
        dos, energies = self.results["dos"], self.model.grid.energies
        if name == "dos":
            return dos
        n_electrons = self.model.n_electrons(atoms)
        if name == "fermi_level":
            return float(thermo.fermi_level(energies, dos, n_electrons))
        if self.temperature_K is None:
            raise SettingError(f"{name} needs a temperature; give temperature_K= when making the DOSCalculator")
        function = thermo.chemical_potential if name == "chemical_potential" else thermo.heat_capacity
        return float(function(energies, dos, n_electrons, self.temperature_K))


class _Results(dict):
    """Results in which the electronic ones appear when they are looked up."""

    def __init__(self, calculator: DOSCalculator, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._calculator = calculator

    def __missing__(self, name: str) -> Any:
        if name not in DOS_PROPERTIES:
            raise KeyError(name)
        return self._calculator.get_property(name)


def _samples(trace: Trace, model: DOSModel, replica: int) -> Iterator[Sample]:
    """Samples of a replica that the trace holds already."""
    if len(trace) == 0:
        return
    if trace.model.fingerprint != model.info.fingerprint:
        raise TraceError(
            f"{trace.path}: trace of another model, {trace.model.name!r}, got {model.info.name!r}; write to another path"
        )
    yield from (sample for sample in trace if sample.replica == replica)


def _step(sample: Sample) -> int:
    assert sample.step is not None  # a trace has numbered it
    return sample.step


def known_energy(atoms: Atoms) -> float:
    """The potential energy (eV) if the calculator has it for these very atoms, else NaN."""
    if atoms.calc is None:
        return math.nan
    try:
        energy = atoms.calc.get_property("energy", atoms, allow_calculation=False)
    except (PropertyNotImplementedError, NotImplementedError, TypeError):
        return math.nan
    return math.nan if energy is None else float(energy)
