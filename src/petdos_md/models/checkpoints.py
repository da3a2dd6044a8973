"""What a metatrain checkpoint is made of: the network, its ensemble, its last layer, and the backbone that is left without it.

>>> pet, ensemble = load_networks(Path("pet.ckpt"), Path("llpr.ckpt"), "mtt::dos")        # doctest: +SKIP
>>> weights, backbone = last_layer_weights(pet, "mtt::dos"), make_backbone(pet, "mtt::dos")   # doctest: +SKIP

The last layer of PET is linear, so it need not be evaluated for each atom and neighbor. To get the sum of the cutoff function over edges
from the network itself, the backbone's own last layer has one channel: all weights zero, the bias of the first edge readout one, the
other biases zero. Other heads (energy) stay as they are.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch

from ..base.errors import ModelError
from .energy_ensemble import EnergyEnsemble
from .output_names import CUTOFF_SUM_OUTPUT

_ABOUT_TRAINING = (
    # metatrain.utils.io, of checkpoints older than its version numbers: whether the upgrade worked is seen when models are compared.
    "trying to upgrade an old model checkpoint with unknown version",
    # metatrain.pet.model, of networks with long-range features: about training them further.
    "Training PET with the LongRangeFeaturizer initialized",
)


def load_networks(checkpoint: Path, llpr: Path | None, target: str) -> tuple[Any, Any]:
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
            f"{checkpoint}: architecture is {_architecture(model)!r}, only PET can be exported with a separate readout; use `mtt export` instead"
        )
    if target not in model.dataset_info.targets:
        raise ModelError(
            f"{checkpoint}: has no target {target!r}, only {', '.join(model.dataset_info.targets)}; give --target"
        )
    if ensemble is not None and target not in ensemble.llpr_ensemble_layers:
        raise ModelError(f"{llpr or checkpoint}: has no ensemble of {target!r}; train with num_ensemble_members for it")
    return model.eval(), ensemble if ensemble is None else ensemble.eval()


def last_layer_weights(pet: Any, target: str) -> torch.Tensor:
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
                    f"{target}: element {number} has a composition baseline, which has no place in a separate readout; "
                    f"train with `atomic_baseline: {{{target}: 0.0}}`"
                )
    scales = pet.scaler.get_scales([system], request)[target].block().values.reshape(-1, 1).double()
    return (weights * scales).to(dtype)


def member_deviations(ensemble: Any, target: str, n_channels: int) -> torch.Tensor:
    """Weights of the members of metatrain's LLPR less their mean, ``(n_members, n_channels, n_last_layer)``."""
    members = ensemble.llpr_ensemble_layers[target].weight.detach()
    members = members.reshape(-1, n_channels, members.shape[-1])
    return members - members.mean(dim=0)


def energy_ensemble_of(ensemble: Any) -> EnergyEnsemble | None:
    """That of metatrain's LLPR, if its covariance of the energy head was ever computed; without members if it has none."""
    cholesky = cholesky_of(ensemble, "energy")
    if cholesky is None:
        return None
    buffers = dict(ensemble.named_buffers())
    multiplier = float(buffers["multiplier_energy_uncertainty"])
    members = np.empty((0, len(cholesky)))
    if "energy" in ensemble.llpr_ensemble_layers:
        members = np.asarray(member_deviations(ensemble, "energy", 1)[:, 0].double())
    return EnergyEnsemble(multiplier * np.linalg.inv(cholesky).T, members)


def cholesky_of(ensemble: Any, target: str) -> np.ndarray | None:
    """Cholesky factor of the covariance of the features of metatrain's LLPR, ``(n_last_layer, n_last_layer)``; None if it was never computed."""
    name = "energy" if target == "energy" else f"mtt::aux::{target.removeprefix('mtt::')}"
    found = dict(ensemble.named_buffers()).get(f"cholesky_{name}_uncertainty")
    if found is None or not bool((found.diagonal() > 0).all()):
        return None
    return np.asarray(found.detach().cpu().double())


def make_backbone(pet: Any, target: str) -> Any:
    """A copy of metatrain's network whose DOS head has the one channel that counts edges."""
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
    return model_from_checkpoint(checkpoint, context="export").eval()


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
