"""Integrals of a piecewise linear density of states with Fermi-Dirac functions, exact to rounding.

A DOS g(E) known on grid points is read as linear between them and zero outside. Integrated by parts twice, an integral of g
with h(x), x = (E - mu) / kT, becomes a "contact" term at mu (the Sommerfeld term) plus a sum over the kinks of g (the
grid points) of the second antiderivative of h that decays away from mu. Those are combinations of
log(1 + e^-x), -Li2(-e^-x) and -Li3(-e^-x). Nothing is truncated but terms below 1e-16, whether kT is smaller or larger
than the grid step, and exponentially small integrals in a gap keep their relative precision. What cancels are the kinks of
features narrower than kT, as (step / kT)^2: of the sixteen digits of a peak of one grid step, four are lost at 50 000 K.

>>> dos = PiecewiseLinearDOS(np.linspace(-1.0, 1.0, 5), np.ones((1, 5)))
>>> K0, K2 = dos.integrals(("K0", "K2"), np.array([0]), np.array([0.0]), np.array([0.01]))
>>> round(float(K0[0]), 12), round(float(K2[0] / (np.pi**2 / 3 * 0.01**2)), 12)
(1.0, 1.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import factorial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

WINDOW_KT = 40.0
"""Distance in kT beyond which exp(-x) is negligible: exp(-40) = 4e-18."""

_CHUNK = 1 << 16  # elements of a work array: 512 kB, about a level-2 cache
_FILLED = 1e-3  # of the largest |g|: states that count as "the next band" when a window is laid out


class PiecewiseLinearDOS:
    """A batch of densities of states on one grid.

    :param energies: (n,) strictly increasing, eV
    :param dos: (m, n), states/eV
    """

    def __init__(self, energies: Array, dos: Array) -> None:
        self.energies = energies
        self.values = dos
        self.steps = np.diff(energies)
        self.slopes = np.diff(dos, axis=1) / self.steps

    def at(self, element: Index, mu: Array) -> tuple[Array, Array, Index]:
        """g(mu), g'(mu) and the segment ``i`` with ``energies[i] < mu <= energies[i + 1]`` (-1 and n - 1 are outside).

        On a grid point the derivative is that of the left side; :meth:`integrals` counts the point as right of mu.
        """
        segment = np.searchsorted(self.energies, mu, side="left") - 1
        i = np.clip(segment, 0, len(self.steps) - 1)
        inside = segment == i
        slope = np.where(inside, self.slopes[element, i], 0.0)
        value = np.where(inside, self.values[element, i] + slope * (mu - self.energies[i]), 0.0)
        return value, slope, segment

    def increments(self) -> Array:
        """Number of states in each segment, (m, n - 1)."""
        return 0.5 * self.steps * (self.values[:, 1:] + self.values[:, :-1])

    def partial(self, element: Index, mu: Array) -> tuple[Array, Index]:
        """States between the last grid point left of mu and mu, and that point (0 if mu is left of the grid)."""
        value, _, segment = self.at(element, mu)
        i = np.clip(segment, 0, None)
        inside = (segment >= 0) & (segment < len(self.steps))
        return np.where(inside, (mu - self.energies[i]) * (value + self.values[element, i]) / 2, 0.0), i

    def integrals(self, names: Sequence[str], element: Index, mu: Array, kT: Array) -> list[Array]:
        """Integrals of g with the functions of :data:`FUNCTIONALS`, at fixed mu.

        :param names: keys of :data:`FUNCTIONALS`
        :param element: (q,) which DOS of the batch
        :param mu: (q,) eV
        :param kT: (q,) eV
        :return: one (q,) array for each name
        """
        value, slope, segment = self.at(element, mu)
        functionals = [FUNCTIONALS[name] for name in names]
        first, last = (self.energies[0] - mu) / kT, (self.energies[-1] - mu) / kT
        g_first, g_last = self.values[element, 0], self.values[element, -1]
        at_first, at_last = _NodeFunctions(np.abs(first)), _NodeFunctions(np.abs(last))
        results = []
        for h in functionals:
            if h.odd:
                result = h.contact * kT * slope + g_first * h.once(at_first) - g_last * h.once(at_last)
            else:
                result = h.contact * value
                result += g_first * np.where(first >= 0, 1, -1) * h.once(at_first)
                result -= g_last * np.where(last >= 0, 1, -1) * h.once(at_last)
            results.append(result)

        # Beyond the bands on both sides of mu, so that a gap of many kT keeps its exponentially small terms.
        below = np.minimum(mu, self.energies[self._filled_below[element, np.clip(segment, 0, None)]])
        above = np.maximum(mu, self.energies[self._filled_above[element, np.clip(segment + 1, 0, len(self.steps))]])
        start = np.searchsorted(self.energies, below - WINDOW_KT * kT, side="left")
        stop = np.searchsorted(self.energies, above + WINDOW_KT * kT, side="right")
        for q, energies, kinks in self.windows(element, start, stop):
            x = (energies - mu[q, None]) / kT[q, None]
            nodes = _NodeFunctions(np.abs(x))
            signed = np.where(x < 0, -kinks, kinks)
            for h, result in zip(functionals, results, strict=True):
                result[q] += kT[q] * np.einsum("qw,qw->q", signed if h.odd else kinks, h.twice(nodes))
        return [result * kT**h.power for h, result in zip(functionals, results, strict=True)]

    def windows(self, element: Index, start: Index, stop: Index) -> Iterator[tuple[Index, Array, Array]]:
        """Grid points ``start:stop`` (or a few more) of each query, in chunks of queries with windows of like width.

        Yields (queries (k,), energies (k, w), kinks g'(E+) - g'(E-) (k, w)).
        """
        n = len(self.energies)
        widths = np.maximum(stop - start, 1)
        order = np.argsort(widths, kind="stable")
        widths = widths[order]
        done = 0
        while done < len(order):
            alike = int(np.searchsorted(widths, 1.25 * widths[done] + 8, side="right")) - done
            count = max(1, min(alike, _CHUNK // int(widths[done])))
            q = order[done : done + count]
            width = int(widths[done + count - 1])
            left = np.clip(start[q], 0, n - width)
            energies = np.lib.stride_tricks.sliding_window_view(self.energies, width)[left]
            kinks = np.lib.stride_tricks.sliding_window_view(self.kinks, width, axis=1)[element[q], left]
            yield q, energies, kinks
            done += count

    @cached_property
    def kinks(self) -> Array:
        """Change of slope at each grid point, (m, n); the jumps to zero at the grid's ends are treated apart."""
        return np.diff(self.slopes, axis=1, prepend=0.0, append=0.0)

    @cached_property
    def _filled(self) -> NDArray[np.bool_]:
        size = np.abs(self.values)
        filled: NDArray[np.bool_] = size > _FILLED * size.max(axis=1, keepdims=True)
        return filled

    @cached_property
    def _filled_below(self) -> NDArray[np.int32]:
        index = np.where(self._filled, np.arange(len(self.energies), dtype=np.int32), np.int32(0))
        return np.maximum.accumulate(index, axis=1)

    @cached_property
    def _filled_above(self) -> NDArray[np.int32]:
        n = len(self.energies)
        index = np.where(self._filled, np.arange(n, dtype=np.int32), np.int32(n - 1))
        return np.minimum.accumulate(index[:, ::-1], axis=1)[:, ::-1]


