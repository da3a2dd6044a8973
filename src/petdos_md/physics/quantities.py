"""From an averaged DOS and its ensemble to derived quantities with both kinds of error.

The value of a quantity is that of the model's own DOS. Members stay whole: each member's quantity comes from that member's own
thermal-average DOS, and the spread over members is taken at the end (paper, Figs. 6 and 7; DOI 10.1039/D5DD00557D). The sampling error comes from the linear response of a
quantity to the DOS (delta method): with kernel h, the series ``h . g_t`` over frames has the fluctuation of the quantity.

>>> energies = np.linspace(-10.0, 10.0, 401)
>>> values = derive(energies, np.full(401, 2.0), 20.0, 300.0, ["heat_capacity", "sommerfeld_gamma"])
>>> bool(np.isclose(values["heat_capacity"], 300.0 * values["sommerfeld_gamma"], rtol=1e-12))
True
>>> QUANTITIES["heat_capacity"].unit, QUANTITIES["gap"].kernel is None
('eV/K', True)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base.constants import SOMMERFELD
from . import response, thermo


@dataclass(frozen=True)
class Quantity:
    """A number that follows from a DOS, an electron count and a temperature.

    :param unit: per structure
    :param value: of a :class:`State`
    :param kernel: its linear response to the DOS, of a :class:`State`; None if it has none (the gap comes from a threshold)
    :param extensive: whether it grows with the structure
    :param on_energy_axis: whether it moves with the zero of the energies
    """

    name: str
    unit: str
    description: str
    value: Callable[[State], np.ndarray]
    kernel: Callable[[State], np.ndarray] | None = None
    extensive: bool = False
    on_energy_axis: bool = False


class State:
    """DOS with their electrons at a temperature; whatever is asked of them is computed once.

    :param dos: ``(..., n)`` states/eV; arguments broadcast as in :mod:`petdos_md.physics.thermo`
    :param n_atoms: per structure; the gap needs it
    :raises ChemicalPotentialError: if one of the DOS cannot hold the electrons on the energy grid
    """

    def __init__(
        self,
        energies: np.ndarray,
        dos: np.ndarray,
        n_electrons: np.ndarray | float,
        temperature_K: np.ndarray | float,
        n_atoms: np.ndarray | int | None = None,
    ) -> None:
        self.cold = energies, dos, n_electrons
        self.warm = *self.cold, temperature_K
        self.temperature_K, self.n_atoms = temperature_K, n_atoms
        self.mu = thermo.chemical_potential(*self.warm)
        self._values: dict[str, np.ndarray] = {}
        self._kernels: dict[str, np.ndarray] = {}

    def value(self, name: str) -> np.ndarray:
        """A quantity, in the broadcast shape.

        :raises ValueError: if the gap is asked for without ``n_atoms``
        """
        if name not in self._values:
            self._values[name] = np.broadcast_to(QUANTITIES[name].value(self), self.mu.shape)
        return self._values[name]

    def kernel(self, name: str) -> np.ndarray:
        """Linear response of a quantity to the DOS, in the broadcast shape and ``(n,)``.

        :raises ValueError: if it has none
        """
        kernel = QUANTITIES[name].kernel if name in QUANTITIES else None
        if kernel is None:
            raise ValueError(f"no linear response is known for {name!r}, expected one of {', '.join(LINEAR)}")
        if name not in self._kernels:
            self._kernels[name] = kernel(self)
        return self._kernels[name]


def _gap(state: State) -> np.ndarray:
    if state.n_atoms is None:
        raise ValueError("the gap is asked for without n_atoms, which its threshold of states/eV/atom needs")
    return thermo.band_gap(*state.cold, state.n_atoms)


_TABLE = (
    Quantity(
        "chemical_potential",
        "eV",
        "chemical potential at the temperature",
        lambda s: s.mu,
        lambda s: response.chemical_potential_kernel(*s.warm, mu=s.mu),
        on_energy_axis=True,
    ),
    Quantity(
        "fermi_level",
        "eV",
        "Fermi level at zero temperature; the middle of a gap",
        lambda s: thermo.fermi_level(*s.cold),
        lambda s: response.fermi_level_kernel(*s.cold),
        on_energy_axis=True,
    ),
    Quantity(
        "chemical_potential_shift",
        "eV",
        "chemical potential minus Fermi level",
        lambda s: s.mu - s.value("fermi_level"),
        lambda s: s.kernel("chemical_potential") - s.kernel("fermi_level"),
    ),
    Quantity(
        "internal_energy",
        "eV",
        "internal energy of the electrons, int g E f dE",
        lambda s: thermo.ground_state_energy(*s.cold) + s.value("thermal_energy"),
        lambda s: response.internal_energy_kernel(*s.warm, mu=s.mu),
        extensive=True,
        on_energy_axis=True,
    ),
    Quantity(
        "thermal_energy",
        "eV",
        "internal energy minus that at zero temperature",
        lambda s: thermo.thermal_energy(*s.warm, mu=s.mu),
        lambda s: s.kernel("internal_energy") - response.ground_state_energy_kernel(*s.cold),
        extensive=True,
    ),
    Quantity(
        "entropy",
        "eV/K",
        "electronic entropy",
        lambda s: thermo.entropy(*s.warm, mu=s.mu),
        lambda s: (s.kernel("internal_energy") - s.kernel("free_energy")) / np.asarray(s.temperature_K)[..., None],
        extensive=True,
    ),
    Quantity(
        "free_energy",
        "eV",
        "electronic free energy U - T S",
        lambda s: s.value("internal_energy") - s.temperature_K * s.value("entropy"),
        lambda s: response.free_energy_kernel(*s.warm, mu=s.mu),
        extensive=True,
        on_energy_axis=True,
    ),
    Quantity(
        "heat_capacity",
        "eV/K",
        "electronic heat capacity dU/dT at a constant number of electrons",
        lambda s: thermo.heat_capacity(*s.warm, mu=s.mu),
        lambda s: response.heat_capacity_kernel(*s.warm, mu=s.mu),
        extensive=True,
    ),
    Quantity(
        "heat_capacity_finite_difference",
        "eV/K",
        "the same as [U(T + d) - U(T - d)] / 2d with d = T / 1000, as a check",
        lambda s: thermo.heat_capacity_finite_difference(*s.warm),
        extensive=True,
    ),
    Quantity("gap", "eV", "width around the Fermi level with a DOS below 0.1 states/eV/atom", _gap),
    Quantity(
        "dos_at_fermi_level",
        "states/eV",
        "DOS at the Fermi level",
        lambda s: thermo.dos_at_fermi_level(*s.cold),
        lambda s: response.dos_at_fermi_level_kernel(*s.cold),
        extensive=True,
    ),
    Quantity(
        "sommerfeld_gamma",
        "eV/K^2",
        "Sommerfeld coefficient pi^2/3 k_B^2 g(E_F), the slope of C_el at T = 0",
        lambda s: SOMMERFELD * s.value("dos_at_fermi_level"),
        lambda s: SOMMERFELD * s.kernel("dos_at_fermi_level"),
        extensive=True,
    ),
)
QUANTITIES = {quantity.name: quantity for quantity in _TABLE}
"""Derived quantities by name, in the order of results."""
LINEAR = tuple(name for name, quantity in QUANTITIES.items() if quantity.kernel is not None)
"""Names of those whose sampling error follows from linear response."""


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
    names: Sequence[str] = tuple(QUANTITIES),
    *,
    n_atoms: np.ndarray | int | None = None,
) -> dict[str, np.ndarray]:
    """Quantities of DOS ``(..., n)``; arguments broadcast as in :mod:`petdos_md.physics.thermo`.

    :param names: some of :data:`QUANTITIES`
    :param n_atoms: per structure; the gap needs it
    :raises ValueError: if the gap is asked for without ``n_atoms``
    :raises ChemicalPotentialError: if one of the DOS cannot hold the electrons on the energy grid
    """
    state = State(energies, dos, n_electrons, temperature_K, n_atoms)
    return {name: state.value(name) for name in names}


def derive_members(
    energies: np.ndarray,
    slices: Iterable[np.ndarray],
    dos: np.ndarray,
    n_electrons: np.ndarray,
    temperature_K: np.ndarray,
    names: Sequence[str] = tuple(QUANTITIES),
    *,
    n_atoms: np.ndarray | None = None,
) -> EnsembleValues:
    """Quantities of every member, a slice of members at a time.

    :param slices: members' average DOS, each ``(n_temperatures, k, n_channels)``
    :param dos: the model's own, ``(n_temperatures, n_channels)``, from which members deviate little
    :param n_electrons: ``(n_temperatures,)``
    :param temperature_K: ``(n_temperatures,)``
    :param n_atoms: ``(n_temperatures,)``; the gap needs it
    """
    sizes = None if n_atoms is None else n_atoms[:, None]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    total, squares, count = np.zeros_like(dos), np.zeros_like(dos), 0
    for members in slices:
        values = derive(energies, members, n_electrons[:, None], temperature_K[:, None], names, n_atoms=sizes)
        for name in names:
            parts[name].append(values[name])
        # Deviations from what is near their mean are small, and so are their rounding errors.
        deviations = members - dos[:, None]
        total += deviations.sum(axis=1)
        squares += (deviations**2).sum(axis=1)
        count += members.shape[1]
    variance = np.maximum(squares - total**2 / max(count, 1), 0.0) / max(count - 1, 1)
    std = np.sqrt(variance) if count > 1 else np.full_like(dos, np.nan)
    return EnsembleValues({name: np.concatenate(part, axis=1) for name, part in parts.items()}, std)


def kernels(
    energies: np.ndarray,
    dos: np.ndarray,
    n_electrons: np.ndarray | float,
    temperature_K: np.ndarray | float,
    names: Sequence[str] = LINEAR,
) -> dict[str, np.ndarray]:
    """Linear response of the quantities to the DOS at a constant number of electrons, each ``(..., n)``.

    NaN where a quantity does not respond linearly (in a gap without states within reach of kT).

    :param names: some of :data:`LINEAR`
    :raises ValueError: for a quantity without linear response
    """
    state = State(energies, dos, n_electrons, temperature_K)
    return {name: state.kernel(name) for name in names}
