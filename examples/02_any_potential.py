"""Any ASE calculator drives the dynamics; the run stops when the sampling error of the heat capacity is small enough.

python examples/02_any_potential.py    # half a minute; writes outputs/02/
"""

from pathlib import Path

import ase.build
import numpy as np
from ase import units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin

import petdos_md as pm
from petdos_md.ase import DOSObserver

out = Path("outputs/02")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 2)
atoms.calc = EMT()
rng = np.random.default_rng(2)
dyn = Langevin(atoms, 3 * units.fs, temperature_K=300, friction=0.02 / units.fs, rng=rng, fixcm=False)
dyn.run(100)  # equilibration
dyn.nsteps = 0

observer = DOSObserver(atoms, model, out / "run.zarr", temperature_K=300, dynamics=dyn, target_error=0.005)
dyn.attach(observer, interval=5)
reached = observer.run(1000)  # dyn.run, but stops at the target

c = observer.result().heat_capacity
print(f"{'reached' if reached else 'not reached'} after {dyn.nsteps} steps, {observer.n_samples} samples")
print(f"C_el = {1e3 * c.value:.4f} +- {1e3 * c.model_std:.4f} (model) +- {1e3 * c.sampling_err:.4f} (sampling) meV/K")
