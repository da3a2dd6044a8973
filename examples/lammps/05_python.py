"""LAMMPS driven from Python, no ASE dynamics: silicon with the Tersoff potential, and its running heat capacity.

python examples/lammps/05_python.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import lammps

import petdos_md as pm
from petdos_md.lammps import LAMMPSObserver

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
DECK = """
units metal
lattice diamond 5.431
region box block 0 2 0 2 0 2
create_box 1 box
create_atoms 1 box
mass 1 28.085
pair_style tersoff
pair_coeff * * Si.tersoff Si
velocity all create 2400 4928459
fix md all nvt temp 1200 1200 0.1
"""

folder = Path("outputs/lammps")
folder.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string(DECK)
lmp.command(f"run {STEPS // 4}")
observer = LAMMPSObserver(lmp, model, folder / "silicon.zarr", ["Si"], temperature_K=1200, every=20)
observer.run(STEPS)
assert observer.trace is not None
observer.trace.close()
result = pm.analyze(folder / "silicon.zarr")
value, error = result.heat_capacity.item(), result.heat_capacity_model_std.item()
print(
    f"{len(observer.trace)} samples: C_el = {1e3 * value:.3f} +- {1e3 * error:.3f} meV/K (model) for {lmp.get_natoms():.0f} atoms"
)
