"""A laser pulse on aluminium: temperatures of electrons and atoms in time, beside the two-temperature equations with the same C_e.

The dynamics of petdos_md.ase.TwoTemperatureDynamics conserve energy; the equations

    C_e(T_e) dT_e/dt = P(t) / V - G (T_e - T_i),   3 N k_B / V dT_i/dt = G (T_e - T_i)

are solved by scipy with the heat capacity of the crystal at rest::

    python laser_pulse.py              # writes outputs/hot_electrons/laser_pulse.png and .csv; about ten minutes
"""

from __future__ import annotations

import argparse

import ase.build
import matplotlib
import numpy as np
from ase import units
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from common import add_dynamics, new_parser, parsed
from scipy.integrate import solve_ivp

import petdos_md as pm
from petdos_md.ase import HotElectronCalculator, LaserPulse, TwoTemperatureDynamics
from petdos_md.engines.labels import kinetic_temperature_K
from petdos_md.engines.two_temperature import W_M3_K

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def dynamics(args: argparse.Namespace, model: pm.DOSModel, pulse: LaserPulse) -> np.ndarray:
    """Columns: time (fs), T_e (K), T_i (K), total energy less what was absorbed (meV/atom)."""
    atoms = ase.build.bulk("Al", cubic=True, a=args.lattice) * ((args.repeat,) * 3)
    thermalize_momenta(atoms, 2 * args.temperature, rng=np.random.default_rng(0))
    Stationary(atoms)
    atoms.calc = HotElectronCalculator(None, model, args.temperature)
    # From rest in the minimum, half of the kinetic energy becomes potential energy.
    dyn, rows = TwoTemperatureDynamics(atoms, args.timestep * units.fs, args.coupling, pulse), []

    def note() -> None:
        energy = 1000 * (dyn.total_energy_eV() - dyn.absorbed_eV) / len(atoms)
        rows.append((dyn.nsteps * args.timestep, dyn.electronic_temperature_K, kinetic_temperature_K(atoms), energy))

    dyn.attach(note)
    dyn.run(args.steps)
    found = np.array(rows)
    found[:, 3] -= found[0, 3]
    print(
        f"absorbed {dyn.absorbed_eV / len(atoms):.4f} eV/atom, transferred to the atoms {dyn.transferred_eV / len(atoms):.4f} eV/atom"
    )
    print(f"largest deviation of the energy: {np.abs(found[:, 3]).max():.2e} meV/atom in {args.steps} steps")
    return found


def equations(args: argparse.Namespace, model: pm.DOSModel, pulse: LaserPulse, time_fs: np.ndarray) -> np.ndarray:
    """T_e and T_i, ``(2, n)``."""
    crystal = ase.build.bulk("Al", cubic=True, a=args.lattice)
    dos, n, energies = model.dos(crystal), model.n_electrons(crystal), model.grid.energies
    ladder = np.geomspace(args.temperature / 2, 20_000, 400)
    heat = pm.thermo.heat_capacity(energies, dos, n, ladder)
    flow = args.coupling * W_M3_K * crystal.get_volume()

    def rates(t: float, T: np.ndarray) -> list[float]:
        power = pulse.absorbed_eV(t - 0.05, t + 0.05, len(crystal)) / 0.1
        given = flow * (T[0] - T[1])
        return [(power - given) / np.interp(T[0], ladder, heat), given / (3 * len(crystal) * units.kB)]

    start = [args.temperature, args.temperature]
    return solve_ivp(rates, (0, time_fs[-1]), start, t_eval=time_fs, max_step=5.0, rtol=1e-6).y


def main() -> None:
    parser = new_parser(__doc__)
    add_dynamics(parser, steps=1500, lattice=3.98)
    parser.add_argument("--absorbed", type=float, default=0.3, help="eV/atom")
    parser.add_argument("--duration", type=float, default=100.0, help="full width at half maximum, fs")
    parser.add_argument("--center", type=float, default=250.0, help="fs")
    parser.add_argument("--coupling", type=float, default=2.45e17, help="G, W/m^3/K")
    args = parsed(parser)
    model, pulse = pm.DOSModel.load(args.model), LaserPulse(args.absorbed, args.duration, args.center)
    found = dynamics(args, model, pulse)
    expected = equations(args, model, pulse, found[:, 0])
    print(f"highest T_e: {found[:, 1].max():.0f} K, of the equations {expected[0].max():.0f} K")
    last = len(found) // 5
    print(
        f"last fifth: T_e {found[-last:, 1].mean():.0f} K and T_i {found[-last:, 2].mean():.0f} K, of the equations {expected[0, -last:].mean():.0f} and {expected[1, -last:].mean():.0f} K"
    )
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.8, 5), sharex=True, height_ratios=(3, 1), constrained_layout=True
    )
    width = min(round(100 / args.timestep), len(found) // 2)
    smooth = np.convolve(found[:, 2], np.ones(width) / width, mode="valid")
    above.plot(found[:, 0], found[:, 1], color="#c0392b", label="T$_e$, dynamics")
    above.plot(found[:, 0], found[:, 2], color="#2980b9", alpha=0.25, lw=0.7)
    above.plot(
        found[width // 2 : width // 2 + len(smooth), 0],
        smooth,
        color="#2980b9",
        label="T$_i$, dynamics (mean of 100 fs)",
    )
    above.plot(found[:, 0], expected[0], "k--", lw=1, label="two-temperature equations")
    above.plot(found[:, 0], expected[1], "k--", lw=1)
    above.set(
        ylabel="temperature (K)",
        title=f"Al$_{{{4 * args.repeat**3}}}$, {args.absorbed:g} eV/atom in {args.duration:g} fs",
    )
    above.legend(frameon=False)
    below.plot(found[:, 0], found[:, 3], color="0.3", lw=0.8)
    below.set(xlabel="time (fs)", ylabel="energy balance\n(meV/atom)")
    figure.savefig(args.output / "laser_pulse.png", dpi=150)
    table = np.column_stack([found, expected.T])
    header = "time (fs),T_e (K),T_i (K),energy balance (meV/atom),T_e of the equations (K),T_i of the equations (K)"
    np.savetxt(args.output / "laser_pulse.csv", table, delimiter=",", header=header, comments="", fmt="%.6g")


if __name__ == "__main__":
    main()
