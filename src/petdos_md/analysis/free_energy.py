"""Electronic free energies of one material at several volumes, for a quasi-harmonic analysis.

>>> data = free_energies([at_small_volume, at_large_volume], np.arange(0.0, 1000.0, 10.0))     # doctest: +SKIP
>>> data["free_energy_change"].dims                                                            # doctest: +SKIP
('temperature', 'point')

F_el(V, T) - F_el(V, 0) of a DOS that does not depend on the temperature of the electrons (rigid bands). To it belongs the static energy E(V) of
the ions and of cold electrons; both together are what takes the place of E(V) in the quasi-harmonic approximation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..base.errors import SettingError, StructureError
from ..physics.quantities import derive


@dataclass(frozen=True, eq=False)
class VolumePoint:
    """One volume.

    :param name: where it comes from
    :param volume_A3: of the structure
    :param n_atoms: of the structure
    :param n_electrons: of the structure
    :param energies: ``(n_channels,)`` eV
    :param dos: ``(1 + n_members, n_channels)`` states/eV of the structure: the model's own, then its members
    :param static_energy_eV: of the structure, without electronic excitations; NaN if it is not known
    """

    name: str
    volume_A3: float
    n_atoms: int
    n_electrons: float
    energies: np.ndarray
    dos: np.ndarray
    static_energy_eV: float = float("nan")


def free_energies(
    points: Sequence[VolumePoint], temperatures_K: Sequence[float] | np.ndarray, n_atoms: int | None = None
) -> xr.Dataset:
    """F_el(V, T) - F_el(V, 0), with the standard deviation over members, in the order of rising volume.

    :param temperatures_K: rising, 0 may be among them
    :param n_atoms: the number of atoms that all numbers are given for; that of the first structure if None
    :returns: dimensions ``temperature`` (K) and ``point``, energies in eV and volumes in angstrom^3 of so many atoms
    :raises StructureError: if a volume is not known, or structures differ in their electrons per atom
    :raises SettingError: if there are fewer than two volumes, or temperatures are negative or do not rise
    """
    temperatures = np.asarray(temperatures_K, dtype=float)
    if not len(temperatures) or not (
        np.isfinite(temperatures).all() and temperatures[0] >= 0 and (np.diff(temperatures) > 0).all()
    ):
        raise SettingError(f"got the temperatures {temperatures.tolist()[:6]}, expected rising ones, 0 K or more")
    _check(points)
    size = points[0].n_atoms if n_atoms is None else n_atoms
    points = sorted(points, key=lambda point: point.volume_A3 / point.n_atoms)
    scale = np.array([size / point.n_atoms for point in points])
    columns = np.stack(
        [_changes(point, temperatures) for point in points], axis=1
    )  # (temperatures, points, 1 + members)
    several = columns.shape[2] > 2
    std = columns[..., 1:].std(axis=2, ddof=1) if several else np.full(columns.shape[:2], np.nan)
    per = f"of {size} atoms"
    static = np.array([point.static_energy_eV for point in points]) * scale
    return xr.Dataset(
        {
            "free_energy_change": (
                ("temperature", "point"),
                columns[..., 0] * scale,
                {"units": "eV", "long_name": f"electronic free energy minus that at zero temperature, {per}"},
            ),
            "free_energy_change_model_std": (
                ("temperature", "point"),
                std * scale,
                {"units": "eV", "long_name": "model error of free_energy_change: standard deviation over members"},
            ),
            "static_energy": ("point", static, {"units": "eV", "long_name": f"energy without excitations, {per}"}),
        },
        {
            "temperature": ("temperature", temperatures, {"units": "K", "long_name": "temperature of the electrons"}),
            "volume": (
                "point",
                [p.volume_A3 for p in points] * scale,
                {"units": "angstrom^3", "long_name": f"volume {per}"},
            ),
            "source": ("point", [point.name for point in points]),
        },
        {"n_atoms": size},
    )


def _changes(point: VolumePoint, temperatures: np.ndarray) -> np.ndarray:
    """``(n_temperatures, 1 + n_members)`` eV of the structure."""
    changes = np.zeros((len(temperatures), len(point.dos)))
    warm = temperatures > 0
    if warm.any():
        at = temperatures[warm, None]
        found = derive(point.energies, point.dos[None], point.n_electrons, at, ("thermal_energy", "entropy"))
        changes[warm] = found["thermal_energy"] - at * found["entropy"]
    return changes


def _check(points: Sequence[VolumePoint]) -> None:
    if len(points) < 2:
        raise SettingError(f"got {len(points)} volume, expected several of the same material")
    for point in points:
        if not point.volume_A3 > 0:
            raise StructureError(
                f"{point.name}: its volume is not known; give structures that are periodic in three directions"
            )
        if abs(point.n_electrons / point.n_atoms - points[0].n_electrons / points[0].n_atoms) > 1e-9:
            raise StructureError(
                f"{point.name}: {point.n_electrons / point.n_atoms:g} electrons an atom, but {points[0].name} has "
                f"{points[0].n_electrons / points[0].n_atoms:g}; give volumes of one material"
            )
