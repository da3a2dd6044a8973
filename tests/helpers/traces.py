"""Samples of a model that never was, and places for traces: what the tests of traces share."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import petdos_md.traces.schema as schema
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.sample import ModelInfo, Sample
from petdos_md.traces.trace import Trace

N_FEATURES = 37
MODEL = ModelInfo(
    name="test",
    fingerprint="0123456789abcdef" * 4,
    grid=EnergyGrid(-20.0, 0.05, 801),
    kind="separated",
    n_features=N_FEATURES,
    n_members=8,
    electrons={"Al": 3.0},
    path="test.pt",
)
FLOATS = [name for name, (dtype, _, _) in schema.COLUMNS.items() if dtype == "float64"]
fork = multiprocessing.get_context("fork")


def make_sample(step: int | None, replica: int = 0, model: ModelInfo = MODEL, **labels: float) -> Sample:
    """A sample that is a function of its step and replica alone."""
    rng = np.random.default_rng([12345, replica, 0 if step is None else step])
    return Sample(
        features=rng.standard_normal(model.n_features).astype(model.dtype),
        model=model,
        **{
            "n_atoms": int(rng.integers(1, 1000)),
            "n_electrons": math.nan if rng.random() < 0.2 else rng.random(),
            "volume_A3": rng.random(),
            "replica": replica,
            "step": step,
            "time_fs": rng.random(),
            "temperature_K": 300.0 + 100 * replica,
            "kinetic_temperature_K": rng.random(),
            "potential_energy_eV": rng.standard_normal(),
            "weight": rng.random(),
            "electronic_temperature_K": math.nan if rng.random() < 0.2 else 1e4 * rng.random() + 1,
            **labels,
        },
    )


def assert_same(got: Sample, expected: Sample) -> None:
    """Equal to the last bit, NaN included."""
    assert got.features.dtype == expected.features.dtype
    assert got.features.tobytes() == expected.features.tobytes()
    for name in schema.COLUMNS:
        a, b = getattr(got, name), getattr(expected, name)
        assert a == b or (math.isnan(a) and math.isnan(b)), name
        assert type(a) in (int, float)
    assert got.model == expected.model


def assert_is(trace: Trace, keys: list[tuple[int, int]], model: ModelInfo = MODEL, **labels: float) -> None:
    """The trace holds the samples of these (replica, step), in this order."""
    assert len(trace) == len(keys)
    for got, (replica, step) in zip(trace, keys, strict=True):
        assert_same(got, make_sample(step, replica, model, **labels))


def in_child(work, *args) -> None:
    """Run in a forked process; an exception there fails the test here."""
    child = fork.Process(target=work, args=args)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: hundreds of traces are made here, and the disk may be slow."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.zarr"


@pytest.fixture
def disk_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a real disk."""
    return tmp_path_factory.mktemp("trace") / "run.zarr"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so short that every few rows cross a boundary."""
    monkeypatch.setattr(schema, "FEATURES_CHUNK_ROWS", 4)
    monkeypatch.setattr(schema, "COLUMN_CHUNK_ROWS", 6)


OTHER_GRID = dataclasses.replace(MODEL, grid=EnergyGrid(-20.0, 0.05, 800))
OTHER_MODEL = dataclasses.replace(MODEL, fingerprint="f" * 64, name="other")
OTHER_KIND = dataclasses.replace(MODEL, kind="direct")
