"""When rows reach the disk: flushes, writers that really compete, disks that are really full."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zarr
from helpers.traces import MODEL, assert_is, assert_same, fork, in_child, make_sample, path, small_chunks, tmp_path

import petdos_md.traces.schema as schema
from petdos_md.base.errors import TraceError
from petdos_md.traces import store
from petdos_md.traces.trace import Trace


def test_refused_frames_are_counted(path: Path) -> None:
    trace = Trace.open(path)
    assert trace.skip("unknown element")  # before there is a store
    trace.append(make_sample(0))
    assert trace.skip("features are not finite", step=10) and trace.skip("features are not finite", step=20)
    assert trace.skip("features are not finite", step=10, replica=1)
    trace.close()
    with Trace.open(path) as trace:  # a resumed run meets the same frames again
        assert not trace.skip("features are not finite", step=10) and not trace.skip("features are not finite", step=20)
        assert trace.skip("features are not finite", step=30)
    trace = Trace.open(path, "r")
    assert trace.n_skipped == 5
    assert trace.skipped == {"unknown element": 1, "features are not finite": 4}
    assert dict(zarr.open_group(path, mode="r").attrs)["n_skipped"] == 5


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


def test_what_the_format_promises_by_default(path: Path) -> None:
    """At least every 64 samples, or ten seconds."""
    with Trace.open(path, fsync=False) as trace:
        trace.append(make_sample(0))  # the first one begins the ten seconds
        for i in range(1, 64):
            assert len(Trace.open(path, "r")) in (0, 1)
            trace.append(make_sample(i))
        assert len(Trace.open(path, "r")) == 64


def test_flush_at_exit(path: Path) -> None:
    """A script that ends, or dies of an exception, without closing the trace loses nothing."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from helpers.traces import make_sample
from petdos_md.traces.trace import Trace
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
    for call in (lambda: reader.append(make_sample(1)), lambda: reader.skip("x"), lambda: reader.truncate(0)):
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


def test_two_writers(path: Path) -> None:
    first = Trace.open(path, flush_every=1)
    first.append(make_sample(0))
    second = Trace.open(path)  # in order to read: allowed
    assert_is(second, [(0, 0)])
    message = rf"run.zarr: being written by process {os.getpid()} on \S+, by another Trace object of this process; close it, or"
    for call in (lambda: second.append(make_sample(1)), lambda: second.truncate(0), lambda: second.skip("x")):
        with pytest.raises(TraceError, match=message):
            call()

    message = rf"run.zarr: being written by process {os.getpid()} on \S+; close that writer, or write to another path"

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
                if i % 40 == 0:
                    looked.clear()
                    looked.wait(10)

    looked = fork.Event()
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
        looked.set()
    child.join()
    assert child.exitcode == 0
    assert len(set(seen)) > 3  # it did look while there was writing
    assert_is(reader, [(0, i) for i in range(n)])


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
    monkeypatch.setattr(schema, "FEATURES_CHUNK_ROWS", 16)
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
    monkeypatch.setattr(schema, "FEATURES_CHUNK_ROWS", 4)
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
        with pytest.raises(TraceError, match="cannot truncate: No space left on device"):
            Trace.open(disk / "run.zarr").truncate(30)
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


def test_an_interrupt_after_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after the last rename, before the samples are forgotten; what comes next is written as well."""
    real = store.Store.append
    trace = Trace.open(path, model=MODEL, flush_every=100, fsync=False)
    for i in range(5):
        trace.append(make_sample(i))

    def interrupted(*args) -> None:
        real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trace.flush()
    trace.append(make_sample(5))
    trace.close()
    assert_is(Trace.open(path, "r"), [(0, i) for i in range(6)])
