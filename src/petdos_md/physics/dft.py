"""Eigenvalues of electronic structure codes, and the reference DOS that a model is trained on and judged by.

>>> bands = Bands.from_arrays(np.array([[-5.0, 1.0, 8.0]]), weights=np.array([1.0]))
>>> dos = bands.dos(EnergyGrid(-8.0, 0.05, 400))
>>> bool(np.isnan(dos[-1])), round(float(np.nansum(dos) * 0.05), 2)      # unknown above the highest band less 0.9 eV
(True, 4.0)

From ASE calculators with k-points: ``Bands.from_ase(atoms.calc)``; from Quantum ESPRESSO: ``Bands.from_qe_xml(
"pwscf.save/data-file-schema.xml")`` (needs ``pip install petdos-md[qe]``). Equations 1 and 2 of the PET-MAD-DOS article
(DOI 10.1039/D5DD00557D), for the DOS of a whole structure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.constants import HARTREE_EV
from ..base.errors import SettingError
from ..base.grid import EnergyGrid

SMEARING_EV = 0.3
"""Standard deviation of the Gaussian that replaces every eigenvalue, as in the article."""

NARROW_EV = 2.0
"""From the lowest to the highest eigenvalue it is farther than that, with bands up to some eV above the Fermi level; in hartree it is not."""

MARGIN_EV = 0.9
"""How far (three standard deviations) below the lowest point of the highest band the target ends, as in the article."""


@dataclass(frozen=True, eq=False)
class Bands:
    """Eigenvalues of one structure.

    :param eigenvalues: ``(n_kpoints, n_bands)`` eV, ascending; the two spin channels of a polarized calculation are more k-points
    :param weights: ``(n_kpoints,)``, sum to 2 where a band holds both spins, or over both spin channels
    :param n_electrons: of the structure, NaN if not known
    :param fermi_level: that the code gives, eV, NaN if not known
    :param n_spins: spin channels, 1 or 2; those of the second follow on those of the first
    """

    eigenvalues: np.ndarray
    weights: np.ndarray
    n_electrons: float = float("nan")
    fermi_level: float = float("nan")
    n_spins: int = 1

    @classmethod
    def from_arrays(
        cls,
        eigenvalues: np.ndarray,
        weights: np.ndarray | None,
        *,
        spinors: bool = False,
        n_electrons: float = float("nan"),
        fermi_level: float = float("nan"),
    ) -> Bands:
        """Bands of arrays.

        :param eigenvalues: ``(n_kpoints, n_bands)``, or ``(2, n_kpoints, n_bands)`` with two spin channels, eV
        :param weights: of the k-points, ``(n_kpoints,)``, in any normalization
        :param spinors: whether a band holds one electron (noncollinear calculations)
        :raises SettingError: if there are no weights, shapes do not fit, or a number is not finite or negative
        """
        levels = np.sort(np.asarray(eigenvalues, dtype=np.float64), axis=-1)
        if weights is None:
            raise SettingError(
                "there are no weights of the k-points, expected one for each; without them a DOS cannot be summed"
            )
        w = np.asarray(weights, dtype=np.float64)
        if levels.ndim == 2:
            levels = levels[None]
        if levels.ndim != 3 or len(levels) > 2 or w.shape != levels.shape[1:2] or not levels.size:
            raise SettingError(
                f"expected eigenvalues (n_kpoints, n_bands) or (2, n_kpoints, n_bands) and weights (n_kpoints,), got shapes "
                f"{np.shape(eigenvalues)} and {w.shape}"
            )
        if not (np.isfinite(levels).all() and np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
            raise SettingError("eigenvalues must be finite, and weights of k-points not negative and not all zero")
        per_band = 1.0 if spinors or len(levels) == 2 else 2.0
        w = np.tile(w * (per_band / w.sum()), len(levels))
        return cls(levels.reshape(-1, levels.shape[-1]), w, float(n_electrons), float(fermi_level), len(levels))

    @classmethod
    def from_ase(cls, calculator: Any) -> Bands:
        """Bands of an ASE calculator (also one that ``ase.io.read`` attached) that has k-points and eigenvalues.

        :raises SettingError: if it has none, or no weights
        """
        name = type(calculator).__name__
        try:
            n_spins = int(calculator.get_number_of_spins())
            weights = calculator.get_k_point_weights()
            n_points = len(calculator.get_ibz_k_points())
            levels = [[calculator.get_eigenvalues(kpt=k, spin=s) for k in range(n_points)] for s in range(n_spins)]
            if any(x is None for channel in levels for x in channel):
                raise AttributeError("no eigenvalues")
        except (AttributeError, NotImplementedError, TypeError, KeyError) as error:
            raise SettingError(
                f"{name}: has no eigenvalues on k-points ({error}); for Quantum ESPRESSO, run with verbosity='high' or read the XML"
            ) from None
        level = calculator.get_fermi_level() if hasattr(calculator, "get_fermi_level") else None
        return cls.from_arrays(np.array(levels), weights, fermi_level=np.nan if level is None else level)

    @classmethod
    def from_qe_xml(cls, path: str | os.PathLike[str]) -> Bands:
        """Bands of ``data-file-schema.xml`` of Quantum ESPRESSO, through the library qeschema.

        :raises SettingError: if the file is missing, is something else, holds no bands, or qeschema is not installed
        """
        path = Path(path)
        if not path.is_file():
            raise SettingError(f"{path}: no such file; Quantum ESPRESSO writes PREFIX.save/data-file-schema.xml")
        try:
            import qeschema
        except ModuleNotFoundError:
            raise SettingError(
                "reading this XML needs qeschema; install it with: pip install 'petdos-md[qe]'"
            ) from None
        document = qeschema.PwDocument()
        try:
            # Several releases of pw.x break their own schema in parts that do not matter here.
            document.read(str(path), validation="lax")
            bands = document.to_dict(validation="lax")["qes:espresso"]["output"]["band_structure"]
            points = bands["ks_energies"]
            points = points if isinstance(points, list) else [points]
            weights = np.array([float(point["k_point"]["@weight"]) for point in points])
            levels = HARTREE_EV * np.array([point["eigenvalues"]["$"] for point in points], dtype=float)
            polarized, spinors = bool(bands["lsda"]), bool(bands["noncolin"])
        except Exception as error:  # the library and its parser raise many kinds
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise SettingError(f"{path}: no band structure of pw.x in it ({reason})") from None
        if polarized:
            levels = np.stack(np.split(levels, 2, axis=1))
        level = bands.get("fermi_energy", bands.get("highestOccupiedLevel", np.nan))
        return cls.from_arrays(
            levels, weights, spinors=spinors, n_electrons=float(bands["nelec"]), fermi_level=HARTREE_EV * float(level)
        )

    def dos(self, grid: EnergyGrid, smearing_eV: float = SMEARING_EV, margin_eV: float = MARGIN_EV) -> np.ndarray:
        """The DOS on a grid, ``(grid.n,)`` states/eV, NaN where bands that were not computed would contribute (Eqs. 1 and 2).

        :raises SettingError: if the grid cuts off the lowest states
        """
        return dos_target(self.eigenvalues, self.weights, grid, smearing_eV, margin_eV)

    def whole_dos(self, energies: np.ndarray, smearing_eV: float = SMEARING_EV) -> np.ndarray:
        """The DOS of the computed bands at any energies, with no regard to what is missing, ``(n,)`` states/eV."""
        return gaussian_dos(self.eigenvalues, self.weights, energies, smearing_eV)

    def defined_below(self, margin_eV: float = MARGIN_EV) -> float:
        """Energy (eV) up to which the DOS is complete."""
        return defined_below(self.eigenvalues, margin_eV)

    def check(self, n_electrons: float) -> None:
        """Whether these bands can be those of a structure, in eV.

        :raises SettingError: if they are too narrow for eV, do not hold the electrons, or end below the Fermi level
        """
        span = float(np.ptp(self.eigenvalues))
        if span < NARROW_EV:
            raise SettingError(
                f"from the lowest to the highest eigenvalue it is only {span:.2g} eV, expected {NARROW_EV:g} eV or more; "
                "write them in eV (1 hartree = 27.2114 eV)"
            )
        if float(self.weights.sum() * self.eigenvalues.shape[1]) <= n_electrons:
            raise SettingError(
                f"{n_electrons:g} electrons fill all {self.eigenvalues.shape[1]} bands; compute more of them, or correct n_electrons"
            )
        known = self.defined_below()
        if self.n_states_below(known) <= n_electrons:
            raise SettingError(
                f"the bands suffice for a DOS up to {known:.2f} eV only, with {self.n_states_below(known):.4g} states for {n_electrons:g} electrons; "
                "compute more of them, to some 6 eV above the Fermi level"
            )

    def n_states_below(self, energy_eV: float) -> float:
        """States of the structure below an energy (eV)."""
        return float((self.eigenvalues < energy_eV).sum(axis=1) @ self.weights)

    def gap(self, n_electrons: float | None = None) -> float:
        """Band gap (eV) between the highest occupied and the lowest empty level over all k-points, 0 for a metal.

        In a metal, the number of occupied bands differs from k-point to k-point: the distance of two levels of a finite mesh of
        k-points is not a gap.

        :param n_electrons: if not known to the bands
        :raises SettingError: if the number of electrons is not known or the bands do not hold them
        """
        n = self.n_electrons if n_electrons is None else float(n_electrons)
        if not 0 < n < np.inf:
            raise SettingError(
                f"got {n} electrons, expected a positive number, which separates occupied from empty bands"
            )
        order = np.argsort(self.eigenvalues, axis=None, kind="stable")
        levels = self.eigenvalues.ravel()[order]
        filled = np.cumsum(np.repeat(self.weights, self.eigenvalues.shape[1])[order])
        first = int(np.searchsorted(filled, n - 1e-6))
        if first >= len(levels) - 1:
            raise SettingError(f"{n:g} electrons fill all computed bands; compute more of them")
        occupied = (self.eigenvalues <= levels[first]).sum(axis=1).reshape(self.n_spins, -1)
        if filled[first] > n + 1e-6 or (occupied != occupied[:, :1]).any():
            return 0.0
        return float(levels[first + 1] - levels[first])


def gaussian_dos(
    eigenvalues: np.ndarray, weights: np.ndarray, energies: np.ndarray, smearing_eV: float = SMEARING_EV
) -> np.ndarray:
    """Sum of Gaussians at the eigenvalues, one for each k-point and band (Eqs. 1 and 2).

    :param eigenvalues: shape ``(n_kpoints, n_bands)``, eV
    :param weights: of the k-points, shape ``(n_kpoints,)``; they sum to 2 where a band holds both spins
    :param energies: where the DOS is wanted, shape ``(n,)``, eV
    :param smearing_eV: standard deviation of the Gaussian
    :return: shape ``(n,)``, states/eV of the structure
    :raises SettingError: if the shapes do not fit or a number is not finite
    """
    eigenvalues, weights = _checked(eigenvalues, weights)
    if not smearing_eV > 0:
        raise SettingError(f"the smearing must be positive, got {smearing_eV} eV")
    energies = np.asarray(energies, dtype=np.float64)
    norm = 1.0 / (smearing_eV * np.sqrt(2.0 * np.pi))
    dos = np.zeros(energies.shape)
    for levels, weight in zip(eigenvalues, weights, strict=True):
        x = (energies[:, None] - levels[None, :]) / smearing_eV
        dos += weight * norm * np.exp(-0.5 * x * x).sum(axis=1)
    return dos


def defined_below(eigenvalues: np.ndarray, margin_eV: float = MARGIN_EV) -> float:
    """The energy (eV) above which bands that were not computed would contribute to the DOS.

    :param eigenvalues: shape ``(n_kpoints, n_bands)``, eV, in ascending order at each k-point
    :param margin_eV: distance kept from the lowest point of the highest band
    """
    eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
    return float(eigenvalues.max(axis=1).min() - margin_eV)


def dos_target(
    eigenvalues: np.ndarray,
    weights: np.ndarray,
    grid: EnergyGrid,
    smearing_eV: float = SMEARING_EV,
    margin_eV: float = MARGIN_EV,
) -> np.ndarray:
    """The DOS on a grid, NaN where the computed bands do not suffice.

    :param eigenvalues: shape ``(n_kpoints, n_bands)``, eV
    :param weights: of the k-points, shape ``(n_kpoints,)``
    :return: shape ``(grid.n,)``, states/eV of the structure
    :raises SettingError: if the shapes do not fit, a number is not finite, or the grid cuts off the lowest states
    """
    eigenvalues, weights = _checked(eigenvalues, weights)
    lowest = float(eigenvalues.min())
    if lowest - 3.0 * smearing_eV < grid.start:
        raise SettingError(
            f"the grid starts at {grid.start:.2f} eV and cuts off the lowest state at {lowest:.2f} eV: "
            f"start it at {lowest - 3.0 * smearing_eV:.2f} eV or below"
        )
    energies = grid.energies
    dos = gaussian_dos(eigenvalues, weights, energies, smearing_eV)
    dos[energies > defined_below(eigenvalues, margin_eV)] = np.nan
    return dos


def _checked(eigenvalues: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    eigenvalues = np.asarray(eigenvalues, dtype=np.float64)
    weights = np.asarray(weights, dtype=np.float64)
    if eigenvalues.ndim != 2 or weights.shape != eigenvalues.shape[:1]:
        raise SettingError(
            f"expected eigenvalues (n_kpoints, n_bands) and weights (n_kpoints,), "
            f"got shapes {eigenvalues.shape} and {weights.shape}"
        )
    if not (np.isfinite(eigenvalues).all() and np.isfinite(weights).all()):
        raise SettingError("eigenvalues and weights must be finite numbers, got NaN or infinity")
    return eigenvalues, weights
