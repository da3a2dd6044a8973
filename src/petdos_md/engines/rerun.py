"""Samples from structures that exist already: a trajectory of any engine, in any format that ASE reads.

>>> rerun_trajectory(model, "run.traj", "run.zarr", temperature_K=300)        # doctest: +SKIP

Labels come from ``atoms.info`` where it has them: ``temperature_K``, ``step``, ``replica``, ``time_fs``, ``weight``; else the
step is the number of the frame in the file.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..base.errors import PredictionError, SettingError, StructureError, TraceError
from ..base.sample import Sample
from ..models.model import DOSModel
from ..traces.trace import Trace
from .labels import checked_temperature_K, kinetic_temperature_K, known_energy
from .structure_files import read_frames


@dataclass(frozen=True)
class RerunResult:
    """What :func:`rerun_trajectory` did.

    :param n_frames: frames looked at
    :param n_new: samples added to the trace
    :param n_known: frames that the trace held already
    :param n_skipped: frames that could not be sampled
    """

    n_frames: int
    n_new: int
    n_known: int
    n_skipped: int


@dataclass(frozen=True)
class Reading:
    """How a trajectory is read; further keywords of :func:`rerun_trajectory`.

    :param index: which frames, as a slice (``::10``)
    :param batch: structures evaluated together
    :param file_format: ASE's name of the format, if the file name does not tell it
    :param replica: for frames that do not name theirs
    :raises SettingError: for a batch without structures
    """

    index: str = ":"
    batch: int = 16
    file_format: str | None = None
    replica: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise SettingError(f"got a batch of {self.batch} structures, expected at least 1")


def rerun_trajectory(
    model: DOSModel,
    trajectory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    temperature_K: float | None = None,
    resume: bool = False,
    progress: Callable[[int], None] | None = None,
    **reading: Any,
) -> RerunResult:
    """Evaluate the frames of a trajectory into a trace.

    :param trajectory: any file that ASE reads
    :param output: the trace
    :param temperature_K: of the ensemble; by default ``atoms.info["temperature_K"]`` of each frame
    :param resume: add what is missing to a trace that exists
    :param progress: called with the number of frames just dealt with
    :param reading: fields of :class:`Reading`: ``index``, ``batch``, ``file_format``, ``replica``
    :raises SettingError: if the file cannot be read, holds no frames, or a temperature is missing or not positive
    :raises StructureError: if the model does not know an element of a frame or its electrons, or a frame has no atoms; frames
        with NaN are skipped and counted instead
    :raises TraceError: if the output exists and ``resume`` is not given, or is of another model
    """
    how = Reading(**reading)
    if isinstance(temperature_K, int | float) and not 0 < temperature_K < math.inf:
        raise SettingError(f"got a temperature of {temperature_K:g} K, expected a positive one")
    temperature_K = None if temperature_K is None else checked_temperature_K(temperature_K)
    trajectory, output = (Path(path).expanduser().absolute() for path in (trajectory, output))
    fresh = not os.path.lexists(output)
    if not fresh and not resume:
        raise TraceError(f"{output}: exists; give --resume to add missing frames, or another -o")
    frames = read_frames(trajectory, how.index, how.file_format)
    first = next(frames, None)
    if first is None:
        raise SettingError(f"{trajectory}: no frames with index {how.index!r}; give another --index")
    counts = {"n_frames": 0, "n_new": 0, "n_known": 0, "n_skipped": 0}
    try:
        with _open_trace(output, model, trajectory.name) as trace:
            labelled = (
                (number, atoms, _labels(atoms, number, temperature_K, how.replica, str(trajectory)))
                for number, atoms in _chain(first, frames)
            )
            while group := list(islice(labelled, how.batch)):
                _sample_group(model, trace, group, counts, str(trajectory))
                if progress is not None:
                    progress(len(group))
    except (SettingError, StructureError):
        # An empty trace would only stand in the way of the same command, put right.
        if fresh and counts["n_new"] + counts["n_skipped"] == 0:
            shutil.rmtree(output)
        raise
    return RerunResult(**counts)


def _open_trace(output: Path, model: DOSModel, source: str) -> Trace:
    """The trace, which must hold samples of this trajectory alone; what the ensemble was, no file tells for sure."""
    trace = Trace.open(output, model=model, engine="rerun", metadata={"source": source})
    if trace.engine != "rerun":
        raise TraceError(
            f"{output}: its samples are not of {source}; choose another -o, and give both to `petdos analyze`"
        )
    return trace


def _sample_group(
    model: DOSModel, trace: Trace, group: list[tuple[int, Atoms, dict[str, Any]]], counts: dict[str, int], where: str
) -> None:
    """Evaluate some frames with their labels into the trace, and count what became of them."""
    counts["n_frames"] += len(group)
    new: list[tuple[Atoms, dict[str, Any]]] = []
    for number, atoms, labels in group:
        if trace.has_step(labels["step"], labels["replica"]):
            counts["n_known"] += 1
        elif _is_finite(atoms):
            _check(model, atoms, number, where)
            new.append((atoms, labels))
        else:
            trace.skip("positions or cell are not finite", step=labels["step"], replica=labels["replica"])
            counts["n_skipped"] += 1
    for (_, labels), sample in zip(new, _evaluate(model, [a for a, _ in new]), strict=True):
        if sample is None:
            trace.skip("prediction is not finite", step=labels["step"], replica=labels["replica"])
            counts["n_skipped"] += 1
        else:
            counts["n_new" if trace.append(sample, **labels) else "n_known"] += 1


def _chain(first: tuple[int, Atoms], rest: Iterator[tuple[int, Atoms]]) -> Iterator[tuple[int, Atoms]]:
    yield first
    yield from rest


def _labels(atoms: Atoms, number: int, temperature_K: float | None, replica: int, where: str) -> dict[str, Any]:
    info = atoms.info
    temperature = info.get("temperature_K") if temperature_K is None else temperature_K
    if temperature is None:
        raise SettingError(
            f"{where}: frame {number} does not tell the temperature of its ensemble; give --temperature, or set "
            'atoms.info["temperature_K"] in the file'
        )
    if not 0 < float(temperature) < math.inf:
        raise SettingError(f"{where}: frame {number} has temperature_K = {temperature}, expected a positive number")
    return {
        "step": int(info.get("step", number)),
        "replica": int(info.get("replica", replica)),
        "time_fs": float(info.get("time_fs", math.nan)),
        "weight": float(info.get("weight", 1.0)),
        "temperature_K": float(temperature),
        "kinetic_temperature_K": kinetic_temperature_K(atoms),
        "potential_energy_eV": known_energy(atoms),
    }


def _check(model: DOSModel, atoms: Atoms, number: int, where: str) -> None:
    try:
        model.check(atoms)
        model.n_electrons(atoms)
    except StructureError as error:
        raise StructureError(f"{where}: frame {number}: {error}") from None


def _is_finite(atoms: Atoms) -> bool:
    return bool(np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all())


def _evaluate(model: DOSModel, structures: list[Atoms]) -> list[Sample | None]:
    try:
        return list(model.evaluate(structures)) if structures else []
    except PredictionError:
        if len(structures) == 1:
            return [None]
        return [sample for atoms in structures for sample in _evaluate(model, [atoms])]
