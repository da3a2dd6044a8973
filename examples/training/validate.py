"""How good a two-head model is on structures it never saw: a table, ``validation.json`` and three figures.

    python validate.py outputs/almgsi-lda/almgsi-lda.pt outputs/almgsi-lda

The folder holds ``validation.xyz`` and ``test.xyz`` as written by ``train.py``. Errors of the DOS and of what follows from it are those of
``petdos validate`` (:mod:`petdos_md.validation.validate`); energies, forces and stress are added.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ase.io
import matplotlib
import numpy as np
from ase import Atoms
from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.validation.metrics import dos_rmse
from petdos_md.validation.references import read_references
from petdos_md.validation.validate import Validation
from petdos_md.validation.validate import validate_model as validate_dos

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import Parser, run

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEMPERATURE_K = 1000.0
MOST_PANELS = 9
"""Of the figure of the DOS."""


def validate_model(model_path: Path, data: Path, output: Path) -> dict[str, Any]:
    """Evaluate on the validation and the test split, print the table of the latter, write everything to ``output``."""
    model = DOSModel.load(model_path, device="cpu")
    summary: dict[str, Any] = {"model": model.info.name, "fingerprint": model.info.fingerprint}
    for split in ("validation", "test"):
        file = data / f"{split}.xyz"
        structures = ase.io.read(file, ":")
        records = [compare(model, a) for a in tqdm(structures, desc=f"{split}, forces", unit="structure", disable=None)]
        with tqdm(total=len(structures), desc=f"{split}, DOS", unit="structure", disable=None) as bar:
            dos = validate_dos(
                model,
                read_references(file, model),
                temperatures_K=(TEMPERATURE_K,),
                symmetry=False,
                progress=bar.update,
            )
        summary[split] = summarize(model, structures, records, dos)
    table = format_table(summary["test"], model.info.name)
    print(table)
    (output / "validation.md").write_text(table)
    images = output / "figures"
    images.mkdir(exist_ok=True)
    plot_parity(structures, records, images / "parity.png")
    plot_dos(model, structures, dos, images / "dos.png")
    plot_z_scores(dos, images / "z-scores.png")
    # The last: where it is, all is.
    (output / "validation.json").write_text(json.dumps(summary, indent=1))
    return summary


def compare(model: DOSModel, atoms: Atoms) -> dict[str, Any]:
    """Energy (eV/atom), forces (eV/angstrom) and stress (eV/angstrom^3) of one structure: reference and prediction."""
    _, energy, forces, stress = model.evaluate_with_forces(atoms)
    return {
        "energy": (atoms.get_potential_energy() / len(atoms), energy / len(atoms)),
        "forces": (atoms.get_forces(), forces),
        "stress": (atoms.get_stress(voigt=False), stress),
    }


def summarize(
    model: DOSModel, structures: list[Atoms], records: list[dict[str, Any]], dos: Validation
) -> dict[str, Any]:
    targets = [a.info["dos"] for a in structures]
    electrons = np.array([c.n_electrons for c in dos.comparisons])
    errors = np.array([c.error for c in dos.comparisons])
    absolute, _ = dos_rmse(targets, [c.dos for c in dos.comparisons], electrons, model.grid.step, 0)
    energy = 1000 * np.array([r["energy"][1] - r["energy"][0] for r in records])
    forces = [1000 * (r["forces"][1] - r["forces"][0]) for r in records]
    stress = 160.21766 * np.array([r["stress"][1] - r["stress"][0] for r in records])
    kinds: dict[str, Any] = {}
    for kind in sorted({kind_of(a) for a in structures}):
        chosen = [i for i, a in enumerate(structures) if kind_of(a) == kind]
        kinds[kind] = {
            "structures": len(chosen),
            "dos_rmse": float(np.sqrt(np.mean(errors[chosen] ** 2))),
            "energy_mae_meV": float(np.abs(energy[chosen]).mean()),
            "force_mae_meV_A": float(np.mean(np.abs(np.concatenate([forces[i] for i in chosen])))),
        }
    flat = np.concatenate(forces)
    return {
        **dos.summary(),
        "without_levels": dos.n_without_levels,
        "dos_rmse_absolute_axis": absolute,
        "energy_mae_meV": float(np.abs(energy).mean()),
        "energy_rmse_meV": float(np.sqrt(np.mean(energy**2))),
        "force_mae_meV_A": float(np.abs(flat).mean()),
        "force_rmse_meV_A": float(np.sqrt(np.mean(flat**2))),
        "stress_mae_GPa": float(np.abs(stress).mean()),
        "kinds": kinds,
    }


def kind_of(atoms: Atoms) -> str:
    """``fcc-Al``, ``liq-Si``, ``AlMg``, ...: the tag without temperature and cell size."""
    return str(atoms.info["tag"]).rsplit("-", 1)[0].replace("Al4", "Al").replace("Mg4", "Mg")


def format_table(test: dict[str, Any], name: str) -> str:
    def number(value: float, form: str = ".2f", unit: str = "") -> str:
        return "?" if np.isnan(value) else f"{value:{form}}{unit}"

    p5, p95 = test["channel_z_spread_5_95"]
    least, most = test["channel_z_chance_99"]
    capacity = test["integrals"][f"heat_capacity_{TEMPERATURE_K:g}K"]
    rows = [
        ("DOS RMSE, self-aligned (eV^-0.5 electrons^-1 state)", f"{test['dos_rmse']:.4f}", "<= 0.05"),
        ("- on the absolute axis", f"{test['dos_rmse_absolute_axis']:.4f}", ""),
        ("- median and worst structure", f"{test['dos_median']:.4f}, {test['dos_worst']:.4f}", ""),
        ("shift of the axis, mean and spread (eV)", f"{test['shift_mean_eV']:.3f}, {test['shift_std_eV']:.3f}", ""),
        ("energy MAE, RMSE (meV/atom)", f"{test['energy_mae_meV']:.1f}, {test['energy_rmse_meV']:.1f}", "MAE <= 15"),
        ("force MAE, RMSE (meV/A)", f"{test['force_mae_meV_A']:.0f}, {test['force_rmse_meV_A']:.0f}", "MAE <= 120"),
        ("stress MAE (GPa)", f"{test['stress_mae_GPa']:.2f}", ""),
        ("z-score spread per channel: median", f"{test['channel_z_spread']:.2f}", "0.7 to 1.4"),
        ("- 5 to 95 % of the channels", f"{p5:.2f} to {p95:.2f}", ""),
        ("- of a calibrated ensemble by chance, 99 %", f"{least:.2f} to {most:.2f}", ""),
        ("- channels within 0.7 to 1.4", f"{100 * test['channels_wanted']:.0f} %", ""),
        ("- channels within chance", f"{100 * test['channels_within_chance']:.0f} %", "99 %"),
        (
            "z-score spread of the number of states below E_F",
            number(test["integrals"]["states_below_fermi"]["z_spread"]),
            "0.7 to 1.4",
        ),
        (
            f"C_el({TEMPERATURE_K:.0f} K) per atom, RMSE in % of the mean",
            number(100 * capacity["rmse"] / capacity["mean"], ".1f", " %"),
            "",
        ),
        (f"C_el({TEMPERATURE_K:.0f} K), z-score spread", number(capacity["z_spread"]), "0.7 to 1.4"),
    ]
    lines = [f"{name}, {test['structures']} test structures", "", "| quantity | value | target |", "|---|---|---|"]
    lines += [f"| {a} | {b} | {c} |" for a, b, c in rows]
    if test["without_levels"]:
        lines += [
            "",
            f"{test['without_levels']} of {test['structures']} structures count neither in the number of states nor in C_el: the predicted DOS, or "
            "that of a member, does not hold their electrons. A model that is trained holds them.",
        ]
    lines += [
        "",
        "| kind | structures | DOS RMSE | energy MAE (meV/atom) | force MAE (meV/A) |",
        "|---|---|---|---|---|",
    ]
    for kind, row in test["kinds"].items():
        lines.append(
            f"| {kind} | {row['structures']} | {row['dos_rmse']:.3f} | {row['energy_mae_meV']:.1f} | {row['force_mae_meV_A']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def plot_parity(structures: list[Atoms], records: list[dict[str, Any]], path: Path) -> None:
    """Energies without the share that the composition explains, and force components."""
    symbols = sorted({s for a in structures for s in a.get_chemical_symbols()})
    fractions = np.array([[a.get_chemical_symbols().count(s) / len(a) for s in symbols] for a in structures])
    reference, predicted = np.array([r["energy"] for r in records]).T
    baseline = fractions @ np.linalg.lstsq(fractions, reference, rcond=None)[0]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), constrained_layout=True)
    forces = [np.concatenate([r["forces"][i].ravel() for r in records]) for i in (0, 1)]
    panels = [
        (reference - baseline, predicted - baseline, "energy less composition (eV/atom)", 14),
        (forces[0], forces[1], "force component (eV/Å)", 5),
    ]
    for axis, (x, y, label, size) in zip(axes, panels, strict=True):
        span = [min(x.min(), y.min()), max(x.max(), y.max())]
        axis.plot(span, span, color="0.6", lw=1, zorder=0)
        axis.scatter(x, y, s=size, color="#1f5f99", alpha=0.6, lw=0)
        axis.set(xlabel=f"DFT: {label}", ylabel=f"model: {label}", aspect="equal")
        mae = f"MAE {1000 * np.abs(y - x).mean():.1f} meV" + ("/Å" if "force" in label else "/atom")
        axis.text(0.04, 0.95, mae, transform=axis.transAxes, va="top")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_dos(model: DOSModel, structures: list[Atoms], dos: Validation, path: Path) -> None:
    """One structure of each kind (of the most frequent ones), that of median error, with two standard deviations of the members."""
    errors = [c.error for c in dos.comparisons]
    kinds: dict[str, list[int]] = {}
    for i, atoms in enumerate(structures):
        kinds.setdefault(kind_of(atoms), []).append(i)
    most = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))[:MOST_PANELS]
    shown = [sorted(kinds[kind], key=lambda i: errors[i])[len(kinds[kind]) // 2] for kind in sorted(most)]
    rows = -(-len(shown) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(10, 2.5 * rows), constrained_layout=True, squeeze=False)
    for axis, i in zip(axes.flat, shown, strict=False):
        atoms, found, n = structures[i], dos.comparisons[i], len(structures[i])
        known = np.isfinite(found.fermi_level)  # not of a network that was hardly trained
        x = model.grid.energies - (found.fermi_level if known else 0.0)
        mean, std = found.dos / n, model.dos_members(atoms).std(axis=0, ddof=1) / n
        axis.fill_between(
            x, mean - 2 * std, mean + 2 * std, color="#7fb3de", lw=0, label="model, two standard deviations"
        )
        axis.plot(x, mean, color="#1f5f99", lw=1.2, label="model")
        axis.plot(x, found.target / n, color="k", lw=1, ls="--", label="DFT")
        axis.axvline(0, color="0.7", lw=0.8, zorder=0)
        axis.set(
            xlim=(-14, 8),
            ylim=(-0.05, None),
            title=f"{atoms.info['tag']}: {errors[i]:.3f}{'' if known else ', no $E_F$'}",
        )
        axis.title.set_fontsize(10)
        top = np.nanmax(found.target / n)
        axis.set_ylim(-0.05 * top, 1.2 * top)
    for axis in list(axes.flat)[len(shown) :]:
        axis.set_visible(False)
    for k, axis in enumerate(axes.flat):
        if len(shown) - 3 <= k < len(shown):
            known = np.isfinite(dos.comparisons[shown[k]].fermi_level)
            axis.set_xlabel("$E - E_F$ (eV)" if known else "E on the model's axis (eV)")
    for axis in axes[:, 0]:
        axis.set_ylabel("states / (eV atom)")
    axes[0, 0].legend(loc="upper left", fontsize=8, frameon=False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def plot_z_scores(dos: Validation, path: Path) -> None:
    z = np.array([c.z for c in dos.comparisons])
    flat = z[np.isfinite(z)]
    per_channel = dos.channel_spread()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    bins = np.linspace(-5, 5, 81)
    left.hist(np.clip(flat, -5, 5), bins=bins, density=True, color="#7fb3de", label="test structures")
    left.plot(bins, np.exp(-0.5 * bins**2) / np.sqrt(2 * np.pi), color="k", lw=1.2, label="standard normal")
    left.set(xlabel="z-score of a channel", ylabel="density")
    left.legend(frameon=False, fontsize=8)
    right.axhspan(0.7, 1.4, color="0.9", lw=0)
    right.plot(dos.energies, per_channel, color="#1f5f99", lw=1.2)
    right.axhline(1, color="k", lw=0.8)
    right.set(xlabel="energy on the model's axis (eV)", ylabel="root mean square z-score", ylim=(0, 2.2))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, help="model written by `petdos export`")
    parser.add_argument("data", type=Path, help="folder with validation.xyz and test.xyz")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to, by default that of the data")
    args = parser.parse_args()
    for name in ("validation.xyz", "test.xyz"):
        if not (args.data / name).is_file():
            parser.error(f"{args.data / name}: no such file; give the --output of a training")
    validate_model(args.model, args.data, args.output or args.data)


if __name__ == "__main__":
    run(main)
