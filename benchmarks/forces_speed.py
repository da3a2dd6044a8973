"""Energy, forces and stress on a CPU: against metatomic's ASE calculator on the stock model, and the memory of large structures.

    python benchmarks/forces_speed.py [--sizes 2 3 4] [--turns 9] [--threads 2] [--large 10000]

A network of the size of PET-MAD-DOS with an energy head and random weights, exported by metatrain (*stock*) and by ``petdos export``,
which is asked for energy, forces and stress, and then for the features of the DOS as well. All take turns on the same structures of GaAs,
whose atoms move between turns; neighbor lists are counted. The large structure is evaluated in a process of its own, whose largest memory
the kernel counts. Needs metatrain.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.build
import numpy as np
import torch
from ase import Atoms

from petdos_md.base.quiet import quiet
from petdos_md.models.model import DOSModel

AIMS = {216: 0.5}
MEMORY_AIM_GB = 6.0
PROPERTIES = ["energy", "forces", "stress"]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 3, 4], help="cells of 8 atoms along each axis")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", type=int, default=10_000, help="atoms of the large structure, 0 for none")
    parser.add_argument("--only-large", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only_large is not None:
        large(args.only_large, args.large)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder)
        compare(folder, args.sizes, args.turns)
        if args.large:
            command = [sys.executable, __file__, "--only-large", name, "--large", str(args.large)]
            subprocess.run([*command, "--threads", str(args.threads)], check=True)


def write_models(folder: Path) -> None:
    """One checkpoint, exported twice."""
    from metatrain.utils.io import load_model

    from petdos_md.models.export import export_model
    from petdos_md.models.testing import PET_MAD_DOS_SIZE, write_checkpoints

    pet, _ = write_checkpoints(folder, PET_MAD_DOS_SIZE, symbols=["Ga", "As"], n_channels=200, energy=True)
    export_model(pet, folder / "ours.pt", grid_start=-20.0, electrons={"Ga": 3, "As": 5})
    load_model(pet).export().save(str(folder / "stock.pt"))


def compare(folder: Path, sizes: list[int], turns: int) -> None:
    """Seconds of both, medians of ratios, and largest differences relative to the largest value."""
    with quiet():
        from metatomic_ase import MetatomicCalculator

    ours = DOSModel.load(folder / "ours.pt", device="cpu")
    calculator = MetatomicCalculator(str(folder / "stock.pt"), device="cpu", check_consistency=False)
    print(
        "| atoms | this package, s | with features, s | metatomic's calculator, s | ratio | aim | with features |",
        end="",
    )
    print(" deviation of forces | of stress |\n|---|---|---|---|---|---|---|---|---|")
    for repeats in sizes:
        atoms = gallium_arsenide(repeats)
        rng = np.random.default_rng(repeats)
        times: list[list[float]] = []
        deviations = np.zeros(2)
        for turn in range(-2, turns):
            atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
            clock = [time.perf_counter()]
            ours.evaluator.energy_and_forces(atoms, (), stress=True)
            clock.append(time.perf_counter())
            _, _, forces, stress = ours.evaluate_with_forces(atoms)
            clock.append(time.perf_counter())
            calculator.calculate(atoms, PROPERTIES, ["positions"])
            clock.append(time.perf_counter())
            if turn >= 0:
                times.append(np.diff(clock).tolist())
            assert stress is not None
            found = (forces, stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]])
            expected = (calculator.results["forces"], calculator.results["stress"])
            worst = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True)]
            deviations = np.maximum(deviations, worst)
        seconds = " | ".join(f"{statistics.median(column):.3f}" for column in zip(*times, strict=True))
        ratios = [statistics.median(row[k] / row[2] for row in times) for k in (0, 1)]
        aim = f"<= {AIMS[len(atoms)]}" if len(atoms) in AIMS else ""
        print(f"| {len(atoms)} | {seconds} | {ratios[0]:.2f} | {aim} | {ratios[1]:.2f} | ", end="")
        print(f"{deviations[0]:.1e} | {deviations[1]:.1e} |", flush=True)


def large(folder: Path, n_atoms: int) -> None:
    """Seconds and memory of one evaluation."""
    ours = DOSModel.load(folder / "ours.pt", device="cpu")
    atoms = gallium_arsenide(round((n_atoms / 8) ** (1 / 3)))
    start = time.perf_counter()
    ours.evaluate_with_forces(atoms)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{len(atoms)} atoms: {seconds:.1f} s ({1e3 * seconds / len(atoms):.2f} ms an atom), {peak:.2f} GB (aim: <= {MEMORY_AIM_GB:g})"
    )


def gallium_arsenide(repeats: int) -> Atoms:
    """The zincblende structure, rattled."""
    atoms = ase.build.bulk("GaAs", "zincblende", 5.75, cubic=True) * ((repeats,) * 3)
    atoms.rattle(0.1, seed=repeats)
    return atoms


if __name__ == "__main__":
    main()
