"""What an ASE structure itself says about a sample: energy and temperature of its atoms, labels of its file.

>>> atoms = Atoms("Al4", positions=np.eye(4, 3))
>>> atoms.set_momenta([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
>>> bool(np.isclose(kinetic_temperature_K(atoms), 12 / 9 * atoms.get_temperature()))     # 3 N - 3 = 9 of 12
True
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixCom

from ..base.errors import SettingError


def _number(value: Any) -> float:
    """A number, or text that is one, also as Fortran writes it."""
    if isinstance(value, bool | np.bool_):
        raise TypeError
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError
    value = array.reshape(-1)[0]
    return float(value.replace("D", "E").replace("d", "e") if isinstance(value, str) else value)


def _integer(value: Any) -> int:
    array = np.asarray(value)
    if array.size == 1:
        only = array.reshape(-1)[0]
        if isinstance(only, str | int | np.integer) and not isinstance(only, bool | np.bool_):
            try:
                return int(only)  # exactly, however large
            except ValueError:
                pass
    number = _number(value)
    if number != round(number):
        raise ValueError
    return round(number)


LABELS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool], str]] = {
    "step": (_integer, lambda x: -(2**63) <= x < 2**63, "an integer"),
    "replica": (_integer, lambda x: 0 <= x < 2**31, "an integer, 0 or more"),
    "time_fs": (_number, lambda x: not math.isinf(x), "a time in fs"),
    "weight": (_number, lambda x: 0 <= x < math.inf, "a number, 0 or more"),
    "temperature_K": (_number, lambda x: 0 < x < math.inf, "a positive number"),
    "electronic_temperature_K": (_number, lambda x: 0 < x < math.inf, "a positive number"),
}
"""Name -> how it is read, whether a value makes sense, what is expected."""
AT_REST = 1e-9
"""The center of mass is at rest if it has less than this share of the kinetic energy; in a thermal structure it has 1/N."""


def checked_temperature_K(value: Any) -> float:
    """The temperature of an ensemble.

    :raises SettingError: if it is missing, no number or not positive
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        shown = repr(value) if isinstance(value, str) else value
        raise SettingError(f"got temperature_K={shown}, expected the temperature of the ensemble, positive, in K")
    return float(value)


def labels_of(info: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Labels of a frame: ``step``, ``replica``, ``time_fs``, ``weight``, ``temperature_K``, ``electronic_temperature_K``.

    :param info: of the frame, with numbers or text that is a number
    :param defaults: for labels that it does not have
    :param where: file and frame, for messages
    :raises SettingError: for a label that is no number of its kind; names it
    """
    found: dict[str, Any] = {}
    for name, (kind, fits, expected) in LABELS.items():
        value = info.get(name, defaults.get(name))
        if value is None:
            continue
        try:
            found[name] = kind(value)
        except (ValueError, TypeError, OverflowError):
            found[name] = None
        if found[name] is None or not fits(found[name]):
            shown = " ".join(str(value).split())[:40]
            raise SettingError(f"{where} has {name} = {shown}, expected {expected}; correct it in the file")
    return found


def known_energy(atoms: Atoms) -> float:
    """The potential energy (eV) that the atoms move on, if the calculator has it for these very atoms, else NaN."""
    if atoms.calc is None:
        return math.nan
    try:
        name = getattr(atoms.calc, "energy_of_motion", "energy")
        energy = atoms.calc.get_property(name, atoms, allow_calculation=False)
    except (PropertyNotImplementedError, NotImplementedError, TypeError):
        return math.nan
    return math.nan if energy is None else float(energy)


def kinetic_temperature_K(atoms: Atoms) -> float:
    """2 E_kin / (k_B n) with n degrees of freedom, NaN without velocities.

    n is 3 N less what constraints take away, and less the three of the center of mass where that is at rest: then it is the
    ``temp`` of LAMMPS and i-PI. Where the center of mass moves (a Langevin thermostat on every atom), all 3 N count, while LAMMPS
    still takes 3 N - 3, so that its number is larger by 3 N / (3 N - 3).
    """
    if not atoms.has("momenta"):
        return math.nan
    kinetic_eV = float(atoms.get_kinetic_energy())
    if not kinetic_eV > 0:
        return kinetic_eV
    n = int(atoms.get_number_of_degrees_of_freedom())
    momentum = atoms.get_momenta().sum(axis=0)
    of_center_eV = float(np.square(momentum).sum() / (2 * atoms.get_masses().sum()))
    counted = any(isinstance(constraint, FixCom) for constraint in atoms.constraints)
    if of_center_eV < AT_REST * kinetic_eV and n > 3 and not counted:
        n -= 3
    return 2 * kinetic_eV / (n * units.kB) if n > 0 else math.nan
