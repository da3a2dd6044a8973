"""Average DOS of every group of frames (one ensemble temperature each), its members, and its fluctuation.

Two ways to the same things: :class:`LinearAverages` from the mean features, :class:`FrameByFrameAverages` for what is not linear.
Behind :func:`petdos_md.analyze`; there is no need to use them directly.

>>> averages = LinearAverages(frames, readout)                              # doctest: +SKIP
>>> averages.dos, next(averages.member_slices())                            # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from ..models.readout import Readout
from ..physics import thermo
from .frames import MAX_BLOCKS, Frames, assign_blocks
from .statistics import ErrorEstimate, standard_error
from .transforms import FrameTransform, frame_member_average

Progress = Callable[[int, int], None]
OfBlocks = Callable[[int, np.ndarray], np.ndarray]
_CHUNK_BYTES = 64e6


def _as_they_are(index: int, blocks: np.ndarray) -> np.ndarray:
    return blocks


class GroupAverages(Protocol):
    """What the analysis needs to know of groups of frames."""

    energies: np.ndarray
    """``(n_channels,)`` eV"""
    dos: np.ndarray
    """``(n_groups, n_channels)`` mean over frames, of the model itself"""

    def member_slices(self) -> Iterator[np.ndarray]:
        """Averages of the members, ``(n_groups, k, n_channels)`` a slice."""

    def sampling(
        self, functionals: np.ndarray, group: np.ndarray, method: str, of_blocks: OfBlocks = _as_they_are
    ) -> tuple[list[ErrorEstimate], np.ndarray]:
        """Sampling errors.

        :param functionals: ``(n_out, m, n_channels)`` linear functionals of the DOS
        :param group: ``(n_out,)`` the group that each set of functionals is for
        :param method: of :func:`~petdos_md.analysis.statistics.standard_error`
        :param of_blocks: from the number of a group and the DOS of blocks of its frames ``(n_blocks, n_channels)`` to what the errors
            of channels are wanted of ``(n_blocks, n_out)``
        :returns: estimates of shape ``(m,)`` for every output, and the error of every channel ``(n_groups, n_out)``
        """


class LinearAverages:
    """From one pass over features; see :class:`GroupAverages`."""

    def __init__(self, frames: Frames, readout: Readout, progress: Progress | None = None) -> None:
        self._frames, self._readout = frames, readout
        self._histories = frames.histories(progress)
        self._features = np.stack([history.mean() for history in self._histories])
        self.energies, self.dos = readout.grid.energies, readout.dos(self._features)

    def member_slices(self) -> Iterator[np.ndarray]:
        return self._readout.member_slices(self._features)

    def sampling(
        self, functionals: np.ndarray, group: np.ndarray, method: str, of_blocks: OfBlocks = _as_they_are
    ) -> tuple[list[ErrorEstimate], np.ndarray]:
        frames, n_groups = self._frames, len(self._histories)
        # Functionals that do not exist (NaN in a gap) must not reach the columns of the others.
        vectors = self._readout.project(functionals.reshape(-1, functionals.shape[-1]))
        vectors = vectors.reshape(*functionals.shape[:2], -1)
        per_group = [np.flatnonzero(group == index) for index in range(n_groups)]
        width = max(len(mine) for mine in per_group) * functionals.shape[1]
        stacked = np.zeros((n_groups, width, vectors.shape[-1]))
        for index, mine in enumerate(per_group):
            stacked[index, : len(mine) * functionals.shape[1]] = vectors[mine].reshape(-1, vectors.shape[-1])
        series = frames.functionals(stacked)
        estimates: list[ErrorEstimate] = []
        for out, index in enumerate(group):
            rows = frames.rows(int(index))
            first = int(np.flatnonzero(per_group[index] == out)[0]) * functionals.shape[1]
            x = series[rows, first : first + functionals.shape[1]]
            estimates.append(standard_error(x, frames.weight[rows], method, frames.segment[rows]))
        channels = [
            standard_error(of_blocks(index, self._readout.dos(h.features)), h.weights, method, h.segments).error
            for index, h in enumerate(self._histories)
        ]
        return estimates, np.stack(channels)


class FrameByFrameAverages:
    """Every frame and every member by itself; see :class:`GroupAverages`.

    :param transforms: one for each group of frames
    :param energies: of what the transforms return
    """

    def __init__(
        self,
        frames: Frames,
        readout: Readout,
        transforms: list[FrameTransform],
        energies: np.ndarray,
        members: bool,
        progress: Progress | None = None,
    ) -> None:
        self._frames, self._readout, self._transforms, self.energies = frames, readout, transforms, energies
        counts = [int((frames.group == index).sum()) for index in range(len(transforms))]
        factor = 1 + (readout.n_members if members else 0)
        own, averages = [], []
        for index, transform in enumerate(transforms):
            before = sum(counts[:index]) * factor

            def report(done: int, _: int, before: int = before) -> None:
                if progress is not None:
                    progress(before + done, sum(counts) * factor)

            of_group = frames.features(index), readout, transform, frames.weight[frames.rows(index)]
            own.append(frame_member_average(*of_group, members=False)[0])
            if members:
                averages.append(frame_member_average(*of_group, progress=report))
            report(counts[index] * factor, 0)
        self.dos = np.stack(own)
        self._members = np.stack(averages) if members else self.dos[:, None]
        if self._members.shape[-1] != len(energies):
            raise ValueError(
                f"the transform returned {self._members.shape[-1]} channels, expected {len(energies)}: it must keep the energies"
            )

    def member_slices(self) -> Iterator[np.ndarray]:
        for start in range(0, self._members.shape[1], 8):
            yield self._members[:, start : start + 8]

    def sampling(
        self, functionals: np.ndarray, group: np.ndarray, method: str, of_blocks: OfBlocks = _as_they_are
    ) -> tuple[list[ErrorEstimate], np.ndarray]:
        """As promised, of the fluctuation of the model's own DOS (not member by member, whose fluctuation is the same to
        first order)."""
        estimates: list[ErrorEstimate | None] = [None] * len(group)
        channels = []
        for index in range(len(self._transforms)):
            mine = np.flatnonzero(group == index)
            series, blocks, weights, owners = self._series(index, functionals[mine].reshape(-1, functionals.shape[-1]))
            rows = self._frames.rows(index)
            for k, out in enumerate(mine):
                x = series[:, k * functionals.shape[1] : (k + 1) * functionals.shape[1]]
                estimates[out] = standard_error(x, self._frames.weight[rows], method, self._frames.segment[rows])
            channels.append(standard_error(of_blocks(index, blocks), weights, method, owners).error)
        return [estimate for estimate in estimates if estimate is not None], np.stack(channels)

    def _series(self, index: int, functionals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Functionals of every frame, and means of the DOS over blocks of frames with their weights and series."""
        frames, features, n = self._frames, self._frames.features(index), len(self.energies)
        rows = frames.rows(index)
        block, owners, _ = assign_blocks(frames.segment[rows], MAX_BLOCKS)
        weight = frames.weight[rows]
        total = np.bincount(block, weight)
        share = weight / np.where(total > 0, total, 1.0)[block]
        series = np.empty((len(rows), len(functionals)))
        means = np.zeros((len(owners), n))
        step = max(1, int(_CHUNK_BYTES / (8 * n)))
        for start in range(0, len(rows), step):
            chunk = slice(start, min(start + step, len(rows)))
            dos = self._transforms[index](self._readout.dos(features[chunk])[:, None], chunk)[:, 0]
            series[chunk] = dos @ functionals.T
            np.add.at(means, block[chunk], share[chunk, None] * dos)
        return series, means, total, owners


