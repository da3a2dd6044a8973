"""Reading: in time that is linear in the length, and while the writer drops samples."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.traces import MODEL, assert_is, assert_same, fork, in_child, make_sample, path, small_chunks, tmp_path

from petdos_md.base.errors import TraceError
from petdos_md.traces.trace import Trace


@pytest.fixture
def moves(tmp_path: Path):
    """Change the folder, and come back."""
    before = os.getcwd()
    yield os.chdir
    os.chdir(before)


def test_a_relative_path_holds_after_a_change_of_folder(tmp_path: Path, moves) -> None:
    (tmp_path / "elsewhere").mkdir()
    moves(tmp_path)
    trace = Trace.open("run.zarr", flush_every=1)
    trace.append(make_sample(0))
    reader = Trace.open("run.zarr", "r")
    later = Trace.open("later.zarr", flush_every=1)
    moves(tmp_path / "elsewhere")
    for step in (1, 2):
        trace.append(make_sample(step))
    later.append(make_sample(0))  # made only now
    assert reader.refresh() == 3
    trace.close()
    later.close()
    merged = Trace.merge("merged.zarr", [trace.path, later.path])
    moves(tmp_path)
    assert len(merged.features[:]) == 4
    assert_is(Trace.open("run.zarr", "r"), [(0, 0), (0, 1), (0, 2)])
    assert_is(Trace.open("later.zarr", "r"), [(0, 0)])
    assert trace.path == tmp_path / "run.zarr" and sorted(os.listdir("elsewhere")) == ["merged.zarr"]


def test_home_is_expanded(tmp_path: Path, moves, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    moves(tmp_path)
    with Trace.open("~/run.zarr") as trace:
        trace.append(make_sample(0))
    assert_is(Trace.open(tmp_path / "home/run.zarr", "r"), [(0, 0)])
    assert os.listdir(tmp_path) == ["home"]


def test_links(tmp_path: Path) -> None:
    link = tmp_path / "link.zarr"
    link.symlink_to("nowhere/run.zarr")
    for keywords in ({}, {"model": MODEL}, {"mode": "r"}):
        with pytest.raises(
            TraceError, match=r"link.zarr: a link to nowhere/run.zarr, where nothing is; make"
        ) as caught:
            Trace.open(link, **keywords)
        assert "\n" not in str(caught.value)
    (tmp_path / "nowhere/run.zarr").mkdir(parents=True)
    with Trace.open(link, model=MODEL) as trace:
        trace.append(make_sample(0))
    assert link.is_symlink()
    assert_is(Trace.open(tmp_path / "nowhere/run.zarr", "r"), [(0, 0)])


def test_iteration_reads_every_byte_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole columns for every block would be 20 times as much."""
    n = 10_000
    sample = make_sample(0)
    with Trace.open(path, flush_every=n, flush_interval_s=1e9, fsync=False) as trace:
        for step in range(n):
            trace.append(sample, step=step)
    reader = Trace.open(path, "r")
    real, read = np.fromfile, [0]

    def fromfile(*args, **kwargs):
        found = real(*args, **kwargs)
        read[0] += found.nbytes
        return found

    monkeypatch.setattr(np, "fromfile", fromfile)
    assert [s.step for s in reader] == list(range(n))
    row = sample.features.nbytes + 10 * 8 + 4
    assert read[0] == n * row


def test_time_of_iteration_is_linear(path: Path) -> None:
    """Eight times as many samples take eight times as long, within a factor of two."""
    sample = make_sample(0)
    trace = Trace.open(path, flush_every=1 << 20, flush_interval_s=1e9, fsync=False)
    seconds = []
    for n in (5_000, 40_000):
        for step in range(len(trace), n):
            trace.append(sample, step=step)
        trace.flush()
        tries = []
        for _ in range(3):
            start = time.process_time()
            assert sum(1 for _ in Trace.open(path, "r")) == n
            tries.append(time.process_time() - start)
        seconds.append(min(tries))
    trace.close()
    assert seconds[1] < 16 * seconds[0]


