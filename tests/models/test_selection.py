"""Frames that teach most: against determinants computed anew for every candidate."""

from __future__ import annotations

import numpy as np
import pytest

from petdos_md.base.errors import SettingError
from petdos_md.models.rigidity import Rigidity
from petdos_md.models.selection import greedy


def logdet(matrix: np.ndarray) -> float:
    sign, value = np.linalg.slogdet(matrix)
    assert sign > 0
    return float(value)


@pytest.mark.parametrize("seed", range(3))
def test_greedy_by_brute_force(seed: int) -> None:
    """Each pick raises the determinant most, by what it says it does."""
    rng = np.random.default_rng(seed)
    scales = np.array([3.0, 1.0, 0.3, 0.1, 0.03])
    rigidity = Rigidity.of_training(rng.normal([1.0, 0.0, 0.0, 0.0, 0.0], 0.3, (40, 5)) * scales)
    candidates = rng.normal(0.0, 1.0, (60, 5)) * scales
    covariance = rigidity.cholesky @ rigidity.cholesky.T
    left = list(range(60))
    for pick in greedy(candidates, rigidity, 12):
        gains = {
            row: logdet(covariance + np.outer(candidates[row], candidates[row])) - logdet(covariance) for row in left
        }
        best = max(gains, key=gains.__getitem__)
        assert pick.row == best and pick.gain == pytest.approx(gains[best], rel=1e-8)
        variance = candidates[best] @ np.linalg.solve(covariance, candidates[best])
        assert pick.variance == pytest.approx(variance, rel=1e-8)
        covariance += np.outer(candidates[best], candidates[best])
        left.remove(best)


def test_equal_structures_count_once() -> None:
    rng = np.random.default_rng(1)
    once = rng.normal(size=(4, 3))
    picks = greedy(np.repeat(once, 3, axis=0), Rigidity(np.eye(3)), 10)
    assert sorted(pick.row // 3 for pick in picks) == [0, 1, 2, 3]
    with pytest.raises(SettingError, match="got 0 structures"):
        greedy(once, Rigidity(np.eye(3)), 0)
