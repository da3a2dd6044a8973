"""The network of a model with another readout beside it: another ensemble (``petdos calibrate``), or another last layer (``petdos refine``).

Features are those of the model that it comes from, so that traces of that model can be analyzed with the new one.

>>> source, model = open_source("model.pt", Path("new.pt"), electrons=None)         # doctest: +SKIP
>>> write_with_readout(source, Path("new.pt"), NewReadout(weights, deviations, rigidity), model.readout)      # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata

from ..base.errors import ModelError, SettingError
from ..physics.networks import TARGETS, network_path
from .export import beside
from .files import find_model, load_file, readout_path
from .loading import METADATA_KEY
from .model import DOSModel
from .readout import Readout
from .rigidity import Rigidity


@dataclass(frozen=True)
class NewReadout:
    """What changes.

    :param weights: A, ``(n_channels, n_features)``; None if the DOS stays what it was
    :param deviations: of the members from their mean, ``(n_members, n_channels, n_last_layer)``; None if there is no ensemble
    :param rigidity: of the training set
    """

    weights: torch.Tensor | None
    deviations: torch.Tensor | None
    rigidity: Rigidity | None


def open_source(
    model: str | os.PathLike[str], output: Path, electrons: dict[str, float] | None
) -> tuple[Path, DOSModel]:
    """File and model, on the CPU, of which a new readout is to be written to a file.

    :raises ModelError: if the model has no separate readout, or the output does not end in ``.pt``
    :raises SettingError: if the output is the model itself, or exists
    """
    source = find_model(os.fspath(model))
    loaded = DOSModel.load(source, "cpu", electrons=electrons)
    if loaded.info.kind != "separated":
        raise ModelError(
            f"{source}: has no separate readout, so it cannot be replaced; run `petdos export` on its checkpoint"
        )
    if output.suffix != ".pt":
        raise ModelError(f"{output}: the name of a model must end in .pt")
    if output.resolve() == source.resolve():
        raise SettingError(f"{output}: is the model itself; give another -o")
    if output.exists():
        raise SettingError(f"{output}: exists already; give another output, or remove it")
    return source, loaded


def write_with_readout(source: Path, output: Path, new: NewReadout, old: Readout) -> None:
    """Write the backbone of a model with a new readout beside it; networks that read levels come along if the DOS stays what it was.

    :param source: the model, ``.pt``
    :param old: its readout
    """
    fingerprint = _fingerprint(old, new)
    weights, refined_from = old.mean_weights, old.refined_from
    if new.weights is not None:
        weights, refined_from = new.weights, (old.fingerprint, *old.ancestors)
    if torch.equal(weights.to(torch.float32).to(weights.dtype), weights):
        weights = weights.to(torch.float32)
    ancestors = (old.fingerprint, *old.ancestors)
    n_members = 0 if new.deviations is None else len(new.deviations)
    with beside(output) as partial:
        _renamed(source, {"name": output.stem, "fingerprint": fingerprint, "n_members": n_members}).save(str(partial))
        Readout.save(
            readout_path(partial),
            old.grid,
            weights,
            new.deviations,
            fingerprint,
            ancestors,
            new.rigidity,
            refined_from,
        )
        # safetensors makes files that only their owner may read.
        shutil.copymode(partial, readout_path(partial))
        os.replace(readout_path(partial), readout_path(output))
        os.replace(partial, output)
    for target in TARGETS:
        network = network_path(output, target)
        if new.weights is None and network_path(source, target).is_file():
            shutil.copyfile(network_path(source, target), network)


def _fingerprint(old: Readout, new: NewReadout) -> str:
    digest = hashlib.sha256(old.fingerprint.encode())
    if new.weights is not None:
        digest.update(new.weights.contiguous().numpy().tobytes())
    for member in () if new.deviations is None else new.deviations:
        digest.update(member.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _renamed(source: Path, changes: dict[str, str | int]) -> AtomisticModel:
    """The backbone, with what its metadata say of the readout.

    :param changes: in the record of the metadata
    """
    stored = load_file(source)
    metadata = stored.metadata()
    record = {**json.loads(metadata.extra[METADATA_KEY]), **changes}
    renamed = ModelMetadata(
        name=record["name"],
        description=metadata.description,
        authors=list(metadata.authors),
        references=dict(metadata.references),
        extra={**metadata.extra, METADATA_KEY: json.dumps(record)},
    )
    old = stored.capabilities()
    capabilities = ModelCapabilities(
        # metatomic renamed this one and warns of the old name whenever a file is loaded.
        outputs={name: value for name, value in old.outputs.items() if name != "features"},
        atomic_types=old.atomic_types,
        interaction_range=old.interaction_range,
        length_unit=old.length_unit,
        supported_devices=old.supported_devices,
        dtype=old.dtype,
    )
    return AtomisticModel(stored.module, renamed, capabilities)
