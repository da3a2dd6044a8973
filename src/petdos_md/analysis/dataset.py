"""The results of an analysis as an xarray Dataset that describes itself; behind :func:`petdos_md.analyze`.

>>> data = analyze("run.zarr", reference="fermi")                           # doctest: +SKIP
>>> data["dos"].sel(energy=0.0, method="nearest")                           # doctest: +SKIP
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr

from ..base.errors import StructureError
from ..models.readout import Readout
from ..physics.carriers import carriers
from ..physics.quantities import LINEAR, QUANTITIES, EnsembleValues
from .extrapolation import QUANTILES as GRADE_QUANTILES
from .extrapolation import grades_by_temperature, note_of_extrapolation
from .frames import Frames
from .inputs import Conditions, Inputs, model_attributes
from .notes import notes_of_inputs, notes_of_results
from .reliability import effective_sample_size
from .statistics import ErrorEstimate

_PACKAGES = ("petdos-md", "numpy", "scipy", "xarray", "torch", "metatomic-torch")


@dataclass(frozen=True, eq=False)
class Estimates:
    """What was computed, ``n`` being the number of results.

    :param energies: ``(n_channels,)`` eV
    :param axis_zero: of ``energies``: ``raw`` or ``fermi``
    :param energy_zero: of single numbers: ``raw``, or ``fermi`` where every frame was aligned at its Fermi level
    :param alignment: which DOS was shifted to which Fermi level, in words
    :param dos: ``(n, n_channels)`` states/eV per structure
    :param dos_std: ``(n, n_channels)`` standard deviation over members
    :param dos_sampling_err: ``(n, n_channels)``
    :param central: quantities of the model's own DOS, each ``(n,)``
    :param ensemble: quantities of the members, if there are any
    :param errors: one for each result, over :data:`~petdos_md.physics.quantities.LINEAR`
    """

    energies: np.ndarray
    axis_zero: str
    energy_zero: str
    alignment: str
    dos: np.ndarray
    dos_std: np.ndarray
    dos_sampling_err: np.ndarray
    central: dict[str, np.ndarray]
    ensemble: EnsembleValues | None
    errors: list[ErrorEstimate]


def build_dataset(inputs: Inputs, conditions: Conditions, estimates: Estimates) -> xr.Dataset:
    """Assemble what was computed; one entry along ``temperature`` for each of the conditions."""
    frames, ensemble = inputs.frames, estimates.ensemble
    variables = _Variables()
    _add_spectra(variables, estimates)
    _add_quantities(variables, estimates)
    _add_counts(variables, frames, conditions, estimates.errors)
    _add_means(variables, frames, conditions.group)
    variables.found |= grades_by_temperature(frames, inputs.readout, conditions.group)
    n_skipped = sum(trace.n_skipped for trace in frames.traces)
    skipped = {"units": "1", "long_name": "frames that gave no sample, in the whole trace"}
    coordinates = _coordinates(conditions, estimates)
    if "extrapolation_grade" in variables.found:
        of_frames = {"units": "1", "long_name": "share of the frames with a lower extrapolation grade"}
        coordinates["quantile"] = "quantile", list(GRADE_QUANTILES), of_frames
    data = xr.Dataset({**variables.found, "n_skipped": ((), n_skipped, skipped)}, coordinates)
    data.attrs = {
        **model_attributes(frames.model, inputs.readout),
        "model_kind": frames.model.kind,
        "model_path": frames.model.path,
        "sources": [str(trace.path) for trace in frames.traces],
        "energy_reference": estimates.axis_zero,
        "dos_alignment": estimates.alignment,
        "value": "of the model's own DOS, which is the mean over members",
        "model_error": _model_error(inputs.readout, ensemble),
        "versions": _versions(),
    }
    add_notes(
        data,
        [
            *notes_of_inputs(inputs, at_other_T_e=not conditions.of_frames),
            *notes_of_results(data),
            *note_of_extrapolation(data),
        ],
    )
    return data


def add_notes(data: xr.Dataset, notes: list[str]) -> None:
    """Add to what to beware of."""
    if notes:
        data.attrs["notes"] = [*data.attrs.get("notes", []), *notes]


def add_carriers(
    data: xr.Dataset, energies: np.ndarray, dos: np.ndarray, slices: Iterable[np.ndarray], n_electrons: np.ndarray
) -> None:
    """Add the numbers of electrons and holes per structure, and per volume where it is known.

    :param dos: ``(n_temperatures, n_channels)`` the model's own
    :param slices: averages of members, each ``(n_temperatures, k, n_channels)``
    :raises StructureError: if one of them has no gap
    """

    temperatures = data["temperature"].values

    def count(part: np.ndarray, strict: bool) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for dos, n, t, size in zip(part, n_electrons, temperatures, data["n_atoms"].values, strict=True):
            try:
                found.append(carriers(energies, dos, float(n), float(t), n_atoms=int(size), strict=strict))
            except StructureError as error:
                raise StructureError(f"{t:g} K: {error}; other temperatures can be chosen (--temperature)") from None
        return found

    # (temperatures, n and p, the model and its members)
    counts = np.concatenate([count(dos[:, None], True), *(count(part, False) for part in slices)], axis=-1)
    closed = np.isnan(counts).any(axis=1).sum(axis=-1)
    if closed.any():
        where = ", ".join(
            f"{t:g} K ({n} of {counts.shape[-1] - 1})" for t, n in zip(temperatures, closed, strict=True) if n
        )
        raise StructureError(
            f"members of the ensemble have no gap at {where}, so that the model error of carriers is not known; choose temperatures where they have "
            "(--temperature), denoise by the network (--denoise=network), or do not count carriers"
        )
    several = counts.shape[-1] > 2
    # angstrom^-3 to cm^-3
    density = 1e24 / data["volume"].values[:, None]
    for k, name in enumerate(("conduction_electrons", "holes")):
        for suffix, unit, values in (("", "1", counts[:, k]), ("_density", "1/cm^3", counts[:, k] * density)):
            std = values[:, 1:].std(axis=1, ddof=1) if several else np.full(len(values), np.nan)
            note = f"{name.replace('_', ' ')} per {'volume' if suffix else 'structure'}, counted from the middle of the gap"
            data[name + suffix] = "temperature", values[:, 0], {"units": unit, "long_name": note}
            data[f"{name}{suffix}_model_std"] = (
                "temperature",
                std,
                {"units": unit, "long_name": f"model error of {name}"},
            )


class _Variables:
    """Variables of a dataset, all along ``temperature``."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, name: str, values: np.ndarray, unit: str, description: str, *dims: str, **attrs: str) -> None:
        attrs = {"units": unit, "long_name": description, **attrs}
        self.found[name] = ("temperature", *dims), values, attrs


