"""The trace on disk: a zarr v3 group of raw arrays that grow row by row, written without a zarr library.

Why by hand: with the codec ``bytes`` a chunk is a plain array file, so new rows can go *in place* into the padding of
the last chunk, where no reader looks, and become visible by one rename. No zarr library offers that, and programs in
other languages can do the same (``docs/trace-format.md``). Any zarr v3 library reads the result.

>>> store = Store.create(Path("run.zarr"), attributes, 1026, "float32")   # doctest: +SKIP
>>> store.lock(); store.append(rows); store.unlock()                      # doctest: +SKIP

Rows are a dictionary from the name of an array to ``(n, ...)`` numbers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import shutil
import socket
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import TraceError
from .schema import (
    ARRAYS,
    SCHEMA,
    SCHEMA_VERSION,
    Array,
    array_metadata,
    damaged,
    group_metadata,
    json_bytes,
    read_array,
    read_json,
    replace_files,
    replace_json,
    sync_files,
    upgraded,
)

_LOCK = "features/writer.lock"  # not at the top of the group, where zarr would warn of an unknown object
_JOURNAL = "features/truncate.npz"
OPEN_FILES = 64
"""At most so many chunks are open at a time."""


class Store:
    """The arrays and attributes of one trace directory, as they are on disk.

    :ivar attributes: of the group; change them with :meth:`set_attributes`
    :ivar version: changes when rows that were seen before may have changed
    :ivar n_rows: samples that a reader may see
    :ivar format: version of the trace format on disk
    :raises TraceError: if the directory is no trace, is damaged, or was written by a newer version
    """

    def __init__(self, path: Path, fsync: bool = True) -> None:
        self.path = path
        self.fsync = fsync
        self.version = 0
        self._lock_fd: int | None = None
        self.reload()

    @classmethod
    def create(
        cls, path: Path, attributes: dict[str, Any], n_features: int, features_dtype: str, fsync: bool = True
    ) -> Store:
        """Make an empty trace; if another process made one at the same moment, open that.

        :raises TraceError: if ``path`` holds something else
        :raises OSError: if it cannot be written
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.parent / f".{path.name}.{os.getpid()}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for name in ARRAYS:
                (draft / name).mkdir(parents=True)
                replace_json(draft / name / "zarr.json", array_metadata(name, n_features, features_dtype), fsync)
            (draft / _LOCK).touch()
            replace_json(draft / "zarr.json", group_metadata(attributes), fsync)
            draft.rename(path)  # succeeds on nothing or on an empty directory
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not path.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path, fsync)

    # -- reading --------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the length and the attributes again."""
        group = read_json(self.path / "zarr.json", self.path)
        attributes = group.get("attributes", {}) if isinstance(group, dict) else {}
        if not isinstance(attributes, dict) or attributes.get("schema") != SCHEMA:
            raise TraceError(f"{self.path}: not a trace (no schema {SCHEMA!r} in zarr.json); give the path of a trace")
        version = attributes.get("schema_version")
        if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
            raise TraceError(
                f"{self.path}: trace format version {version!r}, this petdos-md reads up to {SCHEMA_VERSION}; upgrade petdos-md"
            )
        self.format = version
        self.attributes: dict[str, Any] = upgraded(attributes)
        self._arrays = {name: read_array(self.path, name, version) for name in ARRAYS}
        self._journal = self._read_journal()
        self._check_chunks()
        self.version += 1

    @property
    def n_features(self) -> int:
        return self._arrays["features"].item_shape[0]

    @property
    def features_dtype(self) -> str:
        return str(self._arrays["features"].metadata["data_type"])

    @property
    def n_rows(self) -> int:
        if self._journal is not None:
            return self._n_plain + len(self._journal["step"])
        return self._n_plain

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one array in the order asked for; ``rows`` are valid, non-negative integers.

        :raises TraceError: if a chunk is missing or too short
        """
        array = self._arrays[name]
        out = np.empty((len(rows), *array.item_shape), array.dtype)
        plain = np.flatnonzero(rows < self._n_plain)
        if self._journal is not None:
            kept = np.flatnonzero(rows >= self._n_plain)
            out[kept] = self._journal[name][rows[kept] - self._n_plain]
        chunks = rows[plain] // array.chunk_rows
        order = np.argsort(chunks, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1):
            if len(part):
                index = int(chunks[part[0]])
                within = rows[plain[part]] - index * array.chunk_rows
                out[plain[part]] = self._read_span(array, index, within)
        return out

    def read_all(self, name: str) -> np.ndarray:
        """A whole array."""
        return self.read(name, np.arange(self.n_rows))

    # -- writing --------------------------------------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        """Whether this object is the writer."""
        return self._lock_fd is not None

    def lock(self) -> None:
        """Become the writer and take over what an earlier writer left.

        :raises TraceError: if there is another writer, in this process or elsewhere
        """
        if self.format < SCHEMA_VERSION:
            raise TraceError(
                f"{self.path}: a trace of format {self.format}, which can be read but not written; copy it into a new one with "
                f"`petdos merge NEW.zarr {self.path}` and go on with that"
            )
        fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                holder = os.pread(fd, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(fd)
                raise TraceError(
                    f"{self.path}: being written by {holder}; close that writer, or write to another path and merge"
                ) from None
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(fd)
                raise
            warnings.warn(f"{self.path}: no file locks here; take care that one process writes", stacklevel=3)
        with contextlib.suppress(OSError):  # for people only; a full disk must not matter here
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._lock_fd = fd
        try:
            self.reload()
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Stop being the writer."""
        if self._lock_fd is not None:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)  # closing is not enough while a forked child holds a copy
            os.close(self._lock_fd)
            self._lock_fd = None

    def append(self, rows: dict[str, np.ndarray]) -> None:
        """Add rows for good; an interrupted call leaves the trace as it was and may be repeated.

        :param rows: for each of :data:`ARRAYS` an array with the same number of rows
        :raises OSError: if they cannot be written
        """
        self._repair()
        start = self.n_rows
        self._write(start, rows)
        self._commit(start + len(rows["step"]))

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows where ``mask`` is False; killed at any moment, either all of them are dropped or none.

        :raises OSError: if it cannot be written
        """
        self._repair()
        self.version += 1
        dropped = np.flatnonzero(~mask)
        if not len(dropped):
            return
        start = int(dropped[0])
        tail = start + np.flatnonzero(mask[start:])
        if len(tail):
            # Rows that stay have to move up over rows that go. They are first set aside in one file, which counts
            # as the rows from `start` on as long as it exists.
            buffer = io.BytesIO()
            kept: dict[str, Any] = {name: self.read(name, tail) for name in ARRAYS}
            np.savez(buffer, start=start, **kept)
            replace_files({self.path / _JOURNAL: buffer.getvalue()}, self.fsync)
            self._sync(self.path / "features")
            self._journal = self._read_journal()
            self._repair()
        else:
            self._commit(start)

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        """Replace the group's attributes, if they differ.

        :raises OSError: if they cannot be written
        """
        if attributes != self.attributes:
            replace_json(self.path / "zarr.json", group_metadata(attributes), self.fsync)
            self.attributes = attributes

    # -- helpers --------------------------------------------------------------------------------------------------

    @property
    def _n_plain(self) -> int:
        n = min(array.n for array in self._arrays.values())
        return n if self._journal is None else min(n, int(self._journal["start"]))

    def _check_chunks(self) -> None:
        for array in self._arrays.values():
            size = array.chunk_rows * array.row_bytes
            for index in range(-(-self._n_plain // array.chunk_rows)):
                chunk = array.chunk(index)
                found = chunk.stat().st_size if chunk.exists() else 0
                if found != size:
                    raise damaged(self.path, f"{chunk.relative_to(self.path)} has {found} of {size} bytes")

    def _read_span(self, array: Array, index: int, within: np.ndarray) -> np.ndarray:
        first, last = int(within.min()), int(within.max())
        count = (last + 1 - first) * array.row_bytes // array.dtype.itemsize
        try:
            span = np.fromfile(array.chunk(index), array.dtype, count, offset=first * array.row_bytes)
        except OSError as error:
            raise damaged(self.path, f"{array.folder.name} chunk {index}: {error.strerror}") from None
        if len(span) != count:
            raise damaged(self.path, f"{array.folder.name} chunk {index} is too short")
        return span.reshape(-1, *array.item_shape)[within - first]

    def _read_journal(self) -> dict[str, np.ndarray] | None:
        if self.format == 1 and (self.path / "psi" / "rewind.npz").exists():
            raise TraceError(
                f"{self.path}: a trace of format 1 that was being rewound when its writer was killed; open it with the version that "
                "wrote it, or take a copy from before"
            )
        try:
            with np.load(self.path / _JOURNAL, allow_pickle=False) as data:
                return {name: data[name] for name in ("start", *ARRAYS)}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(self.path, f"{_JOURNAL}: {error}") from None

    def _repair(self) -> None:
        """Finish what a killed writer began: an interrupted truncate, a commit that reached only some arrays."""
        if self._journal is not None:
            start = self._n_plain
            self._commit(start)
            self._write(start, self._journal)
            self._commit(start + len(self._journal["step"]))
            (self.path / _JOURNAL).unlink(missing_ok=True)
            self._sync(self.path / "features")  # it must not come back after a power cut, on top of newer rows
            self._journal = None
        self._commit(self._n_plain)

    def _write(self, start: int, rows: dict[str, np.ndarray]) -> None:
        parts = [
            (array, index, values)
            for name, array in self._arrays.items()
            for index, values in _by_chunk(array, start, np.ascontiguousarray(rows[name], array.dtype))
        ]
        for first in range(0, len(parts), OPEN_FILES):
            with contextlib.ExitStack() as stack:
                opened: list[int] = []
                folders: dict[Path, None] = {}
                for array, index, values in parts[first : first + OPEN_FILES]:
                    opened.append(self._open_chunk(array, index, folders))
                    stack.callback(os.close, opened[-1])
                    offset = max(start - index * array.chunk_rows, 0) * array.row_bytes
                    _write_at(opened[-1], values.tobytes(), offset)
                if self.fsync:
                    sync_files(opened)
                    self._sync(*folders)

    def _open_chunk(self, array: Array, index: int, changed: dict[Path, None]) -> int:
        """A chunk of full size; folders that have got a new entry are added to ``changed``."""
        chunk = array.chunk(index)
        try:
            fd = os.open(chunk, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # Nothing above these two: a trace that was removed must not come back in parts.
            for folder in (array.folder / "c", chunk.parent):
                folder.mkdir(exist_ok=True)
            fd = os.open(chunk, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            changed |= dict.fromkeys((array.folder, array.folder / "c", chunk.parent))
        try:
            size = array.chunk_rows * array.row_bytes
            if os.fstat(fd).st_size != size:
                os.ftruncate(fd, size)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _sync(self, *folders: Path) -> None:
        if not self.fsync or not folders:
            return
        with contextlib.ExitStack() as stack:
            opened = []
            for folder in folders:
                opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, opened[-1])
            with contextlib.suppress(OSError):  # some network file systems have no fsync of directories
                sync_files(opened)

    def _commit(self, n: int) -> None:
        growing = n > self._arrays["features"].n
        arrays = [self._arrays[name] for name in (ARRAYS if growing else reversed(ARRAYS))]
        changed = {
            array.folder / "zarr.json": {**array.metadata, "shape": [n, *array.item_shape]}
            for array in arrays
            if array.n != n
        }
        replace_files({file: json_bytes(metadata) for file, metadata in changed.items()}, self.fsync)
        for array in arrays:
            array.metadata = changed.get(array.folder / "zarr.json", array.metadata)


def _by_chunk(array: Array, start: int, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows from ``start`` on, by the chunk that they go to."""
    stop = start + len(values)
    for index in range(start // array.chunk_rows, -(-stop // array.chunk_rows)):
        base = index * array.chunk_rows
        yield index, values[max(base - start, 0) : base + array.chunk_rows - start]


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
