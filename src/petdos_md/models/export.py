"""Separate a metatrain checkpoint into a backbone (``NAME.pt``) and a readout (``NAME.readout.safetensors``).

The last layer of PET is linear, so it need not be evaluated for each atom and neighbor: the backbone returns the last-layer
features of the whole structure and the sum s of the cutoff function over edges, and the readout does the rest (see
:mod:`petdos_md.models.readout`). To get s through public calls alone, the backbone's own last layer has one channel: all weights zero, the
bias of the first edge readout one, the other biases zero. Other heads (energy) are copied as they are.

>>> electrons = {"Al": 3, "Si": 4}                                                                              # doctest: +SKIP
>>> export_model("pet.ckpt", "model.pt", llpr="llpr.ckpt", grid_start=-20.0, electrons=electrons)               # doctest: +SKIP

Nothing is written unless the model with separate readout equals the stock one on random structures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch

from ..base.errors import ModelError
from ..base.grid import EnergyGrid
from .files import readout_path
from .loading import CUTOFF_SUM_OUTPUT, METADATA_KEY
from .model import DOSModel
from .pointwise import replace_linear_layers
from .readout import Readout

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Largest accepted deviation of the separated from the stock DOS, relative to the largest value of the latter."""

_ABOUT_TRAINING = (
    # metatrain.utils.io, of checkpoints older than its version numbers: whether the upgrade worked is seen when models are compared.
    "trying to upgrade an old model checkpoint with unknown version",
    # metatrain.pet.model, of networks with long-range features: about training them further.
    "Training PET with the LongRangeFeaturizer initialized",
)

ROUNDING = 8
"""Machine epsilons of the sum of absolute terms by which members may differ in any case. Rigidities of nearly dependent features make
members whose large terms cancel: the stock evaluation then has no more correct digits either."""


@dataclass(frozen=True)
class ExportReport:
    """What :func:`export_model` did: files, sizes, and the largest relative deviations from the stock model."""

    backbone: Path
    readout: Path
    n_last_layer: int
    n_channels: int
    n_members: int
    dos_deviation: float
    ensemble_deviation: float


def export_model(
    checkpoint: str | Path,
    output: str | Path,
    *,
    llpr: str | Path | None = None,
    grid_start: float,
    grid_step: float = 0.05,
    electrons: dict[str, float] | None = None,
    target: str = "mtt::dos",
    name: str | None = None,
    description: str = "",
) -> ExportReport:
    """Separate a PET checkpoint and, if there is one, its LLPR ensemble.

    :param checkpoint: of metatrain's ``pet``, or of ``llpr`` (then ``llpr`` may be left out)
    :param output: the backbone to write, ending in ``.pt``; the readout is written beside it
    :param llpr: checkpoint of metatrain's ``llpr`` that wraps the same network
    :param grid_start: first energy of the DOS (eV)
    :param grid_step: spacing (eV)
    :param electrons: valence electrons by chemical symbol, as in the pseudopotentials of the training data
    :param target: name of the DOS in the checkpoint
    :param name: for people; by default the output's stem
    :param description: one sentence for the model's metadata
    :raises ModelError: if the checkpoint cannot be separated, or the model with separate readout deviates from the stock one
    """
    output = Path(output)
    if output.suffix != ".pt":
        raise ModelError(f"{output}: the name of an exported model must end in .pt")
    pet, ensemble = _load(Path(checkpoint), None if llpr is None else Path(llpr), target)
    dtype = next(pet.parameters()).dtype
    weights = _separate_last_layer(pet, target)
    n_last_layer = int(pet.last_layer_feature_size)
    deviations = None
    if ensemble is not None:
        members = ensemble.llpr_ensemble_layers[target].weight.detach().reshape(-1, len(weights), n_last_layer)
        deviations = members - members.mean(dim=0)
    grid = EnergyGrid(grid_start, grid_step, len(weights))
    table = _check_electrons(electrons or {}, pet.dataset_info.atomic_types)

    backbone = _make_backbone(pet, target)
    fingerprint = _fingerprint(backbone, weights, deviations, grid, table)
    record: dict[str, Any] = {
        "schema": 1,
        "name": name or output.stem,
        "fingerprint": fingerprint,
        "grid": grid.to_dict(),
        "n_last_layer": n_last_layer,
        "n_members": 0 if deviations is None else int(deviations.shape[0]),
        "electrons": table,
    }
    from metatomic.torch import ModelMetadata

    metadata = ModelMetadata(name=record["name"], description=description, extra={METADATA_KEY: json.dumps(record)})
    with beside(output) as partial:
        backbone.export(metadata).save(str(partial))
        Readout.save(readout_path(partial), grid, weights, deviations, fingerprint)
        # safetensors makes files that only their owner may read.
        shutil.copymode(partial, readout_path(partial))
        separated = DOSModel.load(partial, device="cpu")
        stock = ensemble if ensemble is not None else pet
        worst_dos, worst_members = _compare(separated, stock, target, dtype)
        if not max(worst_dos, worst_members) <= TOLERANCE[dtype]:
            raise ModelError(
                f"{checkpoint}: the model with separate readout deviates from the stock one by {worst_dos:.1e} (DOS) and {worst_members:.1e} "
                f"(members) relative, more than {TOLERANCE[dtype]:.0e}; this network is not linear in its last-layer features, "
                "use `mtt export` and load the result directly"
            )
        os.replace(readout_path(partial), readout_path(output))
        os.replace(partial, output)
    return ExportReport(
        output, readout_path(output), n_last_layer, grid.n, record["n_members"], worst_dos, worst_members
    )  # fmt: skip


