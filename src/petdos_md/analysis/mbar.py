"""The MBAR-reweighted average: samples of all temperatures reweighted to any temperature with MBAR, with its sampling error.

>>> reweighted = reweighted_estimate("run.zarr", temperatures_K=[550.0, 600.0])            # doctest: +SKIP
>>> reweighted["heat_capacity"], reweighted["heat_capacity_sampling_err"]                  # doctest: +SKIP

Frames n of all ensembles k, with reduced potentials u_k = (U + P V) / k_B T_k, have the weights

    W_n(T) ~ exp(-u(T)_n) / sum_k N_k exp(f_k - u_kn)

in the ensemble of temperature T, with the free energies f_k of M. R. Shirts, J. D. Chodera, J. Chem. Phys. 129 (2008) 124105, as
solved by pymbar. Features are averaged with these weights, and everything else follows from their average as in
:func:`petdos_md.analyze`. Each temperature thus learns from its neighbours: the error is smaller than from its own frames alone,
and temperatures between those sampled come for free.

The sampling error is the asymptotic one of MBAR for the linear response of a quantity to the DOS. It holds for independent
frames, so its square is multiplied by the statistical inefficiency of what the frames of each ensemble add to the average.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr

from ..base.errors import SettingError
from ..models.readout import Readout
from ..physics.quantities import QUANTITIES, EnsembleValues, derive, derive_members, kernels
from ..traces.trace import HasModelInfo
from .frames import Frames
from .inputs import Conditions, TraceLike, model_attributes, read_inputs
from .options import ReweightingKeywords, ReweightingOptions, split_keywords
from .reliability import effective_sample_size
from .sampled_states import SampledStates

REWEIGHTED_QUANTITIES = ("heat_capacity", "chemical_potential", "fermi_level")
BETWEEN = 3
"""Temperatures between two neighbours of the ladder, if none are asked for."""


def reweighted_estimate(
    traces: TraceLike | Sequence[TraceLike],
    temperatures_K: Sequence[float] | None = None,
    model: HasModelInfo | Readout | str | os.PathLike[str] | None = None,
    **keywords: Unpack[ReweightingKeywords],
) -> xr.Dataset:
    """Reweight the frames of all ensembles to some temperatures.

    :param traces: of one system at several temperatures, with potential energies; as for :func:`petdos_md.analyze`
    :param temperatures_K: by default those of the ensembles, and three between each two of them
    :param keywords: ``sampled_temperatures_K, burn_in, replicas, pressure_GPa, n_electrons, members``, as in
        :class:`~petdos_md.analysis.options.ReweightingOptions`
    :returns: dimensions ``temperature`` (K) and ``energy`` (eV): ``dos`` with ``dos_model_std``, and for ``heat_capacity``,
        ``chemical_potential`` and ``fermi_level`` the value, ``_model_std`` and ``_sampling_err``; ``n_effective`` (frames of
        equal weight with the same information, correlation not counted), ``sampling_reliable``, ``n_atoms``;
        ``attrs["notes"]`` says what to beware of
    :raises TypeError: for an unknown keyword
    :raises SettingError: if pymbar is missing, the frames cannot be reweighted (path integrals, a bias, weights, no energies, no
        pressure while the volume varies, several volumes), or a temperature is not positive
    :raises NoSamplesError, TraceError, ModelError, StructureError: as :func:`petdos_md.analyze`
    """
    (options,) = split_keywords("reweighted_estimate", keywords, ReweightingOptions)
    inputs = read_inputs(traces, model, options.selection, options.n_electrons)
    frames, readout = inputs.frames, inputs.readout
    targets = _targets(frames.temperatures_K, temperatures_K)
    states = SampledStates(frames, options.pressure_GPa)
    weights = states.weights(targets)
    features = states.mean_features(weights)
    group = np.zeros(len(targets), dtype=int)
    conditions = Conditions(targets, group, inputs.n_electrons[group], inputs.n_atoms[group])

    energies, dos = readout.grid.energies, readout.dos(features)
    central = derive(energies, dos, conditions.n_electrons, targets, REWEIGHTED_QUANTITIES)
    ensemble = None
    if options.members and readout.n_members:
        slices = readout.member_slices(features)
        ensemble = derive_members(energies, slices, dos, conditions.n_electrons, targets, REWEIGHTED_QUANTITIES)
    vectors = readout.project(_functionals(energies, dos, conditions))
    errors, reliable, notes = states.errors(targets, weights, vectors)

    data = _spectra(dos, ensemble) | _values(central, ensemble, errors) | _counts(conditions, weights, reliable)
    result = xr.Dataset(data, {"temperature": targets, "energy": energies})
    result["temperature"].attrs = {"units": "K", "long_name": "temperature of the electrons and the ensemble"}
    result["energy"].attrs = {"units": "eV", "long_name": "energy on the model's own axis"}
    result.attrs = (
        _attributes(frames, states) | model_attributes(frames.model, readout) | inputs.burn_in(options.selection)
    )
    notes = [*_note_of_one(frames.temperatures_K), *states.notes, *notes]
    if notes:
        result.attrs["notes"] = notes
    return result


def _functionals(energies: np.ndarray, dos: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Linear response of the quantities at each temperature, ``(n_targets, m, n_channels)``."""
    result = []
    for g, n, t in zip(dos, conditions.n_electrons, conditions.temperatures_K, strict=True):
        found = kernels(energies, g, float(n), float(t), REWEIGHTED_QUANTITIES)
        result.append(np.stack([found[name] for name in REWEIGHTED_QUANTITIES]))
    return np.stack(result)


