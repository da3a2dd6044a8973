"""Electronic heat capacity over T_e for two-temperature models of other programs: parameters of LAMMPS's ``fix ttm/mod``, tables.

>>> T = np.arange(500.0, 20001.0, 500.0)
>>> table = HeatCapacityTable(T, 1e-9 * T / (1 + T / 30000), electron_density_A3=0.18)
>>> fit = table.fit()
>>> bool(np.abs(fit.heat_capacity(T) / table.heat_capacity - 1).max() < 0.01)
True

``fix ttm/mod`` knows C_e(X) = C_limit + (a_0 + a_1 X + ... + a_4 X^4) exp(-(A X)^2), X = T_e / 1000 K, per electron; the coefficients are
fitted to the table, and the largest deviation is printed. ``fix ttm/cascade`` of newer versions (keyword ``cetab``) interpolates a table of T_e and C_e
per electron between its rows, and takes the first and the last value beyond them. What a DOS does not know (coupling, diffusion, laser) is left
at zero, to be filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from ase import Atoms, units

from ..base.errors import SettingError
from ..models.model import DOSModel
from ..physics.hot_electrons import check_temperature, hot_electrons

UNITS = {"metal": 1.0, "real": units.mol / units.kcal}
"""LAMMPS's styles of units with lengths in angstrom: an eV in their unit of energy."""
DEFAULT_TEMPERATURES_K = tuple(float(T) for T in range(250, 20_001, 250))
_EV_K_A3 = units._e * 1e30  # 1 eV/K/angstrom^3 in J/K/m^3
_PARAMETERS = (
    ("D_e, thermal diffusion, length^2/time: not from the DOS, fill in", "0.0"),
    ("gamma_p, friction of electron-ion coupling, mass/time: not from the DOS, fill in", "0.0"),
    ("gamma_s, friction of electronic stopping, mass/time", "0.0"),
    # Faster than any atom: below it LAMMPS divides gamma_p + gamma_s by gamma_p, which is NaN while both are zero.
    ("v_0, critical velocity of electronic stopping, length/time", "1e10"),
    ("I_0, absorbed laser power, energy/(time length^2): fill in", "0.0"),
    ("lsurface, number of the electron cell of the left surface", "0"),
    ("rsurface, number of the electron cell of the right surface", "1000000"),
    ("l_skin, skin depth of the laser, in electron cells", "1"),
    ("tau, duration of the laser pulse, time", "0.0"),
    ("B, factor of the electronic pressure, P_e = B C_e T_e", "0.0"),
    ("lambda, free path of electrons, length", "0.0"),
    ("n_ion, density of ions, 1/length^3", None),
    ("surface_movement: 0 for a surface at rest, 1 to follow it", "0"),
    ("T_e_min, lowest electronic temperature", "1.0"),
)


@dataclass(frozen=True)
class Fit:
    """Coefficients of ``fix ttm/mod``, per electron and in eV and K.

    :param coefficients: a_0 ... a_4, eV/K/(1000 K)^k
    :param damping: A, 1/(1000 K)
    :param error: largest deviation from the table, as a share of its largest value
    """

    coefficients: np.ndarray
    limit: float
    damping: float
    electron_density_A3: float
    error: float

    def heat_capacity(self, temperature_K: np.ndarray) -> np.ndarray:
        """eV/K/angstrom^3."""
        x = np.asarray(temperature_K) / 1000
        damped = np.polynomial.polynomial.polyval(x, self.coefficients) * np.exp(-((self.damping * x) ** 2))
        return self.electron_density_A3 * (self.limit + damped)


