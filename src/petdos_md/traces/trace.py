"""A trace: the electronic record of a simulation, one small row per sampled frame, safe against crashes.

The same store for every engine: a zarr v3 directory (``docs/trace-format.md``). Rows are collected in memory and
flushed a few at a time; what was flushed survives a kill at any moment. One process writes, any number read.

>>> with Trace.open("run.zarr", model=model, engine="ase") as trace:     # doctest: +SKIP
...     trace.append(model.evaluate(atoms), step=10, temperature_K=300.0)
>>> trace = Trace.open("run.zarr", "r")                                  # doctest: +SKIP
>>> trace.temperatures_K, trace[-1].step, trace.features[:100].mean(axis=0)   # doctest: +SKIP
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from ..base.errors import NoSamplesError, TraceError
from ..base.notebooks import html_facts
from ..base.sample import ModelInfo, Sample
from ..base.temperatures import distinct_temperatures
from .checks import check_model, checked_sample
from .merge import merge_traces
from .schema import COLUMNS
from .store import Store
from .writer import Flushing, Writer, new_attributes

LABELS = tuple(field.name for field in fields(Sample) if field.name not in ("features", "model"))
"""Fields of a Sample that :meth:`Trace.append` can replace."""
ITERATION_ROWS = 512


class HasModelInfo(Protocol):
    """Anything that knows its identity as a model, such as a ``DOSModel``."""

    @property
    def info(self) -> ModelInfo: ...


def _column(name: str) -> property:
    return property(
        lambda trace: trace._read_column(name), doc=f"{COLUMNS[name][2]}; shape ``(n,)``, {COLUMNS[name][0]}"
    )


class Trace:
    """Samples of one model in the order in which they came; made by :meth:`open`.

    ``len(trace)``, ``trace[i]`` (a Sample), ``trace[i:j]`` (a list) and iteration include rows that this object has
    not flushed yet. Not safe for use from several threads at once.
    """

    step = _column("step")
    replica = _column("replica")
    time_fs = _column("time_fs")
    temperature_K = _column("temperature_K")
    kinetic_temperature_K = _column("kinetic_temperature_K")
    potential_energy_eV = _column("potential_energy_eV")
    volume_A3 = _column("volume_A3")
    n_atoms = _column("n_atoms")
    n_electrons = _column("n_electrons")
    weight = _column("weight")
    electronic_temperature_K = _column("electronic_temperature_K")

    def __init__(self, path: Path, mode: str, writer: Writer) -> None:
        self.path = path
        self.mode = mode
        self._writer = writer
        self._cache: dict[str, tuple[tuple[int, int], np.ndarray]] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "a",
        model: ModelInfo | HasModelInfo | None = None,
        *,
        engine: str = "",
        timestep_fs: float = math.nan,
        metadata: Mapping[str, Any] | None = None,
        **flushing: Any,
    ) -> Trace:
        """Open a trace, or make one.

        The place of the writer is taken at the first append (or truncate, or skipped sample), not here: opening with
        ``"a"`` in order to read disturbs nobody.

        :param path: a directory; if nothing is there and the mode is ``"a"``, it is made at once when ``model`` is
            given, else at the first append; kept as an absolute path, so that a change of folder does no harm
        :param mode: ``"a"`` to read and append, ``"r"`` to read the samples that are there now (see :meth:`refresh`)
        :param model: the model that the samples must belong to (a DOSModel or its ModelInfo)
        :param engine: name of the engine, for the record
        :param timestep_fs: of the simulation (fs), for the record
        :param metadata: what tells this simulation from others, JSON-able (``docs/trace-format.md`` lists the keys of the engines).
            Time step and metadata must agree with the trace where both are known, numbers within a relative 1e-6
        :param flushing: ``flush_every=64``: an append flushes if there are so many samples in memory,
            ``flush_interval_s=10.0``: or if the last flush was so many seconds ago;
            ``fsync=True``: wait at every flush until the disk has the data, so that a power cut does no harm either
            (a kill of the process never does); 5 to 100 ms per flush, by the disk
        :raises TraceError: if it is no trace, is damaged, or belongs to another model or simulation
        """
        path = Path(path).expanduser().absolute()
        if mode not in ("a", "r"):
            raise TraceError(f"{path}: mode {mode!r} given, expected 'a' (read and append) or 'r' (read)")
        if path.is_symlink() and not path.exists():
            raise TraceError(
                f"{path}: a link to {os.readlink(path)}, where nothing is; make that folder, or remove the link"
            )
        how = Flushing(**flushing)
        how.check(path)
        info = model if model is None or isinstance(model, ModelInfo) else model.info
        store = Store(path, how.fsync) if mode == "r" or (path.exists() and not _is_empty_folder(path)) else None
        writer = Writer(path, store, how)
        trace = cls(path, mode, writer)
        if mode == "a":
            writer.attributes = new_attributes(path, engine, timestep_fs, metadata)
        if store is not None:
            writer.check_attributes()
            if info is not None:
                check_model(path, trace.model, info)
        elif info is not None:
            writer.create(info)
        writer.finish_at_exit(trace)
        return trace

    # -- writing --------------------------------------------------------------------------------------------------

    def append(self, sample: Sample, **labels: Any) -> bool:
        """Add a sample; it is on disk after the next flush.

        :param labels: fields of the sample to replace (``step=10, temperature_K=300.0``); with no step at all, the
            sample gets the next one of its replica
        :returns: False if the trace holds this replica and step already; the new sample is then dropped
        :raises PredictionError: if features are not finite; nothing is stored, see :meth:`skip`
        :raises TraceError: if the sample is of another model, lacks a temperature, has a wrong weight or length, or if
            another process is writing: nothing is stored; if the disk is full: all samples, this one too, are kept in
            memory, and the next append or :meth:`flush` tries again
        """
        self._check_writable()
        unknown = set(labels) - set(LABELS)
        if unknown:
            raise TypeError(f"unknown label {sorted(unknown)[0]!r}, expected some of {', '.join(LABELS)}")
        sample = checked_sample(self.path, sample, labels)
        if self._writer.store is not None:
            check_model(self.path, self.model, sample.model)
        else:
            self._writer.create(sample.model)
        return self._writer.append(sample)

    def describe(
        self, *, engine: str = "", timestep_fs: float = math.nan, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Add to what :meth:`open` was given about the simulation; stored with the next flush.

        :raises TraceError: if something differs from what the trace says, or JSON cannot hold it
        """
        self._check_writable()
        self._writer.describe(new_attributes(self.path, engine, timestep_fs, metadata))

    def skip(self, reason: str, step: int | None = None, replica: int = 0) -> bool:
        """Count a frame that gave no sample; stored with the next flush.

        :param reason: a short phrase without numbers; counts are kept by reason
        :param step: if given, frames up to the last skipped one of that replica do not count again (after a restart)
        :returns: whether it was counted
        """
        self._check_writable()
        return self._writer.skip(reason, step, replica)

    def flush(self) -> None:
        """Write what is in memory.

        :raises TraceError: if that fails (disk full); the samples stay in memory and the call may be repeated
        """
        if self.mode == "a":
            self._check_writable()
            self._writer.flush()

    def close(self, reason: str = "") -> None:
        """Flush and give up writing; reading goes on. Happens at exit and when the object is forgotten, too.

        :param reason: shown in the error of whoever writes nevertheless
        :raises TraceError: if the flush fails; the trace then stays open and the call may be repeated
        """
        self._writer.close(reason)

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def truncate(self, step: int, replica: int | None = None) -> int:
        """Drop the samples after a step, for resuming from an older checkpoint; all of them or, if killed, none.

        :param replica: of this replica only
        :returns: how many were dropped
        :raises TraceError: if the disk is full (nothing is dropped) or another process is writing
        """
        self._check_writable()
        if self._writer.store is None:
            return 0
        return self._writer.truncate(step, replica)

    @classmethod
    def merge(
        cls, output: str | os.PathLike[str], paths: Sequence[str | os.PathLike[str]], *, replicas: str = "auto"
    ) -> Trace:
        """Join traces of one model into a new one, which says in ``attributes["sources"]`` what came from where.

        :param output: must not exist; appears when it is complete
        :param replicas: ``"auto"`` keeps the replica numbers if no two sources share one, else numbers them through in
            the order of the sources; ``"keep"`` keeps them always (parts of one simulation)
        :returns: the new trace, open for reading
        :raises TraceError: if a source is not readable or of another model, the output exists, or numbers that are to
            be kept clash
        """
        merge_traces(Path(output).expanduser().absolute(), [cls.open(path, "r") for path in paths], replicas)
        return cls.open(output, "r")

    # -- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._writer.n_rows

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return self._samples(np.arange(*index.indices(len(self))))
        i, n = operator.index(index), len(self)
        if not -n <= i < n:
            raise IndexError(f"sample {i} of a trace with {n} samples")
        return self._samples(np.array([i % n]))[0]

    def __iter__(self) -> Iterator[Sample]:
        n, truncations = len(self), self._writer.n_truncations
        for start in range(0, n, ITERATION_ROWS):
            rows = np.arange(start, min(start + ITERATION_ROWS, n))
            if len(self) < n or self._writer.n_truncations > truncations:
                raise TraceError(f"{self.path}: samples were dropped while it was iterated over; start again")
            yield from self._samples(rows)

    @property
    def features(self) -> FeatureRows:
        """All features, shape ``(n, n_features)`` in the model's precision, read from disk where indexed."""
        return FeatureRows(self._writer, len(self), self.model)

    @property
    def temperatures_K(self) -> np.ndarray:
        """Temperatures of the ensembles in the trace (K), ascending; equal ones within 1e-6 relative are one."""
        return np.array(distinct_temperatures(self.temperature_K))

    @property
    def model(self) -> ModelInfo:
        """Identity of the model of all samples.

        :raises NoSamplesError: if the trace is not made yet
        """
        if self._writer.store is None:
            raise NoSamplesError(f"{self.path}: no samples yet, so the model is not known; append a sample first")
        return self._writer.model

    @property
    def attributes(self) -> dict[str, Any]:
        """Everything that the trace says about itself, as JSON values."""
        return self._writer.current_attributes()

    @property
    def engine(self) -> str:
        """Name of the engine; several are separated by commas."""
        return str(self.attributes["engine"])

    @property
    def timestep_fs(self) -> float:
        """Time step of the simulation (fs), NaN if unknown."""
        value = self.attributes["timestep_fs"]
        return math.nan if value is None else float(value)

    @property
    def n_skipped(self) -> int:
        """Frames that gave no sample."""
        return sum(self.skipped.values())

    @property
    def skipped(self) -> dict[str, int]:
        """Frames that gave no sample, by reason."""
        return dict(self.attributes["skipped"])

    def last_step(self, replica: int = 0) -> int | None:
        """The largest step of a replica, None if it has no samples."""
        return self._writer.keys.last(replica)

    def has_step(self, step: int, replica: int = 0) -> bool:
        """Whether there is a sample of this replica and step."""
        return self._writer.keys.has(replica, step)

    def refresh(self) -> int:
        """See what another process has written since; returns the length. A writer has nothing to refresh."""
        self._writer.refresh()
        return len(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copies and pickles of a trace that is open for writing read only: two writers would overwrite each other."""
        if self.mode != "a":
            return super().__reduce_ex__(protocol)
        self._writer.flush()
        return type(self).open, (self.path, "r")

    def __repr__(self) -> str:
        if self._writer.store is None:
            return f"<Trace {self.path}: no samples yet>"
        ladder = self.temperatures_K
        if len(ladder) > 4:
            said = f"{len(ladder)} temperatures from {ladder[0]:g} to {ladder[-1]:g} K"
        else:
            said = (", ".join(f"{value:g}" for value in ladder) or "no") + " K"
        skipped = f", {self.n_skipped} skipped" if self.n_skipped else ""
        return f"<Trace {self.path}: {len(self)} samples of {self.model.name} ({self.model.kind}), {said}{skipped}>"

    def _repr_html_(self) -> str:
        if self._writer.store is None:
            return html_facts("Trace", {"path": str(self.path), "samples": "none yet"})
        metadata, ladder = self.attributes["metadata"], ", ".join(f"{t:g}" for t in self.temperatures_K)
        facts = {
            "path": str(self.path),
            "samples": f"{len(self)}{f', {self.n_skipped} skipped' if self.n_skipped else ''}",
            "temperatures": f"{ladder or 'none'} K",
            "replicas": str(len(np.unique(self.replica))),
            "engine": self.engine or "not known",
            **{key: str(metadata[key]) for key in ("formula", "ensemble", "potential") if metadata.get(key)},
            "model": f"{self.model.name} ({self.model.kind}, {self.model.n_features} features)",
        }
        return html_facts("Trace", facts)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _read_column(self, name: str) -> np.ndarray:
        store = self._writer.store
        if store is None:
            return np.empty(0, COLUMNS[name][0])
        state, values = self._cache.get(name, (None, np.empty(0)))
        if state != (store.version, store.n_rows):
            values = store.read_all(name)
            self._cache[name] = ((store.version, store.n_rows), values)
        return self._writer.with_unwritten(name, values)

    def _samples(self, rows: np.ndarray) -> list[Sample]:
        if not len(rows):
            return []
        features, model = self._writer.read_rows("features", rows), self.model
        columns = {name: self._writer.read_rows(name, rows).tolist() for name in COLUMNS}
        return [
            Sample(features=features[i], model=model, **{name: values[i] for name, values in columns.items()})
            for i in range(len(rows))
        ]

    def _check_writable(self) -> None:
        if self.mode != "a":
            raise TraceError(f"{self.path}: opened for reading; open it with mode 'a' to write")
        self._writer.check_usable()


class FeatureRows:
    """The features of a trace as a two-dimensional array that is read where it is indexed; ``np.asarray`` reads all.

    The length is that of the trace at the time when the object was made.
    """

    ndim = 2

    def __init__(self, writer: Writer, n: int, model: ModelInfo) -> None:
        self._writer = writer
        self.shape = (n, model.n_features)
        self.dtype = np.dtype(model.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        chosen = np.arange(len(self))[rows]  # NumPy's own rules for integers, slices, masks and lists
        values = self._writer.read_rows("features", chosen.reshape(-1)).reshape(*chosen.shape, self.shape[1])
        return values[(slice(None),) * chosen.ndim + rest] if rest else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