def _coordinates(conditions: Conditions, estimates: Estimates) -> dict[str, Any]:
    own = "energy on the model's own axis"
    zero = own if estimates.axis_zero == "raw" else "energy relative to the Fermi level"
    temperature = {"units": "K", "long_name": "temperature of the electrons"}
    coords: dict[str, Any] = {
        "temperature": ("temperature", conditions.temperatures_K, temperature),
        "energy": ("energy", estimates.energies, {"units": "eV", "long_name": zero}),
    }
    if estimates.ensemble is not None:
        coords["member"] = np.arange(estimates.ensemble.values["heat_capacity"].shape[1])
    return coords


def _add_spectra(variables: _Variables, estimates: Estimates) -> None:
    dos, std, per_state = estimates.dos, estimates.dos_std, "states/eV"
    variables.add("dos", dos, per_state, "thermal-average DOS per structure, both spins", "energy")
    variables.add("dos_model_std", std, per_state, "standard deviation of the average over members", "energy")
    err = estimates.dos_sampling_err
    variables.add("dos_sampling_err", err, per_state, "standard error of the average over frames", "energy")


def _add_quantities(variables: _Variables, estimates: Estimates) -> None:
    central, ensemble, errors = estimates.central, estimates.ensemble, estimates.errors
    unknown = np.full(len(estimates.dos), np.nan)
    for name, quantity in QUANTITIES.items():
        zero = {"energy_zero": estimates.energy_zero} if quantity.on_energy_axis else {}
        variables.add(name, central[name], quantity.unit, quantity.description, **zero)
        std = unknown if ensemble is None else ensemble.std(name)
        note = f"model error of {name}: standard deviation over members"
        variables.add(f"{name}_model_std", std, quantity.unit, note)
        if name in LINEAR:
            err = np.array([float(estimate.error[LINEAR.index(name)]) for estimate in errors])
            note = f"sampling error of {name}: standard error of the finite simulation"
            variables.add(f"{name}_sampling_err", err, quantity.unit, note)
    if ensemble is not None:
        note = "mean over members of their heat capacities, the value of the article"
        variables.add("heat_capacity_member_mean", ensemble.mean("heat_capacity"), "eV/K", note)
        for name in ("chemical_potential", "fermi_level", "heat_capacity"):
            note = f"{name} of each member's average"
            variables.add(f"{name}_members", ensemble.values[name], QUANTITIES[name].unit, note, "member")


