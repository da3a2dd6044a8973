"""Samples from a trajectory that exists already; they equal those taken while it was made.

python examples/04_trajectory.py       # seconds; writes outputs/04/
"""

from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

import petdos_md as pm
from petdos_md.ase import DOSObserver
from petdos_md.engines.rerun import rerun_trajectory

out = Path("outputs/04")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 1)
atoms.calc = EMT()
rng = np.random.default_rng(4)
dyn = Langevin(atoms, 3 * units.fs, temperature_K=500, friction=0.02 / units.fs, rng=rng, fixcm=False)
observer = DOSObserver(atoms, model, out / f"on-the-fly-{len(list(out.glob('*.zarr')))}.zarr", 500, dynamics=dyn)
frames: list[ase.Atoms] = []
dyn.attach(observer, interval=10)
dyn.attach(lambda: frames.append(atoms.copy()), interval=10)
dyn.run(100)
ase.io.write(out / "run.extxyz", frames)

afterwards = out / f"afterwards-{len(list(out.glob('*.zarr')))}.zarr"
print(rerun_trajectory(model, out / "run.extxyz", afterwards, temperature_K=500))
one, other = observer.result().heat_capacity, pm.analyze(afterwards).heat_capacity.item()
print(f"C_el: {1e3 * one.value:.6f} meV/K on the fly, {1e3 * other:.6f} meV/K afterwards")
