"""Which structures would teach a model most: one after the other, by the rigidity of their features.

Each structure that is picked belongs to the training set from then on: F^T F + lambda grows by x x^T, whose inverse follows by the formula
of Sherman and Morrison. The structure with the largest h = x^T M x raises the logarithm of the determinant most, by log(1 + h) (greedy
D-optimal design; with the features of :mod:`petdos_md.models.rigidity`).

>>> rigidity = Rigidity(np.eye(2))
>>> picks = greedy(np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.1, 0.0]]), rigidity, 3)
>>> [pick.row for pick in picks]                  # the second of two equal structures gains nothing
[0, 2, 3]
>>> round(picks[0].gain, 3), round(picks[1].gain, 3)
(2.303, 0.693)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.linalg

from ..base.errors import SettingError
from .rigidity import Rigidity

EQUAL = 1e-5
"""Two structures are one if their features differ by less, relative to the norm: the rounding of float32."""


class Pick(NamedTuple):
    """A structure that was picked.

    ``row``: among the candidates; ``variance``: h with what was picked before in the training set; ``gain``: log(1 + h), of the log-determinant.
    """

    row: int
    variance: float
    gain: float


def greedy(per_atom: np.ndarray, rigidity: Rigidity, n: int) -> list[Pick]:
    """Pick structures one by one, the best first; fewer than ``n`` if there are no more different ones.

    :param per_atom: last-layer features per atom, ``(n_candidates, n_last_layer)``
    :param n: how many, at least 1
    :raises SettingError: if ``n`` is smaller
    """
    if n < 1:
        raise SettingError(f"got {n} structures to pick, expected at least 1")
    features = np.asarray(per_atom, dtype=np.float64)
    # In coordinates where the covariance is the unit matrix, M begins as one.
    whitened = scipy.linalg.solve_triangular(rigidity.cholesky, features.T, lower=True).T
    inverse = np.eye(rigidity.n_last_layer)
    variances = (whitened**2).sum(axis=1)
    norms = np.linalg.norm(features, axis=1)
    free = np.ones(len(features), dtype=bool)
    picks: list[Pick] = []
    while len(picks) < n and free.any():
        row = int(np.argmax(np.where(free, variances, -np.inf)))
        variance = float(variances[row])
        picks.append(Pick(row, variance, math.log1p(variance)))
        moved = inverse @ whitened[row]
        inverse -= np.outer(moved, moved) / (1.0 + variance)
        variances = np.maximum(variances - (whitened @ moved) ** 2 / (1.0 + variance), 0.0)
        free &= np.linalg.norm(features - features[row], axis=1) > EQUAL * norms[row]
    return picks
