"""The lock that keeps a second writer out."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest
from helpers.traces import fork, in_child

from petdos_md.base.locks import FileLock, LockTaken


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    first.acquire()
    with pytest.raises(LockTaken) as taken:
        second.acquire()
    assert taken.value.is_own and taken.value.holder.startswith(f"process {os.getpid()} on ")
    holder = taken.value.holder

    def elsewhere() -> None:
        with pytest.raises(LockTaken) as taken:
            FileLock(tmp_path / "lock").acquire()
        assert not taken.value.is_own and taken.value.holder == holder

    in_child(elsewhere)
    first.release()
    first.release()
    second.acquire()
    assert second.held and not first.held
    second.release()


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    def hold() -> None:
        FileLock(tmp_path / "lock").acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork.Process(target=hold)
    child.start()
    child.join()
    FileLock(tmp_path / "lock").acquire()


def test_it_waits_for_its_turn(tmp_path: Path) -> None:
    def hold() -> None:
        with FileLock(tmp_path / "lock"):
            (tmp_path / "held").touch()
            time.sleep(0.3)
            (tmp_path / "done").touch()

    child = fork.Process(target=hold)
    child.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.002)
    with FileLock(tmp_path / "lock"):
        assert (tmp_path / "done").exists()
    child.join()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="no file locks here; take care that one process writes"):
        FileLock(tmp_path / "lock").acquire()
