"""Where the electrons stop: Fermi level and chemical potential of piecewise linear densities of states.

>>> energies = np.linspace(-1.0, 1.0, 41)
>>> occupation = Occupation(energies, np.ones((1, 41)), np.array([1.5]))
>>> round(float(occupation.fermi_level[0]), 12)
0.5
>>> mu = occupation.chemical_potential(np.array([0]), np.array([0.01]))
>>> round(float(mu[0]), 12)
0.5

Which root. A DOS that is nowhere negative has one root, or a gap at T = 0, of which the middle is taken. Predictions that
dip below zero make N(mu) fall here and there, so that several mu hold the right number of electrons. The root taken is

- at T = 0, the stable one that charge relaxation (mu moves up while electrons are missing, down while there are too many)
  reaches from the middle between the lowest and the highest level that holds the electrons, where the search for the
  highest ends once the count exceeds n_electrons by a thousandth: so a gap with ripples is treated as the clean gap that
  it stands for, and the end of the energy axis, where a model was not trained, has no say;
- at T > 0, if there is one at T = 0, the one that relaxation from the Fermi level reaches; if there are several, the one that the
  single root of a hot system becomes as it cools (from 11600 K down, or from where the grid holds the electrons).

N(mu, T) is N(mu, 0) smoothed over a few kT. With rising temperature roots vanish in pairs, but hardly ever appear: the root that
comes from above can be followed all the way down, and mu(T) is continuous. One followed upwards from the Fermi level may end where it
meets another. In a gap with ripples mu(T -> 0) may therefore be another root than the Fermi level.

There N(mu) rises, so K_0 = dN/dmu is not negative. A level at which N is right to 1e-10 over a segment or more of the grid
is a gap of a neutral system: the remainder is rounding, not doping.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .fermi_integrals import WINDOW_KT, Array, Index, PiecewiseLinearDOS

NEUTRAL = 1e-10
"""Relative error of the electron number that counts as rounding where the DOS has a gap."""

OVERFULL = 1e-3
"""Relative excess of electrons at which the search for further roots above a Fermi level ends."""

_MAX_STEPS = 200
_HOT_EV, _COOLING = 1.0, 0.9  # kT at which roots are followed from, and the ratio of one to the next
_COLD_STEPS = 0.02  # kT in grid steps below which roots do not move any more


class Occupation(PiecewiseLinearDOS):
    """A batch of densities of states, each with its number of electrons.

    :param energies: (n,) strictly increasing, eV
    :param dos: (m, n), states/eV
    :param n_electrons: (m,), positive
    """

    def __init__(self, energies: Array, dos: Array, n_electrons: Array) -> None:
        super().__init__(energies, dos)
        self.n_electrons = n_electrons
        self._has_several_roots = np.zeros(len(dos), dtype=bool)  # set with the Fermi level

    @cached_property
    def fermi_level(self) -> Array:
        """T = 0 Fermi level, (m,) eV; NaN where the grid cannot hold the electrons."""
        rising = self._rising
        level = np.full(len(rising), np.nan)
        rows = np.flatnonzero(rising.any(axis=1))
        lowest = rising[rows].argmax(axis=1)
        highest = rising.shape[1] - 1 - rising[rows, ::-1].argmax(axis=1)
        level[rows] = self._root(rows, lowest)
        several = rows[lowest != highest]
        self._has_several_roots[several] = True
        if len(several):
            top = self._root(several, highest[lowest != highest])
            # A neutral gap that ends with the grid has no upper edge; its Fermi level is its lower edge.
            middle = (level[several] + top) / 2
            for row, start in zip(several, middle, strict=True):
                level[row] = self._relaxed(row, start)
        return level

    def excess(self, element: Index, mu: Array) -> Array:
        """Electrons in excess of n_electrons if all states below mu are filled (T = 0), (q,)."""
        partial, i = self.partial(element, mu)
        return self._excess[element, i] + partial

    def chemical_potential(self, element: Index, kT: Array) -> Array:
        """mu in eV, (q,), of DOS ``element`` (q,) at ``kT`` (q,) in eV; NaN where there is none on the grid."""
        level = self.fermi_level[element]
        mu = self._wide_gap(element, kT)
        todo = np.flatnonzero(np.isnan(mu) & ~np.isnan(level))
        start = self._cooled(element[todo], kT[todo])
        mu[todo] = self._relax(element[todo], start, kT[todo])
        return mu

    def _cooled(self, element: Index, kT: Array) -> Array:
        """Where relaxation starts: the Fermi level; of several roots, the one followed from a hot system to just above kT."""
        start = self.fermi_level[element].copy()
        mine = np.flatnonzero(self._has_several_roots[element] & (kT < _HOT_EV))
        coldest = max(_COLD_STEPS * float(self.steps.mean()), float(kT[mine].min())) if len(mine) else _HOT_EV
        rows = np.unique(element[mine])
        root = np.full(len(self.n_electrons), np.nan)
        hot = _HOT_EV
        while len(mine) and hot >= coldest:
            # The grid may be too narrow to hold the electrons of a hot system.
            begin = np.where(np.isnan(root[rows]), self.fermi_level[rows], root[rows])
            root[rows] = self._relax(rows, begin, np.full(len(rows), hot))
            reached = mine[(kT[mine] <= hot) & ~np.isnan(root[element[mine]])]
            start[reached] = root[element[reached]]
            hot *= _COOLING
            rows = rows[np.isin(rows, element[mine[kT[mine] < hot]])]
        return start

    def _relax(self, element: Index, mu: Array, kT: Array) -> Array:
        """Bracketed Halley iteration whose every step goes the way of charge relaxation, in steps that first stay small."""
        bottom, top = self.energies[0], self.energies[-1]
        mu = mu.copy()
        low, high = np.full_like(mu, -np.inf), np.full_like(mu, np.inf)
        reach = np.maximum(kT, self.steps.mean())
        todo = np.arange(len(mu))
        for iteration in range(_MAX_STEPS):
            here, t = mu[todo], kT[todo]
            thermal, k0, dk0 = self.integrals(("N", "K0", "dK0"), element[todo], here, t)
            excess = self.excess(element[todo], here) + thermal
            low[todo] = np.where(excess < 0, here, low[todo])
            high[todo] = np.where(excess > 0, here, high[todo])

            with np.errstate(all="ignore"):
                newton = -excess / k0
                halley = newton / np.clip(1 + newton * dk0 / (2 * k0), 0.5, 2.0)
            usable = (k0 > 0) & np.isfinite(halley)
            step = np.where(usable, halley, -np.sign(excess) * reach[todo])
            beyond = np.abs(step) >= reach[todo]
            step = np.clip(step, -reach[todo], reach[todo])
            reach[todo] = np.where(beyond, 2 * reach[todo], reach[todo])
            new = here + step
            a, b = low[todo], high[todo]
            closed = np.isfinite(a) & np.isfinite(b)
            # The iteration is of third order and N(mu) varies over kT: the next step would be below rounding.
            converged = usable & (np.abs(step) <= 1e-5 * t)
            halve = closed & ~converged & ((new <= a) | (new >= b) | (iteration >= 12 and iteration % 2 == 0))
            with np.errstate(invalid="ignore"):
                new = np.where(halve, (a + b) / 2, new)
                converged |= closed & (b - a <= 4e-16 * np.maximum(np.abs(a), np.abs(b)) + 1e-14 * t)
            converged |= excess == 0
            new = np.where(excess == 0, here, new)

            lost = ((here == top) & (excess < 0)) | ((here == bottom) & (excess > 0))
            new = np.where(lost, np.nan, np.clip(new, bottom, top))
            mu[todo] = new
            todo = todo[~(converged | lost)]
            if not len(todo):
                return mu
        mu[todo] = np.nan  # halving closes every bracket, unless kT is below the rounding of energies
        return mu

    def _wide_gap(self, element: Index, kT: Array) -> Array:
        """mu where kT is so small in an empty gap that both bands are Boltzmann tails (maybe below 1e-308); else NaN.

        Then n = P_c exp((mu - E_c)/kT) = p = P_v exp((E_v - mu)/kT), solved in logarithms.
        """
        mu = np.full(len(element), np.nan)
        edges = self._empty_edges[element]
        ends = (0, len(self.energies) - 1)
        low, high = self.energies[edges[:, 0]], self.energies[edges[:, 1]]
        wide = (edges[:, 0] > ends[0]) & (edges[:, 1] < ends[1]) & (high - low > 2 * WINDOW_KT * kT)
        for q in np.flatnonzero(wide):
            g, (v, c) = self.values[element[q]], edges[q]
            n = _boltzmann(self.energies[c:] - self.energies[c], g[c:], kT[q])
            p = _boltzmann((self.energies[v] - self.energies[: v + 1])[::-1], g[: v + 1][::-1], kT[q])
            if n > 0 and p > 0:
                middle = (low[q] + high[q]) / 2 + kT[q] / 2 * np.log(p / n)
                if min(middle - low[q], high[q] - middle) > WINDOW_KT * kT[q]:
                    mu[q] = middle
        return mu

    @cached_property
    def _rising(self) -> NDArray[np.bool_]:
        """Segments in which the excess rises through zero, (m, n - 1), up to and with the first that ends above the tolerated excess."""
        left, right = self._excess[:, :-1], self._excess[:, 1:]
        rising = ((left < 0) & (right >= 0)) | ((left <= 0) & (right > 0))
        self._add_double_roots(rising)
        over = right > OVERFULL * self.n_electrons[:, None]
        limit = np.where(over.any(axis=1), over.argmax(axis=1), right.shape[1] - 1)
        rising &= np.arange(right.shape[1]) <= limit[:, None]
        return rising

    @cached_property
    def _excess(self) -> Array:
        """States below each grid point minus n_electrons, (m, n).

        In a neutral gap the count starts there and goes outwards: its rounding errors are then relative to the number of
        carriers, not of electrons.
        """
        increments = self.increments()
        excess = np.zeros_like(self.values)
        np.cumsum(increments, axis=1, out=excess[:, 1:])
        excess -= self.n_electrons[:, None]
        neutral = np.abs(excess) <= NEUTRAL * self.n_electrons[:, None]
        for row in np.flatnonzero((neutral[:, :-1] & neutral[:, 1:]).any(axis=1)):
            points = np.flatnonzero(neutral[row, :-1] & neutral[row, 1:])
            points = np.append(points, points[-1] + 1)
            zero = points[np.abs(self.values[row, points]).argmin()]
            excess[row, zero] = 0.0
            excess[row, zero + 1 :] = np.cumsum(increments[row, zero:])
            excess[row, :zero] = -np.cumsum(increments[row, :zero][::-1])[::-1]
        return excess

    @cached_property
    def _empty_edges(self) -> Index:
        """Grid points (v, c) that bound the empty interval around the Fermi level, (m, 2); v = c if there is none."""
        edges = np.zeros((len(self.values), 2), dtype=np.intp)
        empty = self.values == 0
        if not empty.any():
            return edges
        segment = np.searchsorted(self.energies, self.fermi_level, side="left") - 1
        for row in np.flatnonzero(np.isfinite(self.fermi_level)):
            i = max(int(segment[row]), 0)
            if empty[row, i] and empty[row, i + 1]:
                v = np.flatnonzero(~empty[row, :i])
                c = np.flatnonzero(~empty[row, i + 1 :])
                edges[row] = (v[-1] + 1 if len(v) else 0), (i + c[0] if len(c) else len(self.energies) - 1)
        return edges

    def _root(self, row: Index, segment: Index) -> Array:
        """The one root of the (parabolic) excess in a segment at which it rises."""
        step, a = self.steps[segment], -self._excess[row, segment]
        b = step * self.values[row, segment]
        c = step**2 * self.slopes[row, segment] / 2
        root = np.sqrt(np.maximum(b * b + 4 * c * a, 0.0))
        with np.errstate(all="ignore"):
            t = np.where(b >= 0, 2 * a / (b + root), (root - b) / (2 * c))
        t = np.clip(np.where(np.isnan(t), np.where(a > 0, 1.0, 0.0), t), 0.0, 1.0)
        return self.energies[segment] + t * step

    def _add_double_roots(self, rising: NDArray[np.bool_]) -> None:
        """Mark the segments that the excess enters and leaves on one side, but crosses zero twice in between."""
        g = self.values
        row, i = np.nonzero((g[:, :-1] < 0) != (g[:, 1:] < 0))
        left, right = self._excess[row, i], self._excess[row, i + 1]
        with np.errstate(all="ignore"):
            turn = left - g[row, i] ** 2 / (2 * self.slopes[row, i])
        double = np.where(g[row, i] < 0, (left > 0) & (right > 0) & (turn < 0), (left < 0) & (right < 0) & (turn > 0))
        rising[row[double], i[double]] = True

    def _rising_roots(self, row: int) -> Array:
        """All rising roots of T = 0, ascending."""
        segments = np.flatnonzero(self._rising[row])
        return self._root(np.full(len(segments), row), segments)

    def _relaxed(self, row: int, start: float) -> float:
        """The rising T = 0 root that charge relaxation reaches from ``start``."""
        one, begin = np.array([row]), np.array([start])
        excess = float(self.excess(one, begin)[0])
        roots = self._rising_roots(row)
        neutral = self._neutral_interval(row, start)
        if neutral is not None:
            return neutral
        above, below = roots[roots >= start], roots[roots <= start]
        if excess == 0 or not (len(above) if excess < 0 else len(below)):
            return float(roots[np.abs(roots - start).argmin()]) if excess else float(start)
        return float(above.min() if excess < 0 else below.max())

    def _neutral_interval(self, row: int, start: float) -> float | None:
        """The middle of the neutral gap that holds ``start``, if it is in one."""
        neutral = np.abs(self._excess[row]) <= NEUTRAL * self.n_electrons[row]
        i = int(np.clip(np.searchsorted(self.energies, start, side="left") - 1, 0, len(neutral) - 2))
        if not (neutral[i] and neutral[i + 1]):
            return None
        low = np.flatnonzero(~neutral[:i])
        high = np.flatnonzero(~neutral[i + 1 :])
        first = low[-1] + 1 if len(low) else 0
        last = i + high[0] if len(high) else len(neutral) - 1
        return float(self.energies[first] + self.energies[last]) / 2


def _boltzmann(distance: Array, g: Array, kT: float) -> float:
    """Integral of the piecewise linear g with exp(-distance / kT), from its edge (distance 0, g = 0) on."""
    stop = max(2, int(np.searchsorted(distance, WINDOW_KT * kT, side="right")) + 2)
    ends = len(distance) <= stop
    distance, g = distance[:stop], g[:stop]
    slopes = np.diff(g) / np.diff(distance)
    kinks = np.diff(slopes, prepend=0.0)
    total = kT**2 * float(np.sum(kinks * np.exp(-distance[:-1] / kT)))
    if ends:
        total -= float((kT**2 * slopes[-1] + kT * g[-1]) * np.exp(-distance[-1] / kT))
    return total
