"""Runs of a made-up metal whose statistics are known: features are an AR(1) process around a mean, the readout is real.

The DOS is that of free electrons, plus smooth features that fluctuate from frame to frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.signal

from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.models.readout import Readout
from petdos_md.traces.trace import Trace

GRID = EnergyGrid(-12.0, 0.05, 481)
N_ATOMS, N_ELECTRONS, N_MEMBERS, N_FEATURES = 8, 24.0, 6, 3
FINGERPRINT = "f" * 64


def readout(members: int = N_MEMBERS, fingerprint: str = FINGERPRINT) -> Readout:
    """features = [3 features, N, s]."""
    e = GRID.energies
    features = [np.exp(-((e - center) ** 2) / 2) * (e > -11) for center in (-3.0, 0.0, 1.5)]
    free = np.sqrt(np.maximum(e + 10.5, 0.0)) * 0.13  # 3 electrons an atom below about 0 eV
    deviations = None
    if members:
        rng = np.random.default_rng(5)
        waves = rng.normal(size=(members, N_FEATURES, 4)) * 0.03
        shapes = np.stack([np.exp(-((e - c) ** 2) / 8) for c in (-6.0, -2.0, 0.0, 3.0)])
        deviations = np.einsum("kfw,wn->knf", waves, shapes)
    return Readout.from_arrays(GRID, np.stack([*features, free, 0 * e], axis=1), deviations, fingerprint)


def info(members: int = N_MEMBERS, fingerprint: str = FINGERPRINT, path: str = "") -> ModelInfo:
    return ModelInfo("synthetic", fingerprint, GRID, "separated", N_FEATURES + 2, members, {"Al": 3.0}, path)


def feature_series(n: int, seed: int, phi: float = 0.8, scale: float = 0.4) -> np.ndarray:
    """``(n, 5)`` float32; the features are stationary AR(1) with means 2, 1, 3 and standard deviation ``scale``."""
    noise = np.random.default_rng(seed).normal(size=(n, N_FEATURES)) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    features = np.array([2.0, 1.0, 3.0]) + scale * scipy.signal.lfilter([1.0], [1.0, -phi], noise, axis=0)
    return np.concatenate([features, np.full((n, 1), N_ATOMS), np.full((n, 1), 90.0)], axis=1).astype(np.float32)


def samples(
    n: int, seed: int, temperature_K: float, replica: int = 0, *, model: ModelInfo | None = None, **changes: object
) -> list[Sample]:
    """A run that samples every 10 steps of 2 fs; weights vary."""
    weights = np.random.default_rng(seed + 1000).uniform(0.5, 1.5, size=n)
    fields = {"n_atoms": N_ATOMS, "n_electrons": N_ELECTRONS, "volume_A3": 130.0 + temperature_K / 100} | changes
    return [
        Sample(
            features=features,
            model=model or info(),
            replica=replica,
            step=10 * i,
            time_fs=20.0 * i,
            temperature_K=temperature_K,
            kinetic_temperature_K=temperature_K + (-1) ** i,
            potential_energy_eV=-30.0 + i % 3,
            weight=float(weights[i]),
            **fields,  # type: ignore[arg-type]
        )
        for i, features in enumerate(feature_series(n, seed))
    ]


def write(path: Path, frames: list[Sample]) -> Trace:
    """A trace of the samples, open for reading."""
    with Trace.open(
        path, model=frames[0].model, engine="synthetic", timestep_fs=2.0, fsync=False, flush_every=256
    ) as trace:
        for sample in frames:
            assert trace.append(sample)
    return Trace.open(path, "r")
