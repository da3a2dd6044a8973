"""How to run molecular dynamics with :mod:`petdos_md.engines.md`.

>>> MDSettings(temperatures_K=(300.0,), steps=100, electronic_temperature=TemperatureSchedule.parse("8000")).check()
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.errors import SettingError
from .schedule import TemperatureSchedule

ENSEMBLES = ("nvt", "npt")


@dataclass(frozen=True)
class MDSettings:
    """How to run.

    :param temperatures_K: one simulation each
    :param steps: of each simulation, after equilibration
    :param every: steps between samples; the first is taken at step 0
    :param timestep_fs: of the integrator
    :param ensemble: ``nvt`` or ``npt``
    :param pressure_GPa: for ``npt``
    :param equilibrate: steps before step 0; by default a fifth of ``steps``
    :param seed: of the random numbers; by default one is drawn
    :param thermostat_fs: relaxation time of velocities
    :param barostat_fs: relaxation time of the cell
    :param checkpoint_every: steps between checkpoints
    :param target_error: relative sampling error of the heat capacity at which a simulation ends early
    :param electronic_temperature: of the electrons, if they are hot: a number (K) or a schedule in the time after equilibration
    :param undo_smearing_eV: of the DOS of hot electrons, see :mod:`petdos_md.physics.hot_electrons`
    """

    temperatures_K: tuple[float, ...]
    steps: int
    every: int = 10
    timestep_fs: float = 2.0
    ensemble: str = "nvt"
    pressure_GPa: float = 0.0
    equilibrate: int | None = None
    seed: int | None = None
    thermostat_fs: float = 100.0
    barostat_fs: float = 1000.0
    checkpoint_every: int = 100
    target_error: float | None = None
    electronic_temperature: TemperatureSchedule | None = None
    undo_smearing_eV: float = 0.0

    def check(self) -> None:
        """Whether a run is possible.

        :raises SettingError: if not
        """
        bad = [t for t in self.temperatures_K if not 0 < t < math.inf]
        if bad or not self.temperatures_K:
            raise SettingError(
                f"got {f'a temperature of {bad[0]:g} K' if bad else 'no temperature'}, expected one or more positive ones in K"
            )
        if len({round(math.log(t), 6) for t in self.temperatures_K}) < len(self.temperatures_K):
            raise SettingError("got a temperature twice, expected different ones; use another trace for another seed")
        if self.ensemble not in ENSEMBLES:
            raise SettingError(f"got ensemble {self.ensemble!r}, expected {' or '.join(ENSEMBLES)}")
        for name, least in (("steps", 1), ("every", 1), ("equilibrate", 0), ("checkpoint_every", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingError(f"got {name} = {value}, expected at least {least}")
        for name in ("timestep_fs", "thermostat_fs", "barostat_fs", "target_error"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"got {name} = {value}, expected a positive number")
        if self.undo_smearing_eV and self.electronic_temperature is None:
            raise SettingError("undo_smearing_eV is for hot electrons; give electronic_temperature, or leave it out")
        if not math.isfinite(self.pressure_GPa):
            raise SettingError(f"got pressure_GPa = {self.pressure_GPa}, expected a number")
