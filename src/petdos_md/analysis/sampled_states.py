"""Frames of several ensembles as MBAR sees them: free energies, weights at any temperature, errors; behind
:mod:`petdos_md.analysis.mbar`.

>>> states = SampledStates(frames, pressure_GPa=None)                      # doctest: +SKIP
>>> weights = states.weights(np.array([450.0, 550.0]))                     # doctest: +SKIP
>>> states.mean_features(weights)                                          # doctest: +SKIP
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..base.constants import BOLTZMANN_EV, GPA_A3_EV
from ..base.errors import SettingError
from .consistency import biases, pressures_GPa
from .frames import Frames
from .notes import listed
from .reliability import MIN_EFFECTIVE, effective_sample_size
from .statistics import standard_error

LEAST_OVERLAP = 0.03
"""Neighbours whose overlap matrix element is smaller cannot be reweighted reliably (P. V. Klimovich, M. R. Shirts, D. L. Mobley,
J. Comput.-Aided Mol. Des. 29 (2015) 397)."""


class SampledStates:
    """Frames as draws from several ensembles.

    :param pressure_GPa: pressure of the ensembles, if the traces do not give it; not needed at constant volume
    :raises SettingError: if the frames cannot be reweighted, or pymbar is missing

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
        poor = np.flatnonzero(self.overlap < LEAST_OVERLAP)
        if len(poor):
            pairs = [" and ".join(f"{t:g}" for t in frames.temperatures_K[index : index + 2]) for index in poor]
            which = "; ".join(pairs) if len(pairs) < 4 else f"{pairs[0]}; ... {pairs[-1]}"
            how_many = f" in {len(pairs)} pairs" if len(pairs) > 1 else ""
            self.notes.append(
                f"{which} K hardly overlap{how_many} ({self.overlap[poor].min():.3f}, expected {LEAST_OVERLAP} or more): what is "
                "reweighted across them is not reliable; sample a temperature between them"
            )

    def weights(self, targets: np.ndarray) -> np.ndarray:
        """``(n_targets, n_frames)``, summing to one."""
        return _weights(self._solved.f_k, self._beta, self.counts, self._enthalpy_eV, targets)

    def mean_features(self, weights: np.ndarray) -> np.ndarray:
        """Features averaged with weights ``(n_targets, n_frames)``, ``(n_targets, n_features)``."""
        frames = self._frames
        spread = np.zeros((len(weights), len(frames)))
        spread[:, self.rows] = weights
        total = np.zeros((len(weights), frames.model.n_features))
        for where, features in frames.iter_features():
            total += spread[:, where] @ features
        return total

    def errors(
        self, targets: np.ndarray, weights: np.ndarray, vectors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Standard errors ``(n_targets, m)`` of linear functionals of features, whether they can be relied on, and notes.

        :param weights: ``(n_targets, n_frames)``
        :param vectors: ``(n_targets, m, n_features)``
        """
        n_targets, m, _ = vectors.shape
        finite = np.isfinite(vectors).all(axis=2)
        values = self._project(np.where(finite[..., None], vectors, 0.0).reshape(n_targets * m, -1))
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
        independent = effective_sample_size(weights) / inflation[:, 0]
        return errors, independent >= MIN_EFFECTIVE, self._error_notes(targets, independent)

    def _error_notes(self, targets: np.ndarray, independent: np.ndarray) -> list[str]:
        notes = []
        unknown, few = targets[np.isnan(independent)], targets[independent < MIN_EFFECTIVE]
        if len(unknown):
            notes.append(f"{listed(unknown)}: frames are too few or too correlated to give a sampling error")
        if len(few):
            notes.append(
                f"{listed(few)}: fewer than {MIN_EFFECTIVE:g} independent frames count; sampling errors are lower bounds"
            )
        low, high = self._frames.temperatures_K[[0, -1]]
        outside = targets[(targets < low * (1 - 1e-6)) | (targets > high * (1 + 1e-6))]
        if len(outside):
            notes.append(f"{listed(outside)}: beyond the temperatures sampled, {low:g} to {high:g} K")
        return notes

    def _project(self, vectors: np.ndarray) -> np.ndarray:
        """Scalar products of features with vectors ``(k, n_features)``, ``(len(rows), k)``."""
        result = np.zeros((len(self._frames), len(vectors)))
        for where, features in self._frames.iter_features():
            result[where] = features @ vectors.T
        return result[self.rows]

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
            # An ensemble that hardly counts may be too short for a correlation time.
            counts = square > 0.01 * whole
            total += np.where(counts, square, 0.0)
            inflated += np.where(counts, square * tau, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return inflated / total


def name_traces(frames: Frames) -> str:
    """Paths of the traces, for messages."""
    return ", ".join(str(trace.path) for trace in frames.traces)


def _solve(u_kn: np.ndarray, counts: np.ndarray) -> Any:
    # On import, pymbar recommends packages at the level of a warning.
    loud = logging.getLogger("pymbar").level
    logging.getLogger("pymbar").setLevel(logging.ERROR)
    try:
        from pymbar import MBAR
        from pymbar.utils import ConvergenceError, ParameterError

        return MBAR(u_kn, counts)
    except ModuleNotFoundError:
        raise SettingError(
            "the MBAR-reweighted average needs pymbar; install it with: pip install 'petdos-md[ipi]'"
        ) from None
    except (ConvergenceError, ParameterError) as error:
        raise SettingError(
            f"pymbar finds no free energies of the sampled states ({' '.join(str(error).split())}): their energies hardly overlap; "
            "sample temperatures that are closer, or longer"
        ) from None
    finally:
        logging.getLogger("pymbar").setLevel(loud)


def _weights(
    f_k: np.ndarray, beta: np.ndarray, counts: np.ndarray, enthalpy: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    denominator = logsumexp(f_k[:, None] - beta[:, None] * enthalpy, axis=0, b=counts[:, None])
    logarithm = -enthalpy / (BOLTZMANN_EV * targets[:, None]) - denominator
    return np.exp(logarithm - logsumexp(logarithm, axis=1, keepdims=True))


def _check_reweightable(frames: Frames) -> None:
    kept = frames.group >= 0
    for trace in frames.traces:
        known = trace.attributes["metadata"]
        if int(known.get("beads", 1)) > 1:
            raise SettingError(
                f"{trace.path}: a path integral with {known['beads']} beads, whose distribution is not a Boltzmann factor of the energy; "
                "reweight classical simulations only"
            )
    bias = biases(frames)
    if bias:
        raise SettingError(
            f"{name_traces(frames)}: sampled with a bias ({', '.join(bias)}), whose distribution is not a Boltzmann factor of the energy; "
            "reweight simulations without one, or analyze these with weights"
        )
    hot = frames.electronic_temperature_K[kept]
    if len(np.unique(hot)) > 1:  # NaN, which stands for cold electrons, is one of them
        raise SettingError(
            f"{name_traces(frames)}: frames are of electrons at {np.nanmin(hot):g} to {np.nanmax(hot):g} K, whose free energies are not one "
            "potential; reweight frames of one electronic temperature"
        )
    if not np.isfinite(frames.potential_energy_eV[kept]).all():
        raise SettingError(
            f"{name_traces(frames)}: potential energies are missing; reweighting needs that of every frame"
        )
    weight = frames.weight[kept]
    if np.ptp(weight) > 1e-12 * weight.max():
        raise SettingError(
            f"{name_traces(frames)}: frames have weights; reweighting needs frames drawn from Boltzmann distributions"
        )


def _enthalpies(frames: Frames, rows: np.ndarray, pressure_GPa: float | None) -> np.ndarray:
    """U + P V (eV); U alone at constant volume, where the rest is a constant."""
    energy, volume = frames.potential_energy_eV[rows], frames.volume_A3[rows]
    finite = volume[np.isfinite(volume)]
    if not len(finite) or np.ptp(finite) <= 1e-6 * finite.max():
        return energy
    if len(finite) < len(volume):
        raise SettingError(
            f"{name_traces(frames)}: the volume varies and is missing for {len(volume) - len(finite)} of {len(volume)} frames; "
            "reweight those of periodic structures only"
        )
    series = frames.segment[rows]
    if all(np.ptp(volume[series == one]) <= 1e-6 * finite.max() for one in np.unique(series)):
        raise SettingError(
            f"{name_traces(frames)}: volumes from {finite.min():g} to {finite.max():g} A^3, each constant; reweighting needs ensembles "
            "of one volume, or of one pressure"
        )
    pressure = pressures_GPa(frames)[rows]
    if pressure_GPa is not None:
        other = pressure[np.isfinite(pressure) & (np.abs(pressure - pressure_GPa) > 1e-6)]
        if len(other):
            raise SettingError(
                f"{name_traces(frames)}: pressure_GPa={pressure_GPa:g} given, but the simulation had {other[0]:g} GPa; leave it out"
            )
        pressure = np.full(len(rows), float(pressure_GPa))
    if np.isnan(pressure).any():
        raise SettingError(
            f"{name_traces(frames)}: the volume varies and the pressure is not known; give pressure_GPa=... (--pressure), or "
            "reweight frames of one volume"
        )
    if np.ptp(pressure) > 1e-6:
        raise SettingError(
            f"{name_traces(frames)}: pressures from {pressure.min():g} to {pressure.max():g} GPa; reweight those of one pressure, "
            "with replicas=[...] (--replica)"
        )
    return energy + pressure * volume * GPA_A3_EV
