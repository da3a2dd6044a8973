"""Train the networks that read Fermi level, band gap and DOS at the Fermi level off predictions of a model.

    python networks.py almgsi-lda data/almgsi-lda.xyz.xz                  # minutes; writes beside the model
    python networks.py MODEL.pt DATASET -o FOLDER --only fermi_level

Section 4.5 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D): mean squared error, Adam with a learning rate of 1e-4 that rises
over 100 epochs, batches of 16, the weights of the best validation epoch, end after 50 epochs without a better one. Small data sets need more
than the article: inputs are random members of the ensemble (the networks will read members, too), shifted along the
axis by up to half an eV (Fermi level and axis move together). The split is that of ``train.py`` (``split.py``).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from petdos_md import DOSModel, thermo
from petdos_md.metrics import align
from petdos_md.model_files import find_model
from petdos_md.networks import TARGETS, DOSNetwork, Network, network_path
from petdos_md.references import Reference, read_references

sys.path.insert(0, str(Path(__file__).resolve().parent))
from split import split_of

MAX_SHIFT = 200


@dataclass
class Data:
    """Members of the prediction per atom, ``(n, n_members, n_channels)`` (the mean first), and what is to be read off them.

    ``targets`` as a network counts: Fermi level from the first channel (eV), gap (eV), DOS at the Fermi level (states/eV/atom)
    """

    dos: torch.Tensor
    targets: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.dos)


def collect(model: DOSModel, references: list[Reference]) -> Data:
    """Predictions and targets; the target moves onto the axis of each prediction first."""
    grid, inputs = model.grid, []
    targets: dict[str, list[float]] = {name: [] for name in TARGETS}
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
    dos = torch.tensor(np.array(inputs), dtype=torch.float32)
    return Data(dos, {name: torch.tensor(values, dtype=torch.float32) for name, values in targets.items()})


def train_network(
    train: Data,
    validation: Data,
    target: str,
    step_eV: float,
    *,
    learning_rate: float = 1e-4,
    warmup: int = 100,
    patience: int = 50,
    max_epochs: int = 1000,
    batch: int = 16,
    max_shift_eV: float = 0.5,
    seed: int = 0,
    tell: Callable[[int, float, float], None] | None = None,
) -> tuple[DOSNetwork, float]:
    """Train one network; returns it with the mean squared error of the validation set.

    :param tell: called with epoch, training and validation error
    """
    torch.manual_seed(seed)
    module = DOSNetwork(train.dos.shape[-1])
    with torch.no_grad():
        # It begins with the mean of the targets: a level of tens of eV would take the first hundred epochs.
        module.fc2.bias.fill_(float(train.targets[target].mean()))
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: min(1.0, (epoch + 1) / max(1, warmup)))
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
        if tell is not None:
            tell(epoch, total, error)
        waited += 1
        if error < best:
            best, kept, waited = error, copy.deepcopy(module.state_dict()), 0
        if waited > patience and epoch >= warmup:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a shipped model or a .pt file with an ensemble")
    parser.add_argument("dataset", type=Path, help="structures with eigenvalues and kweights in their info")
    parser.add_argument("-o", "--output", type=Path, help="folder (default: that of the model)")
    parser.add_argument("--only", choices=TARGETS, nargs="+", default=list(TARGETS))
    parser.add_argument("--epochs", type=int, default=1000, help="at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = DOSModel.load(args.model, "cpu")
    path = find_model(args.model)
    beside = path if args.output is None else args.output / path.name
    references = read_references(args.dataset, model)
    data = {
        name: collect(model, [r for r in references if split_of(int(r.atoms.info["index"])) == name])
        for name in ("test", "validation", "train")
    }
    report: dict[str, dict[str, float]] = {}
    for target in args.only:
        with tqdm(total=args.epochs, desc=target, unit="epoch", disable=None) as bar:

            def tell(epoch: int, train: float, error: float, bar: tqdm = bar) -> None:
                bar.update()
                bar.set_postfix(train=f"{train**0.5:.4f}", validation=f"{error**0.5:.4f}")

            module, _ = train_network(
                data["train"],
                data["validation"],
                target,
                model.grid.step,
                max_epochs=args.epochs,
                seed=args.seed,
                tell=tell,
            )
        network = Network(module, model.grid, target, model=model.info.fingerprint)
        beside.parent.mkdir(parents=True, exist_ok=True)
        network.save(network_path(beside, target))
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
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.4f}" for key, value in report[target].items())
        print(f"{network_path(beside, target)}: {numbers} {TARGETS[target]}{'/atom' if 'dos' in target else ''}")
    if args.output is not None:
        (args.output / "networks.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
