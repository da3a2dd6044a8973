"""What an i-PI simulation is and where it is now, in the units of this package; nothing here changes the simulation.

>>> setup = Setup.of(simulation)                                        # doctest: +SKIP
>>> setup.temperatures_K, setup.n_beads, slots(simulation)              # doctest: +SKIP

Under replica exchange i-PI swaps ensembles between systems. An *ensemble slot* is known by the system that held it at the
start; the slot of a system now is ``repindex`` of i-PI's replica exchange, which is kept in RESTART files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ...base.errors import SettingError, StructureError
from ...traces.metadata import check_same, combined, same

ELECTRONS = "electrons"
"""Name of what the driver of hot electrons sends among the extras of i-PI; T_e (K) comes first."""
TESTED_VERSIONS = ("3.3.1",)
SUPPORTED_SERIES = "3.3."
_NAME = re.compile(r"([A-Z][a-z]?)\d*")
_ISOTOPES = {"D": "H", "T": "H"}


def check_version() -> None:
    """Whether the i-PI that is installed is one that this adapter knows.

    :raises SettingError: if not, or if there is none
    """
    try:
        from ipi import __version__ as found
    except ModuleNotFoundError:
        raise SettingError("i-PI is not installed; install it with: pip install 'petdos-md[ipi]'") from None
    if not found.startswith(SUPPORTED_SERIES):
        raise SettingError(
            f"got i-PI {found}, expected {SUPPORTED_SERIES}x (tested: {', '.join(TESTED_VERSIONS)}); install one with: "
            f"pip install ipi=={TESTED_VERSIONS[-1]}"
        )


@dataclass(frozen=True)
class Setup:
    """What does not change during a simulation.

    :param formula: of one system; several different ones are separated by spaces
    :param n_beads: of the path integral, 1 for classical nuclei
    :param ensemble: ``nve``, ``nvt``, ``npt``, ... as i-PI calls it
    :param temperatures_K: of each ensemble slot
    :param pressures_GPa: of each ensemble slot, None for a stress without a single pressure; empty unless the ensemble has one
    :param timestep_fs: NaN if the motion has none
    :param potential: names of the force fields that move the atoms
    :param bias: names of those that bias, and hamiltonian weights that are not 1; ``none`` without
    :param seed: of the random numbers
    :param electronic_temperature_K: of hot electrons that a force field within the server adds; ``variable`` if several do
    """

    formula: str
    n_beads: int
    ensemble: str
    temperatures_K: tuple[float, ...]
    pressures_GPa: tuple[float | None, ...]
    timestep_fs: float
    potential: str | None = None
    bias: str | None = None
    seed: int | None = None
    electronic_temperature_K: float | str | None = None

    @classmethod
    def of(cls, simulation: Any) -> Setup:
        """The setup of a simulation that is bound.

        :raises SettingError: if it cannot be sampled: a ramp, no temperature, numbers of beads that differ
        """
        systems = simulation.syslist
        motions = [motion for system in systems for motion in _motions(system.motion)]
        for motion in motions:
            if type(motion).__name__ in ("TemperatureRamp", "PressureRamp"):
                raise SettingError(
                    f"the simulation has a {type(motion).__name__}, so that its samples belong to no ensemble; run the ramp "
                    "without petdos, and sample afterwards"
                )
        beads = sorted({int(system.beads.nbeads) for system in systems})
        if len(beads) > 1:
            raise SettingError(
                f"got systems with {' and '.join(map(str, beads))} beads, expected the same number in all"
            )
        for index, system in enumerate(systems):
            if not 0 < system.ensemble.temp < math.inf:
                raise SettingError(f"system {index} has no temperature; give it <ensemble><temperature> in the input")
        names = {str(motion.enstype) for motion in motions if getattr(motion, "enstype", None)}
        order = np.argsort(slots(simulation))
        pressures = [_pressure_GPa(systems[i]) for i in order] if any("npt" in n or "nst" in n for n in names) else []
        seed = getattr(simulation.prng, "seed", None)
        formulas = dict.fromkeys(_atoms(system, 0, True).get_chemical_formula() for system in systems)
        return cls(
            formula=" ".join(formulas),
            n_beads=beads[0],
            ensemble=" ".join(sorted(names)),
            temperatures_K=tuple(temperature_K(systems[i]) for i in order),
            pressures_GPa=tuple(pressures),
            timestep_fs=_user("time", "femtosecond", systems[0].motion.dt) or math.nan,
            potential=_potential(systems),
            bias=_bias([systems[i] for i in order]),
            seed=None if seed is None else int(seed),
            electronic_temperature_K=_electronic_temperature_K(simulation),
        )

    def metadata(self) -> dict[str, Any]:
        """What a trace keeps."""
        known = {
            "formula": self.formula,
            "beads": self.n_beads,
            "ensemble": self.ensemble or None,
            "temperatures_K": list(self.temperatures_K),
            "pressures_GPa": list(self.pressures_GPa) or None,
            "potential": self.potential,
            "bias": self.bias,
            "seed": self.seed,
            "electronic_temperature_K": self.electronic_temperature_K,
        }
        return {key: value for key, value in known.items() if value is not None}

    def agreed(self, path: str, known: Mapping[str, Any], timestep_fs: float) -> Setup:
        """This setup with the numbers of a trace, which RESTART files give back rounded.

        :param known: metadata of the trace
        :raises TraceError: if the trace is of another simulation
        """
        ours = {"timestep_fs": None if math.isnan(self.timestep_fs) else self.timestep_fs, "metadata": self.metadata()}
        there = {"timestep_fs": None if math.isnan(timestep_fs) else timestep_fs, "metadata": known}
        # Temperatures that are exchanged are known by their slots, each of which has one throughout.
        check_same(Path(path), there, ours, recorded_only=("seed", "versions"))
        both = combined(known, ours["metadata"])
        n = len(self.temperatures_K)
        return replace(
            self,
            temperatures_K=tuple(both["temperatures_K"][:n]),
            pressures_GPa=tuple(both.get("pressures_GPa", [])[:n]),
            timestep_fs=self.timestep_fs if math.isnan(timestep_fs) else timestep_fs,
        )

    def warnings(self, simulation: Any) -> Iterator[str]:
        """What the user should know of before waiting for results."""
        ladder = self.temperatures_K
        for i, temperature in enumerate(ladder):
            twins = [j for j in range(i) if same(ladder[j], temperature)]
            if self.pressures_GPa and any(not same(self.pressures_GPa[j], self.pressures_GPa[i]) for j in twins):
                yield (
                    f"{temperature:g} K is sampled at several pressures; analyze each apart, with replicas=[...] (petdos analyze --replica)"
                )
                break
        if any(len(system.ensemble.bcomp) for system in simulation.syslist):
            yield "there is a bias potential: samples are not reweighted, averages are those of the biased ensemble"
        if any(np.any(np.abs(np.asarray(s.ensemble.hweights) - 1) > 1e-9) for s in simulation.syslist):
            yield "some hamiltonian_weights are not 1: samples of those replicas are of a scaled potential"


def slots(simulation: Any) -> list[int]:
    """The ensemble slot that each system holds now."""
    from ipi.engine.smotion import ReplicaExchange

    smotion = simulation.smotion
    for motion in getattr(smotion, "mlist", [smotion]):
        if isinstance(motion, ReplicaExchange) and len(motion.repindex) == len(simulation.syslist):
            return [int(index) for index in motion.repindex]
    return list(range(len(simulation.syslist)))


def structures(system: Any, periodic: bool = True) -> list[Atoms]:
    """The beads of a system, in angstrom.

    :raises StructureError: if an atom's name is no chemical symbol
    """
    return [_atoms(system, bead, periodic) for bead in range(int(system.beads.nbeads))]


def temperature_K(system: Any) -> float:
    """Of the ensemble that the system holds now (the property ``ensemble_temperature``), to seven digits: RESTART files keep nine,
    which would turn 500 K into 500.00000000000006."""
    return float(f"{_user('temperature', 'kelvin', system.ensemble.temp):.7g}")


def labels(system: Any) -> dict[str, float]:
    """Time, energies and the temperature of hot electrons of a system, named as the fields of a Sample.

    The potential energy is the mean over beads; the kinetic temperature that of the ring polymer.
    """
    return {
        "time_fs": _user("time", "femtosecond", system.ensemble.time),
        "kinetic_temperature_K": float(_user("temperature", "kelvin", system.properties.get_temp())),
        "potential_energy_eV": float(_user("energy", "electronvolt", system.properties.get_pot())),
        "electronic_temperature_K": _hot_electrons_K(system),
    }


def _atoms(system: Any, bead: int, periodic: bool) -> Atoms:
    from ipi.utils.depend import dstrip

    numbers = _numbers(tuple(system.beads.names.tolist()))
    positions = _user("length", "angstrom", dstrip(system.beads.q)[bead].reshape(-1, 3))
    # i-PI keeps cell vectors in columns.
    cell = _user("length", "angstrom", dstrip(system.cell.h).T)
    return Atoms(numbers, positions=positions, cell=cell, pbc=periodic)


@lru_cache(maxsize=64)
def _numbers(names: tuple[str, ...]) -> np.ndarray:
    return np.array([atomic_numbers[_symbol(name)] for name in names])


def _symbol(name: str) -> str:
    """The chemical symbol of an atom as i-PI names it: isotopes and sites are numbered, as in ``O18``."""
    match = _NAME.fullmatch(name)
    symbol = _ISOTOPES.get(match[1], match[1]) if match else name
    if symbol not in atomic_numbers or symbol == "X":
        raise StructureError(
            f"got an atom named {name!r} in i-PI, expected chemical symbols; rename it in the initial structure"
        )
    return symbol


def _motions(motion: Any) -> Iterator[Any]:
    for part in getattr(motion, "mlist", [motion]):
        if part is motion:
            yield part
        else:
            yield from _motions(part)


def _pressure_GPa(system: Any) -> float | None:
    value = float(_user("pressure", "gigapascal", system.ensemble.pext))
    # An anisotropic stress has no one pressure.
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _potential(systems: list[Any]) -> str:
    used = {str(force.ffield) for system in systems for force in system.fcomp if force.weight != 0}
    return " ".join(sorted(used)) or "none"


def _hot_electrons_K(system: Any) -> float:
    """What the driver of hot electrons told with the forces that move the system now, NaN without such a driver."""
    found: set[float] = set()
    for component in system.forces.mforces:
        if component.weight != 0:  # reading the extras of others would evaluate them
            found |= {float(numbers[0]) for numbers in component.extras.get(ELECTRONS, ())}
    return found.pop() if len(found) == 1 else math.nan


def _electronic_temperature_K(simulation: Any) -> float | str | None:
    """Of drivers of :mod:`petdos_md.engines.ipi.hot_driver` within the server; clients on sockets do not say what they are before there are
    forces."""
    used = {str(force.ffield) for system in simulation.syslist for force in system.fcomp if force.weight != 0}
    drivers: list[Any] = [getattr(field, "driver", None) for name, field in simulation.fflist.items() if name in used]
    found = {float(d.electronic_temperature_K) for d in drivers if hasattr(d, "electronic_temperature_K")}
    return "variable" if len(found) > 1 else next(iter(found), None)


def _bias(systems: list[Any]) -> str:
    """Of systems in the order of their slots."""
    parts = sorted({str(force.ffield) for system in systems for force in system.ensemble.bcomp})
    weights = [np.asarray(system.ensemble.hweights, dtype=float) for system in systems]
    if any(np.any(np.abs(values - 1) > 1e-9) for values in weights):
        parts.append("hamiltonian_weights")
        parts += [",".join(f"{value:.7g}" for value in values) for values in weights]
    return " ".join(parts) or "none"


def _user(dimension: str, unit: str, value: Any) -> Any:
    from ipi.utils.units import unit_to_user

    return unit_to_user(dimension, unit, value)
