"""Model files to what a :class:`~petdos_md.models.model.DOSModel` is made of: with a separate readout, or direct.

>>> loaded = load_path("almgsi-lda")                                          # doctest: +SKIP
>>> loaded.info.kind, loaded.outputs                                          # doctest: +SKIP
('separated', ('petdos::features',))
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from metatomic.torch import AtomisticModel

from ..base.errors import ModelError
from ..base.grid import EnergyGrid
from ..base.sample import ModelInfo
from .evaluator import Evaluator
from .files import choose_device, display_path, dos_output, find_model, load_file, readout_path
from .output_names import CUTOFF_SUM_OUTPUT, FEATURES_OUTPUT, LAST_LAYER_OUTPUT
from .readout import Readout

METADATA_KEY = "petdos"
"""Where a model with separate readout describes itself, in the ``extra`` metadata of metatomic."""
PET_MAD_GRID = EnergyGrid(-159.6456, 0.05, 4806)
"""Energies of PET-MAD-DOS (10.1039/D5DD00557D), which its files do not contain."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """The parts of a model.

    :param outputs: what the evaluator is asked for
    """

    evaluator: Evaluator
    info: ModelInfo
    readout: Readout
    outputs: tuple[str, ...]


def load_path(
    path: str | Path,
    device: str | torch.device | None = None,
    grid: EnergyGrid | None = None,
    electrons: Mapping[str, float] | None = None,
    max_memory_GB: float | None = None,
) -> LoadedModel:
    """Load a file; arguments as of :meth:`petdos_md.models.model.DOSModel.load`.

    :raises ModelError: if there is no such model, it cannot be read, or its parts do not belong together
    """
    path = find_model(path)
    module = load_file(path)
    record = json.loads(module.metadata().extra.get(METADATA_KEY, "null"))
    if record is None:
        return load_direct(module, path, grid, electrons, device, max_memory_GB=max_memory_GB)
    readout = Readout.load(readout_path(path))
    if readout.fingerprint != record["fingerprint"]:
        raise ModelError(
            f"{readout_path(path)}: belongs to another model than {path.name}; keep the two files of one `petdos export` together"
        )
    if grid is not None and grid != readout.grid:
        raise ModelError(f"{path}: has the grid {readout.grid}, not {grid}; leave out grid=")
    info = ModelInfo(
        name=record["name"],
        fingerprint=record["fingerprint"],
        grid=readout.grid,
        kind="separated",
        n_features=readout.n_features,
        n_members=readout.n_members,
        electrons={**record["electrons"], **(electrons or {})},
        path=display_path(path),
        dtype=module.capabilities().dtype,
    )
    capabilities = module.capabilities()
    outputs = (FEATURES_OUTPUT,) if FEATURES_OUTPUT in capabilities.outputs else (LAST_LAYER_OUTPUT, CUTOFF_SUM_OUTPUT)
    evaluator = Evaluator(module, choose_device(device, capabilities.supported_devices), max_memory_GB)
    return LoadedModel(evaluator, info, readout, outputs)


def load_direct(
    module: AtomisticModel,
    path: Path | None = None,
    grid: EnergyGrid | None = None,
    electrons: Mapping[str, float] | None = None,
    device: str | torch.device | None = None,
    target: str | None = None,
    max_memory_GB: float | None = None,
) -> LoadedModel:
    """A metatomic model that is asked for its DOS.

    :param path: where it was read from, None for a model in memory
    :param target: name of the DOS output, needed if there are several
    :raises ModelError: if it has no DOS output, or the energies of the DOS are not known
    :raises SettingError: if a memory is given and the model does not say what it takes
    """
    name = "the model in memory" if path is None else str(path)
    capabilities = module.capabilities()
    target = target or dos_output(list(capabilities.outputs), name)
    last_layer = f"mtt::aux::{target.removeprefix('mtt::')}_last_layer_features"
    outputs = (target, last_layer) if last_layer in capabilities.outputs else (target,)
    evaluator = Evaluator(module, choose_device(device, capabilities.supported_devices), max_memory_GB)
    atom = Atoms(numbers=evaluator.atomic_types[:1])
    n_channels, *others = (evaluator.rows([atom], (output,)).shape[1] for output in outputs)
    grid = _grid(grid, n_channels, name)
    n_last_layer = others[0] if others else 0
    fingerprint = _fingerprint(module, path, grid)
    deviations = _deviations(module, target, grid, n_last_layer)
    readout = Readout.for_direct(grid, deviations, n_last_layer, fingerprint)
    info = ModelInfo(
        name=path.stem if path else "model",
        fingerprint=fingerprint,
        grid=grid,
        kind="direct",
        n_features=readout.n_features,
        n_members=readout.n_members,
        electrons=dict(electrons or {}),
        path=display_path(path) if path else "",
        dtype=capabilities.dtype,
    )
    logger.info(
        "%s has no separate readout: it is asked for %s; `petdos export` of its checkpoint is faster", name, target
    )
    return LoadedModel(evaluator, info, readout, outputs)


def _grid(grid: EnergyGrid | None, n_channels: int, name: str) -> EnergyGrid:
    if grid is None and n_channels == PET_MAD_GRID.n:
        return PET_MAD_GRID
    if grid is None or grid.n != n_channels:
        raise ModelError(
            f"{name}: its DOS has {n_channels} channels and the file does not say at which energies; give "
            f"grid=EnergyGrid(start, step, {n_channels})" + (f", got {grid.n} points" if grid else "")
        )
    return grid


def _deviations(module: Any, target: str, grid: EnergyGrid, n_last_layer: int) -> torch.Tensor | None:
    """Weights of the members less their mean, ``(n_members, n_channels, n_last_layer)``."""
    for key, parameter in module.named_parameters():
        if n_last_layer and key.endswith(f"llpr_ensemble_layers.{target}.weight"):
            members = parameter.detach().cpu().reshape(-1, grid.n, n_last_layer)
            return members - members.mean(dim=0)
    return None


def _fingerprint(module: Any, path: Path | None, grid: EnergyGrid) -> str:
    digest = hashlib.sha256(repr(grid).encode())
    if path is not None:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    else:
        for key, parameter in sorted(module.named_parameters()):
            digest.update(key.encode() + parameter.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