def _add_counts(variables: _Variables, frames: Frames, conditions: Conditions, errors: list[ErrorEstimate]) -> None:
    """Atoms, electrons and frames; counts and times of independent ones are those of C_el, or of mu where C_el does not respond
    (an insulator)."""
    add, group = variables.add, conditions.group
    columns = [LINEAR.index("heat_capacity"), LINEAR.index("chemical_potential")]
    leading = [next((c for c in columns if np.isfinite(e.error[c])), columns[0]) for e in errors]
    tau = np.array([e.autocorrelation_time[c] for e, c in zip(errors, leading, strict=True)])
    reliable = np.array([e.reliable[c] for e, c in zip(errors, leading, strict=True)])
    missing = np.array([e.n_still_needed[c] for e, c in zip(errors, leading, strict=True)])
    n_eff = np.array([e.n_effective[c] for e, c in zip(errors, leading, strict=True)])
    ess = np.array([effective_sample_size(frames.weight[frames.group == g]) for g in group])
    kish = "(sum w)^2 / sum w^2 of the statistical weights w; n_samples if they are equal"
    spacing = np.array([frames.spacing_fs(g) for g in group])
    add("electrons", conditions.n_electrons, "1", "valence electrons per structure")
    add("n_atoms", conditions.n_atoms, "1", "atoms per structure")
    add("n_samples", np.array([int((frames.group == g).sum()) for g in group]), "1", "frames averaged")
    add("effective_sample_size", ess, "1", kish)
    add("n_effective", n_eff, "1", "independent frames with the same sampling error of the heat capacity")
    add("autocorrelation_time", tau, "samples", "spacing of independent frames: 1 + 2 sum of autocorrelations")
    add("autocorrelation_time_fs", tau * spacing, "fs", "the same in simulated time")
    add("sampling_reliable", reliable.astype(np.int8), "1", "0 where sampling errors are lower bounds at best")
    add(
        "n_still_needed", missing, "1", "frames still needed until sampling errors are reliable; inf: more replicas are"
    )


def _add_means(variables: _Variables, frames: Frames, group: np.ndarray) -> None:
    for name, unit, description, column in (
        ("ensemble_temperature", "K", "temperature of the ensemble", frames.temperature_K),
        ("kinetic_temperature", "K", "mean temperature from the velocities", frames.kinetic_temperature_K),
        (
            "electronic_temperature",
            "K",
            "mean of the hot electrons that the atoms moved among",
            frames.electronic_temperature_K,
        ),
        ("potential_energy", "eV", "mean energy of the interatomic potential", frames.potential_energy_eV),
        ("volume", "angstrom^3", "mean cell volume", frames.volume_A3),
    ):
        means = np.array([frames.mean_of(column, g) for g in group])
        if name != "electronic_temperature" or np.isfinite(means).any():
            variables.add(name, means, unit, description)


def _model_error(readout: Readout, ensemble: EnsembleValues | None) -> str:
    if ensemble is not None:
        return "standard deviation over members, each averaged over frames and derived as a whole"
    if readout.n_members == 0:
        return "NaN: the model has no ensemble; export it with an LLPR checkpoint to get one"
    return "NaN: not asked for (members=False)"


@cache
def _versions() -> list[str]:
    return [f"python {sys.version.split()[0]}", *(f"{name} {version(name)}" for name in _PACKAGES)]