def _spectra(dos: np.ndarray, ensemble: EnsembleValues | None) -> dict[str, Any]:
    dims, unit = ("temperature", "energy"), "states/eV"
    std = np.full_like(dos, np.nan) if ensemble is None else ensemble.dos_std
    note, std_note = (
        "reweighted thermal-average DOS per structure, both spins",
        "standard deviation of the average over members",
    )
    return {
        "dos": (dims, dos, {"units": unit, "long_name": note}),
        "dos_model_std": (dims, std, {"units": unit, "long_name": std_note}),
    }


def _values(central: dict[str, np.ndarray], ensemble: EnsembleValues | None, errors: np.ndarray) -> dict[str, Any]:
    data: dict[str, Any] = {}
    unknown = np.full(len(errors), np.nan)
    for k, name in enumerate(REWEIGHTED_QUANTITIES):
        unit = QUANTITIES[name].unit
        std = unknown if ensemble is None else ensemble.std(name)
        for ending, numbers, note in (
            ("", central[name], QUANTITIES[name].description),
            ("_model_std", std, f"model error of {name}"),
            ("_sampling_err", errors[:, k], f"sampling error of {name}, of MBAR"),
        ):
            data[name + ending] = "temperature", numbers, {"units": unit, "long_name": note}
    return data


def _counts(conditions: Conditions, weights: np.ndarray, reliable: np.ndarray) -> dict[str, Any]:
    return {
        name: ("temperature", numbers, {"units": "1", "long_name": note})
        for name, numbers, note in (
            (
                "n_effective",
                effective_sample_size(weights),
                "frames of equal weight with the same information; correlation is not counted",
            ),
            ("sampling_reliable", reliable.astype(np.int8), "0 where sampling errors are lower bounds at best"),
            ("n_atoms", conditions.n_atoms, "atoms per structure"),
            ("electrons", conditions.n_electrons, "valence electrons per structure"),
        )
    }


def _attributes(frames: Frames, states: SampledStates) -> dict[str, Any]:
    return {
        "method": "MBAR",
        "energy_reference": "raw",
        "sources": [str(trace.path) for trace in frames.traces],
        "sampled_temperatures_K": frames.temperatures_K.tolist(),
        "n_samples": len(states.rows),
        "overlap": states.overlap.tolist(),
    }


def _targets(ladder: np.ndarray, wanted: Sequence[float] | None) -> np.ndarray:
    if wanted is None or not len(wanted):
        between = [_between(low, high) for low, high in itertools.pairwise(ladder)]
        return np.concatenate([*between, ladder[-1:]])
    targets = np.sort(np.asarray(wanted, dtype=np.float64))
    if not (np.isfinite(targets).all() and (targets > 0).all()):
        raise SettingError(
            f"got temperatures {', '.join(f'{t:g}' for t in targets)} to reweight to, expected positive ones in K"
        )
    return targets


def _note_of_one(ladder: np.ndarray) -> list[str]:
    if len(ladder) > 1:
        return []
    return [
        f"all frames are of {ladder[0]:g} K: there are no others to learn from, and at {ladder[0]:g} K the reweighted average is the plain one"
    ]


def _between(low: float, high: float) -> np.ndarray:
    """The lower of two temperatures and some up to the higher one, of whole K where these lie far enough apart."""
    values = np.geomspace(low, high, BETWEEN + 2)[:-1]
    if (high - low) / (BETWEEN + 1) > 2.0:
        values[1:] = np.round(values[1:])
    return values
