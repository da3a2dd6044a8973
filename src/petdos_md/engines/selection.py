"""Frames of simulations that would teach their DOS model most, with their structures.

>>> chosen = select_frames(model, ["run.zarr"], ["run.traj"], n=20)            # doctest: +SKIP
>>> chosen.write("new.extxyz")                                                 # doctest: +SKIP

Features are those of traces, structures those of trajectories. A structure belongs to a sample if it has its step, its replica where the file
names one, its number of atoms and its volume; of those that are picked, the model is asked whether their features are those of the trace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms

from ..base.errors import ModelError, SettingError, TraceError
from ..models.model import DOSModel
from ..models.selection import greedy
from ..traces.trace import Trace
from .labels import labels_of
from .rerun import SAME_FRAME
from .structures.files import read_frames
from .structures.interpretation import Interpretation


class Chosen(NamedTuple):
    """A structure that was picked.

    ``atoms`` has ``index`` and ``tag`` in ``info``, and where it comes from; ``grade`` is its extrapolation grade as the model is (NaN if it does not
    know its training set), ``left`` that with all picked before in the training set, ``gain`` what it adds to the log-determinant.
    """

    atoms: Atoms
    trace: Path
    replica: int
    step: int
    temperature_K: float
    grade: float
    left: float
    gain: float


@dataclass(frozen=True)
class Selection:
    """What was picked, the best first, and from how many samples."""

    chosen: list[Chosen]
    n_candidates: int

    def write(self, path: str | os.PathLike[str]) -> None:
        """As extended XYZ, ready for ``examples/training/dft/compute.py``: unique ``index``, ``tag``.

        :raises SettingError: if there is such a file
        """
        target = Path(path).expanduser().absolute()
        if target.exists():
            raise SettingError(f"{target}: exists; give another -o")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        ase.io.write(partial, [found.atoms for found in self.chosen], format="extxyz")
        os.replace(partial, target)


def select_frames(
    model: DOSModel,
    traces: Sequence[str | os.PathLike[str]],
    trajectories: Sequence[str | os.PathLike[str]],
    n: int,
    *,
    first_index: int = 0,
    stride: int | None = None,
    file_format: str | None = None,
    how: Interpretation | None = None,
) -> Selection:
    """Pick the frames that would teach the model most (:mod:`petdos_md.models.selection`).

    :param model: that made the samples
    :param traces: one, or several of this model
    :param trajectories: of one trace any number; of several one for each, in their order
    :param n: how many at most; equal frames count once
    :param first_index: ``index`` of the first structure
    :param stride: steps between frames of files that do not say their steps: frame k is step k times this
    :param file_format, how: of the trajectories, as for :func:`petdos_md.engines.rerun.rerun_trajectory`
    :raises ModelError: if the model does not know the covariance of its training set, or is not that of a trace
    :raises TraceError: if a trajectory has frames of other structures than its trace, or none of its samples
    :raises SettingError: if a file cannot be read or does not say its steps, or numbers of traces and trajectories do not fit
    """
    rigidity = model.readout.rigidity
    if rigidity is None:
        raise ModelError(
            f"{model.info.name}: does not know its training set; export it with --training-set, or see examples/training/rigidity.py"
        )
    opened = _open(traces, len(trajectories), model)
    files = [
        _File(
            Path(path), partial(read_frames, file_format=file_format, how=how), stride, opened[min(i, len(opened) - 1)]
        )
        for i, path in enumerate(trajectories)
    ]
    candidates = sorted({key for number, file in enumerate(files) for key in file.samples(opened.index(file.trace))})
    if not candidates:
        raise TraceError(
            f"{', '.join(str(file.path) for file in files)}: no frame has the step of a sample of {opened[0].path}; give the trajectory of that "
            "simulation, with a frame at the steps of samples"
        )
    per_atom = np.array([_per_atom(opened[t], row, rigidity.n_last_layer) for t, row in candidates])
    picks = greedy(per_atom, rigidity, n)
    wanted = [candidates[pick.row] for pick in picks]
    structures = _structures(model, opened, files, wanted)
    grades = rigidity.variance(per_atom) / rigidity.reference
    chosen = []
    for k, (pick, key) in enumerate(zip(picks, wanted, strict=True)):
        left = pick.variance / rigidity.reference
        found = _chosen(structures[key], opened[key[0]], key[1], (float(grades[pick.row]), left, pick.gain))
        chosen.append(found._replace(atoms=_labelled(found, first_index + k)))
    return Selection(chosen, len(candidates))


def _chosen(atoms: Atoms, trace: Trace, row: int, numbers: tuple[float, float, float]) -> Chosen:
    replica, step, temperature = (column[row] for column in (trace.replica, trace.step, trace.temperature_K))
    return Chosen(atoms, trace.path, int(replica), int(step), float(temperature), *numbers)


class _File:
    """A trajectory and the trace that it belongs to."""

    def __init__(
        self, path: Path, read: Callable[[Path], Iterator[tuple[int, Atoms]]], stride: int | None, trace: Trace
    ) -> None:
        self.path, self.trace = path.expanduser().absolute(), trace
        self._read, self._stride = read, stride
        self._rows: dict[int, list[int]] = {}
        for row, step in enumerate(trace.step.tolist()):
            self._rows.setdefault(step, []).append(row)
        self._columns = {name: getattr(trace, name) for name in ("replica", "n_atoms", "volume_A3")}

    def samples(self, number: int) -> Iterator[tuple[int, int]]:
        """Samples that have a frame, as number of the trace and row."""
        for _, rows in self.frames():
            yield from ((number, row) for row in rows)

    def frames(self) -> Iterator[tuple[Atoms, list[int]]]:
        """Frames with the rows of the samples that they may be.

        :raises TraceError: if a frame with the step (and replica) of a sample has another number of atoms or volume
        """
        for number, atoms in self._read(self.path):
            counted = {} if self._stride is None else {"step": number * self._stride}
            labels = labels_of(atoms.info, counted, f"{self.path}: frame {number}")
            if "step" not in labels:
                raise SettingError(
                    f"{self.path}: frame {number} does not say its step; give the steps between frames (stride, --stride), or set "
                    'atoms.info["step"] in the file'
                )
            rows = self._rows.get(labels["step"], [])
            if "replica" in labels:
                rows = [row for row in rows if self._columns["replica"][row] == labels["replica"]]
            fitting = [row for row in rows if self._fits(atoms, row)]
            if rows and not fitting:
                raise TraceError(
                    f"{self.path}: frame {number} is step {labels['step']}, which {self.trace.path} holds with another number of atoms or volume; "
                    "give the trajectory of that simulation"
                )
            yield atoms, fitting

    def _fits(self, atoms: Atoms, row: int) -> bool:
        volume = atoms.get_volume() if atoms.pbc.all() else np.nan
        same = np.isclose(self._columns["volume_A3"][row], volume, rtol=1e-4, equal_nan=True)
        return bool(same) and int(self._columns["n_atoms"][row]) == len(atoms)


def _open(paths: Sequence[str | os.PathLike[str]], n_trajectories: int, model: DOSModel) -> list[Trace]:
    if len(paths) > 1 and n_trajectories != len(paths):
        raise SettingError(
            f"got {len(paths)} traces and {n_trajectories} trajectories, expected one for each trace, in the same order"
        )
    traces = [Trace.open(path, "r") for path in paths]
    for trace in traces:
        if not model.readout.belongs_to(trace.model.fingerprint):
            raise ModelError(
                f"{trace.path}: its samples are of {trace.model.name!r}, not of {model.info.name!r}; give --model"
            )
    return traces


def _per_atom(trace: Trace, row: int, n_last_layer: int) -> np.ndarray:
    return np.asarray(trace.features[row][:n_last_layer], dtype=np.float64) / float(trace.n_atoms[row])


def _structures(
    model: DOSModel, traces: list[Trace], files: list[_File], wanted: list[tuple[int, int]]
) -> dict[tuple[int, int], Atoms]:
    """Structures of the samples that are wanted; their features must be those of the samples.

    :raises TraceError: if one has other features in all files
    """
    found: dict[tuple[int, int], Atoms] = {}
    for file in files:
        number = traces.index(file.trace)
        left = {row for t, row in wanted if t == number and (t, row) not in found}
        if not left:
            continue
        for atoms, rows in file.frames():
            rows = [row for row in rows if row in left]
            if not rows:
                continue
            own = model.evaluate(atoms).features.astype(np.float64)
            for row in rows:
                there = np.asarray(file.trace.features[row], dtype=np.float64)
                if np.abs(own - there).max() <= SAME_FRAME * np.abs(there).max():
                    found[number, row] = atoms
                    left.discard(row)
    for t, row in wanted:
        if (t, row) not in found:
            trace = traces[t]
            raise TraceError(
                f"{trace.path}: step {int(trace.step[row])} of replica {int(trace.replica[row])} has other features than the frames of that step in "
                f"{', '.join(str(file.path) for file in files if file.trace is trace)}; give the trajectory of that simulation (a sample of several "
                "beads has no structure of its own)"
            )
    return found


def _labelled(found: Chosen, index: int) -> Atoms:
    """What DFT needs: elements, positions, cell."""
    source = found.atoms
    atoms = Atoms(source.numbers, positions=source.positions, cell=source.cell, pbc=source.pbc)
    info: dict[str, Any] = {
        "index": index,
        "tag": f"selected-{source.get_chemical_formula(empirical=True)}-{found.temperature_K:.0f}K",
        "trace": found.trace.name,
        "replica": found.replica,
        "step": found.step,
        "temperature_K": found.temperature_K,
        "extrapolation_grade": round(found.grade, 6),
    }
    atoms.info = info
    return atoms
