"""Several models side by side on the same test structures, as in Table 1 of the article (DOI 10.1039/D5DD00557D).

    python compare.py general=almgsi-lda bespoke=outputs/silicon/silicon.pt lora=outputs/silicon-lora/silicon-lora.pt \\
        --test silicon=outputs/silicon/test.xyz all=outputs/almgsi-lda/test.xyz

Prints, for each test set, the self-aligned RMSE of the DOS (Eqs. 8 and 9), and the mean absolute errors of energies and forces where
model and test set have them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.base.errors import SettingError
from petdos_md.validation.metrics import dos_rmse

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "dft")]
from compute import read_xz  # noqa: E402
from script import Parser, run  # noqa: E402

MAX_SHIFT = 200


def errors(model: DOSModel, structures: list[Atoms]) -> tuple[float, float, float]:
    """DOS RMSE (eV^-0.5 electrons^-1 state), energy MAE (meV/atom) and force MAE (meV/angstrom), NaN where there are none."""
    both = model.has_energy and all(
        a.calc is not None and {"energy", "forces"} <= a.calc.results.keys() for a in structures
    )
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


def read_test(path: Path) -> list[Atoms]:
    """Structures with their DOS.

    :raises SettingError: if there are none, or one lacks its DOS or number of electrons
    """
    structures = read_xz(path)
    if not structures:
        raise SettingError(f"{path}: holds no structures; expected test.xyz as train.py writes it")
    for number, atoms in enumerate(structures):
        for name in ("dos", "n_electrons"):
            if name not in atoms.info:
                raise SettingError(
                    f"{path}: no {name!r} in the info of structure {number}; expected test.xyz as train.py writes it"
                )
    return structures


def check_grid(model: DOSModel, structures: list[Atoms], where: str) -> None:
    """
    :raises SettingError: if the structures have a DOS of another number of energies than the model
    """
    for number, atoms in enumerate(structures):
        if np.shape(atoms.info["dos"]) != (model.grid.n,):
            raise SettingError(
                f"{where}: structure {number} has a DOS of shape {np.shape(atoms.info['dos'])}, {model.info.name} has {model.grid.n} "
                "energies; models can be compared with one grid, so train with --grid as the others were, or use `petdos validate` for each with eigenvalues"
            )


def labelled(parser: Parser, items: list[str], what: str) -> dict[str, str]:
    """``LABEL=VALUE`` as a dictionary."""
    for item in items:
        if not all(item.partition("=")):
            parser.error(f"got {item}, expected LABEL={what}")
    found = dict(item.split("=", 1) for item in items)
    if len(found) < len(items):
        parser.error(f"got a label twice in {' '.join(items)}, expected one of its own for each {what}")
    return found


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "models", nargs="+", metavar="LABEL=MODEL", help="names of shipped models, or models written by `petdos export`"
    )
    parser.add_argument(
        "--test", nargs="+", required=True, metavar="LABEL=FILE", help="test.xyz as written by train.py"
    )
    args = parser.parse_args()
    paths, files = labelled(parser, args.models, "MODEL"), labelled(parser, args.test, "FILE")
    tests = {label: read_test(Path(file)) for label, file in files.items()}
    models = {label: DOSModel.load(path, device="cpu") for label, path in paths.items()}
    for model in models.values():
        for label, file in files.items():
            check_grid(model, tests[label], file)
    print("| test set | structures | model | DOS RMSE | energy MAE (meV/atom) | force MAE (meV/A) |")
    print("|---|---|---|---|---|---|")
    for label, structures in tests.items():
        elements = {int(n) for a in structures for n in a.numbers}
        for name, model in models.items():
            if not elements <= set(model.atomic_types):
                print(f"| {label} | {len(structures)} | {name} | elements unknown to it | | |", flush=True)
                continue
            dos, energy, force = errors(model, structures)
            more = " | |" if np.isnan(energy) else f" {energy:.1f} | {force:.0f} |"
            print(f"| {label} | {len(structures)} | {name} | {dos:.4f} |{more}", flush=True)


if __name__ == "__main__":
    run(main)
