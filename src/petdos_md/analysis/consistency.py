"""Whether frames may be averaged together: one material, no frame twice, no bias; what their traces say of that.

>>> of_replicas({"metadata": {"formula": "Al32"}}, "formula", [0, 3])
{0: ['Al32'], 3: ['Al32']}
>>> merged = {"metadata": {}, "sources": [{"replicas": {"0": 1}, "metadata": {"bias": "plumed"}}]}
>>> of_replicas(merged, "bias", [0, 1])
{0: [], 1: ['plumed']}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.errors import StructureError, TraceError
from ..traces.trace import Trace
from .kinetic import KineticTemperature

if TYPE_CHECKING:
    from .frames import Frames

_LABELS = (
    "step", "time_fs", "temperature_K", "kinetic_temperature_K", "potential_energy_eV", "volume_A3", "n_atoms", "weight",
    "electronic_temperature_K",
)  # fmt: skip
_ROWS_COMPARED = 5


def of_replicas(attributes: Mapping[str, Any], key: str, replicas: Iterable[int]) -> dict[int, list[str]]:
    """What a trace says of each of its replicas; of a merged trace, what its sources say. Several texts if they differ.

    :param attributes: of the trace
    :param key: of its metadata, with a text
    """
    known: dict[int, list[str]] = {replica: [] for replica in replicas}
    value = attributes["metadata"].get(key)
    if value is not None:
        return {replica: [str(value)] for replica in known}
    for source in attributes.get("sources", []):
        new = {int(old): number for old, number in source["replicas"].items()}
        there = of_replicas({"sources": [], **source}, key, new)
        for old, values in there.items():
            if new[old] in known:
                known[new[old]] += [text for text in values if text not in known[new[old]]]
    return known


def biases(frames: Frames) -> list[str]:
    """Biases that frames were sampled with: bias potentials, weights of a scaled potential."""
    found: dict[str, None] = {}
    for trace, replicas in _kept_replicas(frames):
        for values in of_replicas(trace.attributes, "bias", replicas).values():
            found |= dict.fromkeys(value for value in values if value.strip() not in ("", "none"))
    return list(found)


def hot_electrons(frames: Frames) -> list[str]:
    """Temperatures of hot electrons that the atoms moved among, in words; empty for cold ones."""
    known = frames.electronic_temperature_K[frames.group >= 0]
    known = known[np.isfinite(known)]
    if len(known):
        low, high = (f"{value:.6g}" for value in (known.min(), known.max()))
        return [f"{low} K" if low == high else f"{low} to {high} K"]
    found: dict[str, None] = {}  # a trace from before there was a temperature for each sample
    for trace, replicas in _kept_replicas(frames):
        for values in of_replicas(trace.attributes, "electronic_temperature_K", replicas).values():
            found |= dict.fromkeys(values)
    return [f"{float(v):g} K" if v.replace(".", "", 1).isdigit() else "temperatures that change" for v in found]


def pressures_GPa(frames: Frames) -> np.ndarray:
    """Pressure of the ensemble of each frame (GPa), NaN where there is none or it is not known."""
    pressure = np.full(len(frames), np.nan)
    for index, trace in enumerate(frames.traces):
        own = frames.source == index
        pressure[own] = _pressures_GPa(trace.attributes["metadata"], frames.replica[own])
    return pressure


def runaways_K(frames: Frames) -> dict[float, float]:
    """Ensemble temperatures that velocities have left far behind, with the mean kinetic temperature, K (:mod:`.kinetic`)."""
    found: dict[float, float] = {}
    for index, temperature in enumerate(frames.temperatures_K):
        rows = np.flatnonzero(frames.group == index)
        kinetic = KineticTemperature(float(temperature))
        kinetic.extend(frames.kinetic_temperature_K[rows], frames.n_atoms[rows])
        if np.isfinite(kinetic.runaway_K):
            found[float(temperature)] = kinetic.runaway_K
    return found


def check_one_material(frames: Frames) -> None:
    """Frames of one analysis are of one formula, number of atoms and number of electrons, where these are known.

    :raises StructureError: if they are not
    """
    formulas: dict[str, str] = {}
    for trace, replicas in _kept_replicas(frames):
        for values in of_replicas(trace.attributes, "formula", replicas).values():
            for value in values:
                # A trace with several systems lists their formulas, not which replica has which.
                several = value.split() if len(replicas) > 1 else []
                formulas |= dict.fromkeys(several if len(several) > 1 else [value], str(trace.path))
    if len(formulas) > 1:
        (a, where_a), (b, where_b) = list(formulas.items())[:2]
        where = where_a if where_a == where_b else f"{where_a} and {where_b}"
        raise StructureError(
            f"{where}: frames of {a} and of {b}, expected one material; analyze each by itself, or choose replicas of one"
        )
    kept = frames.group >= 0
    for what, column in (("atoms", frames.n_atoms[kept]), ("electrons", frames.n_electrons[kept])):
        known = np.unique(column[np.isfinite(column)])
        if len(known) > 1:
            low, high = (_where(frames, kept, column == value) for value in known[[0, -1]])
            raise StructureError(
                f"{low} has structures of {known[0]:g} {what}, {high} of {known[-1]:g}; expected one material: analyze "
                "each by itself"
            )


def check_no_copies(frames: Frames) -> None:
    """No two series hold the same frames.

    Frames are the same if all their labels and features are. Two simulations may share the frame that they start from.

    :raises TraceError: if two series do, as those of a trace and of its copy
    """
    rows = np.flatnonzero(frames.group >= 0)
    if len(np.unique(frames.segment[rows])) < 2:
        return
    pairs = _with_equal_labels(frames, rows)
    series = np.sort(frames.segment[pairs], axis=1)
    for couple in np.unique(series, axis=0):
        both = pairs[(series == couple).all(axis=1)]
        shortest = min(int((frames.segment[rows] == one).sum()) for one in couple)
        if len(both) < min(2, shortest):
            continue
        chosen = both[np.unique(np.linspace(0, len(both) - 1, _ROWS_COMPARED).astype(int))[::-1]]
        same = all(np.array_equal(_features(frames, a), _features(frames, b)) for a, b in chosen)
        if same and (len(both) > 1 or _created(frames, both[0, 0]) == _created(frames, both[0, 1])):
            first, second = (_series_name(frames, row) for row in both[0])
            raise TraceError(
                f"{first} and {second} hold the same {len(both)} frames, which would count twice; leave one of the two out"
            )


def _pressures_GPa(metadata: dict[str, Any], replica: np.ndarray) -> np.ndarray:
    """Pressure of the ensemble of each replica, NaN where there is none or it is not known."""
    names = str(metadata.get("ensemble") or "").split()
    # i-PI calls a constant stress "nst": there the work is not P V.
    if names and (not any("np" in name for name in names) or any("nst" in name for name in names)):
        return np.full(len(replica), np.nan)
    by_replica = metadata.get("pressures_GPa")
    if by_replica is None:
        # Traces of format 1 have one for all replicas, and say so of constant volume, too.
        one = metadata.get("pressure_GPa") if "npt" in names else None
        return np.full(len(replica), np.nan if one is None else float(one))
    known = np.full(max(int(replica.max()) + 1, len(by_replica)), np.nan)
    known[: len(by_replica)] = [np.nan if p is None else float(p) for p in by_replica]
    return known[replica]


def _kept_replicas(frames: Frames) -> list[tuple[Trace, list[int]]]:
    kept = frames.group >= 0
    found = [np.unique(frames.replica[kept & (frames.source == i)]).tolist() for i in range(len(frames.traces))]
    return [(trace, replicas) for trace, replicas in zip(frames.traces, found, strict=True) if replicas]


def _where(frames: Frames, kept: np.ndarray, chosen: np.ndarray) -> str:
    row = int(np.flatnonzero(kept)[np.flatnonzero(chosen)[0]])
    return f"{frames.traces[frames.source[row]].path} at {frames.temperature_K[row]:g} K"


def _with_equal_labels(frames: Frames, rows: np.ndarray) -> np.ndarray:
    """Pairs of frames of different series with equal labels, ``(n_pairs, 2)``."""
    marks = _marks(frames, rows)
    order = np.argsort(marks, kind="stable")
    marks, ordered = marks[order], rows[order]
    pairs = [np.empty((0, 2), dtype=int)]
    for lag in range(1, len(rows)):
        equal = np.flatnonzero(marks[lag:] == marks[:-lag])
        if not len(equal):
            break
        pair = np.stack([ordered[equal], ordered[equal + lag]], axis=1)
        pairs.append(pair[frames.segment[pair[:, 0]] != frames.segment[pair[:, 1]]])
    return np.concatenate(pairs)


def _marks(frames: Frames, rows: np.ndarray) -> np.ndarray:
    """A number for the labels of each frame, ``(len(rows),)``: equal for equal ones, by all odds different for others."""
    marks = np.zeros(len(rows), dtype=np.uint64)
    for name in _LABELS:
        column = np.asarray(getattr(frames, name)[rows], dtype=np.float64)
        bits = np.where(np.isnan(column), np.nan, column + 0.0).view(np.uint64)
        with np.errstate(over="ignore"):
            marks = (marks ^ bits) * np.uint64(0x9E3779B97F4A7C15)
            marks ^= marks >> np.uint64(29)
    return marks


def _features(frames: Frames, row: int) -> np.ndarray:
    source = int(frames.source[row])
    return np.asarray(frames.traces[source].features[row - int(np.searchsorted(frames.source, source))])


def _created(frames: Frames, row: int) -> Any:
    return frames.traces[int(frames.source[row])].attributes.get("created")


def _series_name(frames: Frames, row: int) -> str:
    return f"{frames.traces[int(frames.source[row])].path} (replica {frames.replica[row]})"
