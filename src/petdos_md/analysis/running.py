"""Thermal averages as frames arrive: what an engine knows of its samples while it runs.

The DOS is linear in features, so its thermal average, and that of every member of the ensemble, follows from the mean features:

>>> running = RunningAverage(model.readout)                       # doctest: +SKIP
>>> for sample in samples:                                        # doctest: +SKIP
...     running.update(sample)
>>> running.result().heat_capacity.sampling_err                   # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..base.constants import BOLTZMANN_EV
from ..base.errors import ModelError, NoSamplesError
from ..base.notebooks import html_facts
from ..base.rounding import counted, with_named_errors
from ..base.sample import Sample
from ..base.temperatures import check_constant, same_temperature
from ..models.readout import Readout
from ..models.rigidity import FAR_OUTSIDE
from ..physics.quantities import derive, derive_members, kernels
from .kinetic import KineticTemperature
from .statistics import standard_error

if TYPE_CHECKING:
    import pandas as pd


_MOST_POINTS = 128
"""Of a curve of convergence."""


class Value(NamedTuple):
    """A number with its two kinds of error, which must not be mixed.

    ``model_std``: standard deviation over the members of the ensemble, NaN without one; more frames do not lower it.
    ``sampling_err``: standard error of the finite simulation, NaN while it is unknown; more frames lower it.
    """

    value: float
    model_std: float
    sampling_err: float


@dataclass(frozen=True, repr=False)
class RunningResult:
    """What is known of one temperature so far; definitions as in :func:`petdos_md.analyze`.

    :param n_samples: frames averaged
    :param reliable: False while the sampling errors are lower bounds at best
    :param n_still_needed: frames still needed, in all, until they are reliable; see
        :class:`~petdos_md.analysis.statistics.ErrorEstimate`
    :param dos: ``(n_channels,)`` states/eV per structure
    :param chemical_potential: eV, on the model's own axis
    :param fermi_level: eV, at zero temperature, on the model's own axis
    :param heat_capacity: eV/K per structure
    :param grade_max: largest extrapolation grade of the frames (:mod:`petdos_md.models.rigidity`), NaN if the model does not know
    :param n_far_outside: frames far outside the training set
    :param runaway_K: the mean kinetic temperature if the simulation has left its ensemble far behind, else NaN (:mod:`.kinetic`)
    """

    temperature_K: float
    n_samples: int
    n_atoms: int
    n_electrons: float
    reliable: bool
    dos: np.ndarray
    chemical_potential: Value
    fermi_level: Value
    heat_capacity: Value
    n_still_needed: float
    grade_max: float = math.nan
    n_far_outside: int = 0
    runaway_K: float = math.nan

    def __repr__(self) -> str:
        return f"<RunningResult {self}>"

    def __str__(self) -> str:
        return f"{self.temperature_K:g} K: {counted(self.n_samples, 'sample')}, {self._heat_capacity()}"

    def _repr_html_(self) -> str:
        rows = {"samples": str(self.n_samples), "atoms": str(self.n_atoms), "C_el": self._heat_capacity()}
        for name, value in (("mu", self.chemical_potential), ("E_F", self.fermi_level)):
            rows[name] = f"{with_named_errors(value)} eV"
        return html_facts(f"{self.temperature_K:g} K", rows)

    def to_dataframe(self) -> pd.DataFrame:
        """One row: temperature, counts, and every quantity with its errors, units in the names of columns."""
        import pandas as pd

        row: dict[str, float] = {
            "temperature (K)": self.temperature_K,
            "n_samples": self.n_samples,
            "n_atoms": self.n_atoms,
        }
        for name, unit in (("chemical_potential", "eV"), ("fermi_level", "eV"), ("heat_capacity", "eV/K")):
            for number, ending in zip(getattr(self, name), ("", "_model_std", "_sampling_err"), strict=True):
                row[f"{name}{ending} ({unit})"] = number
        return pd.DataFrame([row])

    def _heat_capacity(self) -> str:
        unit = self.n_atoms * BOLTZMANN_EV
        value, model, sampling = (x / unit for x in self.heat_capacity)
        numbers = with_named_errors(
            (value, model, sampling), "sampling" if self.reliable else "sampling, a lower bound"
        )
        return f"C_el = {numbers} k_B/atom"


class RunningAverage:
    """Mean features per ensemble temperature, with enough of their history to estimate the sampling error at any time.

    Memory does not grow with the simulation: of each temperature and replica at most ``max_blocks`` block sums are kept;
    when they are full, neighbors are joined and blocks become twice as long. Until then sampling errors, and whether they are reliable,
    are those of :func:`petdos_md.analyze`; from then on they are those of block means, which differ by little.

    :param readout: of the model that makes the samples
    :param max_blocks: even, at least 16
    """

    def __init__(self, readout: Readout, max_blocks: int = 512) -> None:
        if max_blocks < 16 or max_blocks % 2:
            raise ValueError(f"max_blocks must be even and at least 16, got {max_blocks}")
        self.readout = readout
        self._max_blocks = max_blocks
        self._states: dict[float, _State] = {}

    @property
    def temperatures_K(self) -> list[float]:
        """Ensemble temperatures seen so far, rising."""
        return sorted(self._states)

    def n_samples(self, temperature_K: float | None = None) -> int:
        """Frames taken in, at one temperature or in all; zero for one not seen yet."""
        if temperature_K is None:
            return sum(state.n_samples for state in self._states.values())
        state = self._find(temperature_K)
        return 0 if state is None else state.n_samples

    def update(self, sample: Sample) -> float:
        """Take in one frame.

        :returns: its extrapolation grade (:mod:`petdos_md.models.rigidity`), NaN if the model does not know its training set
        :raises ModelError: if it comes from another model
        :raises StructureError: if its number of atoms or electrons differs from earlier frames of this temperature
        """
        if self.readout.fingerprint and sample.model.fingerprint != self.readout.fingerprint:
            raise ModelError(f"the sample was made by {sample.model.name!r}, the readout is of another model")
        state = self._find(sample.temperature_K)
        if state is None:
            state = _State(sample.temperature_K, sample.n_atoms, sample.n_electrons)
            self._states[sample.temperature_K] = state
        check_constant(sample.temperature_K, [state.n_atoms, sample.n_atoms], [state.n_electrons, sample.n_electrons])
        if sample.replica not in state.blocks:
            state.blocks[sample.replica] = _Blocks(self._max_blocks, self.readout.n_features)
        state.blocks[sample.replica].add(sample.features, sample.weight)
        state.n_samples += 1
        state.kinetic.add(sample.kinetic_temperature_K, sample.n_atoms)
        grade = float(self.readout.extrapolation_grade(sample.features))
        state.grade_max = float(np.fmax(state.grade_max, grade))
        state.n_far_outside += grade > FAR_OUTSIDE
        return grade

    def extend(self, samples: Iterable[Sample]) -> None:
        """Take in many frames, for example those of a trace that a run resumes from."""
        for sample in samples:
            self.update(sample)

    def mean_features(self, temperature_K: float | None = None) -> np.ndarray:
        """Weighted mean, ``(n_features,)`` float64.

        :raises NoSamplesError: if there are no frames of this temperature
        """
        return self._state(temperature_K)[1].mean()

    def result(
        self, temperature_K: float | None = None, members: bool = True, method: str = "autocorrelation"
    ) -> RunningResult:
        """Averages and errors as of now.

        :param temperature_K: may be left out if all frames are of one temperature
        :param members: whether to evaluate the ensemble: without it model errors are NaN. Costs one pass over the weights of
            the ensemble
        :param method: of :func:`petdos_md.analysis.statistics.standard_error`
        :raises NoSamplesError: if there are no frames of this temperature
        :raises ChemicalPotentialError, StructureError: as :func:`petdos_md.analyze`
        """
        temperature, state = self._state(temperature_K)
        check_constant(temperature, [state.n_atoms], [state.n_electrons], known=True)
        features, grid = state.mean(), self.readout.grid
        dos = self.readout.dos(features)
        names = ("chemical_potential", "fermi_level", "heat_capacity")
        if members and self.readout.n_members:
            electrons, at = np.array([state.n_electrons]), np.array([temperature])
            slices = self.readout.member_slices(features[None])
            ensemble = derive_members(grid.energies, slices, dos[None], electrons, at, names)
            stds = [float(ensemble.std(name)[0]) for name in names]
        else:
            stds = [np.nan] * len(names)
        central = derive(grid.energies, dos, state.n_electrons, temperature, names)
        functionals = kernels(grid.energies, dos, state.n_electrons, temperature, names)
        vectors = self.readout.project(np.stack([functionals[name] for name in names]))
        series, weights, segments = state.history()
        estimate = standard_error(series @ vectors.T, weights, method, segments)
        mu, fermi, heat = (
            Value(float(central[name]), std, float(error))
            for name, std, error in zip(names, stds, estimate.error, strict=True)
        )
        return RunningResult(
            temperature_K=temperature,
            n_samples=state.n_samples,
            n_atoms=state.n_atoms,
            n_electrons=state.n_electrons,
            reliable=bool(estimate.reliable[-1]),
            dos=dos,
            chemical_potential=mu,
            fermi_level=fermi,
            heat_capacity=heat,
            n_still_needed=float(np.ceil(estimate.n_still_needed[-1] * state.n_samples / len(series))),
            grade_max=state.grade_max,
            n_far_outside=state.n_far_outside,
            runaway_K=state.kinetic.runaway_K,
        )

    def convergence(self, temperature_K: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """How the heat capacity came to be what it is: samples so far and C_el (eV/K) known from them, both ``(n_points,)``.

        :raises NoSamplesError, ChemicalPotentialError, StructureError: as :meth:`result`
        """
        temperature, state = self._state(temperature_K)
        check_constant(temperature, [state.n_atoms], [state.n_electrons], known=True)
        series, weights, segments = state.history()
        # Replicas run beside each other: first blocks of all come before the second ones.
        rank = np.concatenate([np.arange(count) for count in np.unique(segments, return_counts=True)[1]])
        order = np.lexsort((segments, rank))
        total = np.cumsum(weights[order])
        features = np.cumsum(weights[order, None] * series[order], axis=0) / total[:, None]
        shown = np.arange(len(order))[:: -len(order) // _MOST_POINTS][::-1]
        total, features = total[shown], features[shown]
        grid, names = self.readout.grid, ("heat_capacity",)
        values = derive(grid.energies, self.readout.dos(features), state.n_electrons, temperature, names)
        seen = np.minimum(state.n_samples, np.ceil(state.n_samples * total / total[-1]))
        return seen, values["heat_capacity"]

    def _find(self, temperature_K: float) -> _State | None:
        for known, state in self._states.items():
            if same_temperature(known, temperature_K):
                return state
        return None

    def _state(self, temperature_K: float | None) -> tuple[float, _State]:
        if not self._states:
            raise NoSamplesError("there are no samples yet; run some steps before reading results")
        if temperature_K is None:
            if len(self._states) > 1:
                raise ValueError(f"samples are of {len(self._states)} temperatures; say which: {self._listed()}")
            return next(iter(self._states.items()))
        for known, state in self._states.items():
            if same_temperature(known, temperature_K):
                return known, state
        raise NoSamplesError(f"there are no samples at {temperature_K:g} K; there are some at {self._listed()}")

    def _listed(self) -> str:
        return ", ".join(f"{t:g} K" for t in self.temperatures_K)


class _State:
    """Everything about one temperature."""

    def __init__(self, temperature_K: float, n_atoms: int, n_electrons: float) -> None:
        self.n_atoms, self.n_electrons = n_atoms, n_electrons
        self.kinetic = KineticTemperature(temperature_K)
        self.n_samples = self.n_far_outside = 0
        self.grade_max = math.nan
        self.blocks: dict[int, _Blocks] = {}

    def mean(self) -> np.ndarray:
        total = sum(blocks.weights.sum() for blocks in self.blocks.values())
        if not total > 0:
            raise NoSamplesError("all frames so far have the weight zero, so there is nothing to average; take more")
        return sum((blocks.sums.sum(axis=0) for blocks in self.blocks.values()), np.zeros(1)) / total

    def history(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Block means, their weights, and the replicas that they belong to."""
        series, weights, segments = [], [], []
        for replica, blocks in self.blocks.items():
            sums, w = blocks.filled()
            series.append(sums / w[:, None])
            weights.append(w)
            segments.append(np.full(len(w), replica))
        return np.concatenate(series), np.concatenate(weights), np.concatenate(segments)


class _Blocks:
    """Sums over blocks of consecutive frames."""

    def __init__(self, max_blocks: int, n_features: int) -> None:
        self.sums = np.zeros((max_blocks, n_features))
        self.weights = np.zeros(max_blocks)
        self.length = 1
        self._current, self._in_current = 0, 0

    def add(self, features: np.ndarray, weight: float) -> None:
        if self._in_current == self.length:
            self._current, self._in_current = self._current + 1, 0
        if self._current == len(self.sums):
            self._coarsen()
        self.sums[self._current] += weight * features.astype(np.float64)
        self.weights[self._current] += weight
        self._in_current += 1

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        used = self.weights > 0
        return self.sums[used], self.weights[used]

    def _coarsen(self) -> None:
        half = len(self.sums) // 2
        self.sums[:half] = self.sums[::2] + self.sums[1::2]
        self.weights[:half] = self.weights[::2] + self.weights[1::2]
        self.sums[half:], self.weights[half:] = 0.0, 0.0
        self.length *= 2
        self._current = half