def test_a_reader_learns_that_samples_were_dropped(path: Path, small_chunks: None) -> None:
    with Trace.open(path, flush_every=1, fsync=False) as trace:
        for step in range(40):
            for replica in (0, 1):
                trace.append(make_sample(step, replica))
    readers = [Trace.open(path, "r") for _ in range(3)]
    assert_same(readers[0][70], make_sample(35, 0))

    def go_on_elsewhere() -> None:
        with Trace.open(path, flush_every=1, fsync=False) as trace:
            assert trace.truncate(20, replica=1) == 19
            for step in range(40, 60):  # as many as before, and more
                trace.append(make_sample(step, 0))

    in_child(go_on_elsewhere)
    assert len(Trace.open(path, "r")) == 81
    for call in (lambda: readers[0][70], lambda: list(readers[1]), lambda: readers[2].features[:]):
        with pytest.raises(
            TraceError, match="samples were dropped by its writer while this was being read; open it"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert readers[0].refresh() == 81
    assert {(s.replica, s.step) for s in readers[0]} == {(1, s) for s in range(21)} | {(0, s) for s in range(60)}


def test_a_reader_goes_on_while_samples_are_added(path: Path, small_chunks: None) -> None:
    trace = Trace.open(path, flush_every=1, fsync=False)
    for step in range(20):
        trace.append(make_sample(step))
    reader = Trace.open(path, "r")
    seen = []
    for sample in reader:
        seen.append(sample.step)
        trace.append(make_sample(100 + sample.step))
        assert_same(reader[sample.step], make_sample(sample.step))
    assert seen == list(range(20))
    trace.close()


def test_iteration_over_a_trace_that_its_owner_cuts(path: Path) -> None:
    with Trace.open(path, fsync=False) as trace:
        for step in range(1200):
            trace.append(make_sample(step))
        iterator = iter(trace)
        next(iterator)
        assert trace.truncate(1100) == 99
        for step in range(1101, 1300):
            trace.append(make_sample(step))
        with pytest.raises(TraceError, match="samples were dropped while it was iterated over; start again"):
            list(iterator)
        assert len(list(trace)) == 1300


def test_readers_of_a_writer_that_cuts_and_grows(path: Path, small_chunks: None) -> None:
    """Real processes: each pass over the trace is a state that it had, or an error of one line."""
    n = 60

    def write() -> None:
        with Trace.open(path, flush_every=2, fsync=False) as trace:
            for i in range(1, 150):
                trace.truncate(i % n, replica=i % 2)
                for step in range(n):
                    trace.append(make_sample(step, i % 2))

    with Trace.open(path, model=MODEL, fsync=False) as trace:
        for step in range(n):
            for replica in (0, 1):
                trace.append(make_sample(step, replica))
    child = fork.Process(target=write)
    child.start()
    passes = refused = 0
    while child.is_alive():
        try:
            rows = list(Trace.open(path, "r"))
        except TraceError as error:
            assert "dropped" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        passes += 1
        keys = [(s.replica, s.step) for s in rows]
        assert len(set(keys)) == len(keys) and n <= len(keys) <= 2 * n
        for replica in (0, 1):  # no step is missing in between
            assert sorted(s for r, s in keys if r == replica) == list(range(sum(r == replica for r, _ in keys)))
        for sample in rows[::7]:
            assert_same(sample, make_sample(sample.step, sample.replica))
    child.join()
    assert child.exitcode == 0 and passes > 3 and refused + passes > 10
    assert len(Trace.open(path, "r")) == 2 * n


def test_a_forgotten_writer_of_this_process_gives_way(path: Path) -> None:
    """As part of a circle it lives until it is collected: its samples are on disk before the next writer starts."""

    class Circle:
        pass

    circle = Circle()
    circle.trace = Trace.open(path)
    circle.itself = circle
    circle.trace.append(make_sample(0))
    del circle
    with Trace.open(path) as trace:
        assert not trace.append(make_sample(0)) and trace.append(make_sample(1))
    assert_is(Trace.open(path, "r"), [(0, 0), (0, 1)])
