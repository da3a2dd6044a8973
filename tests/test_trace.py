"""The trace against plain NumPy, stock zarr, and processes that are really killed, really compete, really run out of disk."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import petdos_md._trace_schema as schema
from petdos_md import _trace_keys, _trace_writer
from petdos_md.errors import NoSamplesError, PetdosError, PredictionError, TraceError
from petdos_md.grid import EnergyGrid
from petdos_md.sample import ModelInfo, Sample
from petdos_md.trace import Trace

N_PSI = 37
MODEL = ModelInfo(
    name="test",
    fingerprint="0123456789abcdef" * 4,
    grid=EnergyGrid(-20.0, 0.05, 801),
    kind="folded",
    n_psi=N_PSI,
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
        psi=rng.standard_normal(model.n_psi).astype(model.dtype),
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
            **labels,
        },
    )


def assert_same(got: Sample, expected: Sample) -> None:
    """Equal to the last bit, NaN included."""
    assert got.psi.dtype == expected.psi.dtype
    assert got.psi.tobytes() == expected.psi.tobytes()
    for name in schema.COLUMNS:
        a, b = getattr(got, name), getattr(expected, name)
        assert a == b or (math.isnan(a) and math.isnan(b)), name
        assert type(a) in (int, float)
    assert got.model == expected.model


def assert_is(trace: Trace, keys: list[tuple[int, int]], model: ModelInfo = MODEL) -> None:
    """The trace holds the samples of these (replica, step), in this order."""
    assert len(trace) == len(keys)
    for got, (replica, step) in zip(trace, keys, strict=True):
        assert_same(got, make_sample(step, replica, model))


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
    monkeypatch.setattr(schema, "PSI_CHUNK_ROWS", 4)
    monkeypatch.setattr(schema, "COLUMN_CHUNK_ROWS", 6)


# -- what is stored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flush_every", [1, 7, 1000])
def test_round_trip(path: Path, flush_every: int, dtype: str) -> None:
    model = dataclasses.replace(MODEL, dtype=dtype)
    samples = [make_sample(10 * i, i % 3, model) for i in range(150)]
    psi = np.array([sample.psi for sample in samples])
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
        assert (view.engine, view.timestep_fs, view.n_refused) == ("ase", 2.0, 0)
        assert np.asarray(view.psi).tobytes() == psi.tobytes()
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
def test_psi_is_indexed_as_numpy_does(path: Path, index: object) -> None:
    trace = Trace.open(path, flush_every=90)  # ten rows stay in memory
    for i in range(100):
        trace.append(make_sample(i))
    expected = np.array([make_sample(i).psi for i in range(100)])[index]
    np.testing.assert_array_equal(trace.psi[index], expected)
    assert trace.psi.shape == (100, N_PSI)
    trace.close()


@pytest.mark.filterwarnings("error")
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
    assert set(group.attrs["versions"]) >= {"petdos-md", "torch", "zarr", "ase"}


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
    model = dataclasses.replace(MODEL, n_psi=1026)
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


def test_repr_tells_what_is_inside(path: Path) -> None:
    trace = Trace.open(path)
    assert repr(trace) == f"<Trace {path}: no samples yet>"
    assert len(trace) == 0 and list(trace) == [] and trace.step.shape == (0,) and trace.last_step() is None
    with pytest.raises(NoSamplesError, match="no samples yet"):
        _ = trace.model
    for i in range(6):
        trace.append(make_sample(i, i // 3))
    trace.refuse("psi is not finite")
    assert repr(trace) == f"<Trace {path}: 6 samples of test (folded), 300, 400 K, 1 refused>"


def test_psi_is_copied(path: Path) -> None:
    psi = np.ones(N_PSI, np.float32)
    with Trace.open(path) as trace:
        trace.append(dataclasses.replace(make_sample(0), psi=psi))
        psi[:] = 7
    assert (Trace.open(path, "r")[0].psi == 1).all()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_replica_and_step_is_stored_once(path: Path) -> None:
    with Trace.open(path, flush_every=3) as trace:
        assert [trace.append(make_sample(step, 1)) for step in (0, 5, 5, 0, 10)] == [True, True, False, False, True]
        assert trace.append(make_sample(5, 0))
    with Trace.open(path) as trace:
        assert not trace.append(make_sample(10, 1, temperature_K=777.0))
        assert trace.append(make_sample(None, 1, temperature_K=777.0))
        assert trace.append(make_sample(None, 2))
        assert trace.append(make_sample(99, 2), step=3)
        assert trace.append(make_sample(None, 2))
        assert (trace.last_step(), trace.last_step(1), trace.last_step(2), trace.last_step(3)) == (5, 11, 4, None)
        assert trace.has_step(11, 1) and not trace.has_step(11)
    got = list(zip(trace.replica.tolist(), trace.step.tolist(), strict=True))
    assert got == [(1, 0), (1, 5), (1, 10), (0, 5), (1, 11), (2, 0), (2, 3), (2, 4)]
    assert trace.temperature_K[2] == 400.0 and trace.temperature_K[4] == 777.0


def test_refused_frames_are_counted(path: Path) -> None:
    trace = Trace.open(path)
    assert trace.refuse("unknown element")  # before there is a store
    trace.append(make_sample(0))
    assert trace.refuse("psi is not finite", step=10) and trace.refuse("psi is not finite", step=20)
    assert trace.refuse("psi is not finite", step=10, replica=1)
    trace.close()
    with Trace.open(path) as trace:  # a resumed run meets the same frames again
        assert not trace.refuse("psi is not finite", step=10) and not trace.refuse("psi is not finite", step=20)
        assert trace.refuse("psi is not finite", step=30)
    trace = Trace.open(path, "r")
    assert trace.n_refused == 5
    assert trace.refused == {"unknown element": 1, "psi is not finite": 4}
    assert dict(zarr.open_group(path, mode="r").attrs)["n_refused"] == 5


# -- memory -----------------------------------------------------------------------------------------------------------


class Counted:
    """All pairs in a set, the plain way; counts how often it was asked."""

    def __init__(self) -> None:
        self.pairs: set[tuple[int, int]] = set()
        self.asked = 0

    def __call__(self, replica: int, step: int) -> bool:
        self.asked += 1
        return (replica, step) in self.pairs


@pytest.mark.parametrize("order", ["rising", "gaps", "shuffled", "falling", "blocks", "two strides", "irregular"])
def test_keys_are_those_of_a_set(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any order of steps, with runs that overflow: the same answers as a plain set gives."""
    monkeypatch.setattr(_trace_keys, "MAX_RUNS", 8)
    rng = np.random.default_rng(3)
    steps = {
        "rising": np.arange(0, 3000, 10),
        "gaps": np.delete(np.arange(0, 3000, 10), rng.choice(300, 40, replace=False)),
        "shuffled": rng.permutation(300),
        "falling": np.arange(3000, 0, -10),
        "blocks": np.concatenate([np.arange(1000, 2000, 10), np.arange(0, 1000, 10), np.arange(2000, 3000, 10)]),
        "two strides": np.concatenate([np.arange(0, 1000, 10), np.arange(5, 1000, 10), np.arange(1000, 2000, 7)]),
        "irregular": np.sort(rng.choice(3000, 300, replace=False)),
    }[order]
    plain = Counted()
    keys, blocks = _trace_keys.Keys(plain), _trace_keys.Keys(plain)
    for step in steps.tolist():
        for replica in (0, 7):
            assert keys.has(replica, step) == ((replica, step) in plain.pairs)
            if (replica, step) not in plain.pairs:
                keys.add(replica, step)
                plain.pairs.add((replica, step))
    pairs = np.array(list(zip([0, 7] * len(steps), np.repeat(steps, 2).tolist(), strict=True)))
    for start in range(0, len(pairs), 64):
        blocks.add_rows(pairs[start : start + 64, 0], pairs[start : start + 64, 1])
    for found in (keys, blocks):
        plain.asked = 0
        for replica in (0, 3, 7):
            assert found.last(replica) == max((s for r, s in plain.pairs if r == replica), default=None)
            for step in range(-20, 3020):
                assert found.has(replica, step) == ((replica, step) in plain.pairs), (replica, step)
        assert found.n_runs <= 2 * 8
        if order in ("rising", "blocks"):
            assert found.n_runs <= 2 * 3 and plain.asked == 0


