"""`pair_style metatomic` in `lmp` beside metatomic's ASE calculator on the same model, and what samples cost then.

Prints: seconds of one step and their ratio by number of atoms; a sampled step beside one that is not, model shared; the same number of atoms on one and two
ranks; the drift of the energy of silicon in NVE beside that of ASE's velocity Verlet. Ratios are of rounds of both ways, alternating. Needs the LAMMPS plugin.
Usage: python benchmarks/lammps_potential.py [--model almgsi-lda] [--atoms 64 216 1000 4000] [--rounds 5] [--ranks-atoms 20000] [--drift-ps 20]
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from pathlib import Path

import ase.build
import ase.units
import numpy as np
import torch
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from lammps_runs import cells, lmp, loops
from metatomic_ase import MetatomicCalculator

from petdos_md.models.files import find_model, load_file

DECK = """
units metal
lattice diamond 5.431
region box block 0 {x} 0 {y} 0 {z}
create_box 1 box
create_atoms 1 box
mass 1 28.085
displace_atoms all random 0.05 0.05 0.05 12345 units box
pair_style metatomic {model}
pair_coeff * * Si
fix md all nve
timestep 0.001
thermo 1000000
"""


def deck(model: str, atoms: int) -> str:
    x, y, z = cells(atoms)
    return DECK.format(model=model, x=x, y=y, z=z)


def by_ase(model: str, atoms: int, steps: int) -> float:
    """Seconds per step of ASE's velocity Verlet, the calculator as its authors made it."""
    structure = silicon(atoms)
    structure.calc = MetatomicCalculator(load_file(find_model(model)))
    md = VelocityVerlet(structure, ase.units.fs)
    md.run(2)
    start = time.perf_counter()
    md.run(steps)
    return (time.perf_counter() - start) / steps


def silicon(atoms: int) -> Atoms:
    structure = ase.build.bulk("Si", a=5.431, cubic=True) * cells(atoms)
    structure.rattle(0.03, seed=1)
    return structure


def steps_table(model: str, sizes: list[int], rounds: int, folder: Path) -> None:
    print(f"\none step, {model}, {torch.get_num_threads()} threads, medians of {rounds} rounds")
    print(f"{'atoms':>7}{'ASE ms':>10}{'lmp ms':>10}{'ratio':>8}{'sampled step / other':>22}")
    for size in sizes:
        steps = max(2, min(20, 4000 // size))
        runs = f"run 2\nrun {steps}\n"
        sampled = f"compute dos all petdos {model} Si\nfix obs all petdos 1 dos at.zarr temp 300\n"
        rows: list[tuple[float, float, float]] = []
        for round_ in range(rounds):
            ase_s = by_ase(model, size, steps)
            own = loops(lmp(deck(model, size) + runs, folder))[-1]
            with_samples = loops(lmp(deck(model, size) + sampled.replace("at.", f"{size}-{round_}.") + runs, folder))[
                -1
            ]
            rows.append((ase_s, own, with_samples))
        ase_s, own = (statistics.median(row[k] for row in rows) for k in (0, 1))
        ratios = [statistics.median(row[k] / row[k - 1] for row in rows) for k in (1, 2)]
        x, y, z = cells(size)
        print(
            f"{8 * x * y * z:>7}{1e3 * ase_s:>10.1f}{1e3 * own:>10.1f}{ratios[0]:>8.2f}{ratios[1]:>22.3f}", flush=True
        )


def ranks_table(model: str, atoms: int, folder: Path) -> None:
    times = {ranks: loops(lmp(deck(model, atoms) + "run 1\nrun 2\n", folder, ranks))[-1] for ranks in (1, 2)}
    print(
        f"\n{atoms} atoms, one thread a rank: {times[1]:.1f} s a step on 1 rank, {times[2]:.1f} s on 2, {times[1] / times[2]:.2f} times as fast"
    )


def drift_table(model: str, picoseconds: float, folder: Path) -> None:
    """meV per atom and ps: slope of the total energy of 64 atoms at 1000 K, by both integrators from one start."""
    steps = round(1000 * picoseconds)
    structure = silicon(64)
    rng = np.random.default_rng(5)
    structure.set_momenta(np.sqrt(structure.get_masses() * 2000 * ase.units.kB)[:, None] * rng.normal(size=(64, 3)))
    ase.io.write(folder / "start.data", structure, format="lammps-data", velocities=True, units="metal", masses=True)
    start = "units metal\natom_style atomic\nread_data start.data\nmass 1 28.085\n"
    rest = DECK.split("displace_atoms")[1].split("\n", 1)[1].format(model=model)
    output = "thermo 10\nthermo_style custom time etotal\nthermo_modify norm no format float %.12g\n"
    said = lmp(start + rest + output + f"run {steps}\n", folder)
    rows = [line.split() for line in said.splitlines()]
    table = np.array(
        [row for row in rows if len(row) == 2 and re.fullmatch(r"[0-9.e+-]+", row[0]) and "." in row[1]], float
    )
    structure.calc = MetatomicCalculator(load_file(find_model(model)))
    energies: list[float] = []
    md = VelocityVerlet(structure, ase.units.fs)
    md.attach(lambda: energies.append(structure.get_total_energy()), interval=10)
    md.run(steps)
    times = 0.01 * np.arange(len(energies))
    found = {"lmp": np.polyfit(table[:, 0], table[:, 1], 1)[0], "ASE": np.polyfit(times, energies, 1)[0]}
    noise = {"lmp": np.std(table[:, 1]), "ASE": np.std(energies)}
    print(
        f"\nNVE, 64 atoms of Si near 1000 K, 1 fs, {picoseconds:g} ps: drift and standard deviation of the total energy"
    )
    for name in found:
        print(f"{name:>5}: {1e3 * found[name] / 64:9.2e} meV/atom/ps, {1e3 * noise[name] / 64:.2e} meV/atom")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="almgsi-lda")
    parser.add_argument("--atoms", type=int, nargs="+", default=[64, 216, 1000, 4000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks-atoms", type=int, default=20000, help="0 to leave it out")
    parser.add_argument("--drift-ps", type=float, default=20.0, help="0 to leave it out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        steps_table(options.model, options.atoms, options.rounds, folder)
        if options.ranks_atoms:
            ranks_table(options.model, options.ranks_atoms, folder)
        if options.drift_ps:
            drift_table(options.model, options.drift_ps, folder)


if __name__ == "__main__":
    main()
