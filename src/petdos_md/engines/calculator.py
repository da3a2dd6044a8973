"""A calculator for ASE: energy and forces of any potential, electronic structure of a model.

With a model that also has an energy head, one forward pass drives the dynamics and gives the sample:

>>> atoms.calc = DOSCalculator(model, temperature_K=300)                                # doctest: +SKIP
>>> atoms.get_forces(), atoms.calc.results["dos"]                                       # doctest: +SKIP
"""

from __future__ import annotations

import copy
import math
import os
from typing import Any

from ase import Atoms
from ase.calculators.abc import GetPropertiesMixin
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ..base.errors import ModelError, SettingError
from ..base.sample import Sample
from ..models.model import DOSModel
from ..physics import thermo

DOS_PROPERTIES = ("dos", "fermi_level", "chemical_potential", "electronic_heat_capacity")
"""What :class:`DOSCalculator` adds to the properties of the potential."""


class DOSCalculator(Calculator):
    """Energy and forces of a potential, electronic structure of a model, in one ASE calculator.

    Adds the properties ``dos`` (states/eV per structure, on ``model.grid``), ``fermi_level`` and ``chemical_potential`` (eV,
    on the model's own axis) and ``electronic_heat_capacity`` (eV/K per structure, at fixed number of electrons). They are
    computed when asked for, ``calc.get_property("dos", atoms)`` or ``calc.results["dos"]``, so that forces alone cost nothing
    extra. Copies share the model; a pickle has its path, so that the file must be there where it is read. A copy of ``results`` is a plain
    dictionary with what was computed.

    :param model: the DOS model; its name or path, too
    :param potential: any ASE calculator; None for the energy head of the model itself
    :param temperature_K: of the electrons, for chemical potential and heat capacity
    :raises ModelError: if there is no potential and the model has no energy head
    :raises SettingError: if the temperature is not positive
    """

    electronic_properties: tuple[str, ...] = DOS_PROPERTIES
    """Computed when asked for."""

    def __init__(
        self,
        model: DOSModel | str | os.PathLike[str],
        potential: Any = None,
        temperature_K: float | None = None,
    ) -> None:
        super().__init__()
        self.model = DOSModel.of(model)
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
        self.implemented_properties = [*own, *self.electronic_properties]
        self._sample: Sample | None = None

    def __repr__(self) -> str:
        by = "its energy head" if self.potential is None else type(self.potential).__name__
        at = "" if self.temperature_K is None else f", electrons at {self.temperature_K:g} K"
        return f"<{type(self).__name__}: DOS by {self.model.info.name}, forces by {by}{at}>"

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

    def __deepcopy__(self, memo: dict[int, Any]) -> DOSCalculator:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__setstate__({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "results": self.results.copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.results = _Results(self, self.results)

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
            if name in self.electronic_properties:
                self.results[name] = self._electronic(name, structure)
            else:
                self._atomic(name, structure)

    def _atomic(self, name: str, atoms: Atoms) -> None:
        """Put a property of the potential into the results."""
        if self.potential is None:
            self._forward(atoms)
            return
        self.results[name] = self.potential.get_property(name, atoms)
        if name not in ("energy", "free_energy") and (energy := self._computed_along("energy", atoms)) is not None:
            self.results["energy"] = energy

    def _computed_along(self, name: str, atoms: Atoms) -> float | None:
        """An energy that the potential has computed with another property, so that observers find it."""
        if self.potential is None or name not in getattr(self.potential, "implemented_properties", ()):
            return None
        value = self.potential.get_property(name, atoms, allow_calculation=False)
        return None if value is None else float(value)

    def _forward(self, atoms: Atoms) -> None:
        """One pass for everything."""
        self._sample, energy, forces, stress = self.model.evaluate_with_forces(atoms)
        self.results.update(energy=energy, free_energy=energy, forces=forces)
        if stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

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
    """Results in which the electronic ones appear when they are looked up.

    They are kept beside the dictionary: ASE takes its items for properties that it knows (``SinglePointCalculator``,
    ``export_properties``), and these are none.
    """

    def __init__(self, calculator: DOSCalculator, values: dict[str, Any]) -> None:
        self._calculator, self._names = calculator, calculator.electronic_properties
        super().__init__({name: value for name, value in values.items() if name not in self._names})
        self._electronic = {name: value for name, value in values.items() if name in self._names}

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._electronic

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._names:
            self._electronic[name] = value
        else:
            super().__setitem__(name, value)

    def __missing__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._electronic:
            self._calculator.get_property(name)
        return self._electronic[name]

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary: what was computed."""
        return self[name] if name in self else default  # noqa: SIM401  # that would call itself

    def copy(self) -> dict[str, Any]:
        """A plain dictionary of what was computed."""
        return {**self, **self._electronic}

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self.copy(), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)
