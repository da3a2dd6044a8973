"""Hot electrons in a cold lattice: the heat capacity over the electronic temperature, as two-temperature models need it.

python examples/05_electron_temperature.py     # seconds; writes outputs/05/
"""

from pathlib import Path

import ase.build
import numpy as np
from matplotlib.figure import Figure

import petdos_md as pm
from petdos_md.ase import DOSCalculator

out = Path("outputs/05")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")

atoms = ase.build.bulk("Al", a=3.98, cubic=True) * (2, 2, 2)
atoms.rattle(0.08, seed=5)  # about the thermal motion at room temperature
atoms.calc = DOSCalculator(model)
print(f"Fermi level {atoms.calc.get_property('fermi_level', atoms):.3f} eV on the model's own axis")

temperature_K = np.linspace(200, 10000, 50)
members = model.dos_members(atoms)  # each member is taken through the whole derivation: (members, 1, energies)
heat = pm.thermo.heat_capacity(model.grid.energies, members[:, None], model.n_electrons(atoms), temperature_K)
per_volume = heat / atoms.get_volume() * 1.602176634e-19 * 1e30 / 1e5  # 1e5 J/m3/K
mean, error = per_volume.mean(axis=0), per_volume.std(axis=0, ddof=1)

figure = Figure(figsize=(5.5, 3.8), layout="constrained")
axes = figure.subplots()
axes.fill_between(temperature_K, mean - error, mean + error, alpha=0.3, label="model error")
axes.plot(temperature_K, mean, label="aluminium")
axes.set(xlabel="electronic temperature (K)", ylabel=r"$C_\mathrm{el}$ ($10^5$ J m$^{-3}$ K$^{-1}$)", xlim=(0, 10000))
axes.set_ylim(bottom=0)
axes.legend()
figure.savefig(out / "heat_capacity.png", dpi=160)
print(f"at 5000 K: {np.interp(5000, temperature_K, mean):.2f}e5 J/m3/K; figure: {out / 'heat_capacity.png'}")
