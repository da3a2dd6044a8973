"""A predicted DOS without the ripples of the model in gaps (Eqs. 11-16 of the PET-MAD-DOS article, DOI 10.1039/D5DD00557D).

1. Eqs. 11-12: the DOS per atom is filtered with a Gaussian of 0.3 eV;
2. Eqs. 13-14: the DOS is multiplied with f(filtered DOS), f(x) = 1 / (1 + exp(-b (x - a))), a = 0.1, b = 100 on states/eV/atom;
3. Eqs. 15-16: it is scaled so that the states below the Fermi level hold the electrons.

The Fermi level of the last step comes from a network (:mod:`petdos_md.physics.networks`), as in the article, or from the integral of the
raw DOS. It is not linear, so averages are taken of denoised frames, each member by itself:

>>> energies = np.linspace(-5.0, 5.0, 201)
>>> dos = np.where(np.abs(energies) > 1.0, 2.0, 0.01)[None, None]           # a gap with a ripple
>>> denoise = Denoise(energies, n_atoms=1, n_electrons=7.0)
>>> clean = denoise(dos.copy(), slice(0, 1))[0]
>>> bool(clean[0, 100] < 1e-5), float(states_below(energies, clean, denoise.levels(dos[0]))[0])
(True, 7.0)
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.ndimage

from ..base.errors import ChemicalPotentialError
from . import thermo
from .occupation import Occupation

FILTER_EV = 0.3
"""Standard deviation of the Gaussian filter, Eqs. 11-12."""
THRESHOLD = 0.1
"""a of Eq. 13: states/eV/atom at which the DOS is halved."""
SLOPE = 100.0
"""b of Eq. 13: 1 / (states/eV/atom)."""

_BLOCK = 64  # densities of states treated at once, so that they stay in the cache


class FermiLevels(Protocol):
    """Where the Fermi level of a raw DOS lies; :class:`petdos_md.physics.networks.Network` is one."""

    def __call__(self, dos: np.ndarray, n_atoms: int) -> np.ndarray:
        """Map total DOS ``(m, n_channels)`` in states/eV to Fermi levels ``(m,)`` in eV on the axis of the DOS."""


class Denoise:
    """Eqs. 11-16 for structures of one composition, a :class:`~petdos_md.analysis.transforms.FrameTransform`.

    Beyond the ends of the grid, the filter sees the DOS mirrored at its last channels.

    :param energies: ``(n,)`` evenly spaced, eV
    :param n_atoms: per structure
    :param n_electrons: per structure
    :param fermi_levels: says where the Fermi level of each raw DOS is; if None, the integral of the raw DOS
    :param threshold: states/eV/atom, a of Eq. 13
    :param slope: 1 / (states/eV/atom), b of Eq. 13
    :param filter_eV: standard deviation of the filter; 0 leaves it out
    """

    __name__ = "denoise"

    def __init__(
        self,
        energies: np.ndarray,
        n_atoms: int,
        n_electrons: float,
        fermi_levels: FermiLevels | None = None,
        *,
        threshold: float = THRESHOLD,
        slope: float = SLOPE,
        filter_eV: float = FILTER_EV,
    ) -> None:
        if not (threshold >= 0 and slope > 0 and filter_eV >= 0):
            raise ValueError(
                f"expected threshold >= 0, slope > 0 and filter_eV >= 0, got {threshold}, {slope} and {filter_eV}"
            )
        if not (n_atoms > 0 and 0 < n_electrons < np.inf):
            raise ValueError(f"expected atoms and electrons of a structure, got {n_atoms} and {n_electrons}")
        self.energies, self.n_atoms, self.n_electrons = np.asarray(energies, float), n_atoms, float(n_electrons)
        self.fermi_levels, self.threshold, self.slope, self.filter_eV = fermi_levels, threshold, slope, filter_eV
        self._step = (self.energies[-1] - self.energies[0]) / (len(self.energies) - 1)

    def __call__(self, dos: np.ndarray, frames: slice) -> np.ndarray:
        """Denoise ``(frames, members, n)`` in place.

        :raises ChemicalPotentialError: if a Fermi level lies outside the grid or no states are left below it
        """
        flat = np.ascontiguousarray(dos).reshape(-1, dos.shape[-1])
        for start in range(0, len(flat), _BLOCK):
            block = flat[start : start + _BLOCK]
            levels = self.levels(block)
            block *= self.multiplier(block)
            self._scale(block, levels)
        return flat.reshape(dos.shape)

    def levels(self, dos: np.ndarray) -> np.ndarray:
        """Fermi levels of raw DOS ``(m, n)`` that the scaling refers to, ``(m,)`` eV."""
        if self.fermi_levels is not None:
            return np.asarray(self.fermi_levels(dos, self.n_atoms), dtype=np.float64)
        return thermo.fermi_level(self.energies, dos, self.n_electrons)

    def multiplier(self, dos: np.ndarray) -> np.ndarray:
        """f(filtered DOS), ``(m, n)`` float32, Eqs. 11-13."""
        width = self.filter_eV / self._step
        # The logistic function saturates far from the threshold: single precision is enough for the argument.
        x = scipy.ndimage.gaussian_filter1d(dos, width, axis=-1, output=np.float32, mode="mirror") if width else dos
        x = np.asarray(x, dtype=np.float32) * np.float32(-self.slope / self.n_atoms)
        x += np.float32(self.slope * self.threshold)
        # exp(-x) overflows to infinity far below the threshold, and the multiplier becomes 0, as it should.
        with np.errstate(over="ignore"):
            np.exp(x, out=x)
        x += 1
        return np.reciprocal(x, out=x)

    def _scale(self, dos: np.ndarray, levels: np.ndarray) -> None:
        below = states_below(self.energies, dos, levels)
        wrong = ~(np.isfinite(below) & (below > 1e-3 * self.n_electrons))
        wrong |= (levels < self.energies[0]) | (levels > self.energies[-1])
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise ChemicalPotentialError(
                f"denoising: {below[i]:.3g} of {self.n_electrons:g} electrons lie below the Fermi level {levels[i]:.3f} eV, on a "
                f"grid from {self.energies[0]:g} to {self.energies[-1]:g} eV; is this the network of this model?"
            )
        dos *= (self.n_electrons / below)[:, None]


def states_below(energies: np.ndarray, dos: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """int_{-inf}^{level} g dE of piecewise linear DOS ``(m, n)`` up to levels ``(m,)`` in eV, ``(m,)`` states."""
    occupation = Occupation(energies, dos, np.ones(len(dos)))
    partial, last = occupation.partial(np.arange(len(dos)), levels)
    counts = np.concatenate([np.zeros((len(dos), 1)), np.cumsum(occupation.increments(), axis=1)], axis=1)
    return counts[np.arange(len(dos)), last] + partial
