"""CPU time of mu and C_el for an ensemble: 128 members x 16 temperatures x 4806 channels, against a loop over SciPy's brentq.

    python benchmarks/thermo_speed.py

The reference treats a few of the same spectra one by one: brentq on a sum over the grid for mu, and the sum for the K_n. It is
wrong where kT is below the grid step, so only its time is of interest; its deviation is printed for the hottest entry.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.physics import thermo

STEP, N_CHANNELS, N_MEMBERS, N_ELECTRONS = 0.05, 4806, 128, 2000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subset", type=int, default=24, help="number of spectra for the reference")
    subset = parser.parse_args().subset
    energies = -159.6456 + STEP * np.arange(N_CHANNELS)
    rng = np.random.default_rng(0)
    smooth = 100 * (np.sin(energies) + 1.2) * np.exp(-((energies / 60) ** 2))
    members = smooth * (1 + 0.02 * rng.normal(size=(N_MEMBERS, 1))) + 0.5 * rng.normal(size=(N_MEMBERS, N_CHANNELS))

    print(f"{N_MEMBERS} members x 16 temperatures x {N_CHANNELS} channels")
    print(
        f"{'temperatures':>22} {'mu (s)':>8} {'C (s)':>8} {'both (s)':>9} {'naive (s)':>10} {'ratio':>7} {'rel. dev.':>10}"
    )
    for name, T in (
        ("300 to 5000 K", np.linspace(300, 5000, 16)),
        ("100 to 50000 K, geom.", np.geomspace(100, 50_000, 16)),
        ("all 50000 K", np.full(16, 50_000.0)),
    ):
        start = time.process_time()
        mu = thermo.chemical_potential(energies, members[:, None], N_ELECTRONS, T)
        middle = time.process_time()
        C = thermo.heat_capacity(energies, members[:, None], N_ELECTRONS, T, mu=mu)
        stop = time.process_time()
        chosen = [(k % N_MEMBERS, k % 16) for k in range(subset - 1)] + [(0, 15)]
        begin = time.process_time()
        reference = [naive(energies, members[k], N_ELECTRONS, T[t]) for k, t in chosen]
        slow = (time.process_time() - begin) / subset * N_MEMBERS * 16
        deviation = abs(reference[-1] / C[0, 15] - 1)
        fast = stop - start
        print(
            f"{name:>22} {middle - start:8.2f} {stop - middle:8.2f} {fast:9.2f} {slow:10.1f} {slow / fast:7.0f} {deviation:10.1e}"
        )
    tracemalloc.start()
    thermo.heat_capacity(energies, members[:, None], N_ELECTRONS, np.geomspace(100, 50_000, 16))
    print(
        f"peak of work arrays: {tracemalloc.get_traced_memory()[1] / 2**20:.0f} MiB (members: {members.nbytes / 2**20:.0f} MiB)"
    )


def naive(energies: np.ndarray, dos: np.ndarray, n_electrons: float, temperature_K: float) -> float:
    """C_el of one spectrum by the trapezoidal rule on the grid."""
    kT = BOLTZMANN_EV * temperature_K

    def excess(mu: float) -> float:
        return float(np.trapezoid(dos * expit((mu - energies) / kT), dx=STEP)) - n_electrons

    mu = brentq(excess, energies[0], energies[-1], xtol=1e-12)
    f = expit((mu - energies) / kT)
    K = [np.trapezoid(dos * f * (1 - f) / kT * (energies - mu) ** n, dx=STEP) for n in range(3)]
    return float((K[2] - K[1] ** 2 / K[0]) / temperature_K)


if __name__ == "__main__":
    main()
