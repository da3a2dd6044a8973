"""Fermi level, band gap and DOS at the Fermi level of every frame, each by three methods.

- ``raw``: from the raw DOS: the integral gives E_F; the gap is the interval around it with less than 0.1 states/eV/atom (Fig. 3 of
  the PET-MAD-DOS article, DOI 10.1039/D5DD00557D);
- ``denoised``: the same from the denoised DOS (:mod:`petdos_md.physics.denoise`);
- ``network``: from the networks of section 4.5 (:mod:`petdos_md.physics.networks`), NaN for those that the model does not have.

>>> data = frame_levels("run.zarr")                                                              # doctest: +SKIP
>>> data["gap_denoised"], data["gap_denoised_model_std"]               # of every frame          # doctest: +SKIP
>>> data["gap_denoised_mean"], data["gap_denoised_mean_sampling_err"]  # of every temperature    # doctest: +SKIP

Every member of the ensemble goes all the way by itself. A frame's value is the mean over members, its ``_model_std`` the
standard deviation; a thermal mean is taken over frames first, per member. These are means of a quantity over frames, not the
quantity of the mean DOS, which :func:`petdos_md.analyze` gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..base.errors import SettingError
from ..models.readout import Readout
from ..physics import thermo
from ..physics.denoise import Denoise
from ..physics.networks import Network
from ..physics.thermo import GAP_THRESHOLD
from ..traces.trace import HasModelInfo
from .frames import Frames
from .inputs import (
    TraceLike,
    check_network,
    electrons_per_group,
    fermi_network,
    find_networks,
    find_readout,
    open_traces,
)
from .statistics import standard_error
from .weights import FrameWeights

QUANTITIES = {"fermi_level": "eV", "gap": "eV", "dos_at_fermi_level": "states/eV"}
"""What is read off each DOS, and its unit (per structure)."""
METHODS = ("raw", "denoised", "network")

ABOVE_FERMI_EV = 1.0
"""How far a grid must reach above the Fermi level for a gap to be seen."""

_CHUNK_BYTES = 32e6


def band_gap(
    energies: np.ndarray, dos: np.ndarray, n_electrons: float, n_atoms: int, threshold: float = GAP_THRESHOLD
) -> np.ndarray:
    """Width (eV) of the interval around the Fermi level with a DOS of at most ``threshold`` states/eV/atom.

    :param dos: ``(..., n)`` states/eV per structure
    :returns: ``(...)``, 0 where the DOS at the Fermi level is larger
    :raises SettingError: if the grid ends less than 1 eV above a Fermi level
    """
    levels = thermo.fermi_level(energies, dos, n_electrons)
    if (levels > energies[-1] - ABOVE_FERMI_EV).any():
        raise SettingError(
            f"the energy grid ends at {energies[-1]:.2f} eV, less than {ABOVE_FERMI_EV:g} eV above the Fermi level "
            f"{levels.max():.2f} eV: a gap cannot be seen; check the electrons, or use a model with a wider grid"
        )
    return thermo.band_gap(energies, dos, n_electrons, n_atoms, threshold)


def frame_levels(
    traces: TraceLike | Sequence[TraceLike],
    model: HasModelInfo | Readout | str | os.PathLike[str] | None = None,
    *,
    networks: Mapping[str, Network] | None = None,
    denoise: str | Path | Network | bool = True,
    methods: Sequence[str] = METHODS,
    temperatures_K: Sequence[float] | None = None,
    burn_in: int = 0,
    replicas: Sequence[int] | None = None,
    n_electrons: float | None = None,
    weights: FrameWeights | str | os.PathLike[str] | None = None,
    members: bool = True,
    threshold: float = GAP_THRESHOLD,
    error_method: str = "autocorrelation",
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Levels of every frame and their thermal means; arguments as of :func:`petdos_md.analyze`.

    :param networks: by target; those beside the model if None
    :param denoise: where the Fermi level for denoising comes from
    :param methods: some of :data:`METHODS`
    :param threshold: states/eV/atom below which a DOS is a gap
    :returns: dimension ``frame`` (coordinates temperature, step, replica, time_fs, weight) with ``QUANTITY_ROAD`` and
        ``QUANTITY_ROAD_model_std``; dimension ``temperature`` with ``QUANTITY_ROAD_mean``, ``..._model_std`` and ``..._sampling_err``
    :raises SettingError: for an unknown method, or a grid that ends below a Fermi level + 1 eV
    :raises ModelError: if the network method is asked for alone and there is no network
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown or not methods:
        raise SettingError(
            f"got the method {unknown[0] if unknown else 'none'!r}, expected some of {', '.join(METHODS)}"
        )
    if isinstance(weights, str | os.PathLike):
        weights = FrameWeights.read(weights)
    frames = Frames(open_traces(traces), temperatures_K, burn_in, replicas, weights)
    readout = find_readout(model, frames.model, str(frames.traces[0].path))
    electrons = electrons_per_group(frames, n_electrons)
    found = find_networks(model, frames.model, readout) if networks is None else dict(networks)
    found = {target: check_network(network, readout, target) for target, network in found.items()}
    denoiser = fermi_network(
        found.get("fermi_level", denoise) if denoise is True else denoise, model, frames.model, readout
    )
    if tuple(methods) == ("network",) and not found:
        raise SettingError(
            f"{frames.model.name}: no networks lie beside the model; ask for the methods raw or denoised"
        )
    n_members = readout.n_members if members and readout.n_members else 1
    names = [f"{quantity}_{method}" for quantity in QUANTITIES for method in methods]
    values = np.full((len(frames), n_members, len(names)), np.nan)
    done, total = 0, int((frames.group >= 0).sum()) * n_members
    for index, n in enumerate(electrons):
        rows, features = frames.rows(index), frames.features(index)
        size = int(frames.n_atoms[rows[0]])
        reader = _Reader(readout.grid.energies, size, float(n), methods, found, denoiser, threshold)
        step_m = min(8, n_members)
        step_f = max(1, int(_CHUNK_BYTES / (8 * readout.grid.n * step_m)))
        for first in range(0, n_members, step_m):
            for start in range(0, len(rows), step_f):
                part = features[start : start + step_f]
                stop = min(first + step_m, n_members)
                dos = readout.members(part, first, stop) if n_members > 1 else readout.dos(part)[:, None]
                read = reader(dos.reshape(-1, readout.grid.n)).reshape(len(part), -1, len(names))
                values[rows[start : start + len(part)], first:stop] = read
                done += len(part) * (stop - first)
                if progress is not None:
                    progress(done, total)
    data = _dataset(frames, names, values, error_method)
    data.attrs |= {
        "model": frames.model.name,
        "model_fingerprint": frames.model.fingerprint,
        "denoise": f"Fermi level from {denoiser.source if denoiser else 'the integral of the raw DOS'}",
        "networks": sorted(f"{target}: {network.source}" for target, network in found.items()) or ["none"],
        "gap_threshold_per_eV_atom": threshold,
        "n_members": n_members if n_members > 1 else 0,
    }
    return data


class _Reader:
    """All quantities by all methods of DOS ``(m, n)``, ``(m, n_names)``."""

    def __init__(
        self,
        energies: np.ndarray,
        n_atoms: int,
        n_electrons: float,
        methods: Sequence[str],
        networks: dict[str, Network],
        denoiser: Network | None,
        threshold: float,
    ) -> None:
        self.energies, self.n_atoms, self.n_electrons = energies, n_atoms, n_electrons
        self.methods, self.networks, self.threshold = methods, networks, threshold
        self.denoise = Denoise(energies, n_atoms, n_electrons, denoiser)

    def __call__(self, dos: np.ndarray) -> np.ndarray:
        columns: dict[tuple[str, str], np.ndarray] = {}
        if "network" in self.methods:
            for quantity in QUANTITIES:
                network = self.networks.get(quantity)
                missing = np.full(len(dos), np.nan)
                columns[quantity, "network"] = missing if network is None else network(dos, self.n_atoms)
        if "raw" in self.methods:
            columns |= self._by_integration(dos, "raw")
        if "denoised" in self.methods:
            columns |= self._by_integration(self.denoise(dos[:, None].copy(), slice(0, len(dos)))[:, 0], "denoised")
        return np.stack([columns[quantity, method] for quantity in QUANTITIES for method in self.methods], axis=1)

    def _by_integration(self, dos: np.ndarray, method: str) -> dict[tuple[str, str], np.ndarray]:
        args = self.energies, dos, self.n_electrons
        return {
            ("fermi_level", method): thermo.fermi_level(*args),
            ("gap", method): band_gap(*args, self.n_atoms, self.threshold),
            ("dos_at_fermi_level", method): thermo.dos_at_fermi_level(*args),
        }


def _dataset(frames: Frames, names: list[str], values: np.ndarray, error_method: str) -> xr.Dataset:
    kept = np.concatenate([frames.rows(index) for index in range(len(frames.temperatures_K))])
    several = values.shape[1] > 1
    coords: dict[str, Any] = {
        "temperature": ("temperature", frames.temperatures_K, {"units": "K"}),
        "frame": np.arange(len(kept)),
        "frame_temperature": ("frame", frames.temperatures_K[frames.group[kept]], {"units": "K"}),
        "step": ("frame", frames.step[kept]),
        "replica": ("frame", frames.replica[kept]),
        "time_fs": ("frame", frames.time_fs[kept], {"units": "fs"}),
        "weight": ("frame", frames.weight[kept]),
    }
    variables: dict[str, Any] = {}
    for k, name in enumerate(names):
        attrs = {"units": QUANTITIES[name.rsplit("_", 1)[0]]}
        of_frames = values[kept, :, k]
        std = of_frames.std(axis=1, ddof=1) if several else np.full(len(kept), np.nan)
        variables[name] = "frame", of_frames.mean(axis=1), attrs
        variables[f"{name}_model_std"] = "frame", std, attrs
        mean, model, sampling = (np.full(len(frames.temperatures_K), np.nan) for _ in range(3))
        for index in range(len(mean)):
            rows = frames.rows(index)
            weight = frames.weight[rows] / frames.weight[rows].sum()
            of_members = weight @ values[rows, :, k]
            mean[index] = of_members.mean()
            model[index] = of_members.std(ddof=1) if several else np.nan
            series = values[rows, :, k].mean(axis=1)
            if np.isfinite(series).all():
                sampling[index] = standard_error(series, frames.weight[rows], error_method, frames.segment[rows]).error
        for ending, numbers in (("", mean), ("_model_std", model), ("_sampling_err", sampling)):
            variables[f"{name}_mean{ending}"] = "temperature", numbers, attrs
    variables["n_samples"] = "temperature", np.bincount(frames.group[kept]), {"units": "1"}
    return xr.Dataset(variables, coords)
