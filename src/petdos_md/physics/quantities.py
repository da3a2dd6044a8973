"""From an averaged DOS and its ensemble to derived quantities with both kinds of error.

Members stay whole: each member's quantity comes from that member's own thermal-average DOS, and the spread over members is
taken at the end (paper, Figs. 6 and 7; DOI 10.1039/D5DD00557D). The sampling error comes from the linear response of a
quantity to the DOS (delta method): with kernel h, the series ``h . g_t`` over frames has the fluctuation of the quantity.

>>> values = derive(energies, dos, 24.0, 300.0, n_atoms=8)  # doctest: +SKIP
>>> values["heat_capacity"]                                # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.constants import BOLTZMANN_EV, SOMMERFELD
from . import thermo
from .fermi_integrals import nodal_weights, step_weights

UNITS = {
    "chemical_potential": "eV",
    "fermi_level": "eV",
    "chemical_potential_shift": "eV",
    "internal_energy": "eV",
    "thermal_energy": "eV",
    "entropy": "eV/K",
    "free_energy": "eV",
    "heat_capacity": "eV/K",
    "heat_capacity_finite_difference": "eV/K",
    "gap": "eV",
    "dos_at_fermi_level": "states/eV",
    "sommerfeld_gamma": "eV/K^2",
}
"""Derived quantities and their units, per structure."""

DESCRIPTIONS = {
    "chemical_potential": "chemical potential at the temperature",
    "fermi_level": "Fermi level at zero temperature; the middle of a gap",
    "chemical_potential_shift": "chemical potential minus Fermi level",
    "internal_energy": "internal energy of the electrons, int g E f dE",
    "thermal_energy": "internal energy minus that at zero temperature",
    "entropy": "electronic entropy",
    "free_energy": "electronic free energy U - T S",
    "heat_capacity": "electronic heat capacity dU/dT at a constant number of electrons",
    "heat_capacity_finite_difference": "the same as [U(T + d) - U(T - d)] / 2d with d = T / 1000, as a check",
    "gap": "width around the Fermi level with a DOS below 0.1 states/eV/atom",
    "dos_at_fermi_level": "DOS at the Fermi level",
    "sommerfeld_gamma": "Sommerfeld coefficient pi^2/3 k_B^2 g(E_F), the slope of C_el at T = 0",
}

LINEAR = tuple(name for name in UNITS if name not in ("gap", "heat_capacity_finite_difference"))
"""Quantities whose sampling error follows from linear response."""


@dataclass(frozen=True)
class EnsembleValues:
    """Quantities of every member.

    :param values: quantity -> ``(n_temperatures, n_members)``
    :param dos_std: ``(n_temperatures, n_channels)`` standard deviation over members (``n - 1``), states/eV
    """

    values: dict[str, np.ndarray]
    dos_std: np.ndarray

    def mean(self, name: str) -> np.ndarray:
        """Over members, ``(n_temperatures,)``."""
        return self.values[name].mean(axis=1)

    def std(self, name: str) -> np.ndarray:
        """Over members with ``n - 1`` in the denominator, ``(n_temperatures,)``; NaN for a single member."""
        values = self.values[name]
        return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)


def derive(
    energies: np.ndarray,
    dos: np.ndarray,
    n_electrons: np.ndarray | float,
    temperature_K: np.ndarray | float,
    names: Sequence[str] = tuple(UNITS),
    *,
    n_atoms: np.ndarray | int | None = None,
) -> dict[str, np.ndarray]:
    """Quantities of DOS ``(..., n)``; arguments broadcast as in :mod:`petdos_md.physics.thermo`.

    :param n_atoms: per structure; the gap needs it
    :raises ValueError: if the gap is asked for without ``n_atoms``
    :raises ChemicalPotentialError: if one of the DOS cannot hold the electrons on the energy grid
    """
    if "gap" in names and n_atoms is None:
        raise ValueError("the gap is asked for without n_atoms, which its threshold of states/eV/atom needs")
    args = energies, dos, n_electrons, temperature_K
    known: dict[str, np.ndarray] = {"chemical_potential": thermo.chemical_potential(*args)}
    mu = known["chemical_potential"]

    def get(name: str) -> np.ndarray:
        if name not in known:
            known[name] = np.broadcast_to(functions[name](), mu.shape)
        return known[name]

    functions: dict[str, Callable[[], np.ndarray]] = {
        "fermi_level": lambda: thermo.fermi_level(*args[:3]),
        "chemical_potential_shift": lambda: mu - get("fermi_level"),
        "thermal_energy": lambda: thermo.thermal_energy(*args, mu=mu),
        "internal_energy": lambda: thermo.ground_state_energy(*args[:3]) + get("thermal_energy"),
        "entropy": lambda: thermo.entropy(*args, mu=mu),
        "free_energy": lambda: get("internal_energy") - temperature_K * get("entropy"),
        "heat_capacity": lambda: thermo.heat_capacity(*args, mu=mu),
        "heat_capacity_finite_difference": lambda: thermo.heat_capacity_finite_difference(*args),
        "gap": lambda: thermo.band_gap(*args[:3], np.nan if n_atoms is None else n_atoms),
        "dos_at_fermi_level": lambda: thermo.dos_at_fermi_level(*args[:3]),
        "sommerfeld_gamma": lambda: SOMMERFELD * get("dos_at_fermi_level"),
    }
    return {name: get(name) for name in names}


def derive_members(
    energies: np.ndarray,
    slices: Iterable[np.ndarray],
    dos: np.ndarray,
    n_electrons: np.ndarray,
    temperature_K: np.ndarray,
    names: Sequence[str] = tuple(UNITS),
    *,
    n_atoms: np.ndarray | None = None,
) -> EnsembleValues:
    """Quantities of every member, a slice of members at a time.

    :param slices: members' average DOS, each ``(n_temperatures, k, n_channels)``
    :param dos: their mean over all members, ``(n_temperatures, n_channels)``
    :param n_electrons: ``(n_temperatures,)``
    :param temperature_K: ``(n_temperatures,)``
    :param n_atoms: ``(n_temperatures,)``; the gap needs it
    """
    sizes = None if n_atoms is None else n_atoms[:, None]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    squares, count = np.zeros_like(dos), 0
    for members in slices:
        values = derive(energies, members, n_electrons[:, None], temperature_K[:, None], names, n_atoms=sizes)
        for name in names:
            parts[name].append(values[name])
        squares += ((members - dos[:, None]) ** 2).sum(axis=1)
        count += members.shape[1]
    std = np.sqrt(squares / (count - 1)) if count > 1 else np.full_like(dos, np.nan)
    return EnsembleValues({name: np.concatenate(part, axis=1) for name, part in parts.items()}, std)


def kernels(
    energies: np.ndarray, dos: np.ndarray, n_electrons: float, temperature_K: float, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Linear response of the quantities to the DOS at a constant number of electrons, each ``(n,)``.

    NaN where a quantity does not respond linearly (in a gap without states within reach of kT). The gap has no kernel: it
    comes from a threshold.

    :param names: some of :data:`LINEAR`; all if None
    """
    args = energies, dos, n_electrons, temperature_K
    mu = thermo.chemical_potential(*args)
    wanted = LINEAR if names is None else names
    result: dict[str, np.ndarray] = {}
    fermi = thermo.fermi_level_kernel(*args[:3])
    chemical = thermo.chemical_potential_kernel(*args, mu=mu)
    # F = Omega + mu N is stationary in mu, so that dF is the change of Omega = int g [(E - mu) f - T s] dE at fixed mu.
    at, kT = np.atleast_1d(mu), np.atleast_1d(BOLTZMANN_EV * temperature_K)
    free = (
        step_weights(energies, at)[1] + nodal_weights("U", energies, at, kT) - kT * nodal_weights("S", energies, at, kT)
    )[0]
    internal = thermo.internal_energy_kernel(*args, mu=mu)
    for name in wanted:
        if name == "chemical_potential":
            result[name] = chemical
        elif name == "fermi_level":
            result[name] = fermi
        elif name == "chemical_potential_shift":
            result[name] = chemical - fermi
        elif name == "internal_energy":
            result[name] = internal
        elif name == "thermal_energy":
            result[name] = internal - _ground_state_kernel(energies, dos, n_electrons)
        elif name == "entropy":
            result[name] = (internal - free) / temperature_K
        elif name == "free_energy":
            result[name] = free
        elif name == "heat_capacity":
            result[name] = thermo.heat_capacity_kernel(*args, mu=mu)
        elif name == "dos_at_fermi_level":
            result[name] = _dos_at_fermi_kernel(energies, dos, n_electrons, fermi)
        elif name == "sommerfeld_gamma":
            result[name] = SOMMERFELD * _dos_at_fermi_kernel(energies, dos, n_electrons, fermi)
        else:
            raise ValueError(f"no linear response is known for {name!r}, expected one of {', '.join(LINEAR)}")
    return result


def _ground_state_kernel(energies: np.ndarray, dos: np.ndarray, n_electrons: float) -> np.ndarray:
    """dU(T = 0) = int_{-inf}^{E_F} dg (E - E_F) dE: the electrons that dg displaces come from the Fermi level."""
    level = np.atleast_1d(thermo.fermi_level(energies, dos, n_electrons))
    return step_weights(energies, level)[1][0]


def _dos_at_fermi_kernel(energies: np.ndarray, dos: np.ndarray, n_electrons: float, fermi: np.ndarray) -> np.ndarray:
    """dg(E_F) = dg at the old level + g' dE_F, ``fermi`` being the kernel of E_F."""
    level = float(thermo.fermi_level(energies, dos, n_electrons))
    i = int(np.clip(np.searchsorted(energies, level, side="left") - 1, 0, len(energies) - 2))
    width = energies[i + 1] - energies[i]
    result = (dos[i + 1] - dos[i]) / width * fermi
    result[i] += (energies[i + 1] - level) / width
    result[i + 1] += (level - energies[i]) / width
    return result
