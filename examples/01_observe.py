"""Molecular dynamics of aluminium with the shipped model: the DOS and the electronic heat capacity while it runs.

python examples/01_observe.py          # half a minute; writes outputs/01/
"""

from pathlib import Path

import ase.build
import numpy as np
from ase import units
from ase.md.langevin import Langevin

import petdos_md as pm
from petdos_md.ase import DOSCalculator, DOSObserver
from petdos_md.results.report import format_table, write_report

out = Path("outputs/01")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

atoms = ase.build.bulk("Al", a=3.98, cubic=True) * (2, 2, 2)
atoms.calc = DOSCalculator(model)  # the model has an energy head: one pass gives forces and the sample
rng = np.random.default_rng(1)
dyn = Langevin(atoms, 3 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=rng, fixcm=False)

# Run this script twice: the second run adds to the trace, and its burn-in is skipped, too.
observer = DOSObserver(atoms, model, out / "run.zarr", temperature_K=600, dynamics=dyn, burn_in=60)


def show() -> None:
    if observer.n_samples:
        c = observer.result().heat_capacity
        print(f"step {dyn.nsteps:4d}: C_el = {1e3 * c.value:.3f} +- {1e3 * c.model_std:.3f} (model) meV/K")


dyn.attach(observer, interval=5)
dyn.attach(show, interval=40)
dyn.run(240)
observer.trace.close()

result = pm.analyze(out / "run.zarr", reference="fermi")
print(format_table(result))
print("written:", *write_report(result, out))
