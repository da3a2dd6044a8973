"""Results per atom, per mole, in k_B: conversion of what the analysis gives per structure.

>>> round(convert(3 * BOLTZMANN_EV * 8, "eV/K", "mol", n_atoms=8), 4)           # 3 R
24.9434
>>> find_normalization("mol").normalized_unit("eV/K")
'J/mol/K'
>>> in_units(result, "mol")["heat_capacity"].attrs["units"]                     # doctest: +SKIP
'J/mol/K'

A mole is one of atoms. Levels (mu, E_F, gap) are not extensive and stay in eV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr

from ..base.constants import BOLTZMANN_EV, FARADAY
from ..base.errors import SettingError
from ..physics.quantities import QUANTITIES

_EXTENSIVE_DOS = ("dos", "heat_capacity_member_mean")

Numbers = TypeVar("Numbers", float, np.ndarray)


@dataclass(frozen=True)
class Normalization:
    """What extensive results refer to, and the units that they then have.

    :param units: unit per structure -> (unit, factor for one atom)
    """

    name: str
    units: dict[str, tuple[str, float]]

    def normalized_unit(self, unit: str) -> str:
        """The unit that something per structure in ``unit`` gets."""
        return self.units[unit][0]


NORMALIZATIONS = {
    n.name: n
    for n in (
        Normalization("atom", {u: (f"{u}/atom", 1.0) for u in ("eV", "eV/K", "eV/K^2", "states/eV")}),
        Normalization(
            "mol",
            {
                "eV": ("J/mol", FARADAY),
                "eV/K": ("J/mol/K", FARADAY),
                "eV/K^2": ("mJ/mol/K^2", 1e3 * FARADAY),
                "states/eV": ("states/eV/atom", 1.0),
            },
        ),
        Normalization(
            "kB",
            {
                "eV": ("k_B K/atom", 1.0 / BOLTZMANN_EV),
                "eV/K": ("k_B/atom", 1.0 / BOLTZMANN_EV),
                "eV/K^2": ("k_B/K/atom", 1.0 / BOLTZMANN_EV),
                "states/eV": ("states/eV/atom", 1.0),
            },
        ),
    )
}
"""``atom`` (eV and K), ``mol`` (J, mJ for gamma), ``kB`` (per atom, in units of the Boltzmann constant)."""


def find_normalization(name: str) -> Normalization:
    """The normalization of a name.

    :raises SettingError: if there is none
    """
    if name not in NORMALIZATIONS:
        raise SettingError(f"got the normalization {name!r}, expected one of cell, {', '.join(NORMALIZATIONS)}")
    return NORMALIZATIONS[name]


def convert(value: Numbers, unit: str, normalization: str, n_atoms: int | np.ndarray) -> Numbers:
    """A value per structure of ``n_atoms`` in eV, eV/K, eV/K^2 or states/eV, referred to another normalization."""
    return value * (find_normalization(normalization).units[unit][1] / n_atoms)  # type: ignore[return-value]


def in_units(data: xr.Dataset, normalization: str) -> xr.Dataset:
    """An analysis with its extensive variables and their errors referred to another normalization.

    :param normalization: ``cell`` (as it is), ``atom``, ``mol`` or ``kB``, see :data:`NORMALIZATIONS`
    :raises SettingError: for another normalization
    """
    if normalization == "cell":
        return data
    chosen = find_normalization(normalization)
    result = data.copy()
    for name, variable in data.data_vars.items():
        if _is_extensive(str(name)) and variable.attrs.get("units") in chosen.units:
            unit, factor = chosen.units[variable.attrs["units"]]
            attrs = {**variable.attrs, "units": unit}
            result[name] = (variable * (factor / data["n_atoms"])).transpose(*variable.dims).assign_attrs(attrs)
    result.attrs["normalization"] = normalization
    return result


def unit_and_scale(data: xr.Dataset, name: str, normalization: str) -> tuple[str, np.ndarray]:
    """The unit that a variable of an analysis gets, and what its values per structure are multiplied with, ``(n_temperatures,)``."""
    unit = str(data[name].attrs["units"])
    if normalization == "cell":
        return unit, np.ones(data.sizes["temperature"])
    chosen, factor = find_normalization(normalization).units[unit]
    return chosen, factor / data["n_atoms"].values


def _is_extensive(name: str) -> bool:
    """Whether a variable of an analysis grows with the structure."""
    for ending in ("_model_std", "_sampling_err", "_members"):
        name = name.removesuffix(ending)
    return name in _EXTENSIVE_DOS or (name in QUANTITIES and QUANTITIES[name].extensive)
