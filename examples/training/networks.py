"""Train the networks that read Fermi level, band gap and DOS at the Fermi level off predictions of a model.

    python networks.py almgsi-lda data/almgsi-lda.xyz.xz                  # minutes; writes beside the model
    python networks.py MODEL.pt DATASET -o FOLDER --only fermi_level

    python networks.py almgsi-lda data/almgsi-lda.xyz.xz --no-training    # only the table, of the networks that are there

Section 4.5 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D): mean squared error, Adam with a warm-up, batches of 16, the weights of the
best validation epoch, early stopping. Small data sets need other numbers than the article (1e-4, 100 epochs of warm-up, 50 of patience): the
learning rate rises to 1e-3 and falls as a cosine, inputs are random members of the ensemble (the networks will read members, too), shifted
along the axis by up to half an eV (Fermi level and axis move together). Beside the errors of each network stand those of the raw DOS. The split is that of ``train.py`` (``split.py``).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from petdos_md import DOSModel, thermo
from petdos_md.base.errors import SettingError
from petdos_md.models.files import find_model
from petdos_md.physics.networks import TARGETS, DOSNetwork, Network, network_path
from petdos_md.validation.metrics import align
from petdos_md.validation.references import Reference, read_references

sys.path.insert(0, str(Path(__file__).resolve().parent))
from script import Parser, run, whole
from split import PARTS, split_of

MAX_SHIFT = 200


@dataclass
class Data:
    """Members of the prediction per atom, ``(n, n_members, n_channels)`` (the mean first), and what is to be read off them.

    ``targets`` as a network counts: Fermi level from the first channel (eV), gap (eV), DOS at the Fermi level (states/eV/atom)
    """

    dos: torch.Tensor
    targets: dict[str, torch.Tensor]
    raw: dict[str, torch.Tensor] = field(default_factory=dict)
    """The same as the targets, read off the mean prediction without a network."""

    def __len__(self) -> int:
        return len(self.dos)


def collect(model: DOSModel, references: list[Reference]) -> Data:
    """Predictions and targets; the target moves onto the axis of each prediction first."""
    grid, inputs = model.grid, []
    targets: dict[str, list[float]] = {name: [] for name in TARGETS}
    raw: dict[str, list[float]] = {name: [] for name in TARGETS}
    for reference in tqdm(references, desc="predictions", unit="structure", disable=None):
        sample, size = model.evaluate(reference.atoms), len(reference.atoms)
        mean = model.dos(sample)
        members = model.dos_members(sample) if model.n_members else np.empty((0, grid.n))
        inputs.append(np.concatenate([mean[None], members]) / size)
        best = align(reference.target, mean, grid.step, MAX_SHIFT)
        defined = np.isfinite(reference.target)
        args = grid.energies[defined], reference.target[defined], reference.n_electrons
        level = float(thermo.fermi_level(*args)) + best.refined * grid.step
        targets["fermi_level"].append(level - grid.start)
        targets["gap"].append(reference.gap_eV)
        targets["dos_at_fermi_level"].append(float(thermo.dos_at_fermi_level(*args)) / size)
        args = grid.energies, mean, reference.n_electrons
        raw["fermi_level"].append(float(thermo.fermi_level(*args)) - grid.start)
        raw["gap"].append(float(thermo.band_gap(*args, size)))
        raw["dos_at_fermi_level"].append(float(thermo.dos_at_fermi_level(*args)) / size)
    dos = torch.tensor(np.array(inputs), dtype=torch.float32)
    of_targets, of_raw = ({n: torch.tensor(v, dtype=torch.float32) for n, v in d.items()} for d in (targets, raw))
    return Data(dos, of_targets, of_raw)


def train_network(
    train: Data,
    validation: Data,
    target: str,
    step_eV: float,
    *,
    learning_rate: float = 1e-3,
    warmup: int = 20,
    patience: int | None = None,
    max_epochs: int = 300,
    batch: int = 16,
    max_shift_eV: float = 0.5,
    seed: int = 0,
    report: Callable[[int, float, float], None] | None = None,
) -> tuple[DOSNetwork, float]:
    """Train one network; returns it with the mean squared error of the validation set.

    :param patience: epochs without a better validation error after which training stops; by default half of ``max_epochs``, because
        the best ones come last, when the learning rate has fallen
    :param report: called with epoch, training and validation error
    """
    torch.manual_seed(seed)
    module = DOSNetwork(train.dos.shape[-1])
    with torch.no_grad():
        # It begins with the mean of the targets: a level of tens of eV would take the first hundred epochs.
        module.fc2.bias.fill_(float(train.targets[target].mean()))
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)

    def rate(epoch: int) -> float:
        """Rises over the warm-up, then falls to zero at the last epoch as a cosine."""
        done = (epoch - warmup) / max(1, max_epochs - warmup)
        return (epoch + 1) / warmup if epoch < warmup else 0.5 * (1 + np.cos(np.pi * min(1.0, done)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    most = round(max_shift_eV / step_eV)
    best, kept, waited = float("inf"), copy.deepcopy(module.state_dict()), 0
    for epoch in range(max_epochs):
        module.train()
        total = 0.0
        for rows in torch.randperm(len(train)).split(batch):
            which = torch.randint(train.dos.shape[1], (len(rows),))
            shifts = torch.randint(-most, most + 1, (len(rows),))
            inputs = torch.stack([moved(train.dos[r, k], int(s)) for r, k, s in zip(rows, which, shifts, strict=True)])
            wanted = train.targets[target][rows]
            if target == "fermi_level":
                wanted = wanted + step_eV * shifts
            loss = torch.nn.functional.mse_loss(module(inputs)[:, 0], wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows) / len(train)
        scheduler.step()
        error = float(((predict(module, validation) - validation.targets[target]) ** 2).mean())
        if report is not None:
            report(epoch, total, error)
        waited += 1
        if error < best:
            best, kept, waited = error, copy.deepcopy(module.state_dict()), 0
        if waited > (max_epochs // 2 if patience is None else patience) and epoch >= warmup:
            break
    module.load_state_dict(kept)
    return module.eval(), best


def moved(dos: torch.Tensor, shift: int) -> torch.Tensor:
    """A DOS moved up by ``shift`` channels; its ends go on as they are."""
    channels = torch.arange(len(dos))
    return dos[(channels - shift).clamp(0, len(dos) - 1)]


def predict(module: DOSNetwork, data: Data) -> torch.Tensor:
    """Of the mean predictions, ``(n,)``."""
    module.eval()
    with torch.inference_mode():
        return module(data.dos[:, 0])[:, 0]


def trained(model: DOSModel, data: dict[str, Data], target: str, beside: Path, args: argparse.Namespace) -> DOSNetwork:
    """Train a network and write it beside the model."""
    with tqdm(total=args.epochs, desc=target, unit="epoch", disable=None) as bar:

        def show(epoch: int, train: float, error: float) -> None:
            bar.update()
            bar.set_postfix(train=f"{train**0.5:.4f}", validation=f"{error**0.5:.4f}")

        module, _ = train_network(
            data["train"],
            data["validation"],
            target,
            model.grid.step,
            max_epochs=args.epochs,
            seed=args.seed,
            report=show,
        )
    network = Network(module, model.grid, target, model=model.info.fingerprint)
    network.save(network_path(beside, target))
    return module


def read_parts(paths: list[Path], model: DOSModel, gaps: bool) -> dict[str, list[Reference]]:
    """The references of each part of the split.

    :raises SettingError: if a part is empty, or there are no eigenvalues to read a gap off
    """
    parts: dict[str, list[Reference]] = {name: [] for name in PARTS}
    for path in paths:
        print(f"reading {path}", flush=True)
        for number, reference in enumerate(read_references(path, model)):
            if gaps and not np.isfinite(reference.gap_eV):
                raise SettingError(
                    f"{path}: structure {number} has no eigenvalues, of which the gap is; write them to its info, or leave gap out of --only"
                )
            parts[split_of(reference.atoms)].append(reference)
    print(", ".join(f"{len(part)} {name}" for name, part in parts.items()), flush=True)
    if not all(parts.values()):
        raise SettingError(
            f"a part of the split is empty ({ {name: len(part) for name, part in parts.items()} }); give more data, or divide it by split.py"
        )
    return parts


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", help="a shipped model or a .pt file with an ensemble")
    parser.add_argument("dataset", type=Path, nargs="+", help="structures with eigenvalues and kweights in their info")
    parser.add_argument("-o", "--output", type=Path, help="folder (default: that of the model)")
    parser.add_argument("--only", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--epochs", type=int, default=300, help="at most")
    parser.add_argument("--no-training", action="store_true", help="evaluate the networks next to the model")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"got --epochs {args.epochs}, expected 1 or more")
    print(f"loading {args.model}", flush=True)
    model = DOSModel.load(args.model, "cpu")
    path = find_model(args.model)
    beside = path if args.output is None else args.output / path.name
    beside.parent.mkdir(parents=True, exist_ok=True)
    ready = {
        target: Network.load(network_path(beside, target), model.grid, target).module
        for target in (args.only if args.no_training else ())
    }
    parts = read_parts(args.dataset, model, "gap" in args.only)
    data = {name: collect(model, parts[name]) for name in ("test", "validation", "train")}
    report: dict[str, dict[str, float]] = {}
    for target in args.only:
        module = ready[target] if args.no_training else trained(model, data, target, beside, args)
        report[target] = {}
        for name in ("train", "validation", "test"):
            found = (
                predict(module, data[name]).clamp(min=0.0) if target != "fermi_level" else predict(module, data[name])
            )
            error = (found - data[name].targets[target]).numpy()
            report[target] |= {
                f"{name}_mae": float(np.abs(error).mean()),
                f"{name}_rmse": float(np.sqrt((error**2).mean())),
            }
        error = (data["test"].raw[target] - data["test"].targets[target]).numpy()
        report[target] |= {"test_mae_of_raw_dos": float(np.abs(error).mean())}
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in report[target].items())
        print(f"{network_path(beside, target)}: {numbers} {TARGETS[target]}{'/atom' if 'dos' in target else ''}")
    if args.output is not None:
        with whole(args.output / "networks.json") as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
