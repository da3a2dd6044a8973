"""How well predicted densities of states agree with reference ones, whatever their zeros of energy.

>>> target = np.array([0.0, 1.0, 2.0, 1.0, np.nan])
>>> prediction = np.array([0.0, 0.0, 1.0, 2.0, 1.0])
>>> best = align(target, prediction, step=0.05)
>>> best.shift, best.squared_error  # the prediction lies one channel higher
(1, 0.0)

Equations 3, 4 and 8 to 10 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.special
from ase import Atoms
from numpy.typing import ArrayLike
from scipy.integrate import lebedev_rule
from scipy.spatial.transform import Rotation

Z_WANTED = (0.7, 1.4)
"""Root mean square z-scores between which errors count as calibrated."""


class Alignment(NamedTuple):
    """The rigid shift of a prediction that agrees best with a target."""

    shift: int
    """Channels by which the prediction lies higher in energy than the target."""

    squared_error: float
    """Integral of the squared difference at this shift, (states/eV)^2 eV."""

    refined: float
    """The shift between channels, from a parabola through the squared differences around the best one."""


def align(target: np.ndarray, prediction: np.ndarray, step: float, max_shift: int = 200) -> Alignment:
    """Find the shift D that minimizes the squared difference of ``target[i]`` and ``prediction[i + D]`` (Eqs. 3 and 4).

    Channels where the target is NaN do not count. The target is taken to vanish below its first channel, so that
    predicted states which a shift moves there count as error; the prediction vanishes outside its grid.

    :param target: shape ``(n,)``, NaN where undefined
    :param prediction: shape ``(m,)``; channel ``i`` has the energy of channel ``i`` of the target
    :param step: spacing of both grids, eV
    :param max_shift: largest shift tried, in channels, both ways
    :raises ValueError: if the target is undefined everywhere, or the prediction is not finite
    """
    target = np.asarray(target, dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    if target.ndim != 1 or prediction.ndim != 1:
        raise ValueError(f"expected one DOS each, got shapes {target.shape} and {prediction.shape}")
    defined = np.isfinite(target)
    if not defined.any():
        raise ValueError("the target is undefined in all channels")
    if not np.isfinite(prediction).all():
        raise ValueError("the prediction has channels that are not finite")
    if max_shift < 0:
        raise ValueError(f"the largest shift must not be negative, got {max_shift}")
    n = len(target)
    padded = np.zeros(n + 2 * max_shift)
    stop = min(len(prediction), n + max_shift)
    padded[max_shift : max_shift + stop] = prediction[:stop]
    windows = np.lib.stride_tricks.sliding_window_view(padded, n)  # row D + max_shift: prediction[D : D + n]
    difference = windows[:, defined] - target[defined]
    tail = np.concatenate([[0.0], np.cumsum(padded**2)])[: 2 * max_shift + 1]
    squared = step * ((difference**2).sum(axis=1) + tail)
    best = int(np.argmin(squared))
    between = 0.0
    if 0 < best < len(squared) - 1:
        left, middle, right = squared[best - 1 : best + 2]
        # At a minimum neither neighbor is lower, so that this lies within half a channel.
        between = float((left - right) / 2 / (left - 2 * middle + right)) if left + right > 2 * middle else 0.0
    return Alignment(best - max_shift, float(squared[best]), best - max_shift + between)


def dos_rmse(
    targets: list[np.ndarray],
    predictions: list[np.ndarray],
    n_electrons: np.ndarray,
    step: float,
    max_shift: int = 200,
) -> tuple[float, np.ndarray]:
    """Self-aligned root mean square error over structures (Eqs. 8 and 9).

    :param targets: one DOS per structure, each ``(n,)``, NaN where undefined
    :param predictions: one DOS per structure
    :param n_electrons: in each target, shape ``(n_structures,)``
    :param step: of the grid, eV
    :param max_shift: largest shift tried, in channels; 0 compares on the axis as it is
    :return: the RMSE and the error of every structure, eV^-0.5 electrons^-1 state
    :raises ValueError: if the lists differ in length or are empty
    """
    if not len(targets) == len(predictions) == len(n_electrons) or not len(targets):
        raise ValueError(
            f"expected as many predictions and electron numbers as targets and at least one, "
            f"got {len(targets)} targets, {len(predictions)} predictions, {len(n_electrons)} electron numbers"
        )
    squared = [align(t, p, step, max_shift).squared_error for t, p in zip(targets, predictions, strict=True)]
    errors = np.sqrt(squared) / np.asarray(n_electrons, dtype=np.float64)
    return float(np.sqrt(np.mean(errors**2))), errors


def rotations() -> list[np.ndarray]:
    """38 rotations that take the z axis to the points of a Lebedev grid, as for Eq. 10; each ``(3, 3)``."""
    points, _ = lebedev_rule(9)
    x, y, z = points
    angles = np.stack([np.arctan2(y, x), np.arccos(np.clip(z, -1, 1))], axis=1)
    return list(Rotation.from_euler("ZY", angles).as_matrix())


def rotated(atoms: Atoms, rotation: np.ndarray) -> Atoms:
    """A rigidly rotated copy.

    :param rotation: ``(3, 3)``
    """
    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    copy.set_cell(atoms.cell[:] @ rotation.T)
    copy.positions = atoms.positions @ rotation.T
    return copy


def symmetry_error(dos: np.ndarray, n_electrons: float, step: float) -> float:
    """Scatter of the predictions for rotated copies of a structure (Eq. 10), eV^-0.5 electrons^-1 state.

    :param dos: ``(n_rotations, n)``
    """
    dos = np.asarray(dos, dtype=np.float64)
    return float(np.sqrt(((dos - dos.mean(axis=0)) ** 2).mean(axis=0).sum() * step) / n_electrons)


def shifted_target(target: np.ndarray, shift: int) -> np.ndarray:
    """A target moved up by ``shift`` channels, onto the axis of a prediction (see :class:`Alignment`).

    Channels that enter at the lower end are zero (there are no states), those that enter at the upper end are NaN.

    :param target: shape ``(n,)``
    :return: shape ``(n,)``
    """
    target = np.asarray(target, dtype=np.float64)
    n = len(target)
    if abs(shift) >= n:
        raise ValueError(f"cannot shift a target of {n} channels by {shift}")
    moved = np.zeros(n) if shift >= 0 else np.full(n, np.nan)
    if shift >= 0:
        moved[shift:] = target[: n - shift]
    else:
        moved[:shift] = target[-shift:]
    return moved


def z_scores(target: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Deviation of the target from the mean of the members, in units of their standard deviation.

    :param target: shape ``(n,)``, NaN where undefined
    :param members: shape ``(n_members, n)``, on the axis of the target
    :return: shape ``(n,)``, NaN where the target is; standard normal numbers if the spread of the members is the error
    """
    members = np.asarray(members, dtype=np.float64)
    return (np.asarray(target, dtype=np.float64) - members.mean(axis=0)) / members.std(axis=0, ddof=1)


def chance_interval(n_structures: ArrayLike, n_members: int, level: float = 0.99) -> tuple[np.ndarray, np.ndarray]:
    """Limits of the root mean square z-score that a perfectly calibrated ensemble shows by chance, each of the shape of ``n_structures``.

    Gaussian errors of n structures, in units of a standard deviation that is estimated from K members with the same weights for all
    structures: the mean square is a variable F(n, K - 1). It bounds from above the scatter where structures are less alike.

    :param level: probability of the interval
    :raises ValueError: if there are fewer than one structure or two members
    """
    n = np.asarray(n_structures)
    if (n < 1).any() or n_members < 2:
        raise ValueError(f"expected at least 1 structure and 2 members, got {n.min()} and {n_members}")
    low, high = (np.sqrt(scipy.special.fdtri(n, n_members - 1, p)) for p in ((1 - level) / 2, (1 + level) / 2))
    return low, high
