"""Bayesian linear regression of a last layer: the layer that a model has is the prior, a few new structures are the data.

The DOS is linear in the last-layer features. With the rows x of X and r of R per atom of new structures (features; reference minus
prediction), the change of the last layer and what a structure would be given without its own data follow from one matrix,

    dW = w P^-1 X^T C R,    C = (1 + w B)^-1,    B = X P^-1 X^T,    r_i(left out) = (C R)_i / C_ii,

where P is the precision of the prior and B its kernel. With P = F^T F + lambda of the training set F (last-layer prediction rigidity,
Bigi et al., Mach. Learn.: Sci. Technol. 5 (2024) 045018) and w = 1 this is the fit to old and new structures together. The last
formula is that of leave-one-out in Gaussian processes (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, Eq. 5.12).

>>> x, r = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[2.0, 1.0], [4.0, np.nan]])   # the second channel of one is not defined
>>> LastLayerUpdate(x, np.isfinite(r), np.eye(2), weight=1e9).change(r).round(3).T.tolist()
[[2.0, 2.0], [1.0, 0.0]]
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from scipy.ndimage import gaussian_filter1d

from ..physics.dft import SMEARING_EV
from .residuals import autocorrelation, correlation_root

NOISIEST = 2.0
"""Largest noise of members, in errors left out: more cannot be told from data that say little of each other."""
RIDGES = (0.0, *np.logspace(-3, 3, 13))
"""Added to the diagonal of the precision, in mean squares of a new structure's features; the largest leaves a model as it is."""


class LastLayerUpdate:
    """What new structures do to a last layer, for channels that are defined for some of them.

    :param features: X, ``(n, n_last_layer)``
    :param defined: ``(n, n_channels)``, where residuals are known
    :param precision: P, ``(n_last_layer, n_last_layer)``, positive definite
    :param weight: w of a new structure
    """

    def __init__(self, features: np.ndarray, defined: np.ndarray, precision: np.ndarray, weight: float) -> None:
        self._defined, self._weight = defined, weight
        self._solved = scipy.linalg.solve(precision, features.T, assume_a="pos")
        kernel = features @ self._solved
        self._parts = [
            (rows, channels, np.linalg.inv(np.eye(len(rows)) + weight * kernel[np.ix_(rows, rows)]))
            for rows, channels in _patterns(defined)
        ]

    def change(self, residuals: np.ndarray) -> np.ndarray:
        """dW for residuals ``(n, n_channels)``: ``(n_last_layer, n_channels)``, zero where nothing is defined."""
        result = np.zeros((len(self._solved), residuals.shape[1]))
        for rows, channels, inverse in self._parts:
            result[:, channels] = self._weight * self._solved[:, rows] @ (inverse @ residuals[np.ix_(rows, channels)])
        return result

    def left_out(self, residuals: np.ndarray) -> np.ndarray:
        """What is left of the residual of each structure by the fit to all others, ``(n, n_channels)``, NaN where undefined."""
        result = np.full(residuals.shape, np.nan)
        for rows, channels, inverse in self._parts:
            found = inverse @ residuals[np.ix_(rows, channels)] / np.diag(inverse)[:, None]
            result[np.ix_(rows, channels)] = found
        return result

    def noise_gain(self) -> np.ndarray:
        """Variance of the left-out predictions for residuals of others that are white with variance 1, ``(n, n_channels)``."""
        result = np.full(self._defined.shape, np.nan)
        for rows, channels, inverse in self._parts:
            others = inverse / np.diag(inverse)[:, None] - np.eye(len(rows))
            result[np.ix_(rows, channels)] = (others**2).sum(axis=1)[:, None]
        return result


