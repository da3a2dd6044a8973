"""Heat capacity over temperature, with a run that survives kills: what `petdos md` and `petdos analyze` do, from Python.

python examples/03_temperatures.py     # a minute; kill it and start it again; writes outputs/03/
"""

from pathlib import Path

import ase.build

import petdos_md as pm
from petdos_md.engines.md import MDSettings, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.results.report import format_table, write_report

out = Path("outputs/03")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

silicon = ase.build.bulk("Si", a=5.40, cubic=True) * (2, 2, 1)
settings = MDSettings(temperatures_K=(300, 600, 1200), steps=120, every=3, timestep_fs=3, equilibrate=30, seed=3)
run_md(silicon, Potential.find("almgsi-lda", model), model, out / "si.zarr", settings, resume=True)

result = pm.analyze(out / "si.zarr")
print(format_table(result))
print("written:", *write_report(result, out))
