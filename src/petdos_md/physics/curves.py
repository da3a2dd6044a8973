"""Electronic thermodynamics of one DOS over temperature, and the Sommerfeld coefficient.

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> curve = thermodynamics(energies, np.full(401, 2.0), 20.0, [300.0, 600.0], n_atoms=4)
>>> gamma = sommerfeld_gamma(energies, np.full(401, 2.0), 20.0)
>>> bool(np.allclose(curve["heat_capacity"], gamma * curve["temperature"], rtol=1e-12))
True

The rigid-band approximation: the DOS does not change with the temperature of the electrons. Members of an ensemble stay whole:
each gives its own curve, mean and standard deviation come last. :func:`petdos_md.results.normalization.in_units` turns a result
into J/mol/K or k_B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ..base.constants import SOMMERFELD
from . import thermo
from .quantities import QUANTITIES, derive

CURVE = ("chemical_potential", "internal_energy", "thermal_energy", "entropy", "free_energy", "heat_capacity")


def thermodynamics(
    energies: ArrayLike,
    dos: ArrayLike,
    n_electrons: float,
    temperatures_K: Sequence[float] | np.ndarray,
    *,
    n_atoms: int = 1,
) -> xr.Dataset:
    """mu, U, S, F and C_el of one DOS, or of the members of an ensemble, over temperature.

    :param dos: ``(n,)`` or ``(n_members, n)`` states/eV per structure
    :param n_atoms: per structure, for conversions
    :returns: variables of dimension ``temperature`` per structure, those of an ensemble being means over members, with
        ``NAME_model_std`` (n - 1) and ``heat_capacity_members``; and ``fermi_level``, ``sommerfeld_gamma``
    :raises ChemicalPotentialError: if a member cannot hold the electrons
    """
    energies, dos = np.asarray(energies, dtype=float), np.asarray(dos, dtype=float)
    temperatures = np.asarray(temperatures_K, dtype=float)
    members = dos if dos.ndim == 2 else dos[None]
    names = (*CURVE, "fermi_level", "dos_at_fermi_level", "sommerfeld_gamma")
    values = derive(energies, members[:, None], n_electrons, temperatures, names)
    several = dos.ndim == 2 and len(dos) > 1
    variables: dict[str, tuple] = {}
    for name in names:
        attrs = {"units": QUANTITIES[name].unit, "description": QUANTITIES[name].description}
        variables[name] = "temperature", values[name].mean(axis=0), attrs
        if several:
            note = f"model error of {name}: standard deviation over members"
            variables[f"{name}_model_std"] = (
                "temperature",
                values[name].std(axis=0, ddof=1),
                {**attrs, "description": note},
            )
    if several:
        variables["heat_capacity_members"] = ("temperature", "member"), values["heat_capacity"].T, {"units": "eV/K"}
    variables["electrons"] = (), float(n_electrons), {"units": "1"}
    variables["n_atoms"] = (), int(n_atoms), {"units": "1"}
    return xr.Dataset(variables, {"temperature": ("temperature", temperatures, {"units": "K"})})


def sommerfeld_gamma(energies: ArrayLike, dos: ArrayLike, n_electrons: ArrayLike) -> np.ndarray:
    """gamma = pi^2/3 k_B^2 g(E_F) in eV/K^2 per structure: C_el -> gamma T for T -> 0. Shape as :func:`thermo.fermi_level`."""
    return SOMMERFELD * thermo.dos_at_fermi_level(energies, dos, n_electrons)
