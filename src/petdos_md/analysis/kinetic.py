"""Whether velocities still belong to the ensemble that a simulation says it samples.

>>> kinetic = KineticTemperature(300.0)
>>> kinetic.extend(np.array([310.0, 295.0, 304.0]), np.full(3, 32))
>>> kinetic.runaway_K
nan
>>> for _ in range(20):
...     kinetic.add(900.0, n_atoms=32)
>>> round(kinetic.runaway_K)
822
"""

from __future__ import annotations

import math

import numpy as np

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

    def add(self, kinetic_K: float, n_atoms: int) -> None:
        """Take in one frame, which tells nothing without velocities (zero or NaN)."""
        if kinetic_K > 0:
            logarithm = math.log(kinetic_K / self.temperature_K)
            self._n += 1
            self._ratios += kinetic_K / self.temperature_K
            self._logarithms += logarithm
            self._squares += logarithm**2
            self._fewest_atoms = min(self._fewest_atoms, n_atoms)

    def extend(self, kinetic_K: np.ndarray, n_atoms: np.ndarray) -> None:
        """Take in many frames, ``(n,)`` each."""
        moving = kinetic_K > 0
        ratio = kinetic_K[moving] / self.temperature_K
        logarithm = np.log(ratio)
        self._n += len(ratio)
        self._ratios += float(ratio.sum())
        self._logarithms += float(logarithm.sum())
        self._squares += float((logarithm**2).sum())
        self._fewest_atoms = min(self._fewest_atoms, n_atoms[moving].min(initial=np.iinfo(int).max))

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
