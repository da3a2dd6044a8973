"""Reference densities of states from eigenvalues: what a DOS model is trained on and judged by.

>>> grid = EnergyGrid(start=-5.0, step=0.05, n=201)
>>> dos = dos_target(eigenvalues=np.array([[-1.0, 4.0]]), weights=np.array([2.0]), grid=grid)
>>> round(float(np.nansum(dos) * grid.step), 2), bool(np.isnan(dos[-1]))  # one band, both spins; unknown on top
(2.0, True)

Equations 1 and 2 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D), for the DOS of a whole structure.
"""

from __future__ import annotations

import numpy as np

from ..base.errors import SettingError
from ..base.grid import EnergyGrid

SMEARING_EV = 0.3
"""Standard deviation of the Gaussian that replaces every eigenvalue, as in the article."""

MARGIN_EV = 0.9
"""How far (three standard deviations) below the lowest point of the highest band the target ends, as in the article."""


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
