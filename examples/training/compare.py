"""Several models side by side on the same test structures, as in Table 1 of the article (DOI 10.1039/D5DD00557D).

    python compare.py general=almgsi-lda bespoke=outputs/silicon/silicon.pt lora=outputs/silicon-lora/silicon-lora.pt \\
        --test silicon=outputs/silicon/test.xyz all=outputs/almgsi-lda/test.xyz

Prints, for each test set, the self-aligned RMSE of the DOS (Eqs. 8 and 9), and the mean absolute errors of energies and forces where
model and test set have them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.validation.metrics import dos_rmse

MAX_SHIFT = 200


def errors(model: DOSModel, structures: list[Atoms]) -> tuple[float, float, float]:
    """DOS RMSE (eV^-0.5 electrons^-1 state), energy MAE (meV/atom) and force MAE (meV/angstrom), NaN where there are none."""
    both = model.has_energy and all(a.calc is not None for a in structures)
    predictions, energies, forces = [], [], []
    for atoms in tqdm(structures, desc=model.info.name, unit="structure", disable=None, leave=False):
        if not both:
            predictions.append(model.dos(atoms))
            continue
        sample, energy, force, _ = model.evaluate_with_forces(atoms, stress=False)
        predictions.append(model.dos(sample))
        energies.append((energy - atoms.get_potential_energy()) / len(atoms))
        forces.append((force - atoms.get_forces()).ravel())
    electrons = np.array([a.info["n_electrons"] for a in structures], dtype=float)
    rmse = dos_rmse([a.info["dos"] for a in structures], predictions, electrons, model.grid.step, MAX_SHIFT)[0]
    if not both:
        return rmse, np.nan, np.nan
    return rmse, 1000 * float(np.abs(energies).mean()), 1000 * float(np.abs(np.concatenate(forces)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "models", nargs="+", metavar="LABEL=MODEL", help="names of shipped models, or models written by `petdos export`"
    )
    parser.add_argument(
        "--test", nargs="+", required=True, metavar="LABEL=FILE", help="test.xyz as written by train.py"
    )
    args = parser.parse_args()
    for item in (*args.models, *args.test):
        if "=" not in item:
            parser.error(f"got {item}, expected LABEL=FILE")
    models = {label: DOSModel.load(path, device="cpu") for label, path in (m.split("=", 1) for m in args.models)}
    print("| test set | structures | model | DOS RMSE | energy MAE (meV/atom) | force MAE (meV/A) |")
    print("|---|---|---|---|---|---|")
    for label, path in (t.split("=", 1) for t in args.test):
        structures = ase.io.read(Path(path), ":")
        elements = {int(n) for a in structures for n in a.numbers}
        for name, model in models.items():
            if not elements <= set(model.atomic_types):
                print(f"| {label} | {len(structures)} | {name} | elements unknown to it | | |", flush=True)
                continue
            dos, energy, force = errors(model, structures)
            more = " | |" if np.isnan(energy) else f" {energy:.1f} | {force:.0f} |"
            print(f"| {label} | {len(structures)} | {name} | {dos:.4f} |{more}", flush=True)


if __name__ == "__main__":
    from script import run

    run(main)
