"""What `compute petdos` costs in `lmp`: one evaluation beside the same one in Python, and a run in which no step is sampled.

Prints two tables; ratios are of one run, rounds of both ways alternating. Needs the LAMMPS plugin (`petdos lammps build`).
Usage: python benchmarks/lammps_cost.py [--model almgsi-lda] [--atoms 64 216 1000 4000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.build
import torch

from petdos_md.models.model import DOSModel

LMP = Path(sys.executable).with_name("lmp")
SILICON = """
units metal
lattice diamond 5.431
region box block 0 {x} 0 {y} 0 {z}
create_box 1 box
create_atoms 1 box
mass 1 28.085
pair_style {pair}
velocity all create 600 4928459
fix md all nve
"""


def shape(atoms: int) -> tuple[int, int, int]:
    """Cells of 8 atoms, as close to a cube of so many atoms as whole numbers allow."""
    best = min(
        ((x, y, z) for x in range(1, 40) for y in range(x, x + 2) for z in range(y, y + 2)),
        key=lambda n: abs(8 * n[0] * n[1] * n[2] - atoms),
    )
    return best


def loop_seconds(deck: str, folder: Path) -> float:
    """Seconds per step of the last run, as LAMMPS reports them."""
    (folder / "in.bench").write_text(deck)
    threads = str(torch.get_num_threads())
    done = subprocess.run(
        [str(LMP), "-in", "in.bench", "-log", "none"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": threads},  # threads that wait do so as those of this process
    )
    if done.returncode:
        raise SystemExit(done.stdout[-500:] + done.stderr[-500:])
    seconds, steps = re.findall(r"Loop time of (\S+) on .* for (\d+) steps", done.stdout)[-1]
    return float(seconds) / int(steps)


def evaluation_table(model: DOSModel, name: str, sizes: list[int], rounds: int, folder: Path) -> None:
    print(f"\none evaluation, {name}, {torch.get_num_threads()} threads, medians of {rounds} rounds of 5")
    print(f"{'atoms':>7}{'Python ms':>12}{'lmp ms':>10}{'ratio':>8}")
    for size in sizes:
        cells = shape(size)
        atoms = ase.build.bulk("Si", a=5.431, cubic=True) * cells
        atoms.rattle(0.05, seed=0)
        x, y, z = cells
        deck = SILICON.format(x=x, y=y, z=z, pair="zero 4.0\npair_coeff * *") + (
            f"compute feat all petdos {name} Si output features\nthermo_style custom step c_feat[1]\nthermo 1\nrun 2\nrun 5\n"
        )
        python, lammps, ratios = [], [], []
        model.evaluate(atoms)
        for _ in range(rounds):
            start = time.perf_counter()
            for seed in range(5):
                atoms.rattle(0.001, seed=seed)
                model.evaluate(atoms)
            python.append((time.perf_counter() - start) / 5)
            lammps.append(loop_seconds(deck, folder))
            ratios.append(lammps[-1] / python[-1])
        print(
            f"{len(atoms):>7}{1e3 * statistics.median(python):>12.1f}{1e3 * statistics.median(lammps):>10.1f}"
            f"{statistics.median(ratios):>8.2f}",
            flush=True,
        )


def overhead_table(name: str, steps: int, rounds: int, folder: Path) -> None:
    deck = SILICON.format(x=3, y=3, z=3, pair="tersoff\npair_coeff * * Si.tersoff Si")
    with_it = f"compute dos all petdos {name} Si\nfix obs all petdos 1000000 dos none.zarr temp 600 append yes\n"
    run = f"thermo 100000\nrun 100\nrun {steps}\n"
    bare, attached = [], []
    for _ in range(rounds):
        bare.append(loop_seconds(deck + run, folder))
        attached.append(loop_seconds(deck + with_it + run, folder))
    print(f"\nno step sampled, 216 atoms of Si, Tersoff, {steps} steps, medians (and spread) of {rounds} rounds")
    for label, values in (("without", bare), ("with compute and fix petdos", attached)):
        spread = (max(values) - min(values)) / statistics.median(values)
        print(f"{label:>30}: {1e6 * statistics.median(values):8.1f} us/step ({100 * spread:.1f} %)")
    print(f"{'ratio':>30}: {statistics.median(a / b for a, b in zip(attached, bare, strict=True)):8.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="almgsi-lda")
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 216, 1000, 4000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    options = parser.parse_args()
    model = DOSModel.load(options.model)
    name = options.model if not Path(options.model).exists() else str(Path(options.model).resolve())
    with tempfile.TemporaryDirectory() as folder:
        evaluation_table(model, name, options.atoms, options.rounds, Path(folder))
        overhead_table(name, options.steps, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