def nodal_weights(name: str, energies: Array, mu: Array, kT: Array) -> Array:
    """The same integrals as linear functionals of the nodal values: integral = sum_j weights[..., j] dos[j].

    :param name: a key of :data:`FUNCTIONALS`
    :param mu: (q,) eV
    :param kT: (q,) eV
    :return: (q, n)
    """
    h = FUNCTIONALS[name]
    x = (energies - mu[:, None]) / kT[:, None]
    nodes = _NodeFunctions(np.abs(x))
    twice, once = h.twice(nodes), h.once(nodes)
    if h.odd:
        twice = np.where(x < 0, -twice, twice)
    else:
        once = np.where(x < 0, -once, once)
    weights = np.zeros_like(x)
    slope = kT[:, None] * np.diff(twice, axis=1) / np.diff(energies)
    weights[:, :-1] += slope
    weights[:, 1:] -= slope
    weights[:, 0] += once[:, 0]
    weights[:, -1] -= once[:, -1]

    q, i, t, step = _inside(energies, mu)
    if h.odd:
        weights[q, i] -= h.contact * kT[q] / step
        weights[q, i + 1] += h.contact * kT[q] / step
    else:
        weights[q, i] += h.contact * (1 - t)
        weights[q, i + 1] += h.contact * t
    return weights * kT[:, None] ** h.power


def step_weights(energies: Array, mu: Array) -> tuple[Array, Array]:
    """Nodal weights, each (q, n), of the integrals of g and of g (E - mu) over all energies below mu."""
    steps = np.diff(energies)
    full = energies[1:] <= mu[:, None]
    left, right = np.where(full, steps / 2, 0.0), np.where(full, steps / 2, 0.0)
    shift = energies[:-1] - mu[:, None]
    e_left = np.where(full, steps * (shift / 2 + steps / 6), 0.0)
    e_right = np.where(full, steps * (shift / 2 + steps / 3), 0.0)
    q, i, t, step = _inside(energies, mu)
    left[q, i], right[q, i] = step * t * (1 - t / 2), step * t**2 / 2
    e_left[q, i], e_right[q, i] = step**2 * t**2 * (t / 6 - 0.5), -(step**2) * t**3 / 6
    count, energy = np.zeros((len(mu), len(energies))), np.zeros((len(mu), len(energies)))
    count[:, :-1] += left
    count[:, 1:] += right
    energy[:, :-1] += e_left
    energy[:, 1:] += e_right
    return count, energy


