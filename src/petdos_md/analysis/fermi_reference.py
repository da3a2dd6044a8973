"""Average DOS relative to the Fermi level: every member's average at its own Fermi level, before the spread over members is taken.

>>> energies = np.linspace(-5.0, 5.0, 201)
>>> levels = np.array([[0.0, 0.27]])
>>> members = np.exp(-((energies - levels[..., None]) ** 2))            # one curve, moved by 0.27 eV
>>> members.shape, bool(members.std(axis=1).max() > 0.1)
((1, 2, 201), True)
>>> axis = FermiAxis(energies, levels)
>>> bool(np.std(axis.align(members, levels), axis=1).max() < 2e-3)      # what is left is linear interpolation
True

The zero of a model's energies has no meaning, so that a common shift of a member is no error of the DOS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..physics import response


@dataclass(frozen=True, eq=False)
class AlignedSpectra:
    """DOS relative to the Fermi level, ``n`` being the number of results.

    :param dos: ``(n, n_channels)`` states/eV
    :param dos_std: ``(n, n_channels)`` standard deviation over aligned members (``n - 1``); NaN without
    :param members: ``(n, n_members, n_channels)`` if they are to be kept
    """

    dos: np.ndarray
    dos_std: np.ndarray
    members: np.ndarray | None


class FermiAxis:
    """Energies relative to the Fermi level: of the old spacing, zero among them, up to where the DOS of one of the levels ends.

    :param energies: ``(n,)`` evenly spaced, eV
    :param levels: Fermi levels (eV) of all DOS that are to be aligned, any shape
    """

    def __init__(self, energies: np.ndarray, levels: np.ndarray) -> None:
        step = (energies[-1] - energies[0]) / (len(energies) - 1)
        first = int(np.ceil((energies[0] - np.min(levels)) / step - 1e-9))
        last = int(np.floor((energies[-1] - np.max(levels)) / step + 1e-9))
        self.energies, self.relative = energies, np.arange(first, last + 1) * step

    def align(self, dos: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """DOS ``(..., n)`` at their Fermi levels ``(...)``, ``(..., n_relative)``; linear interpolation, as the DOS is read."""
        result = np.empty((*dos.shape[:-1], len(self.relative)))
        for where in np.ndindex(dos.shape[:-1]):
            result[where] = np.interp(levels[where] + self.relative, self.energies, dos[where])
        return result

    def align_members(self, slices: Iterable[np.ndarray], levels: np.ndarray, keep: bool) -> AlignedSpectra:
        """Mean and standard deviation of aligned members.

        :param slices: averages of members, each ``(n, k, n_channels)``
        :param levels: ``(n, n_members)`` their Fermi levels
        :param keep: whether to keep every member
        """
        first: np.ndarray | None = None
        parts, count = [], 0
        for members in slices:
            aligned = self.align(members, levels[:, count : count + members.shape[1]])
            if first is None:
                # Deviations from one of them are small where they agree, and so are their rounding errors.
                first = aligned[:, :1]
                total, squares = np.zeros_like(first[:, 0]), np.zeros_like(first[:, 0])
            total += (aligned - first).sum(axis=1)
            squares += ((aligned - first) ** 2).sum(axis=1)
            count += members.shape[1]
            if keep:
                parts.append(aligned)
        assert first is not None
        variance = np.maximum(squares - total**2 / count, 0.0) / max(count - 1, 1)
        std = np.sqrt(variance) if count > 1 else np.full_like(total, np.nan)
        return AlignedSpectra(first[:, 0] + total / count, std, np.concatenate(parts, axis=1) if keep else None)

    def fluctuation(self, blocks: np.ndarray, dos: np.ndarray, n_electrons: float, level: float) -> np.ndarray:
        """What the DOS of blocks of frames adds to the aligned average, to first order; for sampling errors.

        d[g(E_F + x)] = dg(E_F + x) + g'(E_F + x) dE_F. In a gap, where E_F does not respond linearly, at a fixed E_F.

        :param blocks: ``(n_blocks, n)`` states/eV
        :param dos: ``(n,)`` their average
        :returns: ``(n_blocks, n_relative)``
        """
        kernel = response.fermi_level_kernel(self.energies, dos, n_electrons)
        where = level + self.relative
        i = np.clip(np.searchsorted(self.energies, where, side="right") - 1, 0, len(self.energies) - 2)
        width = self.energies[i + 1] - self.energies[i]
        t = np.clip((where - self.energies[i]) / width, 0.0, 1.0)
        result = blocks[:, i] * (1 - t) + blocks[:, i + 1] * t
        if np.isfinite(kernel).all():
            result += np.outer((blocks - dos) @ kernel, (dos[i + 1] - dos[i]) / width)
        return result