def choose_ridge(
    features: np.ndarray, residuals: np.ndarray, precision: np.ndarray, weight: float, step: float
) -> float:
    """What to add to the diagonal of the precision so that structures left out in turn are predicted well.

    It is the largest one whose squared errors are not larger than the least ones, by the standard error of their differences: a change that the
    data do not clearly ask for is not made (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., section 7.10).

    :param features: ``(n, n_last_layer)`` per atom
    :param residuals: ``(n, n_channels)`` per atom, NaN where undefined
    :param precision: of the prior without ridge, ``(n_last_layer, n_last_layer)``; zero if nothing is known
    :param weight: of a new structure
    :param step: of the energies, eV
    """
    thinned = residuals[:, :: max(1, round(SMEARING_EV / step))]  # between these, a smeared DOS says little that is new
    unit = float((features**2).mean())
    ridges = unit * np.array(RIDGES if precision.any() else RIDGES[1:])
    trials = (precision + ridge * np.eye(len(precision)) for ridge in ridges)
    left = [LastLayerUpdate(features, np.isfinite(thinned), trial, weight).left_out(thinned) for trial in trials]
    errors = np.nansum(np.square(left), axis=-1)  # (n_ridges, n)
    excess = errors - errors[np.argmin(errors.sum(axis=1))]
    good = excess.sum(axis=1) <= excess.std(axis=1, ddof=1) * np.sqrt(len(features))
    return float(ridges[good].max())


def moved_members(
    update: LastLayerUpdate,
    features: np.ndarray,
    residuals: np.ndarray,
    deviations: np.ndarray,
    step: float,
    seed: int = 0,
) -> np.ndarray:
    """Deviations of the members after the update, each updated from its own weights with its own noise in the data.

    A member has the residuals of the model plus noise, less what it deviates: D' = D + gain (noise - X D). For whatever gain, D' has the
    covariance of the errors that are left, (1 - K X) M (1 - K X)^T + K s^2 K^T (the form of Joseph). The noise has, in every channel
    and smoothed over the smearing, the size that makes members spread as structures err that are left out (at most twice the size of these
    errors), and the correlation of these errors.

    :param deviations: D, ``(n_members, n_channels, n_last_layer)``
    :returns: of the same shape, float32, their mean exactly zero
    """
    left_out = update.left_out(residuals)
    size = np.sqrt(_smoothed(left_out**2, step))
    spread = np.zeros(residuals.shape)
    for member in deviations:
        spread += update.left_out(features @ np.asarray(member, dtype=np.float64).T) ** 2 / (len(deviations) - 1)
    scale = np.minimum(_noise(left_out**2 - spread, update.noise_gain(), step), NOISIEST * size)
    root = np.zeros((len(scale), 0))
    if scale.any():
        root = correlation_root(autocorrelation(left_out / np.where(size > 0, size, np.inf)))
    rng = np.random.default_rng(seed)
    result = np.empty(deviations.shape, dtype=np.float32)
    for k, member in enumerate(deviations):
        noise = scale * (rng.standard_normal((len(features), root.shape[1])) @ root.T)
        own = np.asarray(member, dtype=np.float64)
        result[k] = own + update.change(noise - features @ own.T).T
    result -= result.mean(axis=0)
    return result


def _patterns(defined: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Structures that define a channel, and all channels that these and no others define."""
    patterns, numbers = np.unique(defined, axis=1, return_inverse=True)
    found = ((np.flatnonzero(patterns[:, k]), np.flatnonzero(numbers.ravel() == k)) for k in range(patterns.shape[1]))
    return [(rows, channels) for rows, channels in found if len(rows)]


def _noise(excess: np.ndarray, gain: np.ndarray, step: float) -> np.ndarray:
    """Standard deviation of the noise in each channel: what the spread of the members lacks, through the gain."""
    wanted, unit = _smoothed(excess, step), _smoothed(gain, step)
    known = unit > 0
    return np.sqrt(np.where(known, wanted.clip(0) / np.where(known, unit, 1.0), 0.0))


def _smoothed(values: np.ndarray, step: float) -> np.ndarray:
    """Mean over structures and over the smearing, ``(n_channels,)``; 0 where nothing is defined."""
    defined = np.isfinite(values)
    total = gaussian_filter1d(np.where(defined, values, 0.0).sum(axis=0), SMEARING_EV / step)
    count = gaussian_filter1d(defined.sum(axis=0).astype(float), SMEARING_EV / step)
    return np.where(defined.any(axis=0), total / np.maximum(count, 1e-12), 0.0)
