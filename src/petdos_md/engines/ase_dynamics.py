"""What ASE's dynamics say about the simulation that they run: its ensemble, thermostat, pressure and potential.

>>> from ase.build import bulk
>>> from ase.calculators.emt import EMT
>>> atoms = bulk("Al", cubic=True)
>>> atoms.calc = EMT()
>>> describe(atoms, VelocityVerlet(atoms, units.fs), temperature_K=300.0)
{'formula': 'Al4', 'ensemble': 'nve', 'potential': 'emt'}

Only what is known for sure: a class of dynamics that is not in the table has no ensemble here.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.andersen import Andersen
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.melchionna import MelchionnaNPT
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT, MaskedMTKNPT, NoseHooverChainNVT
from ase.md.npt import NPT
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen, NPTBerendsen
from ase.md.nvtberendsen import NVTBerendsen
from ase.md.verlet import VelocityVerlet

from ..base.errors import SettingError
from ..models.files import shipped_models
from .calculator import DOSCalculator
from .hot_calculator import HotElectronCalculator
from .two_temperature import TwoTemperatureDynamics

_ENSEMBLES: dict[type, str] = {
    VelocityVerlet: "nve",
    Andersen: "nvt",
    Bussi: "nvt",
    Langevin: "nvt",
    NVTBerendsen: "nvt",
    NoseHooverChainNVT: "nvt",
    NPTBerendsen: "npt",
    IsotropicMTKNPT: "npt",
    Inhomogeneous_NPTBerendsen: "npt-anisotropic",
    MTKNPT: "npt-anisotropic",
    MaskedMTKNPT: "npt-anisotropic",
}
"""Of classes whose settings do not change it; a subclass may do anything, and is not in the table."""

_MTK = (IsotropicMTKNPT, MTKNPT, MaskedMTKNPT)


def check_dynamics(dynamics: Any) -> None:
    """Whether an object moves atoms in time.

    :raises SettingError: if not: an optimizer, for instance, has no time and no temperature
    """
    if dynamics is not None and not isinstance(dynamics, MolecularDynamics):
        raise SettingError(
            f"got a {type(dynamics).__name__} as dynamics, expected molecular dynamics of ASE (ase.md); leave it out to count calls"
        )


def describe(
    atoms: Atoms, dynamics: MolecularDynamics | None, temperature_K: float | None, replica: int = 0
) -> dict[str, Any]:
    """Metadata of a simulation; keys that are not known are left out.

    :param temperature_K: of the ensemble, None if it changes; where the dynamics have one of their own, that is written
    :param replica: which one; lists have null for the others
    """
    ensemble = None if dynamics is None else ensemble_of(dynamics)
    target = temperature_K
    if temperature_K is not None and dynamics is not None:
        own = thermostat_K(dynamics)
        target = (
            None if ensemble is not None and ensemble[:3] in ("nve", "nph") else temperature_K if own is None else own
        )
    pressure = pressure_GPa(dynamics) if ensemble is not None and ensemble[:3] in ("npt", "nph") else None
    known = {
        "formula": atoms.get_chemical_formula(),
        "ensemble": ensemble,
        "temperatures_K": None if target is None else [None] * replica + [target],
        "pressures_GPa": None if pressure is None else [None] * replica + [pressure],
        "potential": potential_of(atoms.calc),
        "electronic_temperature_K": atoms.calc.description if isinstance(atoms.calc, HotElectronCalculator) else None,
    }
    return {key: value for key, value in known.items() if value is not None}


def electronic_temperature_K(atoms: Atoms, dynamics: MolecularDynamics | None) -> float:
    """Of the hot electrons that atoms move among: that of the last forces, or of the balance of energy; NaN if there are none."""
    if isinstance(dynamics, TwoTemperatureDynamics):
        return dynamics.electronic_temperature_K
    return atoms.calc.used_temperature_K if isinstance(atoms.calc, HotElectronCalculator) else math.nan


def ensemble_of(dynamics: Any) -> str | None:
    """``nve``, ``nvt``, ``npt``, ``nph``, the latter with ``-anisotropic`` if the shape of the cell changes; None if unknown."""
    if type(dynamics) is LangevinBAOAB:
        barostat, shape = dynamics.externalstress is not None, not dynamics.hydrostatic
        return _name(dynamics.temperature_K is not None, barostat, shape)
    if type(dynamics) in (NPT, MelchionnaNPT):
        return _name(dynamics.ttime is not None, dynamics.pfactor_given is not None, True)
    return _ENSEMBLES.get(type(dynamics))


def thermostat_K(dynamics: Any) -> float | None:
    """The target of the thermostat, None if there is none or it is not known; digits of conversions are rounded away."""
    if type(dynamics) in (Langevin, Andersen, Bussi):
        return _rounded(dynamics.temp / units.kB)
    if type(dynamics) in (NVTBerendsen, NPTBerendsen, Inhomogeneous_NPTBerendsen):
        return _rounded(dynamics.temperature)
    if type(dynamics) in (NPT, MelchionnaNPT) and dynamics.ttime is not None:
        return _rounded(dynamics.temperature / units.kB)
    if type(dynamics) is LangevinBAOAB and dynamics.temperature_K is not None:
        return _rounded(dynamics.temperature_K)
    if type(dynamics) in _MTK:  # no public name gives it
        return _rounded(getattr(dynamics, "_temperature_K", math.nan))
    return None


def pressure_GPa(dynamics: Any) -> float | None:
    """The target of the barostat, None if it is not known or a stress without a single pressure."""
    if type(dynamics) in (NPTBerendsen, Inhomogeneous_NPTBerendsen):
        return _rounded(dynamics.pressure / units.GPa)
    if type(dynamics) in (LangevinBAOAB, NPT, MelchionnaNPT):
        stress = np.asarray(dynamics.externalstress, dtype=np.float64)
        full = stress if stress.ndim == 2 else np.diag(stress[:3]) if stress.size == 6 else np.eye(3) * stress
        if stress.size == 6 and np.abs(stress[3:]).max() > 0:
            return None
        value = float(np.trace(full)) / 3
        hydrostatic = np.allclose(full, value * np.eye(3), rtol=0, atol=1e-9 * max(abs(value), 1e-9))
        return _rounded(-value / units.GPa) if hydrostatic else None
    if type(dynamics) in _MTK:
        return _rounded(getattr(dynamics, "_pressure_au", math.nan) / units.GPa)
    return None


def potential_of(calculator: Any) -> str | None:
    """What drives the atoms: ``emt``, the model of a calculator, else the name of its class."""
    if calculator is None:
        return None
    if type(calculator) is EMT:
        return "emt"
    if isinstance(calculator, DOSCalculator):
        own = calculator.potential
        return model_name(calculator.model.path) if own is None else potential_of(own)
    return type(calculator).__name__


def model_name(path: str) -> str | None:
    """The name of a shipped model as it is, the path of another one in full; None for a model without a file."""
    return path if path in shipped_models() or not path else os.path.abspath(os.path.expanduser(path)) or None


def _name(thermostat: bool, barostat: bool, shape: bool) -> str:
    ensemble = {(0, 0): "nve", (1, 0): "nvt", (0, 1): "nph", (1, 1): "npt"}[thermostat, barostat]
    return f"{ensemble}-anisotropic" if barostat and shape else ensemble


def _rounded(value: Any) -> float | None:
    number = float(f"{float(value):.12g}") + 0.0
    return number if math.isfinite(number) else None