def _inside(energies: Array, mu: Array) -> tuple[Index, Index, Array, Array]:
    """Queries with mu on the grid: their number, segment, fraction of the segment and its width."""
    segment = np.searchsorted(energies, mu, side="left") - 1
    q = np.flatnonzero((segment >= 0) & (segment < len(energies) - 1))
    i = segment[q]
    step = energies[i + 1] - energies[i]
    return q, i, (mu[q] - energies[i]) / step, step


class _NodeFunctions:
    """Functions of x >= 0, each computed once: f, log(1 + e^-x), -Li2(-e^-x), -Li3(-e^-x)."""

    def __init__(self, x: Array) -> None:
        self.x = x
        self.u = np.exp(-x)

    @cached_property
    def f(self) -> Array:
        return self.u / (1 + self.u)

    @cached_property
    def minus_df(self) -> Array:
        return self.f / (1 + self.u)

    @cached_property
    def log(self) -> Array:
        return np.log1p(self.u)

    @cached_property
    def li2(self) -> Array:
        return _power_series(_LI2_EVEN, self.log, 0.25)

    @cached_property
    def li3(self) -> Array:
        return _horner(_LI3, self.log) * self.log


def _horner(coefficients: Sequence[float], y: Array) -> Array:
    result = np.full_like(y, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result *= y
        result += c
    return result


def _power_series(even: Sequence[float], y: Array, linear: float) -> Array:
    result = _horner(even, y * y)
    result += linear * y
    result *= y
    return result


def _series() -> tuple[list[float], list[float]]:
    """Coefficients of -Li2(-u) / L and -Li3(-u) / L in powers of L = log(1 + u) <= log 2 (radius of convergence 2 pi).

    With Bernoulli numbers, Li2(z) = sum_k B_k w^(k+1) / (k+1)! for w = -log(1 - z), and dLi3/dL = Li2 / (1 - e^-L).
    """
    bernoulli = [1.0, -1 / 2, 1 / 6, 0, -1 / 30, 0, 1 / 42, 0, -1 / 30, 0, 5 / 66, 0, -691 / 2730, 0, 7 / 6, 0]
    bernoulli += [-3617 / 510, 0, 43867 / 798]
    li2 = [(-1) ** k * b / factorial(k + 1) for k, b in enumerate(bernoulli)]
    inverse = [(-1) ** k * b / factorial(k) for k, b in enumerate(bernoulli)]
    li3 = [sum(li2[j] * inverse[k - j] for j in range(k + 1)) / (k + 1) for k in range(len(bernoulli))]
    return li2[0:15:2], li3[:17]


_LI2_EVEN, _LI3 = _series()


@dataclass(frozen=True)
class Functional:
    """A function h of x = (E - mu) / kT that is even or odd about mu and decays, times kT^(power - 1).

    ``once`` and ``twice`` are its antiderivatives from x to infinity, for x >= 0; ``contact`` is the weight of g(mu)
    (even: twice once(0)) or of kT g'(mu) (odd: twice twice(0)).
    """

    odd: bool
    power: int
    contact: float
    once: Callable[[_NodeFunctions], Array]
    twice: Callable[[_NodeFunctions], Array]


_PI2 = np.pi**2
FUNCTIONALS = {
    # f - theta(mu - E), and (E - mu) times it
    "N": Functional(True, 1, _PI2 / 6, lambda a: a.log, lambda a: a.li2),
    "U": Functional(False, 2, _PI2 / 6, lambda a: a.x * a.log + a.li2, lambda a: a.x * a.li2 + 2 * a.li3),
    # -[f ln f + (1 - f) ln(1 - f)]
    "S": Functional(False, 1, _PI2 / 3, lambda a: a.x * a.log + 2 * a.li2, lambda a: a.x * a.li2 + 3 * a.li3),
    # (-df/dE) (E - mu)^n
    "K0": Functional(False, 0, 1.0, lambda a: a.f, lambda a: a.log),
    "K1": Functional(True, 1, _PI2 / 3, lambda a: a.x * a.f + a.log, lambda a: a.x * a.log + 2 * a.li2),
    "K2": Functional(
        False,
        2,
        _PI2 / 3,
        lambda a: a.x * (a.x * a.f + 2 * a.log) + 2 * a.li2,
        lambda a: a.x * (a.x * a.log + 4 * a.li2) + 6 * a.li3,
    ),
    # their derivatives with respect to mu
    "dK0": Functional(True, -1, 1.0, lambda a: a.minus_df, lambda a: a.f),
    "dK1": Functional(False, 0, 0.0, lambda a: a.x * a.minus_df, lambda a: a.x * a.f + a.log),
    "dK2": Functional(
        True,
        1,
        _PI2 / 3,
        lambda a: a.x**2 * a.minus_df,
        lambda a: a.x * (a.x * a.f + 2 * a.log) + 2 * a.li2,
    ),
}
"""The integrals that can be asked for: with the functions named in the comments of the source."""
