"""Which beginning of which replica is a relaxation: ``burn_in="auto"`` of an analysis, and the note of one without a burn-in.

>>> cuts = cut_drifts(inputs.frames, inputs.readout, inputs.n_electrons)            # doctest: +SKIP
>>> [str(cut) for cut in cuts]                                                      # doctest: +SKIP
['run.zarr, replica 0, 300 K: 12 frames before step 240']

What is looked at is what is averaged: the linear response of heat capacity, chemical potential and free energy to the DOS of blocks of
frames (:mod:`petdos_md.analysis.equilibration`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..base.errors import ChemicalPotentialError
from ..models.readout import Readout
from ..physics.quantities import kernels
from .equilibration import FALSE_ALARMS, detect_burn_in
from .frames import Frames, History

_FOLLOWED = ("heat_capacity", "chemical_potential", "free_energy")


@dataclass(frozen=True)
class Cut:
    """Frames at the beginning of a replica that were left out.

    :param first_step: the first that was kept
    """

    trace: str
    replica: int
    temperature_K: float
    n_frames: int
    first_step: int

    def __str__(self) -> str:
        return f"{self.trace}, replica {self.replica}, {self.temperature_K:g} K: {self.n_frames} frames before step {self.first_step}"


def cut_drifts(frames: Frames, readout: Readout, n_electrons: np.ndarray) -> list[Cut]:
    """Leave out the beginning of every series that drifts significantly.

    :param frames: changed in place
    :param n_electrons: of each temperature
    :returns: what was left out
    """
    followed = list(_followed(frames, readout, n_electrons))
    n_series = sum(len(np.unique(history.segments)) for _, history, _ in followed)
    starts: list[tuple[np.ndarray, int]] = []
    for index, history, series in followed:
        rows = frames.rows(index)
        for segment in np.unique(history.segments):
            mine = history.segments == segment
            found = detect_burn_in(series[mine], history.weights[mine], false_alarms=FALSE_ALARMS / n_series)
            if found.significant and found.start:
                starts.append((rows[frames.segment[rows] == segment], found.start * history.length))
    cuts = []
    for rows, start in starts:
        first, trace = rows[0], frames.traces[int(frames.source[rows[0]])]
        temperature = float(frames.temperatures_K[frames.group[first]])
        cuts.append(Cut(str(trace.path), int(frames.replica[first]), temperature, start, int(frames.step[rows[start]])))
    if starts:
        frames.leave_out(np.concatenate([rows[:start] for rows, start in starts]))
    return cuts


def drifting(frames: Frames, readout: Readout, n_electrons: np.ndarray) -> list[float]:
    """Temperatures (K) whose series drift at the beginning by more than chance."""
    followed = list(_followed(frames, readout, n_electrons))
    level = FALSE_ALARMS / max(len(followed), 1)
    return [
        float(frames.temperatures_K[index])
        for index, history, series in followed
        if detect_burn_in(series, history.weights, history.segments, level).significant
    ]


def _followed(frames: Frames, readout: Readout, n_electrons: np.ndarray) -> Iterator[tuple[int, History, np.ndarray]]:
    """Temperature, blocks of frames and what is looked at of them, ``(n_blocks, m)``."""
    energies = readout.grid.energies
    for index, history in enumerate(frames.histories()):
        dos, temperature = readout.dos(history.mean()), float(frames.temperatures_K[index])
        try:
            found = kernels(energies, dos, float(n_electrons[index]), temperature, _FOLLOWED)
        except ChemicalPotentialError:
            continue  # the analysis itself will say so
        response = np.stack([found[name] for name in _FOLLOWED if np.isfinite(found[name]).all()])
        vectors = readout.project(response)
        yield index, history, history.features @ vectors.T
