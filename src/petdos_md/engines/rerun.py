"""Samples from structures that exist already: a trajectory of any engine, in any format that ASE reads.

>>> rerun_trajectory(model, "run.traj", "run.zarr", temperature_K=300)        # doctest: +SKIP

Labels come from the file where it has them (``atoms.info``): ``temperature_K``, ``step``, ``replica``, ``time_fs``, ``weight``; else
the step is the number of the frame in the file.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms

from ..base.errors import PetdosError, PredictionError, SettingError, StructureError, TraceError
from ..base.sample import Sample
from ..models.model import DOSModel
from ..traces.trace import Trace
from .extrapolation import ExtrapolationWatch
from .labels import checked_temperature_K, kinetic_temperature_K, known_energy, labels_of
from .runs import Runs, digest
from .structures.closeness import warn_if_close
from .structures.files import frame_slice, read_frames, select
from .structures.interpretation import Interpretation
from .untouched import untouched

logger = logging.getLogger(__name__)

SAME_FRAME = 1e-3
"""Features of one structure evaluated twice differ by less than this share of the largest."""


@dataclass(frozen=True)
class RerunResult:
    """What :func:`rerun_trajectory` did.

    :param n_frames: frames looked at
    :param n_new: samples added to the trace
    :param n_known: frames that the trace held already, or that are in the file twice
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
    :param file_format: ASE's name of the format, if the file name does not say it
    :param replica: for frames that do not name theirs
    :param how: what the file does not say: elements of types, cell, units, ...
    :raises SettingError: for a batch without structures
    """

    index: str = ":"
    batch: int = 16
    file_format: str | None = None
    replica: int = 0
    how: Interpretation = field(default_factory=Interpretation)

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

    A step that the file has twice is one frame if the structures are the same; else a new run begins with it, as a new replica. If a
    frame cannot be read, those before it are sampled first.

    :param trajectory: any file that :mod:`petdos_md.engines.structures` reads
    :param output: the trace; nothing is left of it after an error before the first sample
    :param temperature_K: of the ensemble; by default ``atoms.info["temperature_K"]`` of each frame
    :param resume: add what is missing to a trace that exists
    :param progress: called with the number of frames just dealt with
    :param reading: fields of :class:`Reading`: ``index``, ``batch``, ``file_format``, ``replica``, ``how``
    :raises SettingError: if the file cannot be read, holds no frames, a label is no number, or a temperature is missing
    :raises StructureError: if the model does not know an element of a frame or its electrons, or a frame has no atoms; frames
        with NaN are skipped and counted instead
    :raises TraceError: if the output exists and ``resume`` is not given, is of another model, or holds other structures
    """
    how = Reading(**reading)
    temperature_K = _checked(temperature_K)
    trajectory, output = (Path(path).expanduser().absolute() for path in (trajectory, output))
    if os.path.lexists(output) and not resume:
        raise TraceError(f"{output}: exists; give --resume to add missing frames, or another -o")
    groups = _groups(_labelled(trajectory, temperature_K, how), how.batch)
    first = next(groups, None)
    if first is None:
        raise SettingError(f"{trajectory}: no frames with index {how.index!r}; give another --index")
    counts = {"n_frames": 0, "n_new": 0, "n_known": 0, "n_skipped": 0}
    with untouched(output), _open_trace(output, model, trajectory.name) as trace:
        rerun = _Rerun(model, trace, str(trajectory), counts)
        for group in chain([first], groups):
            error = rerun.sample(group.frames) or group.error
            if error is not None:
                if counts["n_frames"]:
                    n = counts["n_frames"]
                    before = "the frame before it is" if n == 1 else f"the {n} frames before it are"
                    error.args = (f"{error}; {before} in the trace",)
                raise error
            if progress is not None:
                progress(len(group.frames))
    return RerunResult(**counts)


class _Frame(NamedTuple):
    """A frame with its labels; ``repeated`` if the file had it before."""

    number: int
    atoms: Atoms
    labels: dict[str, Any]
    repeated: bool


class _Group(NamedTuple):
    """Frames to be evaluated together, and why there are no more after them."""

    frames: list[_Frame]
    error: PetdosError | None


def _groups(frames: Iterator[_Frame], size: int) -> Iterator[_Group]:
    """Groups of frames; an error comes with the frames before it.

    :raises PetdosError: if that is in the first frame
    """
    n = 0
    while True:
        group: list[_Frame] = []
        try:
            while len(group) < size and (frame := next(frames, None)) is not None:
                group.append(frame)
        except PetdosError as error:
            if n + len(group) == 0:
                raise
            yield _Group(group, error)
            return
        if not group:
            return
        n += len(group)
        yield _Group(group, None)


