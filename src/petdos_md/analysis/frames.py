"""The frames of one or several traces, sorted into ensemble temperatures and read in one go, however long the traces are.

>>> frames = Frames([Trace.open("run.zarr", "r")])      # doctest: +SKIP
>>> frames.temperatures_K                               # doctest: +SKIP
array([300., 600.])
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from ..base.errors import NoSamplesError, SettingError, TraceError
from ..base.temperatures import check_constant, distinct_temperatures, same_temperature
from ..traces.trace import Trace
from .consistency import check_no_copies, check_one_material
from .options import FrameSelection
from .weights import read_weights, weights_of_traces

CHUNK_BYTES = 32e6
HISTORY_BYTES = 256e6
MAX_BLOCKS = 512
"""Blocks kept of one temperature at most, for the errors of thousands of channels: enough to estimate each to some percent."""


@dataclass(frozen=True)
class History:
    """Means of features over blocks of consecutive frames, of one temperature.

    :param features: ``(n_blocks, n_features)`` float64
    :param weights: ``(n_blocks,)`` sums of the weights of the frames
    :param segments: ``(n_blocks,)`` the independent series that a block belongs to
    :param length: frames in a block; 1 unless memory would run short
    """

    features: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    length: int

    def mean(self) -> np.ndarray:
        """Weighted mean features over all frames, ``(n_features,)``."""
        return self.weights @ self.features / self.weights.sum()


class Frames:
    """Frames of traces of one model, as columns of numbers; features stay on disk.

    :param traces: of one model
    :param selection: which frames count, and their weights; all of them if None
    :raises NoSamplesError: if nothing is left
    :raises SettingError: if the weights of a temperature are all zero, not finite or negative
    :raises StructureError: if frames are of several materials
    :raises TraceError: if the traces are of different models, one is a copy of another, or a temperature or replica is not in them
    """

    def __init__(self, traces: Sequence[Trace], selection: FrameSelection | None = None) -> None:
        selection = FrameSelection() if selection is None else selection
        if not traces or not any(len(trace) for trace in traces):
            raise NoSamplesError(f"{_names(traces)}: no samples yet; run some steps before analyzing")
        self.traces = [trace for trace in traces if len(trace)]
        self.model = self.traces[0].model
        for trace in self.traces[1:]:
            if trace.model.fingerprint != self.model.fingerprint or trace.model.grid != self.model.grid:
                raise TraceError(
                    f"{trace.path}: samples of {trace.model.name!r}, but {self.traces[0].path} has samples of "
                    f"{self.model.name!r}; analyze the two apart"
                )
        self._lengths = [len(trace) for trace in self.traces]
        self.source = np.repeat(np.arange(len(self.traces)), self._lengths)
        self.step, self.replica = self._column("step"), self._column("replica")
        self.weight, self.time_fs = self._column("weight"), self._column("time_fs")
        self.temperature_K = self._column("temperature_K")
        self.n_atoms, self.n_electrons = self._column("n_atoms"), self._column("n_electrons")
        self.kinetic_temperature_K = self._column("kinetic_temperature_K")
        self.electronic_temperature_K = self._column("electronic_temperature_K")
        self.potential_energy_eV, self.volume_A3 = self._column("potential_energy_eV"), self._column("volume_A3")
        self._check_not_twice()
        self.group = self._grouped(selection)
        # Series of one simulation: of one trace and one replica.
        _, self.segment = np.unique(np.stack([self.source, self.replica]), axis=1, return_inverse=True)
        if selection.weights is not None:
            paths = [trace.path for trace in self.traces]
            rows_of = [np.flatnonzero(self.source == index) for index in range(len(paths))]
            tables = read_weights(selection.weights)
            if isinstance(tables, list) and len(tables) == len(traces):
                tables = [table for table, trace in zip(tables, traces, strict=True) if len(trace)]
            self.weight = weights_of_traces(tables, paths, rows_of, self.replica, self.step, self.group)
        for index, temperature in enumerate(self.temperatures_K):
            rows = self.group == index
            _check_weights(self.weight[rows], temperature, _names(self.traces))
            check_constant(temperature, self.n_atoms[rows], self.n_electrons[rows])
        self._histories: list[History] | None = None
        check_one_material(self)
        check_no_copies(self)

    def __len__(self) -> int:
        return len(self.step)

    def rows(self, index: int) -> np.ndarray:
        """Frames of a temperature, series after series, each in the order of its steps."""
        rows = np.flatnonzero(self.group == index)
        return rows[np.lexsort((self.step[rows], self.segment[rows]))]

    def iter_features(self, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """All features, in pieces of bounded size: positions and ``(k, n_features)`` float64."""
        n_rows = max(1, int(CHUNK_BYTES / (8 * self.model.n_features)))
        offset = 0
        for trace, length in zip(self.traces, self._lengths, strict=True):
            for start in range(0, length, n_rows):
                stop = min(start + n_rows, length)
                wanted = start + np.flatnonzero(self.group[offset + start : offset + stop] >= 0)
                if len(wanted):
                    first, last = int(wanted[0]), int(wanted[-1]) + 1
                    yield slice(offset + first, offset + last), np.asarray(trace.features[first:last], dtype=np.float64)
                if progress is not None:
                    progress(offset + stop, len(self))
            offset += length

    def features(self, index: int) -> np.ndarray:
        """Features of all frames of a temperature, in the order of :meth:`rows`, ``(n, n_features)`` in the precision of the trace."""
        position = np.full(len(self), -1)
        rows = self.rows(index)
        position[rows] = np.arange(len(rows))
        result: np.ndarray | None = None
        for where, features in self.iter_features():
            mine = position[where] >= 0
            if result is None:
                result = np.empty((len(rows), self.model.n_features), dtype=self.traces[0].features.dtype)
            result[position[where][mine]] = features[mine]
        assert result is not None
        return result

    def leave_out(self, rows: np.ndarray) -> None:
        """Leave out more frames, some of every temperature at most."""
        self.group[rows] = -1
        self._histories = None

    def histories(self, progress: Callable[[int, int], None] | None = None) -> list[History]:
        """Block means of features for every temperature, in one pass over the traces and bounded memory; kept."""
        if self._histories is None:
            self._histories = self._read_histories(progress)
        elif progress is not None:
            progress(len(self), len(self))
        return self._histories

    def _read_histories(self, progress: Callable[[int, int], None] | None) -> list[History]:
        n_groups = len(self.temperatures_K)
        budget = min(MAX_BLOCKS, max(256, int(HISTORY_BYTES / (8 * self.model.n_features * n_groups))))
        block, owners, lengths, offsets = np.full(len(self), -1), [], [], [0]
        for index in range(n_groups):
            rows = self.rows(index)
            mine, owner, length = assign_blocks(self.segment[rows], budget)
            block[rows] = offsets[-1] + mine
            owners.append(owner)
            lengths.append(length)
            offsets.append(offsets[-1] + len(owner))
        sums = np.zeros((offsets[-1], self.model.n_features))
        for where, features in self.iter_features(progress):
            mine = np.flatnonzero(block[where] >= 0)
            target = block[where][mine]
            touched, local = np.unique(target, return_inverse=True)
            scatter = scipy.sparse.csr_array(
                (self.weight[where][mine], (local, np.arange(len(mine)))), shape=(len(touched), len(mine))
            )
            sums[touched] += scatter @ features[mine]
        weights = np.bincount(block[block >= 0], self.weight[block >= 0], minlength=offsets[-1])
        sums /= np.where(weights > 0, weights, 1.0)[:, None]
        return [
            History(sums[a:b], weights[a:b], owners[i], lengths[i])
            for i, (a, b) in enumerate(itertools.pairwise(offsets))
        ]

    def functionals(self, vectors: np.ndarray) -> np.ndarray:
        """Scalar products of every frame's features with the vectors of its temperature.

        :param vectors: ``(n_temperatures, m, n_features)``
        :returns: ``(n_frames, m)``, NaN for frames that were left out
        """
        result = np.full((len(self), vectors.shape[1]), np.nan)
        for where, features in self.iter_features():
            group = self.group[where]
            for index in np.unique(group[group >= 0]):
                mine = np.flatnonzero(group == index)
                result[where.start + mine] = features[mine] @ vectors[index].T
        return result

    def mean_of(self, column: np.ndarray, index: int) -> float:
        """Weighted mean of a column over one temperature, of the frames where it is known; NaN if nowhere."""
        rows = np.flatnonzero((self.group == index) & np.isfinite(column))
        weight = self.weight[rows].sum()
        return float(self.weight[rows] @ column[rows] / weight) if weight > 0 else float("nan")

    def spacing_fs(self, index: int) -> float:
        """Median time between consecutive frames of one series (fs); NaN if times are not known."""
        rows = self.rows(index)
        steps = np.diff(self.time_fs[rows])[np.diff(self.segment[rows]) == 0]
        return float(np.median(steps)) if len(steps) and np.isfinite(steps).all() else float("nan")

    def _column(self, name: str) -> np.ndarray:
        columns = [getattr(trace, name)[:n] for trace, n in zip(self.traces, self._lengths, strict=True)]
        return np.concatenate(columns)

    def _check_not_twice(self) -> None:
        paths = [str(trace.path.resolve()) for trace in self.traces]
        if len(set(paths)) < len(paths):
            raise TraceError(f"{_names(self.traces)}: the same trace is given twice; its frames would count twice")

    def _grouped(self, selection: FrameSelection) -> np.ndarray:
        """Sets ``temperatures_K`` and returns the index of each frame's temperature, -1 for frames that are left out."""
        temperatures_K, burn_in, replicas = selection.temperatures_K, selection.burn_in, selection.replicas
        keep = np.ones(len(self.step), dtype=bool)
        if replicas is not None:
            check_replicas(self.traces, self.replica, replicas)
            keep = np.isin(self.replica, list(replicas))
        values = np.unique(self.temperature_K[keep])
        ladder = distinct_temperatures(values)
        if temperatures_K is not None:
            listed = ", ".join(f"{t:g}" for t in ladder)
            for wanted in temperatures_K:
                # What people type is rounded, so this is wider than what makes two ensembles one.
                if not np.isclose(ladder, wanted, rtol=1e-4).any():
                    raise TraceError(
                        f"{_names(self.traces)}: no samples at {wanted:g} K, there are some at: {listed} K; choose among these"
                    )
            ladder = [t for t in ladder if np.isclose(list(temperatures_K), t, rtol=1e-4).any()]
        keep &= self.step >= (0 if burn_in == "auto" else burn_in)
        for column, limits, what in (
            (self.step, selection.steps, "between steps {} and {}"),
            (self.electronic_temperature_K, selection.electronic_range_K, "with electrons between {} and {} K"),
        ):
            first, last = limits or (None, None)
            if first is None and last is None:
                continue
            # Electrons that are cold (NaN) are within no range.
            keep &= (column >= (-np.inf if first is None else first)) & (column <= (np.inf if last is None else last))
            left = np.unique(self.temperature_K[keep])
            ladder = [t for t in ladder if any(same_temperature(t, value) for value in left)]
            if not ladder:
                raise NoSamplesError(f"{_names(self.traces)}: no samples {what.format(first, last)}; give others")
        group = np.full(len(self.step), -1)
        for index, temperature in enumerate(ladder):
            same = [same_temperature(temperature, value) for value in values]
            group[keep & np.isin(self.temperature_K, values[same])] = index
            if not (group == index).any():
                raise NoSamplesError(
                    f"{_names(self.traces)}: no samples at {temperature:g} K are left after a burn-in of {burn_in} steps; give less "
                    "(burn_in, --burn-in)"
                )
        self.temperatures_K = np.array(ladder)
        return group


