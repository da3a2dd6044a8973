"""Statistical weights of frames: biased or reweighted simulations.

A frame of a run with bias potential V counts exp(V / kT); one of a run at another temperature or potential counts the ratio of
Boltzmann factors. Weights come with the samples (``Sample.weight``), or afterwards from a table:

>>> weights = boltzmann_weights(np.array([0.0, 0.1]), temperature_K=300.0)
>>> round(float(weights[1] / weights[0]), 3)
47.855
>>> round(float(effective_sample_size(weights)), 3)
1.042
>>> analyze("run.zarr", weights="weights.csv")                                       # doctest: +SKIP
>>> analyze(["a.zarr", "b.zarr"], weights=["weights_a.csv", "weights_b.csv"])        # doctest: +SKIP

A table is text: a header line with ``step`` and ``weight`` (or ``log_weight``), perhaps ``replica`` and ``trace``, then a line per frame,
separated by commas or blanks. ``#! FIELDS step ...`` of PLUMED is such a header. The zero of ``log_weight`` must be common to the frames
of one temperature. One table for several traces names the trace of each frame: its path, or the name of its folder.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..base.constants import BOLTZMANN_EV
from ..base.errors import SettingError
from ..base.temperatures import same_temperature
from .reliability import effective_sample_size  # noqa: F401 - of the example
from .weight_tables import read_table

Key: TypeAlias = tuple[int, int] | tuple[str, int, int]


class FrameWeights:
    """A weight for each frame, known by replica and step, and by trace if there are several.

    :param weights: ``{(replica, step): weight}``, finite and not negative; or ``{(trace, replica, step): weight}``, with the path of a
        trace or the name of its folder
    :param source: for messages
    :param are_logarithms: whether the natural logarithms of weights are given; minus infinity is a weight of zero
    :raises SettingError: if a weight is negative or not finite, or only some name their trace
    """

    def __init__(self, weights: Mapping[Key, float], source: str = "weights", *, are_logarithms: bool = False) -> None:
        self.source, self.are_logarithms = source, are_logarithms
        self._weights: dict[str | None, dict[tuple[int, int], float]] = {}
        for key, weight in weights.items():
            trace, replica, step = key if len(key) == 3 else (None, *key)
            good = weight < np.inf if are_logarithms else np.isfinite(weight) and weight >= 0
            if not good:
                expected = "a finite logarithm" if are_logarithms else "a finite number >= 0"
                raise SettingError(f"{source}: weight {weight} of step {step} (replica {replica}), expected {expected}")
            self._weights.setdefault(trace, {})[replica, step] = weight
        if None in self._weights and len(self._weights) > 1:
            raise SettingError(f"{source}: only some weights name their trace, expected all or none")

    @property
    def names_traces(self) -> bool:
        """Whether it says which trace each weight is for."""
        return None not in self._weights

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> FrameWeights:
        """Read a table, see :mod:`petdos_md.analysis.weights`.

        :raises SettingError: if the file is missing or is not such a table
        """
        table = read_table(Path(path))
        return cls(table.values, str(path), are_logarithms=table.are_logarithms)

    def weights_of(
        self, replica: np.ndarray, step: np.ndarray, trace: str | os.PathLike[str] | None = None
    ) -> np.ndarray:
        """Weights of frames as they were given, ``(n,)``.

        :param trace: the path of the trace that the frames are of; needed if the weights name traces
        :raises SettingError: if one of them is missing, or the trace is
        """
        known = self._of_trace(trace)
        result = np.empty(len(step))
        for i, key in enumerate(zip(replica.tolist(), step.tolist(), strict=True)):
            if key not in known:
                where = "" if trace is None else f" of {trace}"
                raise SettingError(
                    f"{self.source}: no weight for step {key[1]} (replica {key[0]}){where}, expected one for every frame"
                )
            result[i] = known[key]
        return result

    def _of_trace(self, trace: str | os.PathLike[str] | None) -> dict[tuple[int, int], float]:
        if not self.names_traces:
            return self._weights[None]
        path = Path("" if trace is None else trace).absolute()
        found = [name for name in self._weights if name is not None and _names(name, path)]
        if len(found) != 1:
            listed = ", ".join(str(name) for name in self._weights)
            raise SettingError(
                f"{self.source}: {'no weights' if not found else 'weights under several names'} for {trace}, got those of "
                f"{listed or 'no trace'}; name each trace by its path or the name of its folder"
            )
        return self._weights[found[0]]


WeightsLike: TypeAlias = FrameWeights | str | os.PathLike[str]


def read_weights(weights: WeightsLike | Sequence[WeightsLike]) -> FrameWeights | list[FrameWeights]:
    """Tables read where paths are given.

    :raises SettingError: if a table cannot be read
    """
    if isinstance(weights, FrameWeights | str | os.PathLike):
        return weights if isinstance(weights, FrameWeights) else FrameWeights.read(weights)
    return [table if isinstance(table, FrameWeights) else FrameWeights.read(table) for table in weights]


def weights_of_traces(
    weights: FrameWeights | Sequence[FrameWeights],
    paths: Sequence[Path],
    rows: Sequence[np.ndarray],
    replica: np.ndarray,
    step: np.ndarray,
    group: np.ndarray,
) -> np.ndarray:
    """Weights of the frames of several traces, ``(n,)``; zero for frames that are left out.

    Logarithms become weights in each group by itself, the largest being one, so that groups may have any zero.

    :param weights: one for each trace, or one that names its traces; a single trace needs no name
    :param rows: of each trace, the positions of its frames
    :param group: ``(n,)`` the temperature of each frame, -1 for frames that are left out
    :raises SettingError: if it is not clear which weights are for which trace, or some are missing
    """
    tables = [weights] * len(paths) if isinstance(weights, FrameWeights) else list(weights)
    if len(tables) != len(paths):
        raise SettingError(
            f"got {len(tables)} tables of weights for {len(paths)} traces, expected one for each, in their order"
        )
    if isinstance(weights, FrameWeights) and len(paths) > 1 and not weights.names_traces:
        raise SettingError(
            f"{weights.source}: one table of weights for {len(paths)} traces does not say which frames it means; add a column "
            "trace, or give one table for each trace, in their order"
        )
    if isinstance(weights, FrameWeights):
        _check_names(weights, paths)
    if len({table.are_logarithms for table in tables}) > 1:
        raise SettingError(
            "some tables have weights and some log_weights, expected one kind, so that they can be compared"
        )
    result = np.zeros(len(step))
    for table, path, mine in zip(tables, paths, rows, strict=True):
        kept = mine[group[mine] >= 0]
        result[kept] = table.weights_of(replica[kept], step[kept], path)
    return _from_logarithms(result, group) if tables[0].are_logarithms else result


def boltzmann_weights(bias_eV: np.ndarray, temperature_K: np.ndarray | float) -> np.ndarray:
    """exp(V / kT) of the bias potential that a simulation was run with, scaled so that the largest of each temperature is 1.

    :param bias_eV: ``(n,)`` V of each frame, eV
    :param temperature_K: of the ensemble, K; one for all frames or ``(n,)``
    :raises SettingError: if a number is not finite or the temperature is not positive
    """
    bias, temperature = np.asarray(bias_eV, dtype=np.float64), np.asarray(temperature_K, dtype=np.float64)
    if not (np.isfinite(bias).all() and np.isfinite(temperature).all() and (temperature > 0).all()):
        raise SettingError(
            "got a bias that is not finite or a temperature that is not positive, expected V of every frame in eV, T in K"
        )
    bias, temperature = np.broadcast_arrays(bias, temperature)
    values = np.unique(temperature)
    # Values that are one temperature within rounding share a scale.
    first = np.r_[True, [not same_temperature(a, b) for a, b in itertools.pairwise(values)]]
    group = (np.cumsum(first) - 1)[np.searchsorted(values, temperature)]
    return _from_logarithms(bias / (BOLTZMANN_EV * temperature), group)


def _from_logarithms(logarithms: np.ndarray, group: np.ndarray) -> np.ndarray:
    """exp, the largest of each group being one; zero in group -1."""
    result = np.zeros(logarithms.shape)
    for index in np.unique(group[group >= 0]):
        mine = group == index
        largest = logarithms[mine].max()
        if np.isfinite(largest):
            result[mine] = np.exp(logarithms[mine] - largest)
    return result


def _check_names(table: FrameWeights, paths: Sequence[Path]) -> None:
    for name in sorted(name for name in table._weights if name is not None):
        meant = [path for path in paths if _names(name, path)]
        if len(meant) > 1:
            raise SettingError(
                f"{table.source}: both {meant[0]} and {meant[1]} are called {name}; name them by their paths"
            )


def _names(name: str, path: Path) -> bool:
    """Whether a table means this trace."""
    return name == path.name or Path(name).expanduser().absolute() == path
