"""The trace on disk under processes that are really killed, and traces that are damaged."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers.traces import MODEL, assert_is, assert_same, disk_path, fork, make_sample, path, small_chunks, tmp_path

import petdos_md.traces.schema as schema
from petdos_md.base.errors import TraceError
from petdos_md.traces.trace import Trace


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
        features = np.asarray(trace.features)
        assert np.isfinite(features).all()
        assert trace.step.tolist() == [i // 2 for i in range(len(trace))]
        assert trace.replica.tolist() == [i % 2 for i in range(len(trace))]
        assert_same(trace[-1], make_sample((len(trace) - 1) // 2, (len(trace) - 1) % 2))
    assert killed == kills
    assert_is(Trace.open(path, "r"), [(i % 2, i // 2) for i in range(2 * n)])
    group = zarr.open_group(path, mode="r")
    assert {group[name].shape[0] for name in schema.ARRAYS} == {2 * n}


def test_killed_at_random_moments(disk_path: Path, small_chunks: None) -> None:
    _kill_campaign(disk_path, kills=8, seed=0)


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
        assert trace.truncate(100) == 0
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
def test_death_at_any_point_of_a_truncation(
    tmp_path: Path, path: Path, small_chunks: None, replica: int | None, stride: int
) -> None:
    keys = [(i % 2, i // 2) for i in range(20)]
    kept = [key for key in keys if key[1] <= 3 or replica not in (None, key[0])]
    start = tmp_path / "start.zarr"
    with Trace.open(start, fsync=False) as trace:
        for r, step in keys:
            trace.append(make_sample(step, r))

    def truncate(path: Path) -> None:
        Trace.open(path, fsync=False).truncate(3, replica)

    seen = []
    for finished in _lives(truncate, start, path, stride):
        trace = Trace.open(path, "r")
        seen.append(len(trace))
        assert_is(trace, kept if finished or len(trace) < len(keys) else keys)
        with Trace.open(path, fsync=False) as trace:  # the next writer finishes it
            trace.truncate(3, replica)
            trace.append(make_sample(50))
        assert_is(Trace.open(path, "r"), [*kept, (0, 50)])
        assert not (path / "features/truncate.npz").exists()
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


def test_keep(path: Path, small_chunks: None) -> None:
    keys = [(i % 3, i // 3) for i in range(45)]
    with Trace.open(path, flush_every=10) as trace:
        for replica, step in keys:
            trace.append(make_sample(step, replica))
        assert trace.truncate(100) == 0
        assert trace.truncate(9, replica=1) == 5
        keys = [key for key in keys if key[1] <= 9 or key[0] != 1]
        assert_is(trace, keys)
        assert trace.last_step(1) == 9 and trace.last_step(0) == 14
        assert trace.append(make_sample(10, 1)) and not trace.append(make_sample(14, 0))
        assert trace.truncate(5) == len([key for key in [*keys, (1, 10)] if key[1] > 5])
        keys = [key for key in keys if key[1] <= 5]
        assert_is(trace, keys)
        assert trace.append(make_sample(7, 0))
        assert_is(trace, [*keys, (0, 7)])
    assert_is(Trace.open(path, "r"), [*keys, (0, 7)])
    with Trace.open(path) as trace:
        assert trace.truncate(-1) == 19
        assert len(trace) == 0 and trace.last_step() is None
        assert trace.append(make_sample(0))
    assert_is(Trace.open(path, "r"), [(0, 0)])


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
        lambda path: _change_attributes(path, schema_version=3),
        "format version 3, this petdos-md reads up to 2; upgrade",
    ),
    (lambda path: _change_attributes(path, model={}), "attributes are incomplete"),
    (lambda path: _change_attributes(path, skipped=3), "attributes are incomplete"),
    (
        lambda path: _change_attributes(path, model=dataclasses.replace(MODEL, n_features=99).to_dict()),
        "rows of 37 float32 numbers for a model of 99 float32",
    ),
    (lambda path: shutil.rmtree(path / "weight"), r"not a trace \(weight/zarr.json is missing\)"),
    (lambda path: (path / "features/zarr.json").write_text(""), "features/zarr.json is not valid JSON"),
    (
        lambda path: _change_json(path / "features/zarr.json", shape=[3]),
        "features/zarr.json is not that of an uncompressed",
    ),
    (lambda path: _change_json(path / "step/zarr.json", codecs=[{"name": "zstd"}]), "step/zarr.json is not that"),
    (lambda path: (path / "features/c/1/0").unlink(), "features/c/1/0 has 0 of 9472 bytes"),
    (lambda path: os.truncate(path / "features/c/0/0", 100), "features/c/0/0 has 100 of 9472 bytes"),
    (lambda path: os.truncate(path / "step/c/0", 8), "step/c/0 has 8 of 8192 bytes"),
    (lambda path: (path / "features/truncate.npz").write_bytes(b"PK\3\4"), "features/truncate.npz"),
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
    (path / "features/c/1/0").unlink()
    assert_same(trace[63], make_sample(63))
    with pytest.raises(TraceError, match="features chunk 1: No such file"):
        trace[64]
    os.truncate(path / "features/c/0/0", 148 * 60)
    with pytest.raises(TraceError, match="features chunk 0 is too short"):
        trace[63]


def test_a_trace_removed_under_the_writer_does_not_come_back_in_parts(path: Path) -> None:
    trace = Trace.open(path)
    trace.append(make_sample(0))
    shutil.rmtree(path)
    with pytest.raises(TraceError, match="cannot write: No such file or directory; check that path and its rights; 1 "):
        trace.close()
    assert not path.exists()


COLD = {"electronic_temperature_K": math.nan}


def test_an_optional_array_comes_with_its_first_number(path: Path, small_chunks: None) -> None:
    """Cold traces do not have it; rows before the first hot one get what they stood for, in the array as without it."""
    with Trace.open(path, model=MODEL) as trace:
        for step in range(7):
            trace.append(make_sample(step, **COLD))
        trace.flush()
        assert not (path / "electronic_temperature_K").exists()
        early = Trace.open(path, "r")
        assert np.isnan(early.electronic_temperature_K).all()
        (path / ".electronic_temperature_K.partial").mkdir()  # of a writer that was killed while it made the array
        for step in range(7, 12):
            trace.append(make_sample(step, electronic_temperature_K=1000.0 * step))
        np.testing.assert_array_equal(
            trace.electronic_temperature_K, [math.nan] * 7 + [1000.0 * s for s in range(7, 12)]
        )
    group = zarr.open_group(path, mode="r")
    expected = [math.nan] * 7 + [1000.0 * step for step in range(7, 12)]
    np.testing.assert_array_equal(group["electronic_temperature_K"][:], expected)
    assert group["electronic_temperature_K"].attrs["units"] == "K" and not list(path.glob(".*"))
    assert len(early) == 7 and np.isnan(early.electronic_temperature_K).all() and early.refresh() == 12
    np.testing.assert_array_equal(early.electronic_temperature_K, expected)
    with Trace.open(path) as trace:
        trace.truncate(8)
        trace.append(make_sample(9, electronic_temperature_K=500.0))
    np.testing.assert_array_equal(Trace.open(path, "r").electronic_temperature_K, [*expected[:9], 500.0])


def test_a_number_of_the_metadata_stands_for_an_array_that_is_not_there(path: Path, tmp_path: Path) -> None:
    """As in traces that were written before there was one; also after the array has come, and in a merged trace."""
    with Trace.open(path, model=MODEL, metadata={"electronic_temperature_K": 8000.0}) as trace:
        trace.append(make_sample(0, **COLD))
    assert Trace.open(path, "r").electronic_temperature_K.tolist() == [8000.0]
    with Trace.open(tmp_path / "cold.zarr", model=MODEL) as trace:
        trace.append(make_sample(0, 1, **COLD))
    merged = Trace.merge(tmp_path / "both.zarr", [tmp_path / "cold.zarr", path])
    np.testing.assert_array_equal(merged.electronic_temperature_K, [math.nan, 8000.0])
    assert "electronic_temperature_K" not in merged.attributes["metadata"]
    with Trace.open(path) as trace:
        trace.append(make_sample(1, electronic_temperature_K=8000.0))
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["electronic_temperature_K"][:], [8000.0, 8000.0])
    for bad in (0.0, -1.0, math.inf):
        with (
            Trace.open(path) as trace,
            pytest.raises(TraceError, match="expected that of hot electrons, positive, or NaN"),
        ):
            trace.append(make_sample(2, electronic_temperature_K=bad))
