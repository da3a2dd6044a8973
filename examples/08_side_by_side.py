"""Thermal-average DOS of three phases side by side, solid and liquid: magnesium, Mg2Si, silicon.

python examples/08_side_by_side.py          # an hour; kill it and start it again; writes outputs/08/
python examples/08_side_by_side.py --quick  # half a minute, to see that it works

As Fig. 6 of the PET-MAD-DOS article: averages over molecular dynamics against E - E_F, with the spread of the members.
"""

import argparse
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import xarray as xr
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.spacegroup import crystal

import petdos_md as pm
from petdos_md.ase import DOSCalculator
from petdos_md.engines.md import MDSettings, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.results.plot import plot_side_by_side, save
from petdos_md.results.report import format_table

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--quick", action="store_true")
args = parser.parse_args()
out = Path("outputs/08-quick" if args.quick else "outputs/08")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

mg2si = crystal(["Si", "Mg"], [(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[6.29, 6.29, 6.29, 90, 90, 90])
systems = {  # crystal, temperatures of solid and liquid, volume of the liquid
    "Mg": (ase.build.bulk("Mg", a=3.14, c=5.10) * (2, 2, 1), 300.0, 1400.0, 1.08),
    "Mg2Si": (mg2si, 300.0, 1800.0, 1.05),
    "Si": (ase.build.bulk("Si", a=5.40, cubic=True), 300.0, 2200.0, 0.90),
}
repeat = (1, 1, 1) if args.quick else (2, 2, 2)
steps, melting = (24, 16) if args.quick else (2000, 1500)


def melted(atoms: Atoms, temperature_K: float, volume: float, file: Path) -> Atoms:
    """A liquid made of a crystal, once: molten at twice its temperature."""
    if not file.exists():
        atoms.set_cell(atoms.cell * volume ** (1 / 3), scale_atoms=True)
        atoms.calc = DOSCalculator(model)
        rng = np.random.default_rng(8)
        thermalize_momenta(atoms, 2 * temperature_K, rng=rng)
        for t in (2 * temperature_K, temperature_K):
            Langevin(atoms, 2 * units.fs, temperature_K=t, friction=0.02 / units.fs, rng=rng, fixcm=False).run(melting)
        ase.io.write(file, Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True))
    return ase.io.read(file)


phases: dict[str, dict[str, xr.Dataset]] = {}
for name, (cell, solid_K, liquid_K, volume) in systems.items():
    phases[name] = {}
    for state, temperature in (("solid", solid_K), ("liquid", liquid_K)):
        atoms = cell * repeat
        if state == "liquid":
            atoms = melted(atoms, temperature, volume, out / f"{name}.xyz")
        trace = out / f"{name}-{state}.zarr"
        settings = MDSettings(
            temperatures_K=(temperature,), steps=steps, every=2 if args.quick else 10, timestep_fs=2, seed=8
        )
        run_md(atoms, Potential.find("almgsi-lda", model), model, trace, settings, resume=True)
        phases[name][state] = pm.analyze(trace, reference="fermi")
        print(f"{name}, {state} at {temperature:g} K\n{format_table(phases[name][state])}\n")
print("figure:", save(plot_side_by_side(phases, energy_range=(-14.0, 4.0)), out / "side-by-side.png"))
