"""Statistical weights of frames: biased or reweighted simulations.

A frame of a run with bias potential V counts exp(V / kT); one of a run at another temperature or potential counts the ratio of
Boltzmann factors. Weights come with the samples (``Sample.weight``), or afterwards from a table:

>>> weights = boltzmann_weights(np.array([0.0, 0.1]), temperature_K=300.0)
>>> round(float(weights[1] / weights[0]), 3)
47.855
>>> round(effective_sample_size(weights), 3)
1.042
>>> analyze("run.zarr", weights="weights.csv")           # doctest: +SKIP

A table is text with a header line: ``step`` and ``weight`` (or ``log_weight``, of any zero), perhaps ``replica``, separated by commas
or blanks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..base.constants import BOLTZMANN_EV
from ..base.errors import SettingError


class FrameWeights:
    """A weight for each frame, known by replica and step.

    :param weights: ``{(replica, step): weight}``, finite and not negative
    :param source: for messages
    :raises SettingError: if a weight is negative or not finite
    """

    def __init__(self, weights: Mapping[tuple[int, int], float], source: str = "weights") -> None:
        self._weights, self.source = dict(weights), source
        for (replica, step), weight in self._weights.items():
            if not (np.isfinite(weight) and weight >= 0):
                raise SettingError(
                    f"{source}: weight {weight} of step {step} (replica {replica}), expected a finite number >= 0"
                )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> FrameWeights:
        """Read a table, see :mod:`petdos_md.analysis.weights`.

        :raises SettingError: if the file is missing or is not such a table
        """
        path = Path(path)
        if not path.is_file():
            raise SettingError(f"{path}: no such table of weights; give a file with the columns step and weight")
        lines = [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()]
        names = " ".join(lines[0]).lower().lstrip("# ").split() if lines else []
        column = next((name for name in ("weight", "log_weight") if name in names), None)
        if column is None or "step" not in names or len(lines) < 2:
            raise SettingError(
                f"{path}: expected a header with step and weight (or log_weight) and a line per frame, got {' '.join(names) or 'nothing'}"
            )
        try:
            table = np.array([[float(x) for x in line] for line in lines[1:]])
            values = table[:, names.index(column)]
            steps = table[:, names.index("step")].astype(int)
            replicas = table[:, names.index("replica")].astype(int) if "replica" in names else np.zeros_like(steps)
        except (ValueError, IndexError) as error:
            raise SettingError(f"{path}: not a table of numbers ({error})") from None
        if column == "log_weight":
            values = np.exp(values - values.max())
        keys = list(zip(replicas.tolist(), steps.tolist(), strict=True))
        if len(set(keys)) < len(keys):
            raise SettingError(f"{path}: a step is listed twice; expected one line per frame")
        return cls(dict(zip(keys, values.tolist(), strict=True)), str(path))

    def weights_of(self, replica: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Weights of frames, ``(n,)``.

        :raises SettingError: if one of them is not in the table
        """
        result = np.empty(len(step))
        for i, key in enumerate(zip(replica.tolist(), step.tolist(), strict=True)):
            if key not in self._weights:
                raise SettingError(
                    f"{self.source}: no weight for step {key[1]} (replica {key[0]}), expected one for every frame"
                )
            result[i] = self._weights[key]
        return result


def boltzmann_weights(bias_eV: np.ndarray, temperature_K: np.ndarray | float) -> np.ndarray:
    """exp(V / kT) of the bias potential that a simulation was run with, scaled so that the largest is 1.

    :param bias_eV: ``(n,)`` V of each frame, eV
    :param temperature_K: of the ensemble, K
    :raises SettingError: if a number is not finite or the temperature is not positive
    """
    bias, temperature = np.asarray(bias_eV, dtype=np.float64), np.asarray(temperature_K, dtype=np.float64)
    if not (np.isfinite(bias).all() and np.isfinite(temperature).all() and (temperature > 0).all()):
        raise SettingError(
            "got a bias that is not finite or a temperature that is not positive, expected V of every frame in eV, T in K"
        )
    exponent = bias / (BOLTZMANN_EV * temperature)
    return np.exp(exponent - exponent.max())


def effective_sample_size(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2: equally weighted frames with the same statistical error, if frames are independent.

    L. Kish, Survey Sampling (Wiley, 1965).
    """
    weights = np.asarray(weights, dtype=np.float64)
    return float(weights.sum() ** 2 / (weights**2).sum())
