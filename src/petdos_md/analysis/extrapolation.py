"""How far the frames of traces are from the training set of their model, by the features that the traces hold.

>>> grades = frame_grades(frames, readout)                                     # doctest: +SKIP
>>> (grades > FAR_OUTSIDE).sum()                                               # doctest: +SKIP
12

What the grade of a frame is, :mod:`petdos_md.models.rigidity` says. It belongs to the mean of the features over atoms: one odd atom among
a thousand does not show in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ..base.rounding import two_digits
from ..models.readout import Readout
from ..models.rigidity import FAR_OUTSIDE
from .frames import Frames

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the frames of a temperature."""


def frame_grades(frames: Frames, readout: Readout) -> np.ndarray:
    """Extrapolation grade of every frame, ``(n_frames,)``; NaN for frames that are left out, and where the model does not know."""
    grades = np.full(len(frames), np.nan)
    if readout.knows_training_set:
        for where, features in frames.iter_features():
            mine = frames.group[where] >= 0
            grades[where][mine] = readout.extrapolation_grade(features[mine])
    return grades


def grades_by_temperature(frames: Frames, readout: Readout, group: np.ndarray) -> dict[str, Any]:
    """Variables of a dataset: mean, largest and quantiles of the grades of each result, and frames far outside; none if not known.

    :param group: of frames, for each result, ``(n,)``
    """
    if not readout.knows_training_set:
        return {}
    grades = frame_grades(frames, readout)
    found = [grades[frames.group == g] for g in group]
    name = "extrapolation grade: variance of the features relative to the training set, whose 99th percentile is 1"
    attrs = {"units": "1"}
    return {
        "extrapolation_grade": (
            "temperature",
            np.array([g.mean() for g in found]),
            {**attrs, "long_name": f"mean over frames of the {name}"},
        ),
        "extrapolation_grade_max": (
            "temperature",
            np.array([g.max() for g in found]),
            {**attrs, "long_name": "largest extrapolation grade of the frames"},
        ),
        "extrapolation_grade_quantiles": (
            ("temperature", "quantile"),
            np.array([np.quantile(g, QUANTILES) for g in found]),
            {**attrs, "long_name": "quantiles over frames of the extrapolation grade"},
        ),
        "n_far_outside": (
            "temperature",
            np.array([int((g > FAR_OUTSIDE).sum()) for g in found]),
            {**attrs, "long_name": f"frames with an extrapolation grade above {FAR_OUTSIDE:g}"},
        ),
    }


def note_of_extrapolation(data: xr.Dataset) -> list[str]:
    """What to beware of where frames are far from all that the model was trained on."""
    if "n_far_outside" not in data:
        return []
    n = data["n_far_outside"].values
    notes = []
    for i in np.flatnonzero(n):
        notes.append(
            f"{data['temperature'].values[i]:g} K: {n[i]} of {int(data['n_samples'][i])} frames are far outside the training set of "
            f"{data.attrs['model']} (extrapolation grade up to {two_digits(float(data['extrapolation_grade_max'][i]))}, 99 % of what it was trained on have "
            "less than 1): neither its DOS nor the model errors are to be trusted there; `petdos select` picks frames to train it on"
        )
    return notes
