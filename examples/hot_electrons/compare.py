"""Hot electrons of a model against density-functional theory: free energy, forces, pressure; phonons of silicon.

Reads what ``dft.py`` computed, prints the tables of docs/hot-electrons.md and draws ``outputs/hot_electrons/dft.png``::

    python compare.py
    python compare.py --force-errors        # also what the members of the model say of its forces; some minutes
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import ase.io
import matplotlib
import numpy as np
from ase import Atoms, units
from common import new_parser, parsed

import petdos_md as pm
from petdos_md.models.hot_electrons import HotElectronForces

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
THZ = np.sqrt(units._e / (1e-20 * units._amu)) / (2 * np.pi) / 1e12
"""sqrt(eV/angstrom^2/u) as a frequency."""


def load(path: Path) -> dict[str, dict[float, Atoms]]:
    """Structures by name and electronic temperature, 0 for the ground state."""
    found: dict[str, dict[float, Atoms]] = {}
    for atoms in ase.io.read(path, ":", format="extxyz"):
        found.setdefault(str(atoms.info["name"]), {})[float(atoms.info["electronic_temperature_K"])] = atoms
    return {name: at for name, at in found.items() if 0.0 in at}


def pressure(stress: np.ndarray) -> float:
    """GPa."""
    return float(-np.trace(stress) / 3 / units.GPa)


def compare(cells: dict[str, dict[float, Atoms]], hot: HotElectronForces, plain: HotElectronForces) -> list[dict]:
    """A row for each structure and temperature."""
    rows = []
    for name, at in cells.items():
        if at[0.0].info.get("phonon"):
            continue
        cold, n = at[0.0], len(at[0.0])
        for T in sorted(at)[1:]:
            found, undone = plain.evaluate(cold, T), hot.evaluate(cold, T)
            change = at[T].get_forces() - cold.get_forces()
            ours, theirs = found.forces.ravel(), change.ravel()
            rows.append(
                {
                    "name": f"{cold.info['tag']} ({name})", "T": T, "element": str(cold.symbols[0]),
                    "dft": (at[T].get_potential_energy() - cold.get_potential_energy()) / n,
                    "model": undone.free_energy_eV / n, "raw": found.free_energy_eV / n,
                    "error": float(hot.electrons_of_members(cold, T).free_energy.std(ddof=1)) / n,
                    "entropy": -at[T].info["minus_TS_eV"] / T / n, "model_entropy": float(found.electrons.entropy) / n,
                    "forces": (theirs, ours), "rms": rms(theirs), "difference": rms(ours - theirs),
                    "correlation": np.corrcoef(ours, theirs)[0, 1], "slope": float(ours @ theirs / (theirs @ theirs)),
                    "undone": np.corrcoef(undone.forces.ravel(), theirs)[0, 1], "undone_slope": float(undone.forces.ravel() @ theirs / (theirs @ theirs)),
                    "p": pressure(at[T].get_stress(voigt=False)) - pressure(cold.get_stress(voigt=False)),
                    "model_p": pressure(found.stress),
                }
            )  # fmt: skip
    return rows


def force_errors(cells: dict[str, dict[float, Atoms]], plain: HotElectronForces) -> None:
    """Print the spread of forces over the members of the model beside their deviation from DFT, and the deviation of cold forces."""
    print("\n| structure | T_e | members, spread | difference | cold forces, difference |")
    print("|---" * 5 + "|")
    for name, at in cells.items():
        cold = at[0.0]
        if cold.info.get("phonon"):
            continue
        ground = rms(plain.model.evaluate_with_forces(cold)[2] - cold.get_forces())
        for T in sorted(at)[1:]:
            off = rms(plain.evaluate(cold, T).forces - at[T].get_forces() + cold.get_forces())
            spread = rms(plain.model_errors(cold, T).forces)
            print(f"| {cold.info['tag']} ({name}) | {T:g} | {spread:.3f} | {off:.3f} | {ground:.3f} |", flush=True)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def phonons(forces: np.ndarray, atoms: Atoms, displacement: float) -> dict[str, float]:
    """Frequencies (THz, negative for imaginary ones) of diamond at Gamma and X from one displaced atom, number 0 along x, in the cubic cell.

    With the columns phi = -force / displacement and phases of q = 2 pi / a along y: transverse modes at X have
    m w^2 = A -+ |B|, A and B being the sums of phi_xx over the own and of phi_zx over the other sublattice.
    """
    a, phi = atoms.cell.lengths()[0], -forces / displacement
    ideal = atoms.positions - np.array([displacement, 0, 0]) * (np.arange(len(atoms)) == 0)[:, None]
    r = ideal - ideal[0]
    own = np.all(np.isclose((r / a * 4).round() % 2, 0), axis=1)
    phase = np.exp(-2j * np.pi / a * r)
    m = atoms.get_masses()[0]
    gamma = 2 * phi[own, 0].sum() / m
    A = float(np.real(phi[own, 0] @ phase[own, 1]))
    B = abs(complex(phi[~own, 2] @ phase[~own, 1]))
    longitudinal = float(np.real(phi[own, 0] @ phase[own, 0]))
    squares = {"optical Gamma": gamma, "TA X": (A - B) / m, "LA/LO X": longitudinal / m, "TO X": (A + B) / m}
    return {name: float(np.sign(x) * np.sqrt(abs(x)) * THZ) for name, x in squares.items()}


def phonon_table(at: dict[float, Atoms], hot: HotElectronForces, displacement: float) -> dict[float, tuple[dict, dict]]:
    """Of the calculation and of the model, by temperature."""
    model, table = hot.model, {}
    for T in sorted(at):
        atoms = at[0.0]
        forces = model.evaluate_with_forces(atoms)[2] if T == 0 else hot.evaluate(atoms, T, with_energy=True).forces
        table[T] = phonons(at[T].get_forces(), atoms, displacement), phonons(forces, atoms, displacement)
    return table


def draw(rows: list[dict], path: Path) -> None:
    """Forces against forces, free energies with the error of the model."""
    fig, axes = plt.subplots(1, 3, figsize=(13, 4.2), constrained_layout=True)
    for axis, element in zip(axes[:2], ("Si", "Al"), strict=True):
        mine = [row for row in rows if row["element"] == element]
        for T, color, marker in ((20000.0, "#c0392b", "o"), (10000.0, "#e67e22", "+"), (5000.0, "#2980b9", "x")):
            chosen = [row["forces"] for row in mine if row["T"] == T]
            if chosen:
                axis.plot(
                    *(np.concatenate(x) for x in zip(*chosen, strict=True)),
                    marker,
                    markersize=4,
                    markerfacecolor="none",
                    color=color,
                    label=f"{T:g} K",
                    alpha=0.8,
                )
        limit = max(float(np.abs(x).max()) for row in mine for x in row["forces"]) * 1.05
        axis.plot([-limit, limit], [-limit, limit], "k-", lw=0.7)
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=element)
        axis.set(xlabel="change of forces, DFT (eV/Å)", ylabel="change of forces, model (eV/Å)")
        axis.legend(frameon=False)
    for k, row in enumerate(rows):
        color = {"Si": "#30507a", "Al": "#a8752a"}[row["element"]]
        axes[2].errorbar(
            k,
            100 * (row["model"] / row["dft"] - 1),
            100 * row["error"] / abs(row["dft"]),
            fmt="o",
            color=color,
            capsize=3,
        )
        axes[2].plot(k, 100 * (row["raw"] / row["dft"] - 1), "x", color=color, alpha=0.6)
    axes[2].axhspan(-2, 2, color="0.9", zorder=0)
    axes[2].set_xticks(
        range(len(rows)), [f"{row['name'].split(' ')[0]} {row['T'] / 1000:g}" for row in rows], rotation=90, fontsize=7
    )
    axes[2].set(ylabel="deviation of ΔF from DFT (%)", title="dots: smearing undone; crosses: as it is")
    axes[2].set_ylim(-20, 30)
    fig.savefig(path, dpi=150)


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--data", type=Path, default=HERE / "dft.xyz")
    parser.add_argument("--force-errors", action="store_true", help="spread of forces over members, too")
    args = parsed(parser)
    cells, model = load(args.data), pm.DOSModel.load(args.model)
    hot, plain = HotElectronForces(model, 0.3), HotElectronForces(model)
    rows = compare(cells, hot, plain)
    print(
        "| structure | T_e | ΔF DFT | smearing undone | as it is | Δf DFT, rms | difference | correlation | slope | undone | Δp DFT | Δp model |"
    )
    print("|---" * 12 + "|")
    for r in rows:
        print(
            f"| {r['name']} | {r['T']:g} | {r['dft']:.4f} | {r['model']:.4f} ± {r['error']:.4f} | {r['raw']:.4f} | {r['rms']:.3f} | "
            f"{r['difference']:.3f} | {r['correlation']:.2f} | {r['slope']:.2f} | {r['undone']:.2f}, {r['undone_slope']:.2f} | {r['p']:.1f} | {r['model_p']:.1f} |"
        )
    print("\nBetween two hot temperatures, where the meshes are the same:\n")
    print("| structure | from | to | DFT, rms | difference | correlation | slope |")
    print("|---" * 7 + "|")
    for a, b in pairwise(rows):
        if a["name"] == b["name"]:
            theirs, ours = (y - x for x, y in zip(a["forces"], b["forces"], strict=True))
            fit = np.corrcoef(ours, theirs)[0, 1], float(ours @ theirs / (theirs @ theirs))
            print(
                f"| {a['name']} | {a['T']:g} | {b['T']:g} | {rms(theirs):.3f} | {rms(ours - theirs):.3f} | {fit[0]:.2f} | {fit[1]:.2f} |"
            )
    if "phonon" in cells:
        print(
            "\n| T_e (K) | "
            + " | ".join(f"{name}, DFT | model" for name in ("optical Gamma", "TA X", "LA/LO X", "TO X"))
            + " |"
        )
        print("|---|" + "---|" * 8)
        for T, (theirs, ours) in phonon_table(cells["phonon"], plain, 0.04).items():
            print(f"| {T:g} | " + " | ".join(f"{theirs[k]:.2f} | {ours[k]:.2f}" for k in theirs) + " |")
    if args.force_errors:
        force_errors(cells, plain)
    draw(rows, args.output / "dft.png")
    print(f"\n{args.output / 'dft.png'}")


if __name__ == "__main__":
    main()
