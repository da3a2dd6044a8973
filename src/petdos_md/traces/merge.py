"""Joining traces of one model; behind :meth:`petdos_md.traces.trace.Trace.merge`.

>>> merge_traces(Path("all.zarr"), [Trace.open("a.zarr", "r"), Trace.open("b.zarr", "r")], replicas="auto")     # doctest: +SKIP
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..base.errors import TraceError
from ..base.fixes import fix_for
from ..base.sample import ModelInfo
from .checks import check_model
from .metadata import PER_REPLICA, combined, renumbered, same
from .schema import ARRAYS, COLUMNS
from .store import Store
from .writer import full_attributes

BLOCK_ROWS = 1024


class Source(Protocol):
    """What merging needs of a trace that is open for reading, besides its columns."""

    path: Path
    replica: np.ndarray
    step: np.ndarray

    @property
    def model(self) -> ModelInfo: ...
    @property
    def attributes(self) -> dict[str, Any]: ...
    @property
    def engine(self) -> str: ...
    @property
    def skipped(self) -> dict[str, int]: ...
    def __len__(self) -> int: ...


def merge_traces(output: Path, sources: list[Source], replicas: str) -> None:
    """Write ``output`` from open traces; see :meth:`petdos_md.traces.trace.Trace.merge`."""
    if replicas not in ("auto", "keep"):
        raise TraceError(f"{output}: replicas={replicas!r} given, expected 'auto' or 'keep'")
    if not sources:
        raise TraceError(f"{output}: no traces given to merge; give at least one")
    if output.exists():
        raise TraceError(f"{output}: exists already; remove it or merge into another path")
    for source in sources[1:]:
        check_model(source.path, sources[0].model, source.model)
    numbers = _renumber(sources, replicas)
    if replicas == "keep":
        _check_unique(output, sources)

    draft = output.with_name(f".{output.name}.{os.getpid()}.merge")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        attributes = full_attributes(sources[0].model, _common(sources, numbers))
        attributes["sources"] = [_describe(source, number) for source, number in zip(sources, numbers, strict=True)]
        n_rows = sum(len(source) for source in sources)
        store = Store.create(draft, attributes, sources[0].model.n_features, sources[0].model.dtype, n_rows=n_rows)
        store.lock()
        for source, number in zip(sources, numbers, strict=True):
            for start in range(0, len(source), BLOCK_ROWS):
                store.append(_block(source, slice(start, start + BLOCK_ROWS), number))
        store.unlock()
        draft.rename(output)
    except OSError as error:
        raise TraceError(f"{output}: cannot write: {error.strerror}; {fix_for(error)} and merge again") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _renumber(sources: list[Source], replicas: str) -> list[dict[int, int]]:
    """For each source, the new number of each of its replicas, those that have skipped frames alone included."""
    own = [
        sorted({*source.replica.tolist(), *map(int, source.attributes.get("skipped_last_step", {}))})
        for source in sources
    ]
    used = [replica for numbers in own for replica in numbers]
    if replicas == "keep" or len(set(used)) == len(used):
        return [{replica: replica for replica in numbers} for numbers in own]
    counter = iter(range(len(used)))
    return [{replica: next(counter) for replica in numbers} for numbers in own]


def _check_unique(output: Path, sources: list[Source]) -> None:
    keys: dict[tuple[int, int], Path] = {}
    for source in sources:
        for key in zip(source.replica.tolist(), source.step.tolist(), strict=True):
            if keys.setdefault(key, source.path) != source.path:
                raise TraceError(
                    f"{output}: replica {key[0]}, step {key[1]} is both in {keys[key]} and {source.path}; "
                    "if these are different simulations, leave out replicas='keep' (--keep-replicas)"
                )


def _common(sources: list[Source], numbers: list[dict[int, int]]) -> dict[str, Any]:
    """What holds for all sources; a time step or metadata in which they differ is left to ``sources``."""
    all_attributes = [source.attributes for source in sources]
    skipped: dict[str, int] = {}
    for source in sources:
        for reason, count in source.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    steps = [attributes["timestep_fs"] for attributes in all_attributes]
    first, *others = [attributes["metadata"] for attributes in all_attributes]
    metadata = {
        key: value
        for key, value in first.items()
        if key not in PER_REPLICA and all(key in other and _equal(other[key], value) for other in others)
    }
    for key in PER_REPLICA:
        values = _by_replica([attributes["metadata"].get(key) for attributes in all_attributes], numbers)
        metadata |= {key: values} if values is not None else {}
    return {
        "engine": ", ".join(dict.fromkeys(name for source in sources for name in source.engine.split(", ") if name)),
        "timestep_fs": steps[0] if all(_equal(step, steps[0]) for step in steps) else None,
        "metadata": metadata,
        "n_skipped": sum(skipped.values()),
        "skipped": skipped,
        "skipped_last_step": _skipped_last_step(all_attributes, numbers),
    }


def _skipped_last_step(all_attributes: list[dict[str, Any]], numbers: list[dict[int, int]]) -> dict[str, int]:
    """Steps of the last skipped frames, by the new numbers of the replicas, so that a run may go on with the new trace."""
    found: dict[str, int] = {}
    for attributes, number in zip(all_attributes, numbers, strict=True):
        for old, step in attributes.get("skipped_last_step", {}).items():
            new = str(number[int(old)])
            found[new] = max(step, found.get(new, step))
    return found


def _by_replica(lists: list[Any], numbers: list[dict[int, int]]) -> list[Any] | None:
    """The values of all sources at the new numbers of their replicas; None if nothing is known, or sources contradict each other."""
    whole: list[Any] = []
    for values, number in zip(lists, numbers, strict=True):
        mine = renumbered(values, number) if isinstance(values, list) else []
        if not same(whole, mine):
            return None
        whole = combined(whole, mine)
    return whole if any(value is not None for value in whole) else None


def _equal(a: Any, b: Any) -> bool:
    return (a is None) == (b is None) and same(a, b)


def _block(source: Source, rows: slice, number: dict[int, int]) -> dict[str, np.ndarray]:
    block = {name: getattr(source, name)[rows] for name in (*COLUMNS, "features")}
    block["replica"] = np.array([number[replica] for replica in block["replica"].tolist()], np.int32)
    assert set(block) == set(ARRAYS)
    return block


def _describe(source: Source, number: dict[int, int]) -> dict[str, Any]:
    known = source.attributes
    return {
        "path": str(source.path),
        "n_samples": len(source),
        "replicas": {str(old): new for old, new in number.items()},
        **{key: known[key] for key in ("engine", "timestep_fs", "metadata", "created", "versions", "n_skipped")},
        **({"sources": known["sources"]} if "sources" in known else {}),
    }
