"""One writer at a time: a lock on a file, which the kernel frees when its holder dies.

>>> import tempfile
>>> with FileLock(Path(tempfile.mkdtemp()) / "build.lock") as lock:     # waits for its turn
...     lock.held
True
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import warnings
from pathlib import Path

_TAKEN = (errno.EAGAIN, errno.EACCES)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


class LockTaken(Exception):
    """Somebody else holds the lock.

    :ivar holder: for people: ``process 4711 on node7``
    :ivar is_own: whether that is this very process
    """

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by {holder}")
        self.holder = holder
        self.is_own = holder == _name()


class FileLock:
    """``flock`` on a file, which is made if it is not there and stays when the lock is given back.

    Where the file system has no locks, a warning says so and the lock counts as taken. As a context manager it waits for
    its turn.

    :param path: the file; its folder must exist
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, wait: bool = False) -> None:
        """Take the lock.

        :param wait: until it is free
        :raises LockTaken: if it is not free and this is not to wait
        :raises OSError: if the file cannot be made
        """
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in _TAKEN:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise LockTaken(holder) from None
            if not isinstance(error, OSError) or error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(f"{self.path}: no file locks here; take care that one process writes", stacklevel=3)
        with contextlib.suppress(OSError):  # for people only; a full disk must not matter here
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{_name()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without it, nothing happens."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                # Closing is not enough while a forked child holds a copy.
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> FileLock:
        self.acquire(wait=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
