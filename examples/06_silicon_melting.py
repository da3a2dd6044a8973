"""Silicon across melting: the gap closes, the electronic heat capacity jumps.

python examples/06_silicon_melting.py          # an hour; kill it and start it again; writes outputs/06/
python examples/06_silicon_melting.py --quick  # half a minute, to see that it works

Solid at 300 to 1500 K, liquid (molten at 4000 K first) at 2000 K. The gap of every frame comes from the raw and the denoised DOS and, if a
network lies beside the model, from that; the heat capacity from the average of denoised frames, as in the PET-MAD-DOS article. The model is
an LDA one, in which silicon melts near 1350 K (Sugino and Car, Phys. Rev. Lett. 74 (1995) 1823), not at 1687 K.
"""

import argparse
from pathlib import Path

import ase.build
import ase.io
import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from matplotlib.figure import Figure

import petdos_md as pm
from petdos_md.analysis.levels import frame_levels
from petdos_md.ase import DOSCalculator
from petdos_md.engines.md import MDSettings, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.results.normalization import in_units
from petdos_md.results.report import format_levels, format_table


def melt(atoms: Atoms, model: pm.DOSModel, file: Path, steps: int) -> Atoms:
    """A liquid made of a crystal, once."""
    if not file.exists():
        # Silicon contracts by a tenth when it melts.
        atoms.set_cell(atoms.cell * 0.9 ** (1 / 3), scale_atoms=True)
        atoms.calc = DOSCalculator(model)
        rng = np.random.default_rng(6)
        thermalize_momenta(atoms, 4000, rng=rng)
        for temperature in (4000, 2000):
            dyn = Langevin(
                atoms, 2 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng, fixcm=False
            )
            dyn.run(steps)
        ase.io.write(file, Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True))
    return ase.io.read(file)


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--quick", action="store_true", help="a small cell and a few steps")
args = parser.parse_args()
out = Path("outputs/06-quick" if args.quick else "outputs/06")
out.mkdir(parents=True, exist_ok=True)
model = pm.DOSModel.load("almgsi-lda")
crystal = ase.build.bulk("Si", a=5.40, cubic=True) * ((1, 1, 1) if args.quick else (2, 2, 2))
steps, melting = (24, 20) if args.quick else (2500, 1500)
runs = {
    "solid": (crystal.copy(), (300.0, 900.0) if args.quick else (300.0, 600.0, 900.0, 1200.0, 1500.0)),
    "liquid": (melt(crystal.copy(), model, out / "liquid.xyz", melting), (2000.0,)),
}

results, levels = {}, {}
for name, (atoms, temperatures) in runs.items():
    settings = MDSettings(
        temperatures_K=temperatures, steps=steps, every=steps // 12 if args.quick else 10, timestep_fs=2, seed=6
    )
    trace = out / f"{name}.zarr"
    run_md(atoms, Potential.find("almgsi-lda", model), model, trace, settings, resume=True)
    results[name] = pm.analyze(trace, denoise="network")
    levels[name] = frame_levels(trace)
    print(f"\n{name}: {results[name].attrs['denoise']}")
    print(format_table(results[name]))
    print(format_levels(levels[name]))

figure = Figure(figsize=(8.6, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
styles = {"raw": ("0.45", "o"), "denoised": ("#0b5394", "s"), "network": ("#c1440e", "D")}
for name, data in levels.items():
    for method, (color, marker) in styles.items():
        t, gap = data["temperature"].values, data[f"gap_{method}_mean"].values
        label = method if name == "solid" and np.isfinite(gap).any() else None
        model_std = data[f"gap_{method}_mean_model_std"].values
        left.errorbar(t, gap, model_std, color=color, linestyle="none", elinewidth=5, alpha=0.25)
        left.errorbar(
            t, gap, data[f"gap_{method}_mean_sampling_err"].values, color=color, marker=marker, capsize=3, label=label,
            linestyle="-" if name == "solid" else "none", markerfacecolor="white" if name == "liquid" else color, markersize=5,
        )  # fmt: skip
left.set(xlabel="$T$ (K)", ylabel="mean band gap (eV)")
left.legend(frameon=False, title="filled: solid, open: liquid", fontsize=8, loc="upper right", alignment="left")
for name, data in results.items():
    per_atom = in_units(data, "kB")
    t, c = per_atom["temperature"].values, per_atom["heat_capacity"].values
    right.errorbar(
        t, c, per_atom["heat_capacity_model_std"].values, color="#0b5394", linestyle="none", elinewidth=5, alpha=0.25
    )
    right.errorbar(
        t, c, per_atom["heat_capacity_sampling_err"].values, color="#0b5394", marker="s", capsize=3, label=name,
        linestyle="-" if name == "solid" else "none", markerfacecolor="white" if name == "liquid" else "#0b5394",
    )  # fmt: skip
right.set(xlabel="$T$ (K)", ylabel=r"$C_\mathrm{el}$ ($k_\mathrm{B}$ / atom)")
right.legend(
    frameon=False, title="wide bar: model error\ncaps: sampling error", fontsize=8, loc="upper left", alignment="left"
)
for axes in (left, right):
    for melting_K, label in ((1350, "melting,\nLDA"), (1687, "melting,\nmeasured")):
        axes.axvline(melting_K, color="0.6", linewidth=0.8, linestyle=":")
        axes.annotate(
            label, (melting_K, 1.01), xycoords=("data", "axes fraction"), fontsize=7, ha="center", va="bottom"
        )
    bottom, top = axes.get_ylim()
    axes.set_ylim(-0.03 * top, top)
figure.savefig(out / "silicon-melting.png", dpi=160)
hottest = results["solid"].isel(temperature=-1)
ratio = float(results["liquid"]["heat_capacity"][0] / hottest["heat_capacity"])
print(f"\nC_el of the liquid at 2000 K is {ratio:.2f} times that of the solid at {float(hottest['temperature']):g} K")
print(f"figure: {out / 'silicon-melting.png'}")