def test_steps_without_order_are_looked_up(path: Path, monkeypatch: pytest.MonkeyPatch, small_chunks: None) -> None:
    """With more runs than are kept, pairs are found on disk and among the rows in memory, also after opening again."""
    monkeypatch.setattr(_trace_keys, "MAX_RUNS", 4)
    monkeypatch.setattr(_trace_writer, "LOOK_UP_ROWS", 7)
    steps = np.random.default_rng(0).choice(200, 50, replace=False).tolist()
    for part in (steps[:30], steps):
        with Trace.open(path, flush_every=16, fsync=False) as trace:
            known = set(trace.step.tolist())
            for step in part:
                assert trace.append(make_sample(step)) == (step not in known)
                assert not trace.append(make_sample(step))
            assert trace._writer.keys.n_runs <= 4
            assert [trace.has_step(step) for step in range(200)] == [step in part for step in range(200)]
    assert_is(Trace.open(path, "r"), [(0, step) for step in steps])


def test_memory_does_not_grow_with_steps(path: Path) -> None:
    """Sampling at a stride, 16 replicas, two of them with refused frames between: a few numbers for each."""

    def grown(first: int, last: int) -> int:
        gc.collect()
        tracemalloc.start()
        for step in range(first, last, 50):
            for replica in range(16):
                if replica > 1 or step % 5000:
                    trace.append(sample, step=step, replica=replica)
        trace.flush()
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return used

    sample = make_sample(0)
    with Trace.open(path, fsync=False) as trace:
        grown(0, 10_000)
        assert trace._writer.keys.n_runs <= 14 + 2 * 2
        # 9600 samples; a set of their pairs takes 500 kB and more.
        assert grown(10_000, 40_000) < 40_000
    with Trace.open(path) as trace:
        assert not trace.append(sample, step=39_950, replica=3) and trace.append(sample, step=5000, replica=1)


