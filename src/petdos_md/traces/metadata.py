"""What a trace says about its simulation: plain JSON, compared with one tolerance, in one place for all engines.

>>> as_json(Path("run.zarr"), {"temperatures_K": (300, float("nan")), "beads": np.int64(4)})
{'temperatures_K': [300, None], 'beads': 4}
>>> same([300.0, None], [300.0000001, 600.0, 900.0]), same(300.0, 301.0), same(4, 8)
(True, False, False)

The keys that every engine uses are listed in ``docs/trace-format.md``.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import TraceError

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Numbers that differ by less are one: time steps converted from other units, temperatures from restart files of 9 digits."""
RECORDED_ONLY = ("seed", "versions", "temperatures_K")
"""Two parts of one simulation may differ in these. A replica that goes on at another temperature has a schedule: null in the list."""
PER_REPLICA = ("temperatures_K", "pressures_GPa")
"""Lists with one value for each replica number."""


def as_json(path: Path, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metadata as JSON gives it back: NaN as null, NumPy's numbers and arrays and tuples as plain ones.

    :param path: of the trace, for the error
    :raises TraceError: for a value that JSON cannot hold
    """
    return {str(key): _plain(path, str(key), value) for key, value in (metadata or {}).items()}


def same(there: Any, here: Any) -> bool:
    """Whether two values may be of one simulation.

    Null agrees with everything; a longer list may extend a shorter one; an object may have further keys.
    """
    if there is None or here is None:
        return True
    if isinstance(there, list | tuple) and isinstance(here, list | tuple):
        return all(same(a, b) for a, b in zip(there, here, strict=False))
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        return all(same(there[key], here[key]) for key in there.keys() & here.keys())
    if _is_number(there) and _is_number(here) and not (isinstance(there, int) and isinstance(here, int)):
        return math.isclose(there, here, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(there) is type(here) and bool(there == here)


def combined(there: Any, here: Any) -> Any:
    """Two values that agree as one: what is there stays, unknown values are filled in, lists and objects are extended."""
    if isinstance(there, list) and isinstance(here, list):
        both = [combined(a, b) for a, b in zip(there, here, strict=False)]
        return both + there[len(both) :] + here[len(both) :]
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        whole: dict[str, Any] = {key: combined(value, here.get(key)) for key, value in there.items()}
        whole |= _missing(there, here)
        if "temperatures_K" in there and "temperatures_K" in here:
            whole["temperatures_K"] = _targets(there["temperatures_K"], here["temperatures_K"])
        return whole
    return here if there is None else there


def check_same(
    path: Path, there: Mapping[str, Any], here: Mapping[str, Any], recorded_only: Sequence[str] = RECORDED_ONLY
) -> None:
    """Whether a simulation is the one of a trace.

    :param path: of the trace
    :param there: ``timestep_fs`` and ``metadata``, as in the attributes of the trace
    :param here: the same of the simulation that is to be written; keys may be missing
    :param recorded_only: keys that are not compared
    :raises TraceError: if something differs that both know
    """
    pairs = {"timestep_fs": (there.get("timestep_fs"), here.get("timestep_fs"))}
    known = there.get("metadata", {})
    pairs |= {key: (known.get(key), value) for key, value in here.get("metadata", {}).items()}
    for key, (old, new) in pairs.items():
        if key not in recorded_only and not same(old, new):
            raise TraceError(
                f"{path}: trace of another simulation: it has {key} = {old}, got {new}; write to another path"
            )


def renumbered(values: list[Any], number: Mapping[int, int]) -> list[Any]:
    """A list with one value per replica, by the new numbers of the replicas.

    :param number: from old to new; others are left out
    """
    new = {number[old]: value for old, value in enumerate(values) if old in number}
    return [new.get(replica) for replica in range(max(new, default=-1) + 1)]


def _plain(path: Path, key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _plain(path, key, value.tolist())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and not math.isinf(value):
        return None if math.isnan(value) else float(value)
    if isinstance(value, list | tuple):
        return [_plain(path, key, item) for item in value]
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(path, f"{key}.{name}", item) for name, item in value.items()}
    raise TraceError(
        f"{path}: metadata {key!r} holds a {type(value).__name__} ({str(value)[:40]!r}), which JSON cannot; expected finite numbers, "
        "text, lists and dictionaries with text as keys"
    )


def _targets(there: list[Any] | None, here: list[Any] | None) -> list[Any]:
    """Thermostat targets by replica; of one that has changed nothing is known."""
    old, new = there or [], here or []
    return [combined(a, b) if same(a, b) else None for a, b in zip(old, new, strict=False)] + [
        *old[len(new) :],
        *new[len(old) :],
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _missing(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in here.items() if key not in there}
