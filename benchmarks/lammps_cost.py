"""What `compute petdos` costs in `lmp`: one evaluation beside the same one in Python, and a run in which no step is sampled.

Prints two tables; ratios are of one run, rounds of both ways alternating. Needs the LAMMPS plugin (`petdos lammps build`).
Usage: python benchmarks/lammps_cost.py [--model almgsi-lda] [--atoms 64 216 1000 4000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import ase.build
import torch
from lammps_runs import cells, lmp, loops

from petdos_md.models.model import DOSModel

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


def evaluation_table(model: DOSModel, name: str, sizes: list[int], rounds: int, folder: Path) -> None:
    print(f"\none evaluation, {name}, {torch.get_num_threads()} threads, medians of {rounds} rounds of 5")
    print(f"{'atoms':>7}{'Python ms':>12}{'lmp ms':>10}{'ratio':>8}")
    for size in sizes:
        x, y, z = cells(size)
        atoms = ase.build.bulk("Si", a=5.431, cubic=True) * (x, y, z)
        atoms.rattle(0.05, seed=0)
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
            lammps.append(loops(lmp(deck, folder))[-1])
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
        bare.append(loops(lmp(deck + run, folder))[-1])
        attached.append(loops(lmp(deck + with_it + run, folder))[-1])
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
