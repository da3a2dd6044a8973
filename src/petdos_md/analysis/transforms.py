"""Averages of what is not linear in the DOS, frame by frame and member by member: denoising, alignment of each frame.

>>> average = frame_member_average(features, model.readout, Denoise(energies, 8, 24.0))     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ..base.errors import NoSamplesError
from ..models.readout import Readout


class FrameTransform(Protocol):
    """What to do with the DOS of single frames before they are averaged, for example denoising."""

    def __call__(self, dos: np.ndarray, frames: slice) -> np.ndarray:
        """Map ``(frames, members, n_channels)``, which may be overwritten, to ``(frames, members, n_out)``.

        ``frames`` says which frames these are, for transforms that know something of each (its atoms, its gap).
        """


def frame_member_average(
    features: np.ndarray,
    readout: Readout,
    transform: FrameTransform | None = None,
    weights: np.ndarray | None = None,
    *,
    members: bool = True,
    max_bytes: float = 200e6,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Average over frames of a transformed DOS, each frame and each member by itself.

    Needed for whatever is not linear (Eqs. 11-16 of the paper, alignment frame by frame); without a transform the result
    equals the members of the mean features. The memory taken is a few times ``max_bytes``, whatever the number of frames.

    :param features: ``(n_frames, n_features)``
    :param transform: see :class:`FrameTransform`; the identity if None
    :param weights: ``(n_frames,)`` statistical weights; all equal if None
    :param members: whether to go through the members; otherwise through the DOS of the model itself, as a single member
    :param progress: called with the frame-member pairs done and their total
    :returns: ``(n_members, n_out)`` float64, ``(1, n_out)`` without members
    :raises NoSamplesError: without frames
    """
    n, n_members = len(features), readout.n_members if members else 1
    if n == 0:
        raise NoSamplesError("there are no frames to average")
    w = np.full(n, 1.0 / n) if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    channels = readout.grid.n
    # The weights of a slice of members are read once for all frames: at 2.5 GB an ensemble does not fit into any cache.
    member_step = min(n_members, 8)
    frame_step = max(1, min(n, int(max_bytes / (8 * channels * member_step))))
    done, parts = 0, []
    for start in range(0, n_members, member_step):
        stop = min(start + member_step, n_members)
        total: np.ndarray | None = None
        for first in range(0, n, frame_step):
            frames = slice(first, min(first + frame_step, n))
            dos = readout.members(features[frames], start, stop) if members else readout.dos(features[frames])[:, None]
            if transform is not None:
                dos = transform(dos, frames)
            part = w[frames] @ dos.reshape(len(dos), -1)
            total = part if total is None else total + part
            done += (stop - start) * len(dos)
            if progress is not None:
                progress(done, n * n_members)
        assert total is not None
        parts.append(total.reshape(stop - start, -1))
    return np.concatenate(parts)