@dataclass(frozen=True)
class HeatCapacityTable:
    """C_e per volume.

    :param temperatures_K: ``(n,)`` ascending
    :param heat_capacity: ``(n,)`` eV/K/angstrom^3
    :param electron_density_A3: valence electrons, 1/angstrom^3
    :param ion_density_A3: 1/angstrom^3
    :param error: ``(n,)`` standard deviation over members, eV/K/angstrom^3, None if not known
    :raises SettingError: for fewer than 8 temperatures
    """

    temperatures_K: np.ndarray
    heat_capacity: np.ndarray
    electron_density_A3: float
    ion_density_A3: float = 0.0
    error: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.temperatures_K) < 8:
            raise SettingError(
                f"got {len(self.temperatures_K)} electronic temperatures, expected 8 or more to fit a heat capacity; give --electronic-temperature FIRST:LAST:STEP"
            )

    @classmethod
    def of_analysis(cls, data: xr.Dataset) -> HeatCapacityTable:
        """From :func:`petdos_md.analyze` of one ensemble with many ``electronic_temperatures_K``.

        :raises SettingError: if the frames have no volume, or for fewer than 8 temperatures
        """
        volume = float(data["volume"].values[0])
        if not np.isfinite(volume):
            raise SettingError(
                "the frames have no volume; a two-temperature model needs cells that are periodic in three directions"
            )
        error = data["heat_capacity_model_std"].values / volume if "heat_capacity_model_std" in data else None
        return cls(
            data["temperature"].values,
            data["heat_capacity"].values / volume,
            float(data["electrons"].values[0]) / volume,
            float(data["n_atoms"].values[0]) / volume,
            error,
        )

    @classmethod
    def of_structure(
        cls, model: DOSModel, atoms: Atoms, temperatures_K: np.ndarray | tuple[float, ...] = DEFAULT_TEMPERATURES_K
    ) -> HeatCapacityTable:
        """From a model and one structure.

        :raises StructureError: if the model does not know the structure or its electrons
        :raises SettingError: if it has no volume, or the states of the model end too low for the last temperature
        """
        if not atoms.pbc.all():
            raise SettingError(
                "the structure has no volume; a two-temperature model needs a cell that is periodic in three directions"
            )
        T, volume, n = np.asarray(temperatures_K, dtype=float), atoms.get_volume(), model.n_electrons(atoms)
        sample = model.evaluate(atoms)
        hot = hot_electrons(model.grid.energies, model.dos(sample), n, T)
        check_temperature(model.grid.energies, model.dos(sample), n, float(T[-1]), float(hot.chemical_potential[-1]))
        heat = hot.heat_capacity / volume
        error = None
        if model.n_members:
            members = model.dos_members(sample)[:, None]
            error = hot_electrons(model.grid.energies, members, n, T).heat_capacity.std(axis=0, ddof=1) / volume
        return cls(T, heat, n / volume, len(atoms) / volume, error)

    def fit(self) -> Fit:
        """The function of ``fix ttm/mod`` that comes closest, positive up to twice the highest temperature."""
        x, wanted = self.temperatures_K / 1000, self.heat_capacity / self.electron_density_A3
        weights, far = 1 / (wanted + 0.02 * wanted.max()), np.linspace(0.0, 2 * x[-1], 400)
        best: Fit | None = None
        for damping in (0.0, *np.geomspace(0.2, 4.0, 40) / x[-1]):
            powers = x[:, None] ** np.arange(5) * np.exp(-((damping * x[:, None]) ** 2))
            # Undamped, the constant and a_0 are the same.
            basis = powers if damping == 0.0 else np.column_stack([powers, np.ones_like(x)])
            found = np.linalg.lstsq(basis * weights[:, None], wanted * weights, rcond=None)[0]
            limit = 0.0 if damping == 0.0 else float(found[5])
            fit = Fit(found[:5], limit, float(damping), self.electron_density_A3, 0.0)
            error = float(
                np.abs(fit.heat_capacity(self.temperatures_K) - self.heat_capacity).max() / self.heat_capacity.max()
            )
            allowed = bool(np.all(fit.heat_capacity(1000 * far[1:]) > 0))
            if allowed and (best is None or error < best.error):
                best = Fit(found[:5], limit, float(damping), self.electron_density_A3, error)
        if best is None:
            raise SettingError(
                "no positive heat capacity of the form of fix ttm/mod fits the table; give fewer or lower temperatures"
            )
        return best

    def write_lammps(self, path: str | Path, style: str = "metal") -> Fit:
        """Write the parameter file of ``fix ttm/mod``.

        :param style: of LAMMPS's units, a key of :data:`UNITS`
        :returns: what was fitted
        :raises SettingError: for another style of units
        """
        fit, energy = self.fit(), _energy_unit(style)
        lines = []
        for k, a in enumerate(fit.coefficients):
            note = f" (units {style}; fitted to {100 * fit.error:.2g} % of the largest C_e from {self.temperatures_K[0]:g} to {self.temperatures_K[-1]:g} K)"
            lines += [
                f"a_{k}, energy/temperature^{k + 1} per electron x 1000^{k}{note if k == 0 else ''}",
                f"{a * energy:.12g}",
            ]
        lines += ["C_limit, energy/temperature per electron", f"{fit.limit * energy:.12g}"]
        lines += ["A, 1/temperature x 1000", f"{fit.damping:.12g}"]
        lines += ["rho_e, electrons/length^3", f"{self.electron_density_A3:.12g}"]
        for about, value in _PARAMETERS:
            lines += [about, f"{self.ion_density_A3:.12g}" if value is None else value]
        Path(path).write_text("\n".join(lines) + "\n")
        return fit

    def write_cascade(self, path: str | Path, style: str = "metal") -> None:
        """Write the table of ``fix ttm/cascade``, keyword ``cetab``: T_e (K) and C_e (energy/temperature per electron).

        :param style: of LAMMPS's units, a key of :data:`UNITS`
        :raises SettingError: for another style of units, or a heat capacity that is not positive, which the fix refuses
        """
        energy, per_electron = _energy_unit(style), self.heat_capacity / self.electron_density_A3
        if not (per_electron > 0).all():
            cold = self.temperatures_K[np.flatnonzero(per_electron <= 0)[-1]]
            raise SettingError(
                f"the heat capacity at {cold:g} K is not positive, which fix ttm/cascade refuses; give --electronic-temperature from a higher one on"
            )
        head = (
            f"T_e (K), C_e (energy/temperature per electron, units {style}) for: fix ID group ttm/cascade ... cetab FILE\n"
            f"rho_e = {self.electron_density_A3:.12g} electrons/length^3"
        )
        np.savetxt(path, np.column_stack([self.temperatures_K, per_electron * energy]), header=head, fmt="%.12g")

    def write_table(self, path: str | Path) -> None:
        """Write T_e (K), C_e (eV/K/angstrom^3 and J/K/m^3) and its model error, separated by commas."""
        error = np.full_like(self.heat_capacity, np.nan) if self.error is None else self.error
        columns = np.column_stack(
            [self.temperatures_K, self.heat_capacity, self.heat_capacity * _EV_K_A3, error * _EV_K_A3]
        )
        header = "T_e (K),C_e (eV/K/A^3),C_e (J/K/m^3),model error of C_e (J/K/m^3)"
        np.savetxt(path, columns, delimiter=",", header=header, comments="", fmt="%.9g")


def _energy_unit(style: str) -> float:
    if style not in UNITS:
        raise SettingError(f"got the units {style!r}, expected {' or '.join(UNITS)}")
    return UNITS[style]
