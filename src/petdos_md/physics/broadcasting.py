"""Checks and broadcasting for functions of (energies, dos, n_electrons, temperature): many elements, bounded memory.

>>> energies = np.linspace(-1.0, 1.0, 41)
>>> per_element(energies, np.ones((3, 1, 41)), 1.0, [100.0, 200.0], None, lambda block: block.kT).shape
(3, 2)
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..base.constants import BOLTZMANN_EV
from ..base.errors import ChemicalPotentialError
from .fermi_integrals import Array, Index, nodal_weights
from .occupation import Occupation

COLDEST_K = 1e-6
"""kT of 1e-10 eV, a million times the rounding error of energies."""
HOTTEST_K = 1e12
_BLOCK = 64  # densities of states treated at once: a few work arrays of 64 x 4806 numbers


class Block:
    """Some elements of a broadcast problem: for each, the row of ``occupation``, its temperature and chemical potential."""

    def __init__(self, occupation: Occupation, element: Index, temperature_K: Array | None, mu: Array | None) -> None:
        self.occupation, self.element = occupation, element
        self._temperature_K, self._mu = temperature_K, mu

    @property
    def temperature_K(self) -> Array:
        """(q,) K."""
        assert self._temperature_K is not None
        return self._temperature_K

    @property
    def kT(self) -> Array:
        """(q,) eV."""
        return BOLTZMANN_EV * self.temperature_K

    @property
    def level(self) -> Array:
        """T = 0 Fermi levels, (q,) eV."""
        return _found(self.occupation.fermi_level[self.element])

    @property
    def mu(self) -> Array:
        """Chemical potentials, (q,) eV: those given, else searched once."""
        if self._mu is None:
            self._mu = _found(self.occupation.chemical_potential(self.element, self.kT))
        return self._mu

    def integrals(self, *names: str) -> list[Array]:
        """See :meth:`petdos_md.physics.fermi_integrals.PiecewiseLinearDOS.integrals`."""
        return self.occupation.integrals(names, self.element, self.mu, self.kT)

    def weights(self, name: str) -> Array:
        """See :func:`petdos_md.physics.fermi_integrals.nodal_weights`."""
        return nodal_weights(name, self.occupation.energies, self.mu, self.kT)


def per_element(
    energies: ArrayLike,
    dos: ArrayLike,
    n_electrons: ArrayLike,
    temperature_K: ArrayLike | None,
    mu: ArrayLike | None,
    function: Callable[[Block], Array],
    extra: tuple[int, ...] = (),
    occupation: type[Occupation] = Occupation,
) -> Array:
    """``function`` of all elements of the broadcast problem, block by block.

    :param temperature_K: None for T = 0
    :param function: from a :class:`Block` of q elements to an array ``(q, *extra)``
    :param occupation: which of several levels that hold the electrons is taken
    :return: shape ``broadcast(dos.shape[:-1], n_electrons.shape, temperature_K.shape, mu.shape) + extra``
    :raises ValueError: if the input makes no sense
    :raises ChemicalPotentialError: if an element has no level on the grid
    """
    energies, dos, n_electrons = _grid(energies, dos), np.asarray(dos, dtype=float), _finite(n_electrons, "n_electrons")
    temperature = None if temperature_K is None else _temperatures(temperature_K)
    given = None if mu is None else _finite(mu, "mu")
    _check_positive(n_electrons)
    rows, shape = _broadcast_shapes(dos, n_electrons, *(a for a in (temperature, given) if a is not None))

    flat_dos = dos.reshape(-1, dos.shape[-1])
    dos_of_row = _broadcast(np.arange(len(flat_dos)).reshape(dos.shape[:-1]), rows)
    electrons_of_row = _broadcast(n_electrons, rows)
    row_of_query = _broadcast(np.arange(len(dos_of_row)).reshape(rows), shape)
    order = np.argsort(row_of_query, kind="stable")
    bounds = np.searchsorted(row_of_query[order], np.arange(0, len(dos_of_row) + _BLOCK, _BLOCK))
    temperatures = None if temperature is None else _broadcast(temperature, shape)
    mus = None if given is None else _broadcast(given, shape)

    result = np.empty((len(order), *extra))
    for number, (start, stop) in enumerate(pairwise(bounds)):
        if start == stop:
            continue
        first, queries = number * _BLOCK, order[start:stop]
        some = slice(first, first + _BLOCK)
        g = flat_dos[dos_of_row[some]]
        _check_finite(g, energies, dos_of_row[some], dos.shape[:-1])
        filled = occupation(energies, g, electrons_of_row[some])
        block = Block(
            filled,
            row_of_query[queries] - first,
            None if temperatures is None else temperatures[queries],
            None if mus is None else mus[queries],
        )
        try:
            result[queries] = function(block)
        except _LostError as lost:
            raise _no_level(filled, block, lost.query, _label(int(queries[lost.query]), shape)) from None
    return result.reshape(shape + extra)


class ElementFunction(Protocol):
    """What :func:`of_each_element` makes; conventions as in :mod:`petdos_md.physics.thermo`."""

    __name__: str

    def __call__(
        self,
        energies: ArrayLike,
        dos: ArrayLike,
        n_electrons: ArrayLike,
        temperature_K: ArrayLike,
        *,
        mu: ArrayLike | None = None,
    ) -> Array: ...


def of_each_element(function: Callable[[Block], Array]) -> ElementFunction:
    """From a formula for one :class:`Block` to a function of ``(energies, dos, n_electrons, temperature_K, *, mu)``."""
    return _element_function(function, per_channel=False)


def of_each_channel(function: Callable[[Block], Array]) -> ElementFunction:
    """As :func:`of_each_element`, for a formula that gives ``(q, n)``: a number for each grid point."""
    return _element_function(function, per_channel=True)


def _element_function(function: Callable[[Block], Array], per_channel: bool) -> ElementFunction:
    def evaluate(
        energies: ArrayLike,
        dos: ArrayLike,
        n_electrons: ArrayLike,
        temperature_K: ArrayLike,
        *,
        mu: ArrayLike | None = None,
    ) -> Array:
        extra = np.shape(energies) if per_channel else ()
        return per_element(energies, dos, n_electrons, temperature_K, mu, function, extra)

    # Not functools.wraps: help() is to show the signature of what is called.
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(evaluate, name, getattr(function, name))
    return evaluate


class _LostError(Exception):
    """No level for this query of a block."""

    def __init__(self, query: int) -> None:
        self.query = query


def _found(level: Array) -> Array:
    lost = np.flatnonzero(np.isnan(level))
    if len(lost):
        raise _LostError(int(lost[0]))
    return level


def _no_level(occupation: Occupation, block: Block, query: int, where: str) -> ChemicalPotentialError:
    row, energies = block.element[query], occupation.energies
    holds = max(0.0, float(np.cumsum(occupation.increments()[row]).max()))
    temperature = "T = 0" if block._temperature_K is None else f"{block._temperature_K[query]:g} K"
    n, span = occupation.n_electrons[row], f"{energies[0]:.6g} to {energies[-1]:.6g} eV"
    which = f"the DOS {where} of those given" if where and len(block.element) > 1 else "the DOS"
    if holds <= n * (1 + 1e-9):
        what = f"{which} from {span} holds {_short(holds, n)} electrons when full, the structure has {_short(n, holds)}; check the number of electrons"
    else:
        what = f"the {n:.6g} electrons of {which} spread beyond its energies, {span}; check the number of electrons, or lower the temperature"
    return ChemicalPotentialError(
        f"no chemical potential at {temperature}: {what}, or use a model with a wider energy grid, or one that is trained further"
    )


def _short(number: float, other: float) -> str:
    """Six digits, more only where they tell it from the other."""
    return next(
        (text for digits in (6, 8) if (text := f"{number:.{digits}g}") != f"{other:.{digits}g}"), f"{number:.10g}"
    )


def _grid(energies: ArrayLike, dos: ArrayLike) -> Array:
    e = np.asarray(energies, dtype=float)
    shape = np.shape(dos)
    if e.ndim != 1 or len(e) < 2 or not np.isfinite(e).all() or not np.all(np.diff(e) > 0):
        raise ValueError(
            f"energies must be a strictly increasing axis of at least 2 finite values, got shape {e.shape}"
        )
    if not shape or shape[-1] != len(e):
        raise ValueError(f"dos must have {len(e)} channels in its last dimension, like energies, got shape {shape}")
    return e


def _broadcast_shapes(dos: Array, n_electrons: Array, *others: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the densities of states with their electrons, and of the whole problem."""
    try:
        rows = np.broadcast_shapes(dos.shape[:-1], n_electrons.shape)
        return rows, np.broadcast_shapes(rows, *(a.shape for a in others))
    except ValueError:
        shapes = [dos.shape[:-1], n_electrons.shape] + [a.shape for a in others]
        raise ValueError(
            f"leading dimensions of dos, n_electrons, temperature_K (and mu) do not broadcast: "
            f"{', '.join(map(str, shapes))}; members at several temperatures are dos[:, None, :]"
        ) from None


