"""Fermi level, band gap and DOS at the Fermi level of every frame, each by three methods.

- ``raw``: from the raw DOS: the integral gives E_F; the gap is the interval around it with less than 0.1 states/eV/atom (Fig. 3 of
  the PET-MAD-DOS article, DOI 10.1039/D5DD00557D);
- ``denoised``: the same from the denoised DOS (:mod:`petdos_md.physics.denoise`);
- ``network``: from the networks of section 4.5 (:mod:`petdos_md.physics.networks`), NaN for those that the model does not have.

>>> data = frame_levels("run.zarr")                                                              # doctest: +SKIP
>>> data["gap_denoised"], data["gap_denoised_model_std"]               # of every frame          # doctest: +SKIP
>>> data["gap_denoised_mean"], data["gap_denoised_mean_sampling_err"]  # of every temperature    # doctest: +SKIP

A frame's value is that of the model's own DOS, its ``_model_std`` the standard deviation over members, each of which goes all the way
by itself; a thermal mean is taken over frames first, per member. These are means of a quantity over frames, not the
quantity of the mean DOS, which :func:`petdos_md.analyze` gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import xarray as xr

from ..base.errors import SettingError
from ..models.readout import Readout
from ..physics import thermo
from ..physics.denoise import Denoise
from ..physics.thermo import GAP_THRESHOLD
from ..traces.trace import HasModelInfo
from .extrapolation import frame_grades
from .frames import Frames
from .inputs import Inputs, TraceLike, check_network, fermi_network, find_networks, model_attributes, read_inputs
from .notes import notes_of_inputs
from .options import FrameSelection, LevelKeywords, LevelOptions, split_keywords
from .statistics import standard_error

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from ..physics.networks import Network

LEVEL_QUANTITIES = {"fermi_level": "eV", "gap": "eV", "dos_at_fermi_level": "states/eV"}
"""What is read off each DOS, and its unit (per structure)."""

ABOVE_FERMI_EV = 1.0
"""How far a grid must reach above the Fermi level for a gap to be seen."""

_CHUNK_BYTES = 32e6
_MEMBERS_AT_ONCE = 8


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
    progress: Callable[[int, int], None] | None = None,
    **keywords: Unpack[LevelKeywords],
) -> xr.Dataset:
    """Levels of every frame and their thermal means.

    :param traces, model, progress: as for :func:`petdos_md.analyze`
    :param keywords: which frames count, ``temperatures_K, burn_in, replicas, weights, steps, electronic_range_K``, as in
        :class:`~petdos_md.analysis.options.FrameSelection`; what is read off them, ``networks, denoise, methods, n_electrons,
        members, threshold, error_method``, as in :class:`~petdos_md.analysis.options.LevelOptions`
    :returns: dimension ``frame`` (coordinates temperature, step, replica, time_fs, weight) with ``QUANTITY_METHOD`` and
        ``QUANTITY_METHOD_model_std`` and, if the model knows its training set, ``extrapolation_grade``
        (:mod:`petdos_md.models.rigidity`); dimension ``temperature`` with ``QUANTITY_METHOD_mean``, ``..._model_std`` and
        ``..._sampling_err``
    :raises TypeError: for an unknown keyword
    :raises SettingError: for an unknown method, a grid that ends below a Fermi level + 1 eV, or if the network method is asked
        for alone and there is no network
    :raises ModelError: if a network that is asked for is missing or of another model
    :raises NoSamplesError, TraceError, StructureError: as :func:`petdos_md.analyze`
    """
    selection, options = split_keywords("frame_levels", keywords, FrameSelection, LevelOptions)
    inputs = read_inputs(traces, model, selection, options.n_electrons)
    networks, denoiser = _networks(inputs, model, options)
    n_members = inputs.readout.n_members if options.members else 0
    names = [f"{quantity}_{method}" for quantity in LEVEL_QUANTITIES for method in options.methods]
    values = np.full(
        (len(inputs.frames), 1 + n_members, len(names)), np.nan
    )  # of the model itself, then of its members
    done, total = 0, int((inputs.frames.group >= 0).sum()) * (1 + n_members)
    for index, (n, size) in enumerate(zip(inputs.n_electrons, inputs.n_atoms, strict=True)):
        denoise = Denoise(inputs.readout.grid.energies, int(size), float(n), denoiser)
        reader = _Reader(int(size), float(n), options, networks, denoise)
        for rows, columns, dos in _frame_dos(inputs, index, n_members):
            read = reader(dos.reshape(-1, dos.shape[-1]))
            values[rows, columns] = read.reshape(*dos.shape[:2], len(names))
            done += dos.shape[0] * dos.shape[1]
            if progress is not None:
                progress(done, total)
    data = _dataset(inputs.frames, names, values, options.error_method)
    if inputs.readout.knows_training_set:
        grades = frame_grades(inputs.frames, inputs.readout)[_kept(inputs.frames)]
        data["extrapolation_grade"] = "frame", grades, {"units": "1", "long_name": "distance from the training set"}
    notes = notes_of_inputs(inputs, at_other_T_e=False)
    if notes:
        data.attrs["notes"] = notes
    data.attrs |= {
        **model_attributes(inputs.frames.model, inputs.readout),
        "denoise": f"Fermi level from {denoiser.source if denoiser else 'the integral of the raw DOS'}",
        "networks": sorted(f"{target}: {network.source}" for target, network in networks.items()) or ["none"],
        "gap_threshold_per_eV_atom": options.threshold,
        "n_members": n_members,
        **inputs.burn_in(selection),
    }
    return data


def _networks(
    inputs: Inputs, model: HasModelInfo | Readout | str | os.PathLike[str] | None, options: LevelOptions
) -> tuple[dict[str, Network], Network | None]:
    """Networks by target, and that for the Fermi level of raw DOS."""
    info, readout = inputs.frames.model, inputs.readout
    found = find_networks(model, info, readout) if options.networks is None else dict(options.networks)
    found = {target: check_network(network, readout, target) for target, network in found.items()}
    given = options.denoise == "network" and options.networks is not None and "fermi_level" in found
    denoiser = fermi_network(found["fermi_level"] if given else options.denoise, model, info, readout)
    if tuple(options.methods) == ("network",) and not found:
        raise SettingError(
            f"{info.name}: the model has no networks (files next to it); ask for the methods raw or denoised"
        )
    return found, denoiser


def _frame_dos(inputs: Inputs, index: int, n_members: int) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
    """DOS of the frames of a group, a slice of frames and columns at a time, ``(frames, columns, n)``.

    Column 0 is the model itself, column k + 1 its member k.
    """
    readout, rows, features = inputs.readout, inputs.frames.rows(index), inputs.frames.features(index)
    step_m = max(1, min(_MEMBERS_AT_ONCE, n_members))
    step_f = max(1, int(_CHUNK_BYTES / (8 * readout.grid.n * step_m)))
    for start in range(0, len(rows), step_f):
        part = features[start : start + step_f]
        yield rows[start : start + len(part)], slice(0, 1), readout.dos(part)[:, None]
    # The weights of a slice of members are read once for all frames.
    for first in range(0, n_members, step_m):
        stop = min(first + step_m, n_members)
        for start in range(0, len(rows), step_f):
            part = features[start : start + step_f]
            yield rows[start : start + len(part)], slice(first + 1, stop + 1), readout.members(part, first, stop)


@dataclass(frozen=True, eq=False)
class _Reader:
    """All quantities by all methods of DOS ``(m, n)``, ``(m, n_names)``."""

    n_atoms: int
    n_electrons: float
    options: LevelOptions
    networks: dict[str, Network]
    denoise: Denoise

    def __call__(self, dos: np.ndarray) -> np.ndarray:
        methods = self.options.methods
        columns: dict[tuple[str, str], np.ndarray] = {}
        if "network" in methods:
            for quantity in LEVEL_QUANTITIES:
                network = self.networks.get(quantity)
                missing = np.full(len(dos), np.nan)
                columns[quantity, "network"] = missing if network is None else network(dos, self.n_atoms)
        if "raw" in methods:
            columns |= self._by_integration(dos, "raw")
        if "denoised" in methods:
            columns |= self._by_integration(self.denoise(dos[:, None].copy(), slice(0, len(dos)))[:, 0], "denoised")
        return np.stack([columns[quantity, method] for quantity in LEVEL_QUANTITIES for method in methods], axis=1)

    def _by_integration(self, dos: np.ndarray, method: str) -> dict[tuple[str, str], np.ndarray]:
        args = self.denoise.energies, dos, self.n_electrons
        return {
            ("fermi_level", method): thermo.fermi_level(*args),
            ("gap", method): band_gap(*args, self.n_atoms, self.options.threshold),
            ("dos_at_fermi_level", method): thermo.dos_at_fermi_level(*args),
        }


def _kept(frames: Frames) -> np.ndarray:
    """Frames, temperature after temperature."""
    return np.concatenate([frames.rows(index) for index in range(len(frames.temperatures_K))])


def _dataset(frames: Frames, names: list[str], values: np.ndarray, error_method: str) -> xr.Dataset:
    kept = _kept(frames)
    several = values.shape[1] > 2
    coords: dict[str, Any] = {
        "temperature": ("temperature", frames.temperatures_K, {"units": "K"}),
        "frame": np.arange(len(kept)),
        "frame_temperature": ("frame", frames.temperatures_K[frames.group[kept]], {"units": "K"}),
        "step": ("frame", frames.step[kept]),
        "replica": ("frame", frames.replica[kept]),
        "time_fs": ("frame", frames.time_fs[kept], {"units": "fs"}),
        "weight": ("frame", frames.weight[kept]),
    }
    if np.isfinite(frames.electronic_temperature_K[kept]).any():
        coords["electronic_temperature"] = "frame", frames.electronic_temperature_K[kept], {"units": "K"}
    variables: dict[str, Any] = {}
    for k, name in enumerate(names):
        attrs = {"units": LEVEL_QUANTITIES[name.rsplit("_", 1)[0]]}
        std = values[kept, 1:, k].std(axis=1, ddof=1) if several else np.full(len(kept), np.nan)
        variables[name] = "frame", values[kept, 0, k], attrs
        variables[f"{name}_model_std"] = "frame", std, attrs
        mean, model, sampling = (np.full(len(frames.temperatures_K), np.nan) for _ in range(3))
        for index in range(len(mean)):
            rows = frames.rows(index)
            weight = frames.weight[rows] / frames.weight[rows].sum()
            means = weight @ values[rows, :, k]
            mean[index] = means[0]
            model[index] = means[1:].std(ddof=1) if several else np.nan
            series = values[rows, 0, k]
            if np.isfinite(series).all():
                sampling[index] = standard_error(series, frames.weight[rows], error_method, frames.segment[rows]).error
        for ending, numbers in (("", mean), ("_model_std", model), ("_sampling_err", sampling)):
            variables[f"{name}_mean{ending}"] = "temperature", numbers, attrs
    variables["n_samples"] = "temperature", np.bincount(frames.group[kept]), {"units": "1"}
    return xr.Dataset(variables, coords)