def _load(checkpoint: Path, llpr: Path | None, target: str) -> tuple[Any, Any]:
    """The PET model and the LLPR model that wraps it, or None."""
    model = _load_checkpoint(checkpoint)
    ensemble = None
    if _architecture(model) == "llpr":
        if llpr is not None:
            raise ModelError(
                f"{checkpoint}: is an LLPR checkpoint already, leave out --llpr or give the PET checkpoint first"
            )
        model, ensemble = model.model, model
    elif llpr is not None:
        ensemble = _load_checkpoint(llpr)
        if _architecture(ensemble) != "llpr":
            raise ModelError(f"{llpr}: expected a checkpoint of metatrain's llpr, got {_architecture(ensemble)}")
        own, wrapped = model.state_dict(), ensemble.model.state_dict()
        if own.keys() != wrapped.keys() or any(not torch.equal(own[key], wrapped[key]) for key in own):
            raise ModelError(
                f"{llpr}: wraps another network than {checkpoint}; give the LLPR checkpoint alone to use its own"
            )
    if _architecture(model) != "pet":
        raise ModelError(
            f"{checkpoint}: architecture is {_architecture(model)!r}, only PET can be separated; use `mtt export` instead"
        )
    if target not in model.dataset_info.targets:
        raise ModelError(
            f"{checkpoint}: has no target {target!r}, only {', '.join(model.dataset_info.targets)}; give --target"
        )
    if ensemble is not None and target not in ensemble.llpr_ensemble_layers:
        raise ModelError(f"{llpr or checkpoint}: has no ensemble of {target!r}; train with num_ensemble_members for it")
    return model.eval(), ensemble if ensemble is None else ensemble.eval()


