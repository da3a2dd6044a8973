"""Silicon whose electrons are hot while its atoms are cold: mean square displacement in time, and non-thermal melting.

64 atoms at 300 K, each electronic temperature from the same start, at constant energy (atoms) and T_e (electrons)::

    python softening.py                # writes outputs/hot_electrons/softening.png and .csv; about ten minutes
"""

from __future__ import annotations

import argparse

import ase.build
import matplotlib
import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from common import add_dynamics, new_parser, parsed

import petdos_md as pm
from petdos_md.ase import DOSCalculator, HotElectronCalculator
from petdos_md.results.style import LINE_STYLES

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def displacements(model: pm.DOSModel, T_e: float, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Mean square displacement (angstrom^2) at every step, and the drift of the conserved energy (meV/atom)."""
    atoms = ase.build.bulk("Si", "diamond", a=args.lattice, cubic=True) * (args.repeat, args.repeat, args.repeat)
    thermalize_momenta(atoms, 2 * args.temperature, rng=np.random.default_rng(0))
    Stationary(atoms)
    start = atoms.positions.copy()
    atoms.calc = DOSCalculator(model) if T_e <= args.temperature else HotElectronCalculator(None, model, T_e)
    dynamics, squares, energies = VelocityVerlet(atoms, args.timestep * units.fs), [], []

    def note() -> None:
        squares.append(float(np.mean(np.sum((atoms.positions - start) ** 2, axis=1))))
        energies.append(atoms.get_potential_energy(force_consistent=True) + atoms.get_kinetic_energy())

    dynamics.attach(note)
    dynamics.run(args.steps)
    half = len(energies) // 2
    return np.array(squares), 1000 * float(np.mean(energies[half:]) - np.mean(energies[:half])) / len(atoms)


def main() -> None:
    parser = new_parser(__doc__)
    add_dynamics(parser, steps=400, lattice=5.39)
    parser.add_argument("--electronic-temperature", type=float, nargs="+", default=[300, 10000, 15000, 20000])
    args = parsed(parser)
    model, columns = pm.DOSModel.load(args.model), []
    figure, axis = plt.subplots(figsize=(5.6, 4), constrained_layout=True)
    time = np.arange(args.steps + 1) * args.timestep
    colors = ("#2980b9", "#27ae60", "#e67e22", "#c0392b", "#8e44ad")
    for T_e, color, line in zip(args.electronic_temperature, colors, LINE_STYLES, strict=False):
        squares, drift = displacements(model, T_e, args)
        columns.append(squares)
        axis.plot(time, squares, color=color, linestyle=line, label=f"{T_e:g} K")
        print(
            f"T_e = {T_e:g} K: mean square displacement {squares[-len(squares) // 4 :].mean():.3f} Å², drift {drift:+.2f} meV/atom",
            flush=True,
        )
    nearest = args.lattice * np.sqrt(3) / 4
    axis.axhline((0.15 * nearest) ** 2, color="0.6", ls=":", lw=1)
    axis.text(
        time[-1], (0.15 * nearest) ** 2, "Lindemann, 0.15 of a bond", ha="right", va="bottom", fontsize=8, color="0.4"
    )
    axis.set(
        xlabel="time (fs)",
        ylabel="mean square displacement (Å²)",
        yscale="log",
        ylim=(1e-3, 20),
        title="Si$_{64}$ at 300 K, electrons at T$_e$",
    )
    axis.legend(frameon=False)
    figure.savefig(args.output / "softening.png", dpi=150)
    header = "time (fs)," + ",".join(f"MSD at {T:g} K (A^2)" for T in args.electronic_temperature)
    np.savetxt(
        args.output / "softening.csv",
        np.column_stack([time, *columns]),
        delimiter=",",
        header=header,
        comments="",
        fmt="%.5g",
    )


if __name__ == "__main__":
    main()