# -- when it is written -----------------------------------------------------------------------------------------------


def test_flush_by_number_and_by_time(path: Path) -> None:
    trace = Trace.open(path, flush_every=5, flush_interval_s=1000.0)
    for i in range(13):
        trace.append(make_sample(i))
    assert len(Trace.open(path, "r")) == 10
    trace.flush()
    assert len(Trace.open(path, "r")) == 13
    trace.close()
    trace = Trace.open(path, flush_every=1000, flush_interval_s=2.0)
    trace.append(make_sample(13))
    assert len(Trace.open(path, "r")) == 13
    time.sleep(2.0)
    trace.append(make_sample(14))
    assert len(Trace.open(path, "r")) == 15
    trace.append(make_sample(15))
    assert len(Trace.open(path, "r")) == 15
    del trace
    gc.collect()
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(16)])


def test_flush_at_exit(path: Path) -> None:
    """A script that ends, or dies of an exception, without closing the trace loses nothing."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_trace import Trace, make_sample
trace = Trace.open({str(path)!r}, flush_every=1000)
for i in range(5): trace.append(make_sample(i))
raise SystemExit("dies here")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "dies here"
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(5)])


def test_a_closed_trace_is_read_but_not_written(path: Path) -> None:
    trace = Trace.open(path, model=MODEL)
    trace.append(make_sample(0))
    trace.close()
    trace.close()
    assert_is(trace, [(0, 0)])
    with pytest.raises(TraceError, match="was closed; open it again"):
        trace.append(make_sample(1))
    reader = Trace.open(path, "r")
    for call in (lambda: reader.append(make_sample(1)), lambda: reader.refuse("x"), lambda: reader.rewind(0)):
        with pytest.raises(TraceError, match="opened for reading"):
            call()


def test_a_forked_child_leaves_the_trace_alone(path: Path) -> None:
    trace = Trace.open(path)
    trace.append(make_sample(0))

    def child() -> None:
        with pytest.raises(TraceError, match="before this process was forked"):
            trace.append(make_sample(1))
        trace.close()
        trace._writer._close_quietly()

    in_child(child)
    assert len(Trace.open(path, "r")) == 0
    trace.append(make_sample(1))
    trace.close()
    assert_is(Trace.open(path, "r"), [(0, 0), (0, 1)])


# -- crashes ----------------------------------------------------------------------------------------------------------


def _write_until_killed(path: Path, n: int, flush_every: int, fsync: bool, report: int) -> None:
    trace = Trace.open(path, flush_every=10**6, fsync=fsync)
    last = trace.last_step()
    for i in range(0 if last is None else last + 1, n):
        trace.append(make_sample(i, 0))
        trace.append(make_sample(i, 1))
        if (i + 1) % flush_every == 0:
            trace.flush()
            os.write(report, f"{len(trace)}\n".encode())
    trace.close()


def _kill_campaign(path: Path, kills: int, seed: int) -> None:
    """Kill a writer at random moments until it was killed so many times, resume it each time, compare at the end."""
    rng = np.random.default_rng(seed)
    killed = done = 0
    n = 10**9
    flushed = 0
    while not done:
        if killed == kills:
            n = flushed // 2 + 50  # the last one may finish
        read, write = os.pipe()
        args = (path, n, int(rng.integers(1, 30)), bool(rng.integers(2)), write)
        child = fork.Process(target=_write_until_killed, args=args)
        child.start()
        os.close(write)
        if killed < kills:
            with open(read, closefd=False) as reports:  # so that each life flushes at least once more
                flushed = int(reports.readline())
            time.sleep(rng.exponential(0.02))
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        with open(read) as reports:
            flushed = int((reports.read().split() or [flushed])[-1])
        child.join()
        if killed == kills and child.exitcode == 0:
            done = True
        else:
            assert child.exitcode == -signal.SIGKILL
        trace = Trace.open(path, "r")
        assert len(trace) >= flushed
        psi = np.asarray(trace.psi)
        assert np.isfinite(psi).all()
        assert trace.step.tolist() == [i // 2 for i in range(len(trace))]
        assert trace.replica.tolist() == [i % 2 for i in range(len(trace))]
        assert_same(trace[-1], make_sample((len(trace) - 1) // 2, (len(trace) - 1) % 2))
    assert killed == kills
    assert_is(Trace.open(path, "r"), [(i % 2, i // 2) for i in range(2 * n)])
    group = zarr.open_group(path, mode="r")
    assert {group[name].shape[0] for name in schema.ARRAYS} == {2 * n}


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(disk_path: Path, small_chunks: None, seed: int) -> None:
    _kill_campaign(disk_path, kills=8, seed=seed)


@pytest.mark.slow
def test_killed_at_random_moments_many_times(disk_path: Path) -> None:
    _kill_campaign(disk_path, kills=60, seed=100)


SYSTEM_CALLS = ("open", "pwrite", "ftruncate", "replace", "rename", "unlink", "mkdir", "close")


def _die_at(work, path: Path, count: int, exit_code: int) -> None:
    """Run ``work`` and vanish at the count-th system call that touches a file, before it happens."""
    left = [count]

    def dying(call):
        def wrapper(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                os._exit(exit_code)
            return call(*args, **kwargs)

        return wrapper

    for name in SYSTEM_CALLS:
        setattr(os, name, dying(getattr(os, name)))
    work(path)
    os._exit(0)


def _lives(work, start: Path, path: Path, stride: int):
    """The trace after ``work`` died at one system call after the other, until it does not die any more."""
    for count in range(1, 10_000, stride):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(start, path)
        child = fork.Process(target=_die_at, args=(work, path, count, 77))
        child.start()
        child.join()
        assert child.exitcode in (0, 77)
        yield child.exitcode == 0
        if child.exitcode == 0:
            return


def test_the_next_writer_evens_out_the_shapes(path: Path) -> None:
    """A writer killed between two commits leaves some arrays longer; stock zarr should not see that for long."""
    with Trace.open(path) as trace:
        for i in range(5):
            trace.append(make_sample(i))
    for name in ("step", "time_fs"):
        _change_json(path / name / "zarr.json", shape=[9])
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(5)])
    with Trace.open(path) as trace:
        assert trace.rewind(100) == 0
    assert {array.shape[0] for _, array in zarr.open_group(path, mode="r").arrays()} == {5}


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_death_at_any_point_of_a_flush(tmp_path: Path, path: Path, small_chunks: None, stride: int) -> None:
    start = tmp_path / "start.zarr"
    with Trace.open(start, fsync=False) as trace:
        for i in range(7):
            trace.append(make_sample(i))

    def append_five(path: Path) -> None:
        with Trace.open(path, fsync=False) as trace:
            for i in range(7, 12):
                trace.append(make_sample(i))

    lengths = []
    for finished in _lives(append_five, start, path, stride):
        n = len(Trace.open(path, "r"))
        assert n == 12 if finished else n in (7, 12)
        lengths.append(n)
        assert_is(Trace.open(path, "r"), [(0, i) for i in range(n)])
        with Trace.open(path, fsync=False) as trace:
            for i in range(5, 14):
                trace.append(make_sample(i))
        assert_is(Trace.open(path, "r"), [(0, i) for i in range(14)])
        shapes = [json.loads((path / name / "zarr.json").read_text())["shape"][0] for name in schema.ARRAYS]
        assert shapes == [14] * len(schema.ARRAYS)
    assert lengths.count(7) > 50 / stride  # the campaign did interrupt the flush


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("replica", [None, 1])
def test_death_at_any_point_of_a_rewind(
    tmp_path: Path, path: Path, small_chunks: None, replica: int | None, stride: int
) -> None:
    keys = [(i % 2, i // 2) for i in range(20)]
    kept = [key for key in keys if key[1] <= 3 or replica not in (None, key[0])]
    start = tmp_path / "start.zarr"
    with Trace.open(start, fsync=False) as trace:
        for r, step in keys:
            trace.append(make_sample(step, r))

    def rewind(path: Path) -> None:
        Trace.open(path, fsync=False).rewind(3, replica)

    seen = []
    for finished in _lives(rewind, start, path, stride):
        trace = Trace.open(path, "r")
        seen.append(len(trace))
        assert_is(trace, kept if finished or len(trace) < len(keys) else keys)
        with Trace.open(path, fsync=False) as trace:  # the next writer finishes it
            trace.rewind(3, replica)
            trace.append(make_sample(50))
        assert_is(Trace.open(path, "r"), [*kept, (0, 50)])
        assert not (path / "psi/rewind.npz").exists()
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["step"][:], [*(step for _, step in kept), 50])
    assert {len(kept), len(keys)} == set(seen)


def test_death_while_the_trace_is_made(tmp_path: Path, path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()

    def make(path: Path) -> None:
        Trace.open(path, model=MODEL, fsync=False)

    for finished in _lives(make, empty, path, stride=7):
        if finished:
            assert len(Trace.open(path, "r")) == 0
        with Trace.open(path, fsync=False) as trace:
            trace.append(make_sample(1))
        assert_is(Trace.open(path, "r"), [(0, 1)])


# -- several processes ------------------------------------------------------------------------------------------------


def test_two_writers(path: Path) -> None:
    first = Trace.open(path, flush_every=1)
    first.append(make_sample(0))
    second = Trace.open(path)  # in order to read: allowed
    assert_is(second, [(0, 0)])
    message = rf"run.zarr: being written by process {os.getpid()} on \S+; close that writer, or write to another path"
    for call in (lambda: second.append(make_sample(1)), lambda: second.rewind(0), lambda: second.refuse("x")):
        with pytest.raises(TraceError, match=message):
            call()

    def other_process() -> None:
        with pytest.raises(TraceError, match=message), Trace.open(path) as trace:
            trace.append(make_sample(1))

    in_child(other_process)
    first.append(make_sample(1))
    first.close()
    assert second.append(make_sample(2))  # sees what the first one wrote meanwhile
    assert not second.append(make_sample(1))
    second.close()
    assert_is(Trace.open(path, "r"), [(0, 0), (0, 1), (0, 2)])


def test_the_lock_of_a_killed_writer_is_free(path: Path) -> None:
    def hold() -> None:
        trace = Trace.open(path, flush_every=1)
        trace.append(make_sample(0))
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork.Process(target=hold)
    child.start()
    child.join()
    with Trace.open(path) as trace:
        assert trace.append(make_sample(1))


def test_two_processes_make_the_same_trace(path: Path) -> None:
    def work(replica: int) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(TraceError), Trace.open(path, model=MODEL, fsync=False) as trace:
                return trace.append(make_sample(0, replica)) or None
            time.sleep(0.002)
        raise AssertionError("never became the writer")

    children = [fork.Process(target=work, args=(replica,)) for replica in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert sorted(Trace.open(path, "r").replica) == [0, 1, 2, 3]
    assert not list(path.parent.glob(".*"))


def test_reading_while_another_process_writes(path: Path, small_chunks: None) -> None:
    n = 400

    def write() -> None:
        with Trace.open(path, flush_every=3, fsync=False) as trace:
            for i in range(n):
                trace.append(make_sample(i))

    Trace.open(path, model=MODEL)
    reader = Trace.open(path, "r")
    child = fork.Process(target=write)
    child.start()
    seen = [0]
    while child.is_alive() or seen[-1] < n:
        seen.append(reader.refresh())
        assert seen[-1] >= seen[-2]
        assert reader.step.tolist() == list(range(seen[-1]))
        for i in {seen[-2], seen[-1] - 1} & set(range(seen[-1])):
            assert_same(reader[i], make_sample(i))
        assert len(Trace.open(path, "r")) >= seen[-1]
    child.join()
    assert child.exitcode == 0
    assert len(set(seen)) > 3  # it did look while there was writing
    assert_is(reader, [(0, i) for i in range(n)])


# -- disk full --------------------------------------------------------------------------------------------------------


def _append_through_a_full_disk(path: Path, fill, free, n: int = 60) -> None:
    """``fill`` makes writing fail, ``free`` makes it work again."""
    trace = Trace.open(path, flush_every=4, fsync=False)
    failures = 0
    for i in range(n):
        if i == 10:
            fill()
        try:
            assert trace.append(make_sample(i))
        except TraceError as error:
            failures += 1
            assert "cannot write: " in str(error) and "\n" not in str(error)
            assert str(error).endswith("samples are kept in memory for the next flush, and taken again on resuming")
        assert len(trace) == i + 1
        assert_same(trace[i], make_sample(i))
        if i >= 8:
            assert 8 <= len(Trace.open(path, "r")) <= i + 1
    assert failures > 0
    with pytest.raises(TraceError, match="samples are kept in memory"):
        trace.flush()
    with pytest.raises(TraceError, match="samples are kept in memory"):
        trace.close()
    written = len(Trace.open(path, "r"))
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(written)])
    assert written < n
    free()
    trace.flush()
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(n)])
    trace.close()
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(n)])


def test_no_space_by_the_limit_of_file_sizes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to let any file grow: a real OSError, for root and users alike."""
    monkeypatch.setattr(schema, "PSI_CHUNK_ROWS", 16)
    monkeypatch.setattr(schema, "COLUMN_CHUNK_ROWS", 16)

    def work() -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        _append_through_a_full_disk(
            path,
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard)),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard)),
        )

    in_child(work)


