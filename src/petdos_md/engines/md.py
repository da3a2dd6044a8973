"""Molecular dynamics at several temperatures, with samples of the electronic structure, that survives kills.

>>> settings = MDSettings(temperatures_K=(300, 600), steps=1000, every=10, seed=1)           # doctest: +SKIP
>>> run_md(atoms, Potential.find("emt"), model, "run.zarr", settings)                         # doctest: +SKIP

The temperatures run one after the other, each from the given structure, as simulations (replicas) 0, 1, 2 of one trace. The
integrator is ASE's ``LangevinBAOAB`` (NVT, and NPT with an isotropic barostat): its state is positions, momenta, cell,
barostat and random numbers, all of them public and stored at regular steps. A run that was killed and resumed gives the same
trace, bit for bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import Stationary, thermalize_momenta

from ..analysis.running import RunningResult
from ..base.errors import PetdosError, SettingError, StructureError, TraceError
from ..models.model import DOSModel
from ..traces.trace import Trace
from .ase import DOSObserver
from .checkpoint import Checkpoint, RunState
from .hot_calculator import HotElectronCalculator
from .md_settings import MDSettings
from .potentials import Potential
from .trajectory import TrajectoryFile

__all__ = ["MDSettings", "Simulation", "SimulationResult", "run_md"]

RELAXED_EV_A = 0.05
"""Largest force (eV/angstrom) on any atom of a structure that counts as the minimum of its potential energy."""


@dataclass(frozen=True)
class SimulationResult:
    """One temperature of a finished run.

    :param result: averages and errors, None if there are none
    :param error: why there are none
    :param n_skipped: frames of this run that gave no sample
    :param md_s: wall time of this process in the simulation, without the observer
    :param observer_s: wall time of this process in the observer
    """

    temperature_K: float
    replica: int
    result: RunningResult | None
    error: str
    n_skipped: int
    md_s: float
    observer_s: float


Progress = Callable[["Simulation"], None]
"""Called after every step of a run."""


def run_md(
    atoms: Atoms,
    potential: Potential,
    model: DOSModel,
    output: str | os.PathLike[str],
    settings: MDSettings,
    *,
    resume: bool = False,
    trajectory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[SimulationResult]:
    """Run all temperatures, or what is left of them.

    :param atoms: the structure that every simulation starts from; not changed
    :param output: the trace; the state of the run is kept beside it, in ``OUTPUT.state``
    :param resume: go on with a run that ended early, if there is one; ``settings`` must be the same, but ``steps`` may be
        more and temperatures may be added at the end
    :param trajectory: a file (``.traj``) for the sampled frames
    :raises SettingError: for settings that make no sense or differ from those of the run to be resumed
    :raises StructureError: if the model does not know the structure's elements or electrons, or the simulation explodes
    :raises TraceError: if the output exists and ``resume`` is not given, or another run is writing it
    """
    settings.check()
    model.check(atoms)
    model.n_electrons(atoms)
    if settings.ensemble == "npt" and not atoms.pbc.all():
        raise SettingError("npt needs a structure that is periodic in three directions; use nvt or give it a cell")
    state = RunState(output)
    if not resume and (os.path.lexists(state.output) or state.exists):
        raise TraceError(
            f"{state.output}: exists; give --resume to go on with that run, or another -o to start a new one"
        )
    with state.locked():
        settings = _agree(state, settings, atoms, potential, model)
        about = _metadata(settings, atoms, potential)
        with (
            Trace.open(
                state.output, model=model, engine="ase", timestep_fs=settings.timestep_fs, metadata=about
            ) as trace,
            TrajectoryFile(trajectory, resume) as frames,
        ):
            return [
                Simulation(atoms, potential, model, trace, frames, state, settings, replica).run(progress)
                for replica in range(len(settings.temperatures_K))
            ]


class Simulation:
    """One temperature of a run, from its last checkpoint to its end.

    Attributes: ``atoms``, ``dynamics``, ``observer``, ``settings``, ``replica``, ``temperature_K``, ``phase``
    (``equilibrate`` or ``sample``), ``steps_done`` of ``steps_total`` in both phases together.
    """

    def __init__(
        self,
        structure: Atoms,
        potential: Potential,
        model: DOSModel,
        trace: Trace,
        frames: TrajectoryFile,
        state: RunState,
        settings: MDSettings,
        replica: int,
    ) -> None:
        self.settings, self.replica = settings, replica
        self.temperature_K = settings.temperatures_K[replica]
        self.trace = trace
        self._potential, self._model, self._frames, self._state = potential, model, frames, state
        self._equilibrate = settings.equilibrate or 0
        self.atoms = structure.copy()
        self.atoms.calc = self._calculator()
        self._check_potential()
        rng = np.random.default_rng([settings.seed or 0, replica])
        checkpoint = state.load(replica)
        if checkpoint is None:
            _set_velocities(self.atoms, self.temperature_K, rng)
            self.phase = "equilibrate" if self._equilibrate else "sample"
        else:
            self.phase = checkpoint.phase
        self.dynamics = _make_dynamics(self.atoms, settings, self.temperature_K, rng)
        if checkpoint is not None:
            checkpoint.restore(self.dynamics)
            self.atoms.calc = self._calculator()
        sampled = self.dynamics.nsteps if self.phase == "sample" else 0
        frames.keep(replica, sampled if sampled else -1)
        self.observer = DOSObserver(
            self.atoms,
            model,
            trace,
            self.temperature_K,
            dynamics=self.dynamics,
            replica=replica,
            # The trace may be ahead of a checkpoint at step 0, which is not the start of other dynamics.
            first_step=0,
            target_error=settings.target_error,
            metadata={"potential": potential.name, **_electronic(settings)},
        )
        self._last_checkpoint = (self.phase, self.dynamics.nsteps) if checkpoint is not None else None

    @property
    def steps_total(self) -> int:
        """Steps of the simulation, with equilibration."""
        return self._equilibrate + self.settings.steps

    @property
    def steps_done(self) -> int:
        """Steps done so far, with equilibration."""
        return self.dynamics.nsteps + (self._equilibrate if self.phase == "sample" else 0)

    def run(self, progress: Progress | None = None) -> SimulationResult:
        """To the end; see :func:`run_md`."""
        start = time.perf_counter()
        if self.phase == "equilibrate":
            self._advance(self._equilibrate, progress)
            self.phase, self.dynamics.nsteps = "sample", 0
            self._checkpoint()
        self.dynamics.attach(self.observer, interval=self.settings.every)
        if self._frames.wanted:
            self.dynamics.attach(self._write_frame, interval=self.settings.every)
        self._advance(self.settings.steps, progress)
        self._checkpoint()
        md_s = time.perf_counter() - start - self.observer.elapsed_s
        result, message = None, ""
        try:
            result = self.observer.result()
        except PetdosError as error:  # the samples are safe, and the next temperature may do better
            message = str(error)
        return SimulationResult(
            self.temperature_K, self.replica, result, message, self.observer.n_skipped, md_s, self.observer.elapsed_s
        )

    def _advance(self, until: int, progress: Progress | None) -> None:
        if self.observer.converged or self.dynamics.nsteps > until:
            return
        try:
            for _ in self.dynamics.irun(until - self.dynamics.nsteps):
                if self.dynamics.nsteps % self.settings.checkpoint_every == 0 and self.dynamics.nsteps > 0:
                    self._checkpoint()
                if progress is not None:
                    progress(self)
                if self.observer.converged:
                    break
        finally:
            if not np.isfinite(self.atoms.positions).all():
                raise StructureError(
                    f"the simulation at {self.temperature_K:g} K exploded in step {self.steps_done} (positions are not "
                    f"finite); start anew with a --timestep below {self.settings.timestep_fs:g} fs or another potential"
                ) from None

    def _calculator(self) -> Calculator:
        """One that remembers nothing, of hot electrons if they are."""
        ground, schedule = self._potential.calculator(), self.settings.electronic_temperature
        if schedule is None:
            return ground
        return HotElectronCalculator(
            ground, self._model, lambda: schedule.at(self._time_fs()), self.settings.undo_smearing_eV
        )

    def _time_fs(self) -> float:
        """After equilibration, of the last whole step."""
        # The first forces are asked for before there are dynamics.
        sampling = hasattr(self, "dynamics") and self.phase == "sample"
        return self.dynamics.nsteps * self.settings.timestep_fs if sampling else 0.0

    def _check_potential(self) -> None:
        try:
            forces = self.atoms.get_forces()
        except PetdosError:
            raise
        except Exception as error:  # whatever a calculator says to elements that it does not know
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise StructureError(
                f"the potential {self._potential.name} cannot evaluate {self.atoms.get_chemical_formula()} ({reason}); give "
                "another --potential"
            ) from None
        if not np.isfinite(forces).all():
            raise StructureError(
                f"the potential {self._potential.name} gives forces that are not finite for the given structure; look at its "
                "distances"
            )

    def _checkpoint(self) -> None:
        here = (self.phase, self.dynamics.nsteps)
        if here == self._last_checkpoint or not np.isfinite(self.atoms.positions).all():
            return
        self._last_checkpoint = here
        # The trace first: a checkpoint must never be ahead of it.
        self.observer.flush()
        self._state.save(self.replica, Checkpoint.of(self.dynamics, self.phase))
        self.atoms.calc = self._calculator()

    def _write_frame(self) -> None:
        step, calc = self.dynamics.nsteps, self.atoms.calc
        self._frames.write(
            self.atoms,
            replica=self.replica,
            step=step,
            time_fs=step * self.settings.timestep_fs,
            temperature_K=self.temperature_K,
            **(
                {"electronic_temperature_K": calc.used_temperature_K} if isinstance(calc, HotElectronCalculator) else {}
            ),
        )


def _make_dynamics(atoms: Atoms, settings: MDSettings, temperature_K: float, rng: np.random.Generator) -> LangevinBAOAB:
    barostat: dict[str, Any] = {}
    if settings.ensemble == "npt":
        barostat = {
            "externalstress": -settings.pressure_GPa * units.GPa,
            "hydrostatic": True,
            "P_tau": settings.barostat_fs * units.fs,
        }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using heuristic P_mass")
        return LangevinBAOAB(
            atoms,
            settings.timestep_fs * units.fs,
            temperature_K=temperature_K,
            T_tau=settings.thermostat_fs * units.fs,
            rng=rng,
            **barostat,
        )


def _set_velocities(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    # From rest in the potential minimum, half of the kinetic energy goes into potential energy within a vibration.
    relaxed = np.abs(atoms.get_forces()).max() < RELAXED_EV_A
    thermalize_momenta(atoms, temperature_K * (2 if relaxed else 1), rng=rng)
    if len(atoms) > 1:  # the center of mass of one atom is all that moves
        Stationary(atoms)


def _metadata(settings: MDSettings, atoms: Atoms, potential: Potential) -> dict[str, Any]:
    """What the trace says of the run; lists are by replica."""
    pressures = [settings.pressure_GPa] * len(settings.temperatures_K)
    return {
        "formula": atoms.get_chemical_formula(),
        "ensemble": settings.ensemble,
        "temperatures_K": settings.temperatures_K,
        **({"pressures_GPa": pressures} if settings.ensemble == "npt" else {}),
        "potential": potential.name,
        "bias": "none",
        "seed": settings.seed,
        **_electronic(settings),
    }


def _electronic(settings: MDSettings) -> dict[str, Any]:
    schedule = settings.electronic_temperature
    return {} if schedule is None else {"electronic_temperature_K": schedule.as_metadata()}


def _agree(state: RunState, settings: MDSettings, atoms: Atoms, potential: Potential, model: DOSModel) -> MDSettings:
    """Settings with all defaults filled in, after making sure that they are those of the run to be resumed."""
    old = state.settings()
    if settings.seed is None:
        settings = replace(settings, seed=old["seed"] if old else secrets.randbits(32))
    if settings.equilibrate is None:
        settings = replace(settings, equilibrate=old["equilibrate"] if old else settings.steps // 5)
    digest = hashlib.sha256()
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    new = {
        **asdict(settings),
        "temperatures_K": [float(t) for t in settings.temperatures_K],
        "electronic_temperature": _electronic(settings).get("electronic_temperature_K"),
        "potential": potential.name,
        "model": model.info.fingerprint,
        "structure": digest.hexdigest(),
    }
    for name, value in (old or {}).items():
        now: Any = new.get(name)
        if name == "steps":
            same = now >= value
        elif name == "temperatures_K":
            same = now[: len(value)] == value
        else:
            same = now == value
        if not same:
            raise SettingError(
                f"{state.output}: the run to be resumed has {name} = {_shown(value)}, got {_shown(now)}; give the same "
                "settings (more steps or further temperatures are fine), or another -o to start a new run"
            )
    state.save_settings(new)
    return settings


def _shown(value: Any) -> str:
    text = " ".join(f"{v:g}" for v in value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:12]
