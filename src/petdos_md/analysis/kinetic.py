"""Whether velocities still belong to the ensemble that a simulation says it samples.

>>> kinetic = KineticTemperature(300.0)
>>> kinetic.add([310.0, 295.0, 304.0], n_atoms=32)
>>> kinetic.runaway_K
nan
>>> kinetic.add(20 * [900.0], n_atoms=32)
>>> round(kinetic.runaway_K)
822
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

RUNAWAY = 1.5
"""Kinetic temperature, relative to that of the ensemble, that no equilibrium explains."""


class KineticTemperature:
    """Kinetic temperatures of frames of one ensemble, kept as sums.

    :param temperature_K: of the ensemble
    """

    def __init__(self, temperature_K: float) -> None:
        self.temperature_K = temperature_K
        self._n, self._ratios, self._logarithms, self._squares = 0, 0.0, 0.0, 0.0
        self._fewest_atoms = math.inf

    def add(self, kinetic_K: ArrayLike, n_atoms: ArrayLike) -> None:
        """Take in frames; those without velocities (zero or NaN) tell nothing.

        :param kinetic_K: kinetic temperatures, K
        :param n_atoms: of the frames
        """
        kinetic, atoms = np.broadcast_arrays(np.asarray(kinetic_K, dtype=float), np.asarray(n_atoms))
        moving = kinetic > 0
        if not moving.any():
            return
        ratio = kinetic[moving] / self.temperature_K
        logarithm = np.log(ratio)
        self._n += len(ratio)
        self._ratios += float(ratio.sum())
        self._logarithms += float(logarithm.sum())
        self._squares += float((logarithm**2).sum())
        self._fewest_atoms = min(self._fewest_atoms, float(atoms[moving].min()))

    @property
    def runaway_K(self) -> float:
        """The mean kinetic temperature if it has left the ensemble far behind, else NaN.

        Far: by half, by five standard deviations of the kinetic temperature of one frame in the canonical ensemble, ``T sqrt(2 / n)`` of
        ``n`` degrees of freedom, and by three standard errors of its logarithm, which constraints that a trace does not know of cannot
        make too small.
        """
        if self._n < 2:
            return math.nan
        ratio, logarithm = self._ratios / self._n, self._logarithms / self._n
        spread = math.sqrt(2 / max(3 * self._fewest_atoms - 3, 3))
        variance = max(self._squares - self._n * logarithm**2, 0.0) / (self._n - 1)
        far = ratio > max(RUNAWAY, 1 + 5 * spread) and logarithm > 3 * math.sqrt(variance / self._n)
        return ratio * self.temperature_K if far else math.nan