def _labelled(trajectory: Path, temperature_K: float | None, how: Reading) -> Iterator[_Frame]:
    """The frames of an index. Runs are found among all frames, so that replicas do not depend on the index."""
    runs = Runs()
    defaults: dict[str, Any] = {"weight": 1.0, "time_fs": math.nan}

    def placed() -> Iterator[tuple[int, Atoms, int | None, bool, SettingError | None]]:
        for number, atoms in read_frames(trajectory, ":", how.file_format, how.how):
            where = f"{trajectory}: frame {number}"
            replica, repeated, error = None, False, None
            try:
                labels = labels_of(atoms.info, {"step": number, "replica": how.replica}, where)
                known = labels["replica"]
                replica, repeated = runs.place(known, labels["step"], digest(atoms))
                if replica != known and runs.is_new(replica):
                    logger.warning("%s goes back to step %d: a new run, replica %d", where, labels["step"], replica)
            except SettingError as found:
                error = found
            yield number, atoms, replica, repeated, error

    for number, atoms, replica, repeated, error in select(placed(), frame_slice(how.index)):
        if error is not None:
            raise error
        where = f"{trajectory}: frame {number}"
        given = {} if temperature_K is None else {"temperature_K": temperature_K}
        labels = labels_of({**atoms.info, **given, "replica": replica}, {**defaults, "step": number}, where)
        if "temperature_K" not in labels:
            raise SettingError(
                f"{where} does not give the temperature of its ensemble; give --temperature, or set "
                'atoms.info["temperature_K"] in the file'
            )
        labels |= {"kinetic_temperature_K": kinetic_temperature_K(atoms), "potential_energy_eV": known_energy(atoms)}
        yield _Frame(number, atoms, labels, repeated)


def _open_trace(output: Path, model: DOSModel, source: str) -> Trace:
    """The trace, which must hold samples of this trajectory alone; what the ensemble was, no file says for sure."""
    trace = Trace.open(output, model=model, engine="rerun", metadata={"source": source})
    if trace.engine != "rerun":
        raise TraceError(
            f"{output}: its samples are not of {source}; choose another -o, and give both to `petdos analyze`"
        )
    return trace


class _Rerun:
    """A trace that frames are evaluated into, and the counts of what became of them."""

    def __init__(self, model: DOSModel, trace: Trace, where: str, counts: dict[str, int]) -> None:
        self._model, self._trace, self._where, self._counts = model, trace, where, counts
        self._compared = False
        self._extrapolation = ExtrapolationWatch(model)
        # Rows by what identifies them, as they were when the trace was opened.
        keys = zip(trace.replica.tolist(), trace.step.tolist(), strict=True)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._columns = {name: getattr(trace, name) for name in ("n_atoms", "temperature_K", "volume_A3")}

    def sample(self, frames: list[_Frame]) -> StructureError | None:
        """Evaluate some frames into the trace, and count what became of them; the error is that of the frame where this ended."""
        counts, trace = self._counts, self._trace
        new: list[_Frame] = []
        error = None
        for frame in frames:
            step, replica = frame.labels["step"], frame.labels["replica"]
            if frame.repeated or trace.has_step(step, replica):
                if (replica, step) in self._rows:
                    self._compare(frame, self._rows[replica, step])
                counts["n_known"] += 1
            elif _is_finite(frame.atoms):
                try:
                    self._check(frame)
                except StructureError as found:
                    error = found
                    break
                new.append(frame)
            else:
                trace.skip("positions or cell are not finite", step=step, replica=replica)
                counts["n_skipped"] += 1
            counts["n_frames"] += 1
        for frame, sample in zip(new, _evaluate(self._model, [frame.atoms for frame in new]), strict=True):
            if sample is None:
                trace.skip("prediction is not finite", step=frame.labels["step"], replica=frame.labels["replica"])
                counts["n_skipped"] += 1
            else:
                self._extrapolation.see(sample, f"{self._where}: frame {frame.number}", frame.atoms)
                counts["n_new" if trace.append(sample, **frame.labels) else "n_known"] += 1
        return error

    def _check(self, frame: _Frame) -> None:
        try:
            self._model.check(frame.atoms)
            self._model.n_electrons(frame.atoms)
        except StructureError as error:
            raise StructureError(f"{self._where}: frame {frame.number}: {error}") from None
        warn_if_close(frame.atoms, f"{self._where}: frame {frame.number}")

    def _compare(self, frame: _Frame, row: int) -> None:
        """Whether a frame is the one that the trace has under its name; features are compared for the first of them.

        :raises TraceError: if not
        """
        atoms = frame.atoms
        mine = {
            "n_atoms": len(atoms),
            "temperature_K": frame.labels["temperature_K"],
            "volume_A3": atoms.get_volume() if atoms.pbc.all() else math.nan,
        }
        different = [n for n, x in mine.items() if not np.isclose(self._columns[n][row], x, rtol=1e-6, equal_nan=True)]
        if not different and not self._compared and _is_finite(atoms):
            self._compared = True
            self._check(frame)
            there = np.asarray(self._trace.features[row], dtype=float)
            (sample,) = _evaluate(self._model, [atoms])
            if sample is not None and np.abs(sample.features - there).max() > SAME_FRAME * np.abs(there).max():
                different = ["features"]
        if different:
            raise TraceError(
                f"{self._where}: frame {frame.number} is step {frame.labels['step']} of replica {frame.labels['replica']}, which "
                f"{self._trace.path} holds with another {different[0]}; choose another -o for this file"
            )


def _checked(temperature_K: Any) -> float | None:
    if isinstance(temperature_K, int | float) and not 0 < temperature_K < math.inf:
        raise SettingError(f"got a temperature of {temperature_K:g} K, expected a positive one")
    return None if temperature_K is None else checked_temperature_K(temperature_K)


def _is_finite(atoms: Atoms) -> bool:
    return bool(np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all())


def _evaluate(model: DOSModel, structures: list[Atoms]) -> list[Sample | None]:
    try:
        return list(model.evaluate(structures)) if structures else []
    except PredictionError:
        if len(structures) == 1:
            return [None]
        return [sample for atoms in structures for sample in _evaluate(model, [atoms])]
