"""Samples that must not enter a trace."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.traces import MODEL, N_FEATURES, OTHER_GRID, OTHER_KIND, OTHER_MODEL, make_sample, path

from petdos_md.base.errors import PetdosError, PredictionError, TraceError
from petdos_md.traces.trace import Trace

BAD_SAMPLES = [
    ({"model": OTHER_MODEL}, TraceError, r"trace of another model: it holds samples of 'test' \(0123456789ab\), got"),
    ({"model": OTHER_GRID}, TraceError, "trace of another energy grid"),
    ({"model": OTHER_KIND}, TraceError, "trace of separated samples of 37 float32 numbers, got direct"),
    ({"temperature_K": math.nan}, TraceError, "got temperature_K=nan, expected the temperature of the ensemble"),
    ({"temperature_K": 0.0}, TraceError, "got temperature_K=0, expected"),
    ({"temperature_K": -300.0}, TraceError, "got temperature_K=-300, expected"),
    ({"temperature_K": math.inf}, TraceError, "got temperature_K=inf, expected"),
    ({"temperature_K": None}, TraceError, "labels must be numbers"),
    ({"weight": -1.0}, TraceError, "got weight=-1, expected"),
    ({"weight": math.nan}, TraceError, "got weight=nan, expected"),
    (
        {"features": np.full(N_FEATURES, np.nan, np.float32)},
        PredictionError,
        "37 of 37 numbers of features are not finite",
    ),
    (
        {"features": np.r_[np.inf, np.zeros(N_FEATURES - 1)]},
        PredictionError,
        "1 of 37 numbers of features are not finite",
    ),
    ({"features": np.full(N_FEATURES, 1e300)}, PredictionError, "37 of 37 numbers of features are not finite"),
    (
        {"features": np.zeros(N_FEATURES + 1, np.float32)},
        TraceError,
        r"features have shape \(38,\), model 'test' gives \(37,\)",
    ),
    ({"features": np.zeros((1, N_FEATURES), np.float32)}, TraceError, r"features have shape \(1, 37\)"),
    ({"n_atoms": 0}, TraceError, "got n_atoms=0, expected at least 1"),
    ({"step": 1.5}, TraceError, "whole ones for replica, step and n_atoms"),
    ({"step": 2**63}, TraceError, "step a 64-bit integer"),
    ({"step": -(2**63) - 1}, TraceError, "step a 64-bit integer"),
    ({"replica": -1}, TraceError, "replica must be in 0 to"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD_SAMPLES, ids=lambda value: str(value)[:40])
def test_a_bad_sample_is_not_stored(path: Path, changes: dict, error: type[PetdosError], message: str) -> None:
    for bad_first in (True, False):
        trace = Trace.open(path, model=MODEL if bad_first else None, flush_every=1)
        if not bad_first:
            assert trace.append(make_sample(0))
        n = len(trace)
        with pytest.raises(error, match=message) as caught:
            trace.append(dataclasses.replace(make_sample(1), **changes))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        assert len(trace) == len(Trace.open(path, "r")) == n
        assert trace.append(make_sample(1))
        trace.close()
        shutil.rmtree(path)


def test_a_bad_first_sample_makes_no_trace(path: Path) -> None:
    with pytest.raises(TraceError, match="temperature_K"):
        Trace.open(path).append(make_sample(0, temperature_K=0.0))
    assert not path.exists()


def test_an_unknown_label(path: Path) -> None:
    with pytest.raises(TypeError, match="unknown label 'temprature_K', expected some of n_atoms"):
        Trace.open(path).append(make_sample(0), temprature_K=300.0)
