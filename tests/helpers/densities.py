"""Densities of states that tests of thermodynamics share: name -> (energies, dos, n_electrons, whether it has a neutral gap)."""

from __future__ import annotations

import numpy as np

STEP = 0.05
TEMPERATURES = [10.0, 30.0, 100.0, 300.0, 1000.0, 10_000.0, 50_000.0]


def grid(start: float, stop: float) -> np.ndarray:
    return start + STEP * np.arange(round((stop - start) / STEP) + 1)


def constant() -> tuple:
    e = grid(-5, 5)
    return e, np.full(len(e), 2.0), 8.7, False


def free_electrons() -> tuple:
    e = grid(-0.5, 15)
    return e, 1.3 * np.sqrt(np.clip(e, 0, None)), 1.3 * 2 / 3 * 5.0**1.5, False


def two_levels() -> tuple:
    e = grid(-4, 4)
    dos = np.zeros(len(e))
    dos[60], dos[90] = 2 / STEP, 3 / STEP  # triangles at -1.0 and 0.5 eV with 2 and 3 states
    return e, dos, 2.0, True


def gapped() -> tuple:
    e = grid(-4, 5)
    dos = 3 * np.sqrt(np.clip(-0.45 - e, 0, None)) + 1.7 * np.sqrt(np.clip(e - 0.55, 0, None)) * (2 + np.sin(3 * e))
    return e, dos, float(np.sum((dos[1:] + dos[:-1])[: round(4 / STEP)]) * STEP / 2), True


def smeared_gap() -> tuple:
    """Gaussians whose tails meet at 1e-20 of their height in the gap."""
    e = grid(-3, 3)
    dos = sum(np.exp(-0.5 * ((e - c) / 0.15) ** 2) for c in (-1.4, 1.4))
    return e, dos, float(np.sum(dos[1:] + dos[:-1]) * STEP / 4), True


def rough() -> tuple:
    e = grid(-6, 6)
    return e, np.abs(np.cumsum(np.random.default_rng(0).normal(size=len(e)))) + 0.05, 30.0, False


CASES = {f.__name__: f for f in (constant, free_electrons, two_levels, gapped, smeared_gap, rough)}
