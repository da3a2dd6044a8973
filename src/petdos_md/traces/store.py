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
import gc
import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import TraceError
from ..base.locks import FileLock, LockTaken
from .chunks import read_rows, sync_folders, write_rows
from .schema import (
    ARRAYS,
    OPTIONAL,
    SCHEMA,
    SCHEMA_VERSION,
    Array,
    array_folder,
    array_metadata,
    damaged,
    group_metadata,
    json_bytes,
    read_array,
    read_json,
    replace_files,
    replace_json,
    upgraded,
)

_LOCK = "features/writer.lock"  # not at the top of the group, where zarr would warn of an unknown object
_JOURNAL = "features/truncate.npz"
LOOKS = 100
"""A trace that changes whenever its length is read is taken as it is after so many looks."""


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
        self._lock = FileLock(path / _LOCK)
        self.reload()

    @classmethod
    def create(
        cls,
        path: Path,
        attributes: dict[str, Any],
        n_features: int,
        features_dtype: str,
        fsync: bool = True,
        n_rows: int = 0,
    ) -> Store:
        """Make an empty trace; if another process made one at the same moment, open that.

        :param n_rows: how many samples it will have, if that is known, so that they come to lie in few files
        :raises TraceError: if ``path`` holds something else
        :raises OSError: if it cannot be written
        """
        place = Path(os.path.realpath(path))  # a link to an empty folder stays one
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.parent / f".{place.name}.{os.getpid()}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            for name in (name for name in ARRAYS if name not in OPTIONAL):
                (draft / name).mkdir(parents=True)
                replace_json(
                    draft / name / "zarr.json", array_metadata(name, n_features, features_dtype, n_rows), fsync
                )
            (draft / _LOCK).touch()
            replace_json(draft / "zarr.json", group_metadata(attributes), fsync)
            draft.rename(place)  # succeeds on nothing or on an empty directory
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) or not place.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path, fsync)

    # -- reading --------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the length and the attributes again, as they are at one moment."""
        for _ in range(LOOKS):
            commit = self._last_commit()
            self._reload()
            # Readers must notice when rows that they count on are dropped: they compare with the keys of now.
            self._known_keys = (
                None if self.locked else [self._read(name, self._all_rows()) for name in ("step", "replica")]
            )
            if commit == self._last_commit():
                break
        self._commit_seen = commit
        self.version += 1

    def _reload(self) -> None:
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
        there = [name for name in ARRAYS if name not in OPTIONAL or (self.path / name).is_dir()]
        self._arrays = {name: read_array(self.path, name, version) for name in there}
        self._journal = self._read_journal()
        self._check_chunks()

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

        :raises TraceError: if a chunk is missing or too short, or another process has dropped rows since the last reload
        """
        out = self._read(name, rows)
        if not self.locked and self._last_commit() != self._commit_seen:
            self._check_still_there()
        return out

    def _read(self, name: str, rows: np.ndarray) -> np.ndarray:
        if name not in self._arrays:
            return np.full(len(rows), self._of_all(name))
        array = self._arrays[name]
        if self._journal is None:
            return read_rows(array, rows)
        out = np.empty((len(rows), *array.item_shape), array.dtype)
        plain = rows < self._n_plain
        out[plain] = read_rows(array, rows[plain])
        out[~plain] = self._journal[name][rows[~plain] - self._n_plain]
        return out

    def read_all(self, name: str) -> np.ndarray:
        """A whole array."""
        return self.read(name, self._all_rows())

    # -- writing --------------------------------------------------------------------------------------------------

    @property
    def locked(self) -> bool:
        """Whether this object is the writer."""
        return self._lock.held

    def lock(self) -> None:
        """Become the writer and take over what an earlier writer left.

        :raises TraceError: if there is another writer, in this process or elsewhere
        """
        if self.format < SCHEMA_VERSION:
            raise TraceError(
                f"{self.path}: a trace of format {self.format}, which can be read but not written; copy it into a new one with "
                f"`petdos merge NEW.zarr {self.path}` and go on with that"
            )
        try:
            try:
                self._lock.acquire()
            except LockTaken as taken:
                if not taken.is_own:
                    raise
                gc.collect()  # a forgotten writer that is part of a circle lives until then
                self._lock.acquire()
        except LockTaken as taken:
            fix = ", by another Trace object of this process; close it" if taken.is_own else "; close that writer"
            raise TraceError(
                f"{self.path}: being written by {taken.holder}{fix}, or write to another path and merge"
            ) from None
        try:
            self.reload()
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Stop being the writer."""
        if self.locked:
            self._lock.release()
            with contextlib.suppress(TraceError):  # the folder may be gone
                self.reload()

    def append(self, rows: dict[str, np.ndarray]) -> None:
        """Add rows for good; an interrupted call leaves the trace as it was and may be repeated.

        :param rows: for each of :data:`ARRAYS` an array with the same number of rows
        :raises OSError: if they cannot be written
        """
        self._repair()
        for name in OPTIONAL:
            if name not in self._arrays and not np.isnan(rows[name]).all():
                self._add(name)
        start = self.n_rows
        write_rows(self._arrays, start, rows, self.fsync)
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
            kept: dict[str, Any] = {name: self.read(name, tail) for name in self._arrays}
            np.savez(buffer, start=start, **kept)
            replace_files({self.path / _JOURNAL: buffer.getvalue()}, self.fsync)
            self._sync_features()
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

    def _all_rows(self) -> np.ndarray:
        return np.arange(self.n_rows)

    def _last_commit(self) -> tuple[int, int]:
        """What changes with every change of the length."""
        for version in (SCHEMA_VERSION, 1):
            with contextlib.suppress(OSError):
                found = os.stat(self.path / array_folder("features", version) / "zarr.json")
                return found.st_ino, found.st_mtime_ns
        return 0, 0

    def _check_still_there(self) -> None:
        """Whether another process has only added rows."""
        now = Store(self.path, self.fsync)
        old, new = self._known_keys, now._known_keys
        assert old is not None and new is not None
        if now.n_rows < self.n_rows or not all(np.array_equal(b[: len(a)], a) for a, b in zip(old, new, strict=True)):
            raise TraceError(
                f"{self.path}: samples were dropped by its writer while this was being read; open it again, or refresh()"
            )
        self._commit_seen = now._commit_seen

    def _check_chunks(self) -> None:
        for array in self._arrays.values():
            size = array.chunk_rows * array.row_bytes
            for index in range(-(-self._n_plain // array.chunk_rows)):
                chunk = array.chunk(index)
                found = chunk.stat().st_size if chunk.exists() else 0
                if found != size:
                    raise damaged(self.path, f"{chunk.relative_to(self.path)} has {found} of {size} bytes")

    def _read_journal(self) -> dict[str, np.ndarray] | None:
        if self.format == 1 and (self.path / "psi" / "rewind.npz").exists():
            raise TraceError(
                f"{self.path}: a trace of format 1 that was being rewound when its writer was killed; open it with the version that "
                "wrote it, or take a copy from before"
            )
        try:
            with np.load(self.path / _JOURNAL, allow_pickle=False) as data:
                return {name: data[name] for name in ("start", *self._arrays)}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(self.path, f"{_JOURNAL}: {error}") from None

    def _repair(self) -> None:
        """Finish what a killed writer began: an interrupted truncate, a commit that reached only some arrays."""
        if self._journal is not None:
            start = self._n_plain
            self._commit(start)
            write_rows(self._arrays, start, self._journal, self.fsync)
            self._commit(start + len(self._journal["step"]))
            (self.path / _JOURNAL).unlink(missing_ok=True)
            self._sync_features()  # it must not come back after a power cut, on top of newer rows
            self._journal = None
        self._commit(self._n_plain)

    def _of_all(self, name: str) -> float:
        """What an array that is not there stands for."""
        value = self.attributes.get("metadata", {}).get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")

    def _add(self, name: str) -> None:
        """Make an optional array, with the rows that there are, in one rename."""
        n, draft = self._n_plain, self.path / f".{name}.partial"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        metadata = array_metadata(name, self.n_features)
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [self._arrays["step"].chunk_rows]
        dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        rows = {name: np.full(n, self._of_all(name))}
        write_rows({name: Array(draft, dtype, metadata)}, 0, rows, self.fsync)
        replace_json(draft / "zarr.json", {**metadata, "shape": [n]}, self.fsync)
        draft.rename(self.path / name)
        if self.fsync:
            sync_folders(self.path)
        self._arrays[name] = read_array(self.path, name)

    def _sync_features(self) -> None:
        if self.fsync:
            sync_folders(self.path / "features")

    def _commit(self, n: int) -> None:
        growing = n > self._arrays["features"].n
        known = [name for name in ARRAYS if name in self._arrays]
        arrays = [self._arrays[name] for name in (known if growing else reversed(known))]
        changed = {
            array.folder / "zarr.json": {**array.metadata, "shape": [n, *array.item_shape]}
            for array in arrays
            if array.n != n
        }
        replace_files({file: json_bytes(metadata) for file, metadata in changed.items()}, self.fsync)
        for array in arrays:
            array.metadata = changed.get(array.folder / "zarr.json", array.metadata)