def check_replicas(traces: Sequence[Trace], known: np.ndarray, wanted: Sequence[int]) -> None:
    """TraceError if one of the replicas wanted is not among those of the traces, ``known``."""
    missing = sorted(set(wanted) - set(known.tolist()))
    if missing:
        listed = ", ".join(str(r) for r in np.unique(known))
        raise TraceError(f"{_names(traces)}: no replica {missing[0]}, there are: {listed}; choose among these")


def assign_blocks(segments: np.ndarray, max_blocks: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Blocks of consecutive frames that do not cross from one series into the next.

    :param segments: ``(n,)`` the series of each frame, those of one series lying together
    :returns: block of each frame ``(n,)``, series of each block, and frames in a block (fewer at the end of a series)
    """
    n = len(segments)
    length = max(1, -(-n // max_blocks))
    starts = np.flatnonzero(np.r_[True, np.diff(segments) != 0])
    rank = np.arange(n) - np.repeat(starts, np.diff(np.r_[starts, n]))
    new = rank % length == 0
    return np.cumsum(new) - 1, segments[new], length


def _check_weights(weights: np.ndarray, temperature_K: float, where: str) -> None:
    with np.errstate(over="ignore"):
        total = weights.sum()
    if not (np.isfinite(total) and (weights >= 0).all()):
        raise SettingError(f"{where}: weights at {temperature_K:g} K are negative or not finite, expected numbers >= 0")
    if not weights.any():
        raise SettingError(f"{where}: all weights at {temperature_K:g} K are zero, so there is nothing to average")


def _names(traces: Sequence[Trace]) -> str:
    return ", ".join(str(trace.path) for trace in traces) or "no trace"
