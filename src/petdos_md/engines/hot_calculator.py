"""A calculator for ASE on the free energy of hot electrons: any potential for the ground state, a DOS model for what heat changes.

>>> atoms.calc = HotElectronCalculator(EMT(), "almgsi-lda", electronic_temperature_K=8000)            # doctest: +SKIP
>>> atoms.get_potential_energy(force_consistent=True), atoms.get_forces()                              # doctest: +SKIP

With the energy head of the model as the potential (None), one forward and one backward pass give everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ..base.sample import Sample
from ..models.hot_electrons import HotElectronForces, HotForces, HotModelErrors, checked_electronic_temperature_K
from ..models.model import DOSModel
from .calculator import DOS_PROPERTIES, DOSCalculator

HOT_PROPERTIES = ("electronic_free_energy", "electronic_thermal_energy", "entropy")
"""What :class:`HotElectronCalculator` adds to the properties of :class:`~petdos_md.engines.calculator.DOSCalculator`."""
_PER_ATOM = ("energies", "stresses")


class HotElectronCalculator(DOSCalculator):
    """The free energy F = E_0 + dF(T_e) of atoms among electrons of a temperature of their own.

    ``free_energy`` is F, which forces and stress derive from (``atoms.get_potential_energy(force_consistent=True)``); ``energy`` is that of
    the ground state, E_0. Further properties: ``electronic_free_energy`` dF and ``electronic_thermal_energy`` U(T_e) - U(0) (eV),
    ``entropy`` (eV/K), all per structure, and those of :class:`DOSCalculator`, at T_e.

    :param potential: any ASE calculator; None for the energy head of the model itself
    :param model: the DOS model; its name or path, too
    :param electronic_temperature_K: T_e; if it changes in time, a function without arguments, which is read whenever atoms have moved
    :param undo_smearing_eV: width of the Gaussian smearing of the model's DOS to undo, 0 for none; at kT_e above it
    :raises ModelError: if there is no potential and the model has no energy head
    :raises ElectronicTemperatureError: if T_e is no positive number; when evaluated, if the states of the model end too low for it
    """

    electronic_properties = (*DOS_PROPERTIES, *HOT_PROPERTIES)
    energy_of_motion = "free_energy"
    """The property that is the potential energy of the ensemble: what a trace keeps, and weights are made of."""

    def __init__(
        self,
        potential: Any,
        model: DOSModel | str | os.PathLike[str],
        electronic_temperature_K: float | Callable[[], float],
        undo_smearing_eV: float = 0.0,
    ) -> None:
        loaded = DOSModel.of(model)
        if type(potential) is DOSCalculator and potential.potential is None and potential.model is loaded:
            potential = None
        super().__init__(loaded, potential)
        self.implemented_properties = [
            *(name for name in self.implemented_properties if name not in _PER_ATOM),
            *(["free_energy"] if "free_energy" not in self.implemented_properties else []),
        ]
        self._given = electronic_temperature_K
        self.hot = HotElectronForces(loaded, undo_smearing_eV)
        self._used_K = self.electronic_temperature_K
        self._found: HotForces | None = None
        self._temperature_of: Callable[[Sample], float] | None = None

    @property
    def electronic_temperature_K(self) -> float:
        """T_e now; may be set.

        :raises ElectronicTemperatureError: if it is no positive number
        """
        return checked_electronic_temperature_K(self._given)

    @electronic_temperature_K.setter
    def electronic_temperature_K(self, value: float | Callable[[], float]) -> None:
        checked_electronic_temperature_K(value)
        self._given = value
        self.reset()

    @property
    def used_temperature_K(self) -> float:
        """T_e of the last calculation."""
        return self._used_K

    @property
    def description(self) -> float | str:
        """T_e as the metadata of a trace have it: a number, ``variable`` if it may change."""
        changes = callable(self._given) or self._temperature_of is not None
        return "variable" if changes else self.electronic_temperature_K

    def hot_electrons(self, atoms: Atoms) -> HotForces:
        """What the model says of these atoms, from the last calculation if it was of them."""
        if self.check_state(atoms):
            self.calculate(atoms, [])
        return self._hot(atoms)

    def follow(self, temperature_of: Callable[[Sample], float] | None) -> None:
        """Let T_e be a function of the sample, called between forward and backward pass; None ends that.

        The forces are those at constant T_e all the same.
        """
        self._temperature_of = temperature_of

    def model_errors(self, atoms: Atoms) -> HotModelErrors:
        """Standard deviations of dF and of its forces over the members of the model's ensemble.

        :raises ModelError: if the model has no ensemble
        """
        return self.hot.model_errors(atoms, self.electronic_temperature_K)

    def reset(self) -> None:
        """Forget the last calculation."""
        super().reset()
        self._found = None

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """As ASE calls it."""
        if system_changes:
            self._found, self._used_K = None, self.electronic_temperature_K
        super().calculate(atoms, properties, system_changes)

    def _atomic(self, name: str, atoms: Atoms) -> None:
        hot = self._hot(atoms)
        if self.potential is None:
            energy, forces, stress = hot.ground_energy_eV, hot.forces, hot.stress
            self.results.update(energy=energy, free_energy=energy + hot.free_energy_eV, forces=forces)
            if stress is not None:
                self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
        elif name == "free_energy":
            ground = name if name in getattr(self.potential, "implemented_properties", ()) else "energy"
            self.results[name] = self.potential.get_property(ground, atoms) + hot.free_energy_eV
        elif name == "forces":
            self.results[name] = self.potential.get_property(name, atoms) + hot.forces
        elif name == "stress":
            if hot.stress is None:
                raise PropertyNotImplementedError("a stress needs a structure that is periodic in three directions")
            self.results[name] = self.potential.get_property(name, atoms) + full_3x3_to_voigt_6_stress(hot.stress)
        else:
            self.results[name] = self.potential.get_property(name, atoms)
        if name in ("forces", "stress") and self.potential is not None:
            self._energies_along(atoms, hot)

    def _energies_along(self, atoms: Atoms, hot: HotForces) -> None:
        ground, free = (self._computed_along(name, atoms) for name in ("energy", "free_energy"))
        if ground is not None:
            self.results["energy"] = ground
        if (free := ground if free is None else free) is not None:
            self.results["free_energy"] = free + hot.free_energy_eV

    def _hot(self, atoms: Atoms) -> HotForces:
        if self._found is None:
            follow = self._temperature_of
            self._found = self.hot.evaluate(atoms, follow or self._used_K, with_energy=self.potential is None)
            self._sample, self._used_K = self._found.sample, self._found.temperature_K
        return self._found

    def _electronic(self, name: str, atoms: Atoms) -> Any:
        if name in ("dos", "fermi_level"):
            self._hot(atoms)
            return super()._electronic(name, atoms)
        electrons = self._hot(atoms).electrons
        values: dict[str, np.ndarray] = {
            "electronic_free_energy": electrons.free_energy,
            "electronic_thermal_energy": electrons.thermal_energy,
            "entropy": electrons.entropy,
            "chemical_potential": electrons.chemical_potential,
            "electronic_heat_capacity": electrons.heat_capacity,
        }
        return float(values[name])
