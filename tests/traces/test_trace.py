"""The trace against plain NumPy and stock zarr: what is stored, read, and refused to be opened."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers.traces import (
    MODEL,
    N_FEATURES,
    OTHER_GRID,
    OTHER_MODEL,
    assert_is,
    assert_same,
    make_sample,
    path,
    tmp_path,
)

import petdos_md.traces.schema as schema
from petdos_md.base.errors import NoSamplesError, TraceError
from petdos_md.traces.trace import Trace


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_round_trip(path: Path, flush_every: int, dtype: str) -> None:
    model = dataclasses.replace(MODEL, dtype=dtype)
    samples = [make_sample(10 * i, i % 3, model) for i in range(150)]
    features = np.array([sample.features for sample in samples])
    with Trace.open(path, model=model, engine="ase", timestep_fs=2.0, flush_every=flush_every, fsync=False) as trace:
        for sample in samples:
            assert trace.append(sample)
        views = [trace, Trace.open(path, "r")]  # a writer sees its unflushed rows, a reader what is flushed
        assert len(views[1]) == 150 // flush_every * flush_every
    views.append(Trace.open(path, "r"))
    for view in (views[0], views[2]):
        assert len(view) == 150
        for got, expected in zip(view, samples, strict=True):
            assert_same(got, expected)
        assert_same(view[-1], samples[-1])
        assert_same(view[np.int64(64)], samples[64])
        for got, expected in zip(view[140:20:-9], samples[140:20:-9], strict=True):
            assert_same(got, expected)
        for name, (kind, _, _) in schema.COLUMNS.items():
            expected_column = np.array([getattr(sample, name) for sample in samples], kind)
            np.testing.assert_array_equal(getattr(view, name), expected_column)
            assert getattr(view, name).dtype == kind
        assert view.model == model
        assert (view.engine, view.timestep_fs, view.n_skipped) == ("ase", 2.0, 0)
        assert ">ase<" in view._repr_html_() and "not known" not in view._repr_html_()
        assert np.asarray(view.features).tobytes() == features.tobytes()
        with pytest.raises(IndexError, match="150 samples"):
            view[150]


INDICES = [
    slice(None),
    slice(5, 99, 7),
    slice(99, None, -3),
    -1,
    np.int32(64),
    [3, 99, 64, 63, 3],
    np.arange(100) % 3 == 1,
    (slice(60, 70), slice(3, 9)),
    (7, 5),
    (np.array([[1, 64], [99, 0]]), 0),
    np.empty(0, int),
    slice(50, 50),
]


@pytest.mark.parametrize("index", INDICES, ids=range(len(INDICES)))
def test_features_are_indexed_as_numpy_does(path: Path, index: object) -> None:
    trace = Trace.open(path, flush_every=90)  # ten rows stay in memory
    for i in range(100):
        trace.append(make_sample(i))
    expected = np.array([make_sample(i).features for i in range(100)])[index]
    np.testing.assert_array_equal(trace.features[index], expected)
    assert trace.features.shape == (100, N_FEATURES)
    trace.close()


@pytest.mark.filterwarnings("error")
def test_single_samples_from_both_ends(path: Path) -> None:
    with Trace.open(path, fsync=False) as trace:
        for i in range(3):
            trace.append(make_sample(i))
    assert [trace[i].step for i in (0, 2, -1, -3)] == [0, 2, 2, 0]
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"sample {i} of a trace with 3 samples"):
            trace[i]


def test_stock_zarr_reads_it(path: Path) -> None:
    with Trace.open(path, model=MODEL) as trace:
        for i in range(1100):
            trace.append(make_sample(i))
    group = zarr.open_group(path, mode="r")
    assert {name for name, _ in group.members()} == set(schema.ARRAYS)
    for name in schema.ARRAYS:
        np.testing.assert_array_equal(group[name][:], np.asarray(getattr(trace, name)))
        assert group[name].metadata.dimension_names[0] == "sample"
    assert math.isnan(group["weight"].fill_value)
    assert group["temperature_K"].attrs["units"] == "K"
    assert dict(group.attrs) == trace.attributes
    assert group.attrs["model"]["grid"] == {"start": -20.0, "step": 0.05, "n": 801, "reference": "raw"}
    assert set(group.attrs["versions"]) == {"petdos-md", "numpy", "torch", "metatomic-torch"}


def test_a_store_written_by_stock_zarr_is_read(path: Path) -> None:
    """The format is what the page says: a store from another writer opens, and is appended to."""
    samples = [make_sample(i) for i in range(70)]
    with Trace.open(path.with_name("model.zarr"), model=MODEL) as trace:
        attributes = trace.attributes
    group = zarr.create_group(path, attributes=attributes)
    for name in schema.ARRAYS:
        values = np.array([getattr(sample, name) for sample in samples])
        array = group.create_array(
            name,
            shape=values.shape,
            dtype="int32" if name == "replica" else values.dtype,
            chunks=(16, *values.shape[1:]),
            compressors=None,
            filters=None,
            config={"write_empty_chunks": True},
        )
        array[:] = values
    with Trace.open(path) as trace:
        assert_is(trace, [(0, i) for i in range(70)])
        for i in range(65, 120):
            assert trace.append(make_sample(i)) == (i >= 70)
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(120)])


def test_size_of_a_sample(path: Path) -> None:
    model = dataclasses.replace(MODEL, n_features=1026)
    with Trace.open(path, model=model, fsync=False) as trace:
        for i in range(128):
            trace.append(make_sample(i, model=model))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert 4 * 1026 < size / 128 < 10_000


def test_temperatures(path: Path) -> None:
    trace = Trace.open(path)
    for i, temperature_K in enumerate([900.0, 300.0, 300.0 * (1 + 5e-7), 600.0, 300.0 * (1 + 1e-5), 900.0]):
        trace.append(make_sample(i), temperature_K=temperature_K)
    np.testing.assert_array_equal(trace.temperatures_K, [300.0, 300.0 * (1 + 1e-5), 600.0, 900.0])


def test_repr_says_what_is_inside(path: Path) -> None:
    trace = Trace.open(path)
    assert repr(trace) == f"<Trace {path}: no samples yet>"
    assert len(trace) == 0 and list(trace) == [] and trace.step.shape == (0,) and trace.last_step() is None
    with pytest.raises(NoSamplesError, match="no samples yet"):
        _ = trace.model
    for i in range(6):
        trace.append(make_sample(i, i // 3))
    trace.skip("features are not finite")
    assert repr(trace) == f"<Trace {path}: 6 samples of test (separated), 300, 400 K, 1 skipped>"


def test_features_are_copied(path: Path) -> None:
    features = np.ones(N_FEATURES, np.float32)
    with Trace.open(path) as trace:
        trace.append(dataclasses.replace(make_sample(0), features=features))
        features[:] = 7
    assert (Trace.open(path, "r")[0].features == 1).all()


def test_opening_with_another_model_or_simulation(path: Path) -> None:
    with Trace.open(path, model=MODEL, timestep_fs=2.0, metadata={"beads": 4}) as trace:
        trace.append(make_sample(0))
    for keywords, message in [
        ({"model": OTHER_MODEL}, "trace of another model"),
        ({"model": OTHER_GRID}, "trace of another energy grid"),
        ({"timestep_fs": 1.0}, "trace of another simulation: it has timestep_fs = 2.0, got 1.0; write to another path"),
        ({"metadata": {"beads": 8}}, "trace of another simulation: it has beads = 4, got 8"),
        ({"metadata": {"beads": {"n": 4}}}, "trace of another simulation: it has beads = 4, got {'n': 4}"),
        ({"mode": "w"}, r"mode 'w' given, expected 'a' \(read and append\) or 'r'"),
        ({"flush_every": 0}, "flush_every must be at least 1"),
    ]:
        with pytest.raises(TraceError, match=message):
            Trace.open(path, **keywords)
    with Trace.open(path, engine="ase", timestep_fs=2.0, metadata={"beads": 4, "new": 1}) as trace:
        trace.append(make_sample(1))
    with Trace.open(path, engine="lammps") as trace:
        trace.append(make_sample(2))
    trace = Trace.open(path, "r")
    assert trace.engine == "ase, lammps" and trace.attributes["metadata"] == {"beads": 4, "new": 1}


def test_a_foreign_place_is_left_alone(tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    file.write_text("mine")
    for place in (folder, file):
        for keywords in ({}, {"model": MODEL}, {"mode": "r"}):
            with pytest.raises(TraceError, match=r"not a trace \(zarr.json is missing\)"):
                Trace.open(place, **keywords)
    assert (folder / "notes.txt").read_text() == file.read_text() == "mine"
    (folder / "notes.txt").unlink()
    with Trace.open(folder) as trace:  # an empty folder becomes a trace
        trace.append(make_sample(0))
    assert_is(Trace.open(folder, "r"), [(0, 0)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_without_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TraceError, match="cannot make the trace: Permission denied"):
        Trace.open(tmp_path / "run.zarr", model=MODEL)


def test_no_torch_and_no_zarr_are_loaded() -> None:
    """A trace opens in a fraction of a second."""
    code = (
        "import sys, petdos_md.traces.trace; print([name for name in ('torch', 'zarr', 'ase') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
