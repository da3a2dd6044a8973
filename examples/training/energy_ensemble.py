"""Give a two-head model that exists an ensemble of its energies, so that metatomic's engines warn of uncertain atoms.

    python energy_ensemble.py almgsi-lda --checkpoint checkpoints/almgsi-lda.ckpt --data data/almgsi-lda.xyz.xz

The covariance is that of the training part of the data (``split.py``), the size is calibrated on the validation part, and how well that went
is printed for the test part (``petdos_md.models.energy_ensemble``). The network is exported anew from its checkpoint; its predictions, its
readout and its fingerprint stay as they are. New models get theirs from ``train.py``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from petdos_md import DOSModel
from petdos_md.base.errors import ModelError, SettingError
from petdos_md.models.checkpoints import load_networks, make_backbone
from petdos_md.models.energy_ensemble import (
    FEWEST,
    N_MEMBERS,
    EnergyEnsemble,
    energy_residuals,
    has_energy,
    learn_energy_ensemble,
)
from petdos_md.models.export import beside, write_backbone
from petdos_md.models.files import find_model

sys.path.insert(0, str(Path(__file__).resolve().parent))
from prepare import read_data
from script import Parser, run
from split import PARTS, split_of

TARGET = "mtt::dos"


def print_scores(name: str, model: DOSModel, ensemble: EnergyEnsemble, structures: list) -> None:
    """How errors of energies compare with their uncertainties."""
    sums, residuals = energy_residuals(model, structures)
    n = np.array([len(a) for a in structures])
    z = residuals / ensemble.uncertainty(sums)
    within = [f"{np.mean(np.abs(z) < k):.0%}" for k in (1, 2)]
    rms, typical = (1000 * np.sqrt(np.mean((x / n) ** 2)) for x in (residuals, ensemble.uncertainty(sums)))
    print(
        f"| {name} | {len(z)} | {rms:.1f} | {typical:.1f} | {np.sqrt(np.mean(z**2)):.2f} | {', '.join(within)} |",
        flush=True,
    )


def read_parts(paths: list[Path]) -> dict[str, list]:
    """Structures with energies, by the parts of the split.

    :raises SettingError: if a part is too small, or a structure has no energy
    """
    parts: dict[str, list] = {name: [] for name in PARTS}
    where = ", ".join(map(str, paths))
    for atoms in (a for part in read_data(paths) for a in part):
        parts[split_of(atoms)].append(atoms)
        if split_of(atoms) != "train" and not has_energy(atoms):
            raise SettingError(
                f"{where}: structure with index {atoms.info['index']} and tag {atoms.info['tag']} has no energy; give structures with energies"
            )
    sizes = {name: len(part) for name, part in parts.items()}
    if not parts["train"] or len(parts["validation"]) < FEWEST or not parts["test"]:
        raise SettingError(
            f"{where}: got {sizes}, expected one structure or more for training and test and {FEWEST} for validation; give more data"
        )
    return parts


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a .pt file, or the name of a shipped model")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the same network")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="what it was trained on")
    parser.add_argument("--outside", type=Path, nargs="*", default=[], help="more data, to print scores of")
    parser.add_argument("--members", type=int, default=N_MEMBERS, help="default: %(default)s")
    args = parser.parse_args()
    if args.members < 2:
        parser.error(f"got --members {args.members}, expected 2 or more")
    for file in (*args.data, *args.outside):
        if not file.exists():
            parser.error(f"{file}: no such file")
    model, path = DOSModel.load(args.model, device="cpu"), find_model(args.model)
    if not model.has_energy:
        raise ModelError(
            f"{args.model}: has no energies, so that there is no ensemble of them; expected a model of both heads"
        )
    pet, _ = load_networks(args.checkpoint, None, TARGET)  # before minutes are spent on the data
    parts = read_parts(args.data)
    for atoms in (a for part in parts.values() for a in part):
        model.check(atoms)
    with tqdm(total=len(parts["train"]) + len(parts["validation"]), unit="structure", disable=None) as bar:
        ensemble = learn_energy_ensemble(model, parts["train"], parts["validation"], bar.update, n_members=args.members)

    print(
        "| part | structures | RMS error (meV/atom) | RMS uncertainty | RMS z-score | within 1 and 2 sigma |\n|---|---|---|---|---|---|"
    )
    for name in ("validation", "test"):
        print_scores(name, model, ensemble, parts[name])
    for file in args.outside:
        print_scores(file.name, model, ensemble, [a for part in read_data([file]) for a in part])

    with beside(path) as partial:
        write_backbone(partial, make_backbone(pet, TARGET), model.evaluator.module.metadata(), ensemble)
        os.replace(partial, path)
    atoms = parts["test"][0]
    again = DOSModel.load(path, device="cpu")
    change = np.abs(again.evaluate(atoms).features - model.evaluate(atoms).features).max()
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, fingerprint {again.info.fingerprint[:12]}, features changed by {change:.1e}"
    )


if __name__ == "__main__":
    run(main)