class FermiAlignment:
    """Shifts the DOS of every frame and member to its own Fermi level, a :class:`~petdos_md.analysis.transforms.FrameTransform`.

    Linear interpolation, under which the piecewise linear DOS is exact but for its kinks. At the ends of the energy axis,
    where the shifted DOS is not known, its last value is kept.

    :param energies: ``(n,)`` evenly spaced, eV
    :param relative: ``(n,)`` energies relative to the Fermi level to interpolate at
    :param n_electrons: per structure
    :param before: a transform to apply first
    """

    def __init__(
        self, energies: np.ndarray, relative: np.ndarray, n_electrons: float, before: FrameTransform | None = None
    ) -> None:
        self.energies, self.relative, self.n_electrons, self.before = energies, relative, n_electrons, before

    def __call__(self, dos: np.ndarray, frames: slice) -> np.ndarray:
        if self.before is not None:
            dos = self.before(dos, frames)
        levels = thermo.fermi_level(self.energies, dos, self.n_electrons)
        result = np.empty((*dos.shape[:-1], len(self.relative)))
        for where in np.ndindex(dos.shape[:-1]):
            result[where] = np.interp(levels[where] + self.relative, self.energies, dos[where])
        return result


def relative_energies(energies: np.ndarray, fermi_level: float) -> np.ndarray:
    """Energies relative to the Fermi level with the spacing and number of ``energies``, zero among them."""
    step = (energies[-1] - energies[0]) / (len(energies) - 1)
    return (np.arange(len(energies)) - round((fermi_level - energies[0]) / step)) * step
