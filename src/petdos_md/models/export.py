"""Export a metatrain checkpoint: a backbone (``NAME.pt``) and a readout (``NAME.readout.safetensors``).

The backbone is the network without its last layer, evaluated slice by slice (:mod:`petdos_md.models.network`). It returns the last-layer
features of the whole structure and the sum of the cutoff function over edges; the readout, the last layer, makes the DOS and its ensemble
of them (:mod:`petdos_md.models.readout`).

>>> electrons = {"Al": 3, "Si": 4}                                                                              # doctest: +SKIP
>>> export_model("pet.ckpt", "model.pt", llpr="llpr.ckpt", grid_start=-20.0, electrons=electrons)               # doctest: +SKIP

Nothing is written unless the exported model equals the stock one on random structures.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from metatomic.torch import ModelMetadata

from ..base.errors import ModelError
from ..base.grid import EnergyGrid
from .checkpoints import (
    cholesky_of,
    energy_ensemble_of,
    last_layer_weights,
    load_networks,
    make_backbone,
    member_deviations,
)
from .comparison import TOLERANCE, compare_models
from .energy_ensemble import EnergyEnsemble, has_energy, learn_energy_ensemble
from .files import readout_path
from .loading import METADATA_KEY
from .model import DOSModel
from .output_names import CUTOFF_SUM_OUTPUT
from .readout import Readout
from .rigidity import Rigidity
from .training_set import learn_rigidity, store_rigidity


@dataclass(frozen=True)
class ExportOptions:
    """Keywords of :func:`export_model`.

    :param grid_start: first energy of the DOS (eV)
    :param grid_step: spacing (eV)
    :param electrons: valence electrons by chemical symbol, as in the pseudopotentials of the training data
    :param target: name of the DOS in the checkpoint
    :param name: for people; by default the output's stem
    :param description: one sentence for the model's metadata
    :param training: structures that the network was trained on; with them, the model knows when it is far from all of them
        (:mod:`petdos_md.models.rigidity`)
    :param validation: others, with energies: with both, a potential has an ensemble (:mod:`petdos_md.models.energy_ensemble`)
    """

    grid_start: float
    grid_step: float = 0.05
    electrons: dict[str, float] | None = field(default_factory=dict)
    target: str = "mtt::dos"
    name: str | None = None
    description: str = ""
    training: Sequence[Atoms] = ()
    validation: Sequence[Atoms] = ()


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
    checkpoint: str | Path, output: str | Path, *, llpr: str | Path | None = None, **options: Any
) -> ExportReport:
    """Export a PET checkpoint and, if there is one, its LLPR ensemble.

    :param checkpoint: of metatrain's ``pet``, or of ``llpr`` (then ``llpr`` may be left out)
    :param output: the backbone to write, ending in ``.pt``; the readout is written beside it
    :param llpr: checkpoint of metatrain's ``llpr`` that wraps the same network
    :param options: fields of :class:`ExportOptions`: ``grid_start`` (needed), ``grid_step, electrons, target, name, description,
        training, validation``
    :raises ModelError: if the checkpoint cannot be exported, or the exported model deviates from the stock one
    """
    chosen, output = ExportOptions(**options), Path(output)
    if output.suffix != ".pt":
        raise ModelError(f"{output}: the name of an exported model must end in .pt")
    pet, ensemble = load_networks(Path(checkpoint), None if llpr is None else Path(llpr), chosen.target)
    weights = last_layer_weights(pet, chosen.target)
    n_last_layer = int(pet.last_layer_feature_size)
    deviations = None if ensemble is None else member_deviations(ensemble, chosen.target, len(weights))
    grid = EnergyGrid(chosen.grid_start, chosen.grid_step, len(weights))
    electrons = _check_electrons(chosen.electrons or {}, pet.dataset_info.atomic_types)
    backbone = make_backbone(pet, chosen.target)
    parts = _Parts(backbone, weights, deviations, fingerprint(backbone, weights, deviations, grid, electrons))
    record = {
        "schema": 1,
        "name": chosen.name or output.stem,
        "fingerprint": parts.fingerprint,
        "grid": grid.to_dict(),
        "n_last_layer": n_last_layer,
        "n_members": 0 if deviations is None else int(deviations.shape[0]),
        "electrons": electrons,
    }
    with beside(output) as partial:
        _write(partial, parts, grid, record, chosen.description)
        exported = DOSModel.load(partial, device="cpu")
        worst = compare_models(exported, pet if ensemble is None else ensemble, chosen.target)
        if not max(worst) <= TOLERANCE[exported.dtype]:
            raise ModelError(
                f"{checkpoint}: the exported model deviates from the stock one by {worst[0]:.1e} (DOS) and {worst[1]:.1e} (members) relative, "
                f"more than {TOLERANCE[exported.dtype]:.0e}; this network is not linear in its last-layer features, use `mtt export` and load "
                "the result directly"
            )
        known = _rigidity(exported, ensemble, chosen)
        if known is not None:
            store_rigidity(partial, known)
        energies = _energy_ensemble(exported, ensemble, chosen)
        if energies is not None:
            write_backbone(partial, backbone, exported.evaluator.module.metadata(), energies)
        os.replace(readout_path(partial), readout_path(output))
        os.replace(partial, output)
    return ExportReport(output, readout_path(output), n_last_layer, grid.n, exported.n_members, *worst)


def _rigidity(exported: DOSModel, ensemble: Any, chosen: ExportOptions) -> Rigidity | None:
    """Of the training set; of an ensemble, whose training set is not there, the covariance alone."""
    if len(chosen.training):
        return learn_rigidity(exported, chosen.training)
    cholesky = None if ensemble is None else cholesky_of(ensemble, chosen.target)
    return None if cholesky is None else Rigidity(cholesky)


def _energy_ensemble(exported: DOSModel, ensemble: Any, chosen: ExportOptions) -> EnergyEnsemble | None:
    """From training and validation structures, else that of the checkpoint."""
    if not exported.has_energy:
        return None
    validation = [atoms for atoms in chosen.validation if has_energy(atoms)]
    if len(chosen.training) and validation:
        return learn_energy_ensemble(exported, chosen.training, validation)
    return None if ensemble is None else energy_ensemble_of(ensemble)


@dataclass(frozen=True)
class _Parts:
    """What goes into the two files."""

    backbone: Any
    weights: torch.Tensor
    deviations: torch.Tensor | None
    fingerprint: str


def _write(path: Path, parts: _Parts, grid: EnergyGrid, record: dict[str, Any], description: str) -> None:
    metadata = ModelMetadata(name=record["name"], description=description, extra={METADATA_KEY: json.dumps(record)})
    write_backbone(path, parts.backbone, metadata)
    Readout.save(readout_path(path), grid, parts.weights, parts.deviations, parts.fingerprint)
    # safetensors makes files that only their owner may read.
    shutil.copymode(path, readout_path(path))


def write_backbone(path: Path, backbone: Any, metadata: ModelMetadata, energies: EnergyEnsemble | None = None) -> None:
    """The network of :func:`petdos_md.models.checkpoints.make_backbone` as a metatomic model.

    :param energies: ensemble of its energy head
    """
    from .network import SlicedPET

    SlicedPET(backbone, readout_of=CUTOFF_SUM_OUTPUT, ensemble=energies).export(metadata).save(str(path))


def fingerprint(backbone: Any, weights: torch.Tensor, deviations: torch.Tensor | None, *parts: Any) -> str:
    """SHA-256 of backbone, readout, ensemble, and of what is given besides (grid, electrons), hexadecimal."""
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


def _check_electrons(electrons: dict[str, float], atomic_types: list[int]) -> dict[str, float]:
    from ase.data import atomic_numbers, chemical_symbols

    for symbol, number in electrons.items():
        if symbol not in atomic_numbers or not number > 0:
            raise ModelError(
                f"electrons: {symbol}={number} is not a chemical symbol with a positive number, expected e.g. Al=3"
            )
    known = {chemical_symbols[n] for n in atomic_types}
    return {symbol: float(electrons[symbol]) for symbol in sorted(known & electrons.keys())}