def _check_finite(g: Array, energies: Array, dos_of_row: Index, shape: tuple[int, ...]) -> None:
    if not np.isfinite(g).all():
        bad, channel = np.argwhere(~np.isfinite(g))[0]
        where = _label(int(dos_of_row[bad]), shape)
        raise ValueError(
            f"dos{where} has {g[bad, channel]} at {energies[channel]:.6g} eV; drop undefined channels or bad predictions"
        )


def _check_positive(n_electrons: Array) -> None:
    if np.any(n_electrons <= 0):
        where = _label(int(np.flatnonzero(n_electrons <= 0)[0]), n_electrons.shape)
        raise ChemicalPotentialError(
            f"n_electrons{where} must be positive, got {n_electrons[n_electrons <= 0].flat[0]:g}; "
            "is the table of valence electrons complete?"
        )


def _temperatures(temperature_K: ArrayLike) -> Array:
    temperature = np.asarray(temperature_K, dtype=float)
    good = (temperature > 0) & np.isfinite(temperature)
    if not good.all():
        bad = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"temperature_K{_label(bad, temperature.shape)} must be positive and finite, got {temperature.flat[bad]:g} K"
        )
    bad_ones = np.flatnonzero((temperature < COLDEST_K) | (temperature > HOTTEST_K))
    if len(bad_ones):
        raise ChemicalPotentialError(
            f"no chemical potential at {temperature.flat[bad_ones[0]]:g} K, where kT is lost in the rounding of energies or they in kT; "
            f"expected {COLDEST_K:g} to {HOTTEST_K:g} K"
        )
    return temperature


def _finite(values: ArrayLike, name: str) -> Array:
    a = np.asarray(values, dtype=float)
    if not np.isfinite(a).all():
        bad = int(np.flatnonzero(~np.isfinite(a))[0])
        raise ValueError(f"{name}{_label(bad, a.shape)} must be finite, got {a.flat[bad]:g}")
    return a


def _broadcast(a: Any, shape: tuple[int, ...]) -> Any:
    return np.broadcast_to(a, shape).ravel()


def _label(flat: int, shape: tuple[int, ...]) -> str:
    """The place in an array, as in ``[3, 1]``; empty for a number."""
    return f"[{', '.join(str(int(i)) for i in np.unravel_index(flat, shape))}]" if shape else ""