def _load_checkpoint(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; give the path of a .ckpt that `mtt train` wrote, or pet-mad-dos")
    try:
        from metatrain.utils.io import is_exported_file, load_model
    except ImportError:
        raise ModelError("metatrain reads checkpoints and is not installed: pip install 'petdos-md[train]'") from None
    try:
        if is_exported_file(str(path)):
            raise ModelError(f"{path}: is an exported model already, expected a metatrain checkpoint (.ckpt)")
        with warnings.catch_warnings():
            for message in _ABOUT_TRAINING:
                warnings.filterwarnings("ignore", message)
            return load_model(path)
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ModelError(
            f"{path}: not a readable metatrain checkpoint ({reason}); give a .ckpt that `mtt train` wrote"
        ) from error


def _architecture(model: Any) -> str:
    return str(model.get_checkpoint()["architecture_name"])


def _separate_last_layer(pet: Any, target: str) -> torch.Tensor:
    """A, ``(n_channels, n_last_layer + 2)``: weights in the order of the features, then the node and the edge bias."""
    from metatomic.torch import ModelOutput, systems_to_torch

    state = pet.state_dict()
    names = pet.last_layer_parameter_names[target]
    for parameter in names:
        if parameter not in state or not ("node_last_layers" in parameter or "edge_last_layers" in parameter):
            raise ModelError(
                f"last layer {parameter!r} is not laid out as in metatrain 2026.4; install that version to export"
            )
    biases = [n.removesuffix("weight") + "bias" for n in names]
    node = sum(state[b].double() for b in biases if "node_last_layers" in b)
    edge = sum(state[b].double() for b in biases if "edge_last_layers" in b)
    columns = [state[n].double() for n in names] + [torch.as_tensor(node)[:, None], torch.as_tensor(edge)[:, None]]
    weights = torch.cat(columns, dim=1)
    dtype = next(pet.parameters()).dtype
    # Evaluation multiplies by the scales and adds the baseline: one goes into the weights, the other must be absent.
    for number in pet.dataset_info.atomic_types:
        system = systems_to_torch(ase.Atoms(numbers=[number]), dtype=dtype)
        request = {target: ModelOutput(sample_kind="system")}
        for model in pet.additive_models:
            if target in model.outputs and model([system], request)[target].block().values.abs().max() > 0:
                raise ModelError(
                    f"{target}: element {number} has a composition baseline, which cannot be separated; "
                    f"train with `atomic_baseline: {{{target}: 0.0}}`"
                )
    scales = pet.scaler.get_scales([system], request)[target].block().values.reshape(-1, 1).double()
    return (weights * scales).to(dtype)


def _make_backbone(pet: Any, target: str) -> Any:
    """A copy of the network whose DOS head has the one channel that counts edges."""
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_generic_target_info
    from metatrain.utils.io import model_from_checkpoint

    one = {
        "quantity": "",
        "unit": "",
        "type": "scalar",
        "num_subtargets": 1,
        "sample_kind": "system",
        "per_atom": False,
    }
    one["description"] = "sum of the cutoff function over edges"
    old = pet.dataset_info
    targets = {k: v for k, v in old.targets.items() if k != target}
    targets[CUTOFF_SUM_OUTPUT] = get_generic_target_info(CUTOFF_SUM_OUTPUT, one)
    info = DatasetInfo(old.length_unit, list(old.atomic_types), targets)
    fresh = type(pet)(pet.hypers, info).to(next(pet.parameters()).dtype)

    state = {name.replace(target, CUTOFF_SUM_OUTPUT): value for name, value in pet.state_dict().items()}
    changed = 0
    for name, value in fresh.state_dict().items():
        if CUTOFF_SUM_OUTPUT not in name or "_heads." in name:
            continue
        state[name] = value
        if "_last_layers." in name:
            is_counter = "edge_last_layers" in name and ".0." in name and name.endswith("bias")
            state[name] = torch.full_like(value, 1.0 if is_counter else 0.0)
            changed += is_counter
    if changed != 1:
        raise ModelError("the last layers are not laid out as in metatrain 2026.4; install that version to export")
    # metatrain rebuilds adapters (LoRA) from this entry before it loads the weights.
    checkpoint = pet.get_checkpoint()
    if pet.finetune_config:
        state["finetune_config"] = pet.finetune_config
    checkpoint["model_data"] = {"model_hypers": pet.hypers, "dataset_info": info}
    checkpoint["best_model_state_dict"] = state
    checkpoint["best_epoch"] = checkpoint.get("best_epoch")
    backbone = model_from_checkpoint(checkpoint, context="export").eval()
    replace_linear_layers(backbone)
    return backbone


def _check_electrons(electrons: dict[str, float], atomic_types: list[int]) -> dict[str, float]:
    from ase.data import atomic_numbers, chemical_symbols

    for symbol, number in electrons.items():
        if symbol not in atomic_numbers or not number > 0:
            raise ModelError(
                f"electrons: {symbol}={number} is not a chemical symbol with a positive number, expected e.g. Al=3"
            )
    known = {chemical_symbols[n] for n in atomic_types}
    return {symbol: float(electrons[symbol]) for symbol in sorted(known & electrons.keys())}


def _fingerprint(backbone: Any, weights: torch.Tensor, deviations: torch.Tensor | None, *parts: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(value.detach().contiguous().cpu().numpy().tobytes())
    digest.update(weights.numpy().tobytes())
    if deviations is not None:
        for member in deviations:
            digest.update(member.contiguous().numpy().tobytes())
    digest.update(repr([p.to_dict() if isinstance(p, EnergyGrid) else sorted(p.items()) for p in parts]).encode())
    return digest.hexdigest()


@contextmanager
def beside(output: Path) -> Iterator[Path]:
    """A path in a temporary folder beside ``output``, so that the final renames are atomic."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".petdos-export-") as folder:
        yield Path(folder) / output.name


def random_structures(symbols: list[str], cutoff: float, seed: int = 0) -> dict[str, ase.Atoms]:
    """Structures of every kind of boundary: what a model with separate readout is compared on."""
    rng = np.random.default_rng(seed)

    def cloud(n: int, box: np.ndarray, pbc: Any) -> ase.Atoms:
        # A jittered lattice: random, but without atoms on top of each other.
        per_side = int(np.ceil(n ** (1 / 3)))
        sites = np.stack(np.meshgrid(*[np.arange(per_side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:n]
        scaled = (sites + rng.uniform(-0.15, 0.15, (n, 3))) / per_side
        return ase.Atoms(rng.choice(symbols, n), cell=box, scaled_positions=scaled, pbc=pbc)

    small = 0.75 * cutoff
    triclinic = np.array([[small, 0, 0], [0.4 * small, 0.9 * small, 0], [-0.3 * small, 0.2 * small, small]])
    return {
        "periodic": cloud(20, np.eye(3) * 7.5, True),
        "triclinic, smaller than the cutoff": cloud(3, triclinic, True),
        "slab": cloud(18, np.diag([7.0, 7.0, 7.0]), (True, True, False)),
        "cluster": cloud(9, np.eye(3) * 6.0, False),
        "one atom": ase.Atoms([symbols[0]]),
        "two atoms far apart": ase.Atoms([symbols[0], symbols[-1]], positions=[[0, 0, 0], [5 * cutoff, 0, 0]]),
    }


def _compare(separated: DOSModel, stock: Any, target: str, dtype: torch.dtype) -> tuple[float, float]:
    """Largest relative deviations of DOS and members from the stock model, over all kinds of structures.

    Those of members are relative to their largest value, or to what makes :data:`ROUNDING` epsilons of their terms the tolerance.
    """
    reference = DOSModel.from_atomistic(stock.export(), separated.grid, target=target)
    symbols = [ase.data.chemical_symbols[n] for n in separated.atomic_types]
    worst_dos = worst_members = 0.0
    for atoms in random_structures(symbols, separated.cutoff).values():
        expected = reference.stock_dos(atoms)
        difference = np.abs(separated.dos(atoms) - expected).max()
        worst_dos = max(worst_dos, float(difference / np.abs(expected).max()))
        if separated.n_members:
            expected = reference.stock_members(atoms)
            sample = separated.evaluate(atoms)
            difference = float(np.abs(separated.dos_members(sample) - expected).max())
            rounding = ROUNDING * torch.finfo(dtype).eps * separated.readout.largest_terms(sample.features)
            largest = max(float(np.abs(expected).max()), rounding / TOLERANCE[dtype])
            worst_members = max(worst_members, difference / largest)
    return worst_dos, worst_members
