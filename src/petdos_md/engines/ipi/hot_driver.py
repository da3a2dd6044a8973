"""A force field for i-PI: the free energy of hot electrons, beside any potential or together with the model's own.

    i-pi-driver-py -u -a hot -m custom -P .../petdos_electrons.py -o model=almgsi-lda,template=init.xyz,electronic_temperature=8000

As a force component it is added to that of the potential: ``<forces> <force forcefield='potential'/> <force forcefield='hot'/> </forces>``.

>>> driver = ElectronsDriver("almgsi-lda", "init.xyz", electronic_temperature=8000)         # doctest: +SKIP
>>> energy, forces, virial, extras = driver.compute(cell, positions)                        # doctest: +SKIP
"""

from __future__ import annotations

import json
from typing import Any

import ase
import numpy as np
from ipi.utils.units import unit_to_internal

from ...base.errors import ElectronicTemperatureError, ModelError
from ...models.hot_electrons import HotElectronForces, HotForces
from ..schedule import TemperatureSchedule
from .drivers import ModelDriver, extras_of
from .setup import ELECTRONS


class ElectronsDriver(ModelDriver):
    """Free energy, forces and virial of hot electrons relative to their ground state.

    Extras: ``electrons``, the numbers [T_e (K), dF (eV), U (eV), S (eV/K), mu (eV), C_el (eV/K)].

    :param electronic_temperature: T_e in K. i-PI tells drivers neither temperature nor replica, so that it is one number for all.
    :param with_potential: add energy and forces of the model's energy head, from the same pass of the network
    :param features: send features along, as :class:`~petdos_md.engines.ipi.drivers.PotentialDriver`
    :param undo_smearing: width of the Gaussian in the DOS to undo, eV
    :raises ElectronicTemperatureError: if T_e is no positive number
    :raises ModelError: if the energy head is asked for and there is none
    """

    def __init__(
        self,
        model: str,
        template: str,
        device: str | None = None,
        electronic_temperature: float | str | None = None,
        with_potential: bool = False,
        features: bool = False,
        undo_smearing: float = 0.0,
        **others: Any,
    ) -> None:
        super().__init__(model, template, device, **others)
        schedule = TemperatureSchedule.of(_known(electronic_temperature))
        if len(schedule.points) > 1:
            raise ElectronicTemperatureError(
                f"got electronic_temperature={schedule}, expected one number of K: i-PI tells drivers no time"
            )
        if with_potential and not self.model.has_energy:
            raise ModelError(
                f"{self.model.info.name} has no energy output; leave out with_potential and add a potential"
            )
        self.electronic_temperature_K = schedule.at(0.0)
        self._hot = HotElectronForces(self.model, float(undo_smearing))
        self._with_potential, self._with_features = bool(with_potential), bool(features)

    def compute_batch(self, structures: list[ase.Atoms]) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
        return [self._one(atoms) for atoms in structures]

    def _one(self, atoms: ase.Atoms) -> tuple[float, np.ndarray, np.ndarray, str]:
        found = self._hot.evaluate(atoms, self.electronic_temperature_K, with_energy=self._with_potential)
        virial = np.zeros((3, 3)) if found.stress is None else -found.stress * atoms.get_volume()
        return (
            unit_to_internal("energy", "electronvolt", found.ground_energy_eV + found.free_energy_eV),
            unit_to_internal("force", "ev/ang", found.forces),
            unit_to_internal("energy", "electronvolt", virial),
            json.dumps(self._extras(found)),
        )

    def _extras(self, found: HotForces) -> dict[str, list[float]]:
        e = found.electrons
        numbers = (e.free_energy, e.thermal_energy, e.entropy, e.chemical_potential, e.heat_capacity)
        told = {ELECTRONS: [self.electronic_temperature_K, *(float(f"{float(x):.12g}") for x in numbers)]}
        return {**extras_of(found.sample), **told} if self._with_features else told


def _known(temperature: float | str | None) -> float | str:
    if temperature is None or str(temperature) == "ensemble":
        raise ElectronicTemperatureError(
            f"got electronic_temperature={temperature}, expected a positive number of K: i-PI does not send drivers the temperature of the ensemble"
        )
    return temperature
