"""What references differ by from a model's predictions, and how the differences of two energies are correlated.

>>> features, residuals = residuals_of(model, read_references("data.xyz.xz", model))            # doctest: +SKIP
>>> correlation = autocorrelation(residuals)                                                    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import toeplitz

from ..models.model import DOSModel
from .metrics import align, shifted_target
from .references import Reference

MAX_SHIFT = 200
"""Channels by which the axes of model and reference may differ, as chi in Eqs. 3 and 4."""


def residuals_of(
    model: DOSModel, references: Sequence[Reference], progress: Callable[[], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Last-layer features of whole structures ``(n, n_last_layer)``, and reference minus prediction after the best shift ``(n, n_channels)``.

    :param progress: called after each structure
    """
    size = n_last_layer(model)
    features, residuals = np.empty((len(references), size)), np.empty((len(references), model.grid.n))
    for i, reference in enumerate(references):
        sample = model.evaluate(reference.atoms)
        features[i], dos = sample.features[:size], model.dos(sample)
        best = align(reference.target, dos, model.grid.step, MAX_SHIFT)
        residuals[i] = shifted_target(reference.target, best.shift) - dos
        if progress is not None:
            progress()
    return features, residuals


def n_last_layer(model: DOSModel) -> int:
    """Number of last-layer features of a model with separate readout."""
    # The other two are the number of atoms and the sum of cutoffs.
    return model.readout.n_features - 2


def autocorrelation(standard: np.ndarray) -> np.ndarray:
    """Correlation of two channels by their distance, from all pairs that are both defined; ``(n_channels,)``, first 1."""
    n = standard.shape[1]
    defined = np.isfinite(standard)
    power = np.abs(np.fft.rfft(np.where(defined, standard, 0.0), 2 * n, axis=1)) ** 2
    pairs = np.abs(np.fft.rfft(defined.astype(float), 2 * n, axis=1)) ** 2
    sums, numbers = np.fft.irfft(power.sum(axis=0))[:n], np.fft.irfft(pairs.sum(axis=0))[:n]
    correlation = np.where(numbers > 0.5, sums / np.maximum(numbers, 1.0), 0.0)
    return correlation / correlation[0]


def correlation_root(correlation: np.ndarray) -> np.ndarray:
    """R^(1/2) of the nearest stationary correlation matrix, ``(n_channels, rank)``."""
    values, vectors = np.linalg.eigh(toeplitz(correlation))
    keep = values > 1e-6 * values.max()
    root = vectors[:, keep] * np.sqrt(values[keep])
    return root / np.linalg.norm(root, axis=1, keepdims=True)
