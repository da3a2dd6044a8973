"""Rows of arrays in their chunk files: read where they are, written in place.

>>> write_rows(arrays, start=130, rows={"step": steps, ...}, fsync=True)       # doctest: +SKIP
>>> read_rows(arrays["step"], np.array([130, 131]))                            # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from .schema import Array, damaged, sync_files

OPEN_FILES = 64
"""At most so many chunks are open at a time."""


def read_rows(array: Array, rows: np.ndarray) -> np.ndarray:
    """Rows of one array in the order asked for.

    :param rows: non-negative integers within the chunks
    :raises TraceError: if a chunk is missing or too short
    """
    out = np.empty((len(rows), *array.item_shape), array.dtype)
    chunks = rows // array.chunk_rows
    order = np.argsort(chunks, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1):
        if len(part):
            index = int(chunks[part[0]])
            out[part] = _read_span(array, index, rows[part] - index * array.chunk_rows)
    return out


def write_rows(arrays: Mapping[str, Array], start: int, rows: Mapping[str, np.ndarray], fsync: bool) -> None:
    """Write rows into the padding behind row ``start``, where no reader looks; committing them is another matter.

    :param rows: for each array as many rows
    :raises OSError: if they cannot be written
    """
    parts = [
        (array, index, values)
        for name, array in arrays.items()
        for index, values in _by_chunk(array, start, np.ascontiguousarray(rows[name], array.dtype))
    ]
    for first in range(0, len(parts), OPEN_FILES):
        with contextlib.ExitStack() as stack:
            opened: list[int] = []
            folders: dict[Path, None] = {}
            for array, index, values in parts[first : first + OPEN_FILES]:
                opened.append(_open_chunk(array, index, folders))
                stack.callback(os.close, opened[-1])
                offset = max(start - index * array.chunk_rows, 0) * array.row_bytes
                _write_at(opened[-1], values.tobytes(), offset)
            if fsync:
                sync_files(opened)
                sync_folders(*folders)


def sync_folders(*folders: Path) -> None:
    """Wait until the disk knows what is in some folders."""
    with contextlib.ExitStack() as stack:
        opened = []
        for folder in folders:
            opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, opened[-1])
        with contextlib.suppress(OSError):  # some network file systems have no fsync of directories
            sync_files(opened)


def _read_span(array: Array, index: int, within: np.ndarray) -> np.ndarray:
    path = array.folder.parent
    first, last = int(within.min()), int(within.max())
    count = (last + 1 - first) * array.row_bytes // array.dtype.itemsize
    try:
        span = np.fromfile(array.chunk(index), array.dtype, count, offset=first * array.row_bytes)
    except OSError as error:
        raise damaged(path, f"{array.folder.name} chunk {index}: {error.strerror}") from None
    if len(span) != count:
        raise damaged(path, f"{array.folder.name} chunk {index} is too short")
    return span.reshape(-1, *array.item_shape)[within - first]


def _open_chunk(array: Array, index: int, changed: dict[Path, None]) -> int:
    """A chunk of full size; folders in which something new was made are added to ``changed``."""
    chunk = array.chunk(index)
    try:
        descriptor = os.open(chunk, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # Nothing above these two: a trace that was removed must not come back in parts.
        for folder in (array.folder / "c", chunk.parent):
            folder.mkdir(exist_ok=True)
        descriptor = os.open(chunk, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        changed |= dict.fromkeys((array.folder, array.folder / "c", chunk.parent))
    try:
        size = array.chunk_rows * array.row_bytes
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _by_chunk(array: Array, start: int, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows from ``start`` on, by the chunk that they go to."""
    stop = start + len(values)
    for index in range(start // array.chunk_rows, -(-stop // array.chunk_rows)):
        base = index * array.chunk_rows
        yield index, values[max(base - start, 0) : base + array.chunk_rows - start]


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
