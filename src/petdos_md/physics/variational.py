"""Levels at which the free energy is largest, where ripples of a predicted DOS let several hold the electrons.

At fixed N the free energy is the largest value of Omega(mu) + mu N over mu: for a DOS that is nowhere negative there is one stationary
point. Among several roots the one of largest value is taken here. The value is then continuous in the DOS, as the maximum of linear
functions of it, and so is its limit for T -> 0; a root that is followed (:mod:`petdos_md.physics.occupation`) may end and jump.

>>> energies = np.linspace(-2.0, 2.0, 81)
>>> dos = np.where(energies < -0.5, 2.0, 0.0) + np.where(energies > 0.5, 2.0, 0.0) - 0.02 * np.sin(12 * energies) * (abs(energies) < 0.5)
>>> occupation = VariationalOccupation(energies, dos[None], np.array([3.05]))
>>> level, mu = occupation.fermi_level, occupation.chemical_potential(np.array([0]), np.array([0.01]))
>>> cold, warm = (float(occupation.surplus(np.array([0]), x)[0]) for x in (level, mu))
>>> cold >= warm
True
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .fermi_integrals import Array, Index
from .occupation import Occupation

EQUAL_EV = 1e-10
"""Values that differ by less are those of one gap."""


class VariationalOccupation(Occupation):
    """As :class:`~petdos_md.physics.occupation.Occupation`, with the level of largest free energy among several."""

    @cached_property
    def fermi_level(self) -> Array:
        """T = 0 Fermi level, (m,) eV; NaN where the grid cannot hold the electrons."""
        level = super().fermi_level.copy()
        for row in np.flatnonzero(self._has_several_roots).tolist():
            candidates = np.concatenate([level[row : row + 1], self._rising_roots(row)])
            values = self.surplus(np.full(len(candidates), row), candidates)
            best = int(values.argmax())
            if values[best] > values[0] + EQUAL_EV:
                level[row] = candidates[best]
        return level

    def chemical_potential(self, element: Index, kT: Array) -> Array:
        """mu in eV, (q,); NaN where there is none on the grid."""
        mu = super().chemical_potential(element, kT)
        level = self.fermi_level
        rippled = np.array(
            [
                several and self._neutral_interval(row, level[row]) is None
                for row, several in enumerate(self._has_several_roots)
            ]
        )
        some = np.flatnonzero(rippled[element] & ~np.isnan(mu))
        if not len(some):
            return mu
        rows, kT = element[some], kT[some]
        other = self._relax(rows, level[rows], kT)
        found = ~np.isnan(other)
        better = found & (self._value(rows, np.where(found, other, mu[some]), kT) > self._value(rows, mu[some], kT))
        mu[some[better]] = other[better]
        return mu

    def surplus(self, element: Index, mu: Array) -> Array:
        """Omega(mu) + mu N at T = 0 from the first grid point on, (q,) eV: the integral of N minus the states below, up to mu."""
        _, slope, segment = self.at(element, mu)
        i = np.clip(segment, 0, len(self.steps) - 1)
        t = mu - self.energies[i]
        g, excess = self.values[element, i], self._excess[element, i]
        return self._surplus[element, i] - t * (excess + t * (g / 2 + t * slope / 6))

    @cached_property
    def _surplus(self) -> Array:
        """At the grid points, (m, n)."""
        step = self.steps
        piece = step * (self._excess[:, :-1] + step * (self.values[:, :-1] / 2 + step * self.slopes / 6))
        result = np.zeros_like(self.values)
        np.cumsum(-piece, axis=1, out=result[:, 1:])
        return result

    def _value(self, element: Index, mu: Array, kT: Array) -> Array:
        u, s = self.integrals(("U", "S"), element, mu, kT)
        return self.surplus(element, mu) + u - kT * s
