"""Cost of hot electrons: a step on the free energy against a cold one, with a shared two-head network and beside another potential; NVE drift.

    python benchmarks/hot_electrons.py                                  # a minute or two; one thread
    python benchmarks/hot_electrons.py --only drift --steps 10000       # 10 ps, an hour or two

Steps of both kinds alternate, so that a busy machine slows both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable

import ase.build
import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

import petdos_md as pm
from petdos_md.ase import DOSCalculator, HotElectronCalculator

PARTS = 8
"""Of a run, for the error of its drift."""
AIM = 1.6
"""A hot step over a cold one, with one network for both."""


def crystal(name: str, n: int) -> Atoms:
    """Rattled silicon or aluminium of 8 n^3 or 4 n^3 atoms."""
    atoms = ase.build.bulk(name, cubic=True, a={"Si": 5.39, "Al": 4.0}[name]) * ((n,) * 3)
    atoms.rattle(0.05, seed=1)
    return atoms


def alternating(functions: list[Callable[[], object]], repeats: int) -> np.ndarray:
    """Median seconds of each."""
    for function in functions:
        function()
    times = np.zeros((repeats, len(functions)))
    for row in times:
        for k, function in enumerate(functions):
            start = time.perf_counter()
            function()
            row[k] = time.perf_counter() - start
    return np.median(times, axis=0)


def forces_of(atoms: Atoms, calculator) -> Callable[[], object]:
    """A function that moves the atoms a little and asks for forces."""
    mine = atoms.copy()
    mine.calc = calculator

    def step() -> object:
        mine.positions += 1e-6
        return mine.get_forces()

    return step


def drift(model: pm.DOSModel, T_e: float | None, steps: int, timestep_fs: float) -> tuple[float, float, float]:
    """Slope of the conserved energy in meV/atom/ps and its error from the scatter of parts, and the root mean square around the line in
    meV/atom; silicon of 64 atoms at 300 K."""
    atoms = ase.build.bulk("Si", cubic=True, a=5.39) * (2, 2, 2)
    thermalize_momenta(atoms, 600, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = DOSCalculator(model) if T_e is None else HotElectronCalculator(None, model, T_e)
    dynamics, energies = VelocityVerlet(atoms, timestep_fs * units.fs), []
    dynamics.attach(
        lambda: energies.append(atoms.get_potential_energy(force_consistent=True) + atoms.get_kinetic_energy())
    )
    dynamics.run(steps)
    times = np.arange(len(energies)) * timestep_fs / 1000
    per_atom = 1000 * np.array(energies) / len(atoms)
    # Parts of many vibrations, whose means scatter around a line by what vibrations leave of themselves.
    centers, means = (np.array([part.mean() for part in np.array_split(x, PARTS)]) for x in (times, per_atom))
    line, covariance = np.polyfit(centers, means, 1, cov=True)
    rest = per_atom - np.polyval(line, times)
    return float(line[0]), float(np.sqrt(covariance[0, 0])), float(rest.std())


def print_costs(model: pm.DOSModel, T_e: float, repeats: int) -> None:
    """Steps with one network for both, and beside another potential."""
    print("| structure | cold step (ms) | hot step (ms) | ratio | aim |\n|---|---|---|---|---|")
    for name, n in (("Si", 1), ("Si", 2), ("Al", 3), ("Si", 3)):
        atoms = crystal(name, n)
        pair = [forces_of(atoms, DOSCalculator(model)), forces_of(atoms, HotElectronCalculator(None, model, T_e))]
        cold, hot = 1000 * alternating(pair, repeats)
        print(f"| {atoms.get_chemical_formula()} | {cold:.1f} | {hot:.1f} | {hot / cold:.2f} | <= {AIM} |", flush=True)
    print(
        "\n| structure | EMT (ms) | EMT and hot electrons (ms) | forward pass alone (ms) | added / forward pass |\n|---|---|---|---|---|"
    )
    for n in (2, 3):
        atoms = crystal("Al", n)
        three = [
            forces_of(atoms, EMT()),
            forces_of(atoms, HotElectronCalculator(EMT(), model, T_e)),
            lambda atoms=atoms: model.evaluate(atoms),
        ]
        emt, both, forward = 1000 * alternating(three, repeats)
        print(
            f"| {atoms.get_chemical_formula()} | {emt:.1f} | {both:.1f} | {forward:.1f} | {(both - emt) / forward:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="almgsi-lda")
    parser.add_argument("--electronic-temperature", type=float, default=10_000.0)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=300, help="of each drift")
    parser.add_argument("--timestep", type=float, default=1.0, help="fs")
    parser.add_argument("--only", choices=("cost", "drift"), help="one of the two parts")
    args = parser.parse_args()
    model, T_e = pm.DOSModel.load(args.model), args.electronic_temperature
    if args.only != "drift":
        print_costs(model, T_e, args.repeats)
    if args.only != "cost":
        print(
            f"\n| Si64, {args.timestep:g} fs, {args.steps * args.timestep / 1000:g} ps | drift (meV/atom/ps) | fluctuation (meV/atom) |\n|---|---|---|"
        )
        for T in (None, T_e):
            slope, error, spread = drift(model, T, args.steps, args.timestep)
            label = "cold" if T is None else f"T_e = {T:g} K"
            print(f"| {label} | {slope:+.4f} ± {error:.4f} | {spread:.4f} |", flush=True)


if __name__ == "__main__":
    main()
