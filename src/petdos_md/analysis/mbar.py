"""The MBAR-reweighted average: samples of all temperatures reweighted to any temperature with MBAR, with its sampling error.

>>> reweighted = reweighted_estimate("run.zarr", temperatures_K=[550.0, 600.0])            # doctest: +SKIP
>>> reweighted["heat_capacity"], reweighted["heat_capacity_sampling_err"]                  # doctest: +SKIP

Frames n of all ensembles k, with reduced potentials u_k = (U + P V) / k_B T_k, have the weights

    W_n(T) ~ exp(-u(T)_n) / sum_k N_k exp(f_k - u_kn)

in the ensemble of temperature T, with the free energies f_k of M. R. Shirts, J. D. Chodera, J. Chem. Phys. 129 (2008) 124105, as
solved by pymbar. features are averaged with these weights, and everything else follows from its average as in
:func:`petdos_md.analyze`. Each temperature so learns from its neighbours: the error is smaller than from its own frames alone,
and temperatures between those sampled come for free.

The sampling error is the asymptotic one of MBAR for the linear response of a quantity to the DOS. It holds for independent
frames, so its square is multiplied by the statistical inefficiency of what the frames of each ensemble add to the average.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from ..base.constants import BOLTZMANN_EV, GPA_A3_EV
from ..base.errors import SettingError
from ..models.readout import Readout
from ..physics.quantities import DESCRIPTIONS, UNITS, derive, derive_members, kernels
from ..traces.trace import HasModelInfo
from .frames import Frames
from .inputs import TraceLike, electrons_per_group, find_readout, open_traces
from .statistics import MIN_EFFECTIVE, standard_error

QUANTITIES = ("heat_capacity", "chemical_potential", "fermi_level")
LEAST_OVERLAP = 0.03
"""Neighbours whose overlap matrix element is smaller cannot be reweighted reliably (P. V. Klimovich, M. R. Shirts, D. L. Mobley,
J. Comput.-Aided Mol. Des. 29 (2015) 397)."""
BETWEEN = 3
"""Temperatures between two neighbours of the ladder, if none are asked for."""


def reweighted_estimate(
    traces: TraceLike | Sequence[TraceLike],
    temperatures_K: Sequence[float] | None = None,
    model: HasModelInfo | Readout | str | None = None,
    *,
    burn_in: int = 0,
    replicas: Sequence[int] | None = None,
    pressure_GPa: float | None = None,
    n_electrons: float | None = None,
    members: bool = True,
) -> xr.Dataset:
    """Reweight the frames of all ensembles to some temperatures.

    :param traces: of one system at several temperatures, with potential energies; as for :func:`petdos_md.analyze`
    :param temperatures_K: by default those of the ensembles, and three between each two of them
    :param burn_in: leave out samples with a smaller step
    :param replicas: keep these only
    :param pressure_GPa: of the ensembles, if the traces do not tell; not needed at constant volume
    :param n_electrons: per structure, if the model does not know it
    :param members: whether to evaluate the ensemble for model errors
    :returns: dimensions ``temperature`` (K) and ``energy`` (eV): ``dos`` with ``dos_model_std``, and for ``heat_capacity``,
        ``chemical_potential`` and ``fermi_level`` the value, ``_model_std`` and ``_sampling_err``; ``n_effective`` (frames of
        equal weight with the same information, correlation not counted), ``sampling_reliable``, ``n_atoms``;
        ``attrs["notes"]`` says what to beware of
    :raises SettingError: if pymbar is missing, the frames cannot be reweighted (path integrals, weights, no energies, no pressure
        while the volume varies), or a temperature is not positive
    :raises NoSamplesError, TraceError, ModelError, StructureError: as :func:`petdos_md.analyze`
    """
    frames = Frames(open_traces(traces), None, burn_in, replicas)
    readout = find_readout(model, frames.model, str(frames.traces[0].path))
    electrons = electrons_per_group(frames, n_electrons)
    if len(set(electrons)) > 1:
        raise SettingError(
            f"{_names(frames)}: numbers of electrons differ between temperatures; reweight one system at a time"
        )
    targets = _targets(frames.temperatures_K, temperatures_K)
    states = _States(frames, pressure_GPa)
    weights = states.weights(targets)

    features = _weighted_features(frames, states.rows, weights)
    energies, dos = readout.grid.energies, readout.dos(features)
    n_el = np.full(len(targets), electrons[0])
    central = derive(energies, dos, n_el, targets, QUANTITIES)
    ensemble = None
    if members and readout.n_members:
        ensemble = derive_members(energies, readout.member_slices(features), dos, n_el, targets, QUANTITIES)
    functionals = np.stack(
        [
            np.stack([kernels(energies, dos[i], float(n_el[i]), float(t), QUANTITIES)[name] for name in QUANTITIES])
            for i, t in enumerate(targets)
        ]
    )
    errors, reliable, notes = states.errors(targets, weights, readout.project(functionals))

    data: dict[str, Any] = {}

    def add(name: str, values: np.ndarray, unit: str, description: str, *dims: str) -> None:
        data[name] = ("temperature", *dims), values, {"units": unit, "description": description}

    unknown = np.full(len(targets), np.nan)
    dos_std = np.full_like(dos, np.nan) if ensemble is None else ensemble.dos_std
    add("dos", dos, "states/eV", "reweighted thermal-average DOS per structure, both spins", "energy")
    add("dos_model_std", dos_std, "states/eV", "standard deviation of the average over members", "energy")
    for k, name in enumerate(QUANTITIES):
        add(name, central[name] if ensemble is None else ensemble.mean(name), UNITS[name], DESCRIPTIONS[name])
        add(
            f"{name}_model_std",
            unknown if ensemble is None else ensemble.std(name),
            UNITS[name],
            f"model error of {name}",
        )
        add(f"{name}_sampling_err", errors[:, k], UNITS[name], f"sampling error of {name}, of MBAR")
    n_effective = 1.0 / (weights**2).sum(axis=1)
    add("n_effective", n_effective, "1", "frames of equal weight with the same information; correlation is not counted")
    add("sampling_reliable", reliable.astype(np.int8), "1", "0 where sampling errors are lower bounds at best")
    add("n_atoms", np.full(len(targets), int(frames.n_atoms[states.rows][0])), "1", "atoms per structure")
    add("electrons", n_el, "1", "valence electrons per structure")
    result = xr.Dataset(data, {"temperature": targets, "energy": energies})
    result["temperature"].attrs = {"units": "K", "description": "temperature of the electrons and the ensemble"}
    result["energy"].attrs = {"units": "eV", "description": "energy on the model's own axis"}
    result.attrs = {
        "method": "MBAR",
        "energy_reference": "raw",
        "model": frames.model.name,
        "model_fingerprint": frames.model.fingerprint,
        "sources": [str(trace.path) for trace in frames.traces],
        "sampled_temperatures_K": frames.temperatures_K.tolist(),
        "n_samples": len(states.rows),
        "overlap": states.overlap.tolist(),
    }
    notes = [*states.notes, *notes]
    if notes:
        result.attrs["notes"] = notes
    return result


class _States:
    """Frames as draws from several ensembles.

    ``rows``: of the frames, state after state, each series in the order of its steps; ``overlap``: of each state with the next.
    """

    def __init__(self, frames: Frames, pressure_GPa: float | None) -> None:
        _check_reweightable(frames)
        self._frames = frames
        groups = range(len(frames.temperatures_K))
        by_group = [frames.rows(index) for index in groups]
        self.rows = np.concatenate(by_group)
        self.counts = np.array([len(rows) for rows in by_group])
        self._enthalpy_eV = _enthalpies(frames, self.rows, pressure_GPa)
        # The reduced potential is needed up to a constant; a small one keeps exponents small.
        self._enthalpy_eV = self._enthalpy_eV - self._enthalpy_eV.mean()
        self._beta = 1.0 / (BOLTZMANN_EV * frames.temperatures_K)
        self._solved = _solve(self._beta[:, None] * self._enthalpy_eV, self.counts)
        self.notes: list[str] = []
        several = len(self.counts) > 1
        self.overlap = np.diagonal(self._solved.compute_overlap()["matrix"], 1) if several else np.empty(0)
        for index, overlap in enumerate(self.overlap):
            if overlap < LEAST_OVERLAP:
                low, high = frames.temperatures_K[index : index + 2]
                self.notes.append(
                    f"{low:g} and {high:g} K hardly overlap ({overlap:.3f}, expected {LEAST_OVERLAP} or more): what is reweighted across them "
                    "is not reliable; sample a temperature between them"
                )

    def weights(self, targets: np.ndarray) -> np.ndarray:
        """``(n_targets, n_frames)``, summing to one."""
        return _weights(self._solved.f_k, self._beta, self.counts, self._enthalpy_eV, targets)

    def errors(
        self, targets: np.ndarray, weights: np.ndarray, vectors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Standard errors ``(n_targets, m)`` of linear functionals of features, whether they can be relied on, and notes.

        :param weights: ``(n_targets, n_frames)``
        :param vectors: ``(n_targets, m, n_features)``
        """
        frames, (n_targets, m, _) = self._frames, vectors.shape
        finite = np.isfinite(vectors).all(axis=2)
        values = _project(frames, self.rows, np.where(finite[..., None], vectors, 0.0).reshape(n_targets * m, -1))
        values = values.reshape(-1, n_targets, m)
        # Variances are computed as differences of large numbers: the mean must not be one of them.
        values -= np.einsum("tn,ntm->tm", weights, values)
        inflation = self._inflation(weights.T[..., None] * values)
        errors = np.full((n_targets, m), np.nan)
        for i, temperature in enumerate(targets):
            reduced = self._enthalpy_eV / (BOLTZMANN_EV * temperature)
            for k in np.flatnonzero(finite[i] & np.isfinite(inflation[i])):
                size = max(float(np.abs(values[:, i, k]).max()), 1e-300)
                found = self._solved.compute_expectations(values[:, i, k] / size, u_kn=reduced[None])
                errors[i, k] = float(found["sigma"][0]) * size * np.sqrt(inflation[i, k])
        independent = 1.0 / (weights**2).sum(axis=1) / inflation[:, 0]
        notes = []
        unknown, few = targets[np.isnan(independent)], targets[independent < MIN_EFFECTIVE]
        if len(unknown):
            notes.append(f"{_listed(unknown)} K: frames are too few or too correlated to tell a sampling error")
        if len(few):
            notes.append(
                f"{_listed(few)} K: fewer than {MIN_EFFECTIVE:g} independent frames count; sampling errors are lower bounds"
            )
        low, high = frames.temperatures_K[[0, -1]]
        outside = targets[(targets < low * (1 - 1e-6)) | (targets > high * (1 + 1e-6))]
        if len(outside):
            notes.append(
                f"{', '.join(f'{t:g}' for t in outside)} K: beyond the temperatures sampled, {low:g} to {high:g} K"
            )
        return errors, independent >= MIN_EFFECTIVE, notes

    def _inflation(self, parts: np.ndarray) -> np.ndarray:
        """How much correlation between frames raises variances, ``(n_targets, m)``.

        :param parts: ``(n_frames, n_targets, m)`` what each frame adds to the deviation of an average
        """
        total, inflated = np.zeros(parts.shape[1:]), np.zeros(parts.shape[1:])
        starts = np.r_[0, np.cumsum(self.counts)]
        squares = [(parts[a:b] ** 2).sum(axis=0) for a, b in itertools.pairwise(starts)]
        whole = np.sum(squares, axis=0)
        for (a, b), square in zip(itertools.pairwise(starts), squares, strict=True):
            tau = standard_error(parts[a:b], segments=self._frames.segment[self.rows[a:b]]).autocorrelation_time
            # An ensemble that hardly counts may be too short to tell.
            counts = square > 0.01 * whole
            total += np.where(counts, square, 0.0)
            inflated += np.where(counts, square * tau, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return inflated / total


def _solve(u_kn: np.ndarray, counts: np.ndarray) -> Any:
    # On import, pymbar recommends packages at the level of a warning.
    loud = logging.getLogger("pymbar").level
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    try:
        from pymbar import MBAR

        return MBAR(u_kn, counts)
    except ModuleNotFoundError:
        raise SettingError(
            "the MBAR-reweighted average needs pymbar; install it with: pip install 'petdos-md[ipi]'"
        ) from None
    finally:
        logging.getLogger("pymbar").setLevel(loud)


def _weights(
    f_k: np.ndarray, beta: np.ndarray, counts: np.ndarray, enthalpy: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    denominator = logsumexp(f_k[:, None] - beta[:, None] * enthalpy, axis=0, b=counts[:, None])
    logarithm = -enthalpy / (BOLTZMANN_EV * targets[:, None]) - denominator
    return np.exp(logarithm - logsumexp(logarithm, axis=1, keepdims=True))


def _weighted_features(frames: Frames, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean features, ``(n_targets, n_features)``."""
    spread = np.zeros((len(weights), len(frames)))
    spread[:, rows] = weights
    total = np.zeros((len(weights), frames.model.n_features))
    for where, features in frames.iter_features():
        total += spread[:, where] @ features
    return total


def _project(frames: Frames, rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Scalar products of features with vectors ``(k, n_features)``, ``(len(rows), k)``."""
    result = np.zeros((len(frames), len(vectors)))
    for where, features in frames.iter_features():
        result[where] = features @ vectors.T
    return result[rows]


def _targets(ladder: np.ndarray, wanted: Sequence[float] | None) -> np.ndarray:
    if wanted is None or not len(wanted):
        between = [np.geomspace(low, high, BETWEEN + 2)[:-1] for low, high in itertools.pairwise(ladder)]
        return np.concatenate([*between, ladder[-1:]])
    targets = np.sort(np.asarray(wanted, dtype=np.float64))
    if not (np.isfinite(targets).all() and (targets > 0).all()):
        raise SettingError(
            f"got temperatures {', '.join(f'{t:g}' for t in targets)} to reweight to, expected positive ones in K"
        )
    return targets


def _check_reweightable(frames: Frames) -> None:
    kept = frames.group >= 0
    for trace in frames.traces:
        known = trace.attributes["metadata"]
        if int(known.get("beads", 1)) > 1:
            raise SettingError(
                f"{trace.path}: a path integral with {known['beads']} beads, whose distribution is not a Boltzmann factor of the energy; "
                "reweight classical simulations only"
            )
    if not np.isfinite(frames.potential_energy_eV[kept]).all():
        raise SettingError(f"{_names(frames)}: potential energies are missing; reweighting needs that of every frame")
    weight = frames.weight[kept]
    if np.ptp(weight) > 1e-12 * weight.max():
        raise SettingError(
            f"{_names(frames)}: frames have weights; reweighting needs frames drawn from Boltzmann distributions"
        )
    if len({int(n) for n in frames.n_atoms[kept]}) > 1:
        raise SettingError(f"{_names(frames)}: numbers of atoms differ; reweight one system at a time")


def _enthalpies(frames: Frames, rows: np.ndarray, pressure_GPa: float | None) -> np.ndarray:
    """U + P V (eV); U alone at constant volume, where the rest is a constant."""
    energy, volume = frames.potential_energy_eV[rows], frames.volume_A3[rows]
    finite = volume[np.isfinite(volume)]
    if not len(finite) or np.ptp(finite) <= 1e-6 * finite.max():
        return energy
    if len(finite) < len(volume):
        raise SettingError(
            f"{_names(frames)}: the volume varies and is missing for {len(volume) - len(finite)} of {len(volume)} frames; reweight those "
            "of periodic structures only"
        )
    pressure = np.full(len(frames), np.nan) if pressure_GPa is None else np.full(len(frames), float(pressure_GPa))
    if pressure_GPa is None:
        for index, trace in enumerate(frames.traces):
            mine = frames.source == index
            known = trace.attributes["metadata"]
            names = str(known.get("ensemble", "")).split()
            by_replica = np.array(known.get("pressures_GPa", []), dtype=float)
            if len(by_replica) > frames.replica[mine].max() and not any("nst" in name for name in names):
                pressure[mine] = by_replica[frames.replica[mine]]
            elif "npt" in names and "pressure_GPa" in known:
                pressure[mine] = float(known["pressure_GPa"])
    pressure = pressure[rows]
    if np.isnan(pressure).any():
        raise SettingError(
            f"{_names(frames)}: the volume varies and the pressure is not known; give pressure_GPa=..., or reweight frames of one volume"
        )
    if np.ptp(pressure) > 1e-6:
        raise SettingError(
            f"{_names(frames)}: pressures from {pressure.min():g} to {pressure.max():g} GPa; reweight those of one pressure, with replicas=[...]"
        )
    return energy + pressure * volume * GPA_A3_EV


def _listed(temperatures: np.ndarray) -> str:
    if len(temperatures) > 6:
        return f"{temperatures[0]:g} to {temperatures[-1]:g} ({len(temperatures)} temperatures)"
    return ", ".join(f"{t:g}" for t in temperatures)


def _names(frames: Frames) -> str:
    return ", ".join(str(trace.path) for trace in frames.traces)
