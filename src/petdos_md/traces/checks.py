"""What a sample must be to enter a trace.

>>> check_model(Path("run.zarr"), trace.model, sample.model)     # doctest: +SKIP
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import PredictionError, TraceError
from ..base.sample import ModelInfo, Sample
from .schema import COLUMNS

_FLOATS = tuple(name for name, (dtype, _, _) in COLUMNS.items() if dtype == "float64")


def check_model(path: Path, expected: ModelInfo, got: ModelInfo) -> None:
    """Raise TraceError if samples of ``got`` do not belong into a trace of ``expected``."""
    if got is expected:
        return
    if got.fingerprint != expected.fingerprint:
        raise TraceError(
            f"{path}: trace of another model: it holds samples of {expected.name!r} ({expected.fingerprint[:12]}), got "
            f"{got.name!r} ({got.fingerprint[:12]}); use that model or write to another path"
        )
    if got.grid != expected.grid:
        raise TraceError(
            f"{path}: trace of another energy grid: it has {expected.grid}, got {got.grid}; write to another path"
        )
    if (got.kind, got.n_features, got.dtype) != (expected.kind, expected.n_features, expected.dtype):
        raise TraceError(
            f"{path}: trace of {expected.kind} samples of {expected.n_features} {expected.dtype} numbers, got {got.kind} "
            f"ones of {got.n_features} {got.dtype} numbers; write to another path"
        )


def checked_sample(path: Path, sample: Sample, labels: Mapping[str, Any]) -> Sample:
    """The sample with the labels in place of its own, plain Python numbers and its own copy of features, or the error
    that says what is wrong with it.

    :raises PredictionError: if features are not finite
    :raises TraceError: if anything else is wrong
    """
    known = {name: labels[name] if name in labels else getattr(sample, name) for name in COLUMNS}
    where = f"{path}: sample of replica {known['replica']}, step {known['step']}"
    try:
        replica = operator.index(known["replica"])
        step = None if known["step"] is None else operator.index(known["step"])
        n_atoms = operator.index(known["n_atoms"])
        numbers: dict[str, Any] = {name: float(known[name]) for name in _FLOATS}
    except (TypeError, ValueError) as error:
        raise TraceError(
            f"{where}: labels must be numbers, and whole ones for replica, step and n_atoms: {error}"
        ) from None
    if not 0 <= replica < 2**31 or not -(2**63) <= (step or 0) < 2**63:
        raise TraceError(f"{where}: replica must be in 0 to 2^31 - 1 and step a 64-bit integer; number them otherwise")
    if n_atoms < 1:
        raise TraceError(f"{where}: got n_atoms={n_atoms}, expected at least 1; give a structure with atoms")
    if not 0 < numbers["temperature_K"] < math.inf:
        raise TraceError(
            f"{where}: got temperature_K={numbers['temperature_K']:g}, expected the temperature of the ensemble, "
            "positive; give temperature_K=..."
        )
    if not 0 <= numbers["weight"] < math.inf:
        raise TraceError(f"{where}: got weight={numbers['weight']:g}, expected a finite number >= 0; give weight=...")
    hot = numbers["electronic_temperature_K"]
    if not (math.isnan(hot) or 0 < hot < math.inf):
        raise TraceError(
            f"{where}: got electronic_temperature_K={hot:g}, expected that of hot electrons, positive, or NaN for cold ones"
        )
    with np.errstate(over="ignore"):
        features = np.array(sample.features, dtype=sample.model.dtype)
    if features.shape != (sample.model.n_features,):
        raise TraceError(
            f"{where}: features have shape {features.shape}, model {sample.model.name!r} gives ({sample.model.n_features},); "
            "pass what the model's evaluate() returned"
        )
    finite = np.isfinite(features)
    if not finite.all():
        raise PredictionError(
            f"{where}: {features.size - int(finite.sum())} of {features.size} numbers of features are not finite; the sample is not "
            "stored, look at this structure"
        )
    return replace(sample, features=features, replica=replica, step=step, n_atoms=n_atoms, **numbers)