@pytest.mark.parametrize("size_KiB", [220, 256, 300])
def test_no_space_on_a_full_file_system(tmp_path: Path, size_KiB: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a file system that is really full, at several points of the flush."""
    monkeypatch.setattr(schema, "PSI_CHUNK_ROWS", 4)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_KiB}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        ballast = disk / "ballast"

        def fill() -> None:
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        _append_through_a_full_disk(disk / "run.zarr", fill, ballast.unlink)
        fill()
        with pytest.raises(TraceError, match="No space left on device"):
            Trace.open(disk / "more.zarr", model=MODEL)
        assert sorted(file.name for file in disk.iterdir()) == ["ballast", "run.zarr"]
        with pytest.raises(TraceError, match="cannot rewind: No space left on device"):
            Trace.open(disk / "run.zarr").rewind(30)
        assert_is(Trace.open(disk / "run.zarr", "r"), [(0, i) for i in range(60)])
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_an_interrupt_between_writing_and_forgetting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C during a flush, at any of its renames: nothing is lost, nothing is written twice."""
    real = os.replace
    for at in range(12):
        left = [at]

        def replace(*args, left=left):
            if left[0] == 0:
                left[0] -= 1
                raise KeyboardInterrupt
            left[0] -= 1
            real(*args)

        shutil.rmtree(path, ignore_errors=True)
        trace = Trace.open(path, model=MODEL, flush_every=100, fsync=False)
        for i in range(5):
            trace.append(make_sample(i))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            with contextlib.suppress(KeyboardInterrupt):
                trace.flush()
        trace.append(make_sample(5))
        trace.close()
        assert_is(Trace.open(path, "r"), [(0, i) for i in range(6)])


# -- rewind and merge -------------------------------------------------------------------------------------------------


def test_rewind(path: Path, small_chunks: None) -> None:
    keys = [(i % 3, i // 3) for i in range(45)]
    with Trace.open(path, flush_every=10) as trace:
        for replica, step in keys:
            trace.append(make_sample(step, replica))
        assert trace.rewind(100) == 0
        assert trace.rewind(9, replica=1) == 5
        keys = [key for key in keys if key[1] <= 9 or key[0] != 1]
        assert_is(trace, keys)
        assert trace.last_step(1) == 9 and trace.last_step(0) == 14
        assert trace.append(make_sample(10, 1)) and not trace.append(make_sample(14, 0))
        assert trace.rewind(5) == len([key for key in [*keys, (1, 10)] if key[1] > 5])
        keys = [key for key in keys if key[1] <= 5]
        assert_is(trace, keys)
        assert trace.append(make_sample(7, 0))
        assert_is(trace, [*keys, (0, 7)])
    assert_is(Trace.open(path, "r"), [*keys, (0, 7)])
    with Trace.open(path) as trace:
        assert trace.rewind(-1) == 19
        assert len(trace) == 0 and trace.last_step() is None
        assert trace.append(make_sample(0))
    assert_is(Trace.open(path, "r"), [(0, 0)])


def test_merge(tmp_path: Path) -> None:
    for name, replica, steps in (("a", 0, range(1500)), ("b", 0, range(5)), ("c", 4, range(3))):
        with Trace.open(
            tmp_path / name,
            engine=f"engine-{name}",
            timestep_fs=2.0,
            flush_every=5000,
            metadata={"beads": 1, "x": name},
        ) as trace:
            for step in steps:
                trace.append(make_sample(step, replica))
            trace.refuse("psi is not finite")
    merged = Trace.merge(tmp_path / "ac", [tmp_path / "a", tmp_path / "c"])
    assert_is(merged, [*((0, step) for step in range(1500)), *((4, step) for step in range(3))])
    assert merged.n_refused == 2 and merged.timestep_fs == 2.0 and merged.engine == "engine-a, engine-c"
    assert merged.attributes["metadata"] == {"beads": 1}
    merged = Trace.merge(tmp_path / "abc", [tmp_path / "ac", tmp_path / "b"])
    assert merged.replica.tolist() == [0] * 1500 + [1] * 3 + [2] * 5
    assert merged.step.tolist() == [*range(1500), *range(3), *range(5)]
    np.testing.assert_array_equal(merged.psi[-5:], merged.psi[:5])
    sources = merged.attributes["sources"]
    assert [source["path"] for source in sources] == [str(tmp_path / "ac"), str(tmp_path / "b")]
    assert [source["n_samples"] for source in sources] == [1503, 5]
    assert [source["replicas"] for source in sources] == [{"0": 0, "4": 1}, {"0": 2}]
    with Trace.open(tmp_path / "abc") as trace:  # goes on like any other
        assert trace.append(make_sample(5, 2))


def test_merge_keeps_the_parts_of_one_simulation_together(tmp_path: Path) -> None:
    for name, steps in (("a", range(5)), ("b", range(5, 9)), ("c", range(8, 10))):
        with Trace.open(tmp_path / name) as trace:
            for step in steps:
                trace.append(make_sample(step))
    merged = Trace.merge(tmp_path / "ab", [tmp_path / "a", tmp_path / "b"], replicas="keep")
    assert_is(merged, [(0, step) for step in range(9)])
    with pytest.raises(TraceError, match=r"replica 0, step 8 is both in .*/ab and .*/c; merge with replicas='auto'"):
        Trace.merge(tmp_path / "abc", [tmp_path / "ab", tmp_path / "c"], replicas="keep")
    assert not (tmp_path / "abc").exists()


def test_merge_refuses(tmp_path: Path) -> None:
    other = dataclasses.replace(MODEL, fingerprint="f" * 64, name="other")
    Trace.open(tmp_path / "a", model=MODEL)
    Trace.open(tmp_path / "b", model=other)
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    for output, paths, replicas, message in [
        (out, [a, b], "auto", "/b: trace of another model: it holds samples of 'test'"),
        (out, [a, tmp_path / "none"], "auto", "/none: no such trace"),
        (out, [], "auto", "no traces given"),
        (b, [a], "auto", "/b: exists already"),
        (out, [a], "some", "replicas='some' given, expected 'auto' or 'keep'"),
    ]:
        with pytest.raises(TraceError, match=message):
            Trace.merge(output, paths, replicas=replicas)
        assert not out.exists()


# -- bad input --------------------------------------------------------------------------------------------------------

OTHER_GRID = dataclasses.replace(MODEL, grid=EnergyGrid(-20.0, 0.05, 800))
OTHER_MODEL = dataclasses.replace(MODEL, fingerprint="f" * 64, name="other")
OTHER_KIND = dataclasses.replace(MODEL, kind="direct")

BAD_SAMPLES = [
    ({"model": OTHER_MODEL}, TraceError, r"trace of another model: it holds samples of 'test' \(0123456789ab\), got"),
    ({"model": OTHER_GRID}, TraceError, "trace of another energy grid"),
    ({"model": OTHER_KIND}, TraceError, "trace of folded samples of 37 float32 numbers, got direct"),
    ({"temperature_K": math.nan}, TraceError, "got temperature_K=nan, expected the temperature of the ensemble"),
    ({"temperature_K": 0.0}, TraceError, "got temperature_K=0, expected"),
    ({"temperature_K": -300.0}, TraceError, "got temperature_K=-300, expected"),
    ({"temperature_K": math.inf}, TraceError, "got temperature_K=inf, expected"),
    ({"temperature_K": None}, TraceError, "labels must be numbers"),
    ({"weight": -1.0}, TraceError, "got weight=-1, expected"),
    ({"weight": math.nan}, TraceError, "got weight=nan, expected"),
    ({"psi": np.full(N_PSI, np.nan, np.float32)}, PredictionError, "37 of 37 numbers of psi are not finite"),
    ({"psi": np.r_[np.inf, np.zeros(N_PSI - 1)]}, PredictionError, "1 of 37 numbers of psi are not finite"),
    ({"psi": np.full(N_PSI, 1e300)}, PredictionError, "37 of 37 numbers of psi are not finite"),
    ({"psi": np.zeros(N_PSI + 1, np.float32)}, TraceError, r"psi has shape \(38,\), model 'test' gives \(37,\)"),
    ({"psi": np.zeros((1, N_PSI), np.float32)}, TraceError, r"psi has shape \(1, 37\)"),
    ({"n_atoms": 0}, TraceError, "got n_atoms=0, expected at least 1"),
    ({"step": 1.5}, TraceError, "whole ones for replica, step and n_atoms"),
    ({"step": 2**63}, TraceError, "step a 64-bit integer"),
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


def test_opening_with_another_model_or_simulation(path: Path) -> None:
    with Trace.open(path, model=MODEL, timestep_fs=2.0, metadata={"beads": 4}) as trace:
        trace.append(make_sample(0))
    for keywords, message in [
        ({"model": OTHER_MODEL}, "trace of another model"),
        ({"model": OTHER_GRID}, "trace of another energy grid"),
        ({"timestep_fs": 1.0}, "trace of another simulation: it has timestep_fs = 2.0, got 1.0; write to another path"),
        ({"metadata": {"beads": 8}}, "trace of another simulation: it has beads = 4, got 8"),
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


def _change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _change_attributes(path: Path, **changes: object) -> None:
    data = json.loads((path / "zarr.json").read_text())
    _change_json(path / "zarr.json", attributes={**data["attributes"], **changes})


DAMAGE = [
    (lambda path: shutil.rmtree(path), "no such trace"),
    (lambda path: (path / "zarr.json").unlink(), r"not a trace \(zarr.json is missing\)"),
    (lambda path: (path / "zarr.json").write_text('{"zarr_fo'), "zarr.json is not valid JSON"),
    (lambda path: (path / "zarr.json").write_text("[]"), "not a trace"),
    (lambda path: _change_attributes(path, schema="xyz"), "not a trace"),
    (
        lambda path: _change_attributes(path, schema_version=2),
        "format version 2, this petdos-md reads up to 1; upgrade",
    ),
    (lambda path: _change_attributes(path, model={}), "attributes are incomplete"),
    (lambda path: _change_attributes(path, refused=3), "attributes are incomplete"),
    (
        lambda path: _change_attributes(path, model=dataclasses.replace(MODEL, n_psi=99).to_dict()),
        "rows of 37 float32 numbers for a model of 99 float32",
    ),
    (lambda path: shutil.rmtree(path / "weight"), r"not a trace \(weight/zarr.json is missing\)"),
    (lambda path: (path / "psi/zarr.json").write_text(""), "psi/zarr.json is not valid JSON"),
    (lambda path: _change_json(path / "psi/zarr.json", shape=[3]), "psi/zarr.json is not that of an uncompressed"),
    (lambda path: _change_json(path / "step/zarr.json", codecs=[{"name": "zstd"}]), "step/zarr.json is not that"),
    (lambda path: (path / "psi/c/1/0").unlink(), "psi/c/1/0 has 0 of 9472 bytes"),
    (lambda path: os.truncate(path / "psi/c/0/0", 100), "psi/c/0/0 has 100 of 9472 bytes"),
    (lambda path: os.truncate(path / "step/c/0", 8), "step/c/0 has 8 of 8192 bytes"),
    (lambda path: (path / "psi/rewind.npz").write_bytes(b"PK\3\4"), "psi/rewind.npz"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[message[:30] for _, message in DAMAGE])
def test_a_damaged_trace_says_so(path: Path, damage, message: str) -> None:
    with Trace.open(path, model=MODEL, fsync=False) as trace:
        for i in range(70):
            trace.append(make_sample(i))
    damage(path)
    for mode in ("r", "a"):
        if mode == "a" and not path.exists():
            continue  # would be a new one
        with pytest.raises(TraceError, match=message) as caught:
            Trace.open(path, mode)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damage_after_opening_is_seen_when_read(path: Path) -> None:
    with Trace.open(path, fsync=False) as trace:
        for i in range(70):
            trace.append(make_sample(i))
    trace = Trace.open(path, "r")
    (path / "psi/c/1/0").unlink()
    assert_same(trace[63], make_sample(63))
    with pytest.raises(TraceError, match="psi chunk 1: No such file"):
        trace[64]
    os.truncate(path / "psi/c/0/0", 148 * 60)
    with pytest.raises(TraceError, match="psi chunk 0 is too short"):
        trace[63]


def test_a_trace_removed_under_the_writer_does_not_come_back_in_parts(path: Path) -> None:
    trace = Trace.open(path)
    trace.append(make_sample(0))
    shutil.rmtree(path)
    with pytest.raises(TraceError, match="cannot write: No such file or directory; check that path and its rights; 1 "):
        trace.close()
    assert not path.exists()


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
    code = "import sys, petdos_md.trace; print([name for name in ('torch', 'zarr', 'ase') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
