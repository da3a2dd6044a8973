"""Small models with random weights: real networks of metatrain, exported by the real commands. They write, conftest.py keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import metatomic.torch  # noqa: F401  so that torch can read the metadata in checkpoints
import torch
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers

from petdos_md.models.checkpoints import load_networks, make_backbone
from petdos_md.models.export import export_model
from petdos_md.models.files import load_file, readout_path
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints
from petdos_md.models.training_set import learn_rigidity, store_rigidity

ELECTRONS = {"Al": 3, "Mg": 2, "Si": 4}
GRID_START = -12.0
N_CHANNELS = 400
N_MEMBERS = 5


def write_small_checkpoints(folder: Path) -> None:
    """``pet.ckpt`` with energy and DOS heads, and ``llpr.ckpt`` that wraps it."""
    write_checkpoints(folder, SMALL, symbols=list(ELECTRONS), n_channels=N_CHANNELS, n_members=N_MEMBERS, energy=True)


def write_model(path: Path, checkpoints: tuple[Path, Path]) -> None:
    """A model with separate readout."""
    export_model(checkpoints[0], path, llpr=checkpoints[1], grid_start=GRID_START, electrons=ELECTRONS)


def write_metal(path: Path, checkpoints: tuple[Path, Path], smooth: float | None = None) -> None:
    """A model whose DOS is that of a metal (a square root per atom) with a ripple that follows the structure."""
    changed = []
    for source in checkpoints:
        changed.append(path.parent / source.name)
        torch.save(metallic(torch.load(source, weights_only=False), smooth), changed[-1])
    write_model(path, (changed[0], changed[1]))


def write_double_model(path: Path) -> None:
    """In double precision with adaptive cutoffs: its halo must be wider than the reach of its messages."""
    hypers = {**SMALL, "num_neighbors_adaptive": 12.0}
    pet, llpr = write_checkpoints(
        path.parent, hypers, symbols=list(ELECTRONS), n_channels=N_CHANNELS, n_members=2, dtype=torch.float64
    )
    assert llpr is not None
    write_model(path, (pet, llpr))


def write_hot_metal(path: Path) -> None:
    """The metal in double precision, with an energy head: for finite differences of forces."""
    checkpoints = write_checkpoints(
        path.parent,
        SMALL,
        symbols=list(ELECTRONS),
        n_channels=N_CHANNELS,
        n_members=N_MEMBERS,
        energy=True,
        dtype=torch.float64,
    )
    assert checkpoints[1] is not None
    (path.parent / "hot").mkdir()
    write_metal(path.parent / "hot" / path.name, (checkpoints[0], checkpoints[1]), smooth=1.0)
    for file in (path.parent / "hot").glob(f"{path.stem}.*"):
        file.rename(path.parent / file.name)


def write_old_model(path: Path, target: Path) -> None:
    """The model of :func:`write_double_model` as it was exported before: metatrain's own network, with two outputs."""
    pet, _ = load_networks(path.parent / "pet.ckpt", None, "mtt::dos")
    make_backbone(pet, "mtt::dos").export(load_file(path).metadata()).save(str(target))
    shutil.copy(readout_path(path), readout_path(target))


def write_guarded(path: Path, metal_path: Path) -> None:
    """The model of a metal that knows its training set: aluminium as :func:`rattled_aluminium` makes it."""
    for source, target in ((metal_path, path), (readout_path(metal_path), readout_path(path))):
        shutil.copy(source, target)
    store_rigidity(path, learn_rigidity(DOSModel.load(path), [rattled_aluminium(seed) for seed in range(30)]))


def rattled_aluminium(seed: int, volume: float = 1.0) -> Atoms:
    """Eight atoms at a volume relative to that of the crystal; at half of it, they are far from those of the crystal."""
    atoms = bulk("Al", cubic=True, a=4.05 * volume ** (1 / 3)) * (2, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


def energy_only_model(path: Path) -> None:
    """A model of metatrain without a DOS."""
    from metatrain.pet import __model__ as PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    energy = get_energy_target_info("energy", {"quantity": "energy", "unit": "eV", "description": ""})
    pet = PET({**get_default_hypers("pet")["model"], **SMALL}, DatasetInfo("angstrom", [13], {"energy": energy}))
    pet.export().save(str(path))


def spoil_species(model: DOSModel, symbol: str) -> None:
    """Give a model NaN weights for one element."""
    known = model.atomic_types.index(atomic_numbers[symbol])
    with torch.no_grad():
        for name, parameter in model.evaluator.module.named_parameters():
            if "node_embedder" in name:
                parameter[known] = torch.nan


def metallic(checkpoint: dict, smooth: float | None = None) -> dict:
    """A checkpoint whose DOS is a square root per atom, with a small share of its own random DOS.

    :param smooth: in the place of that share, a wide bump of such a height, whose size follows the structure
    """
    energies = GRID_START + 0.05 * torch.arange(N_CHANNELS)
    inner = checkpoint.get("wrapped_model_checkpoint") or checkpoint
    for state in (inner["model_state_dict"], inner["best_model_state_dict"]):
        for name, value in state.items():
            if "_last_layers.mtt::dos" in name:
                if smooth is not None and name.endswith("weight"):
                    # The two dictionaries may share their tensors: a second time changes nothing.
                    bump = smooth * torch.exp(-0.5 * ((energies - 2.0) / 2.0) ** 2).to(value)
                    row = value[N_CHANNELS // 2] / torch.linalg.norm(value[N_CHANNELS // 2])
                    value.copy_(bump[:, None] * row)
                else:
                    value *= 0.001
            if "node_last_layers.mtt::dos.0" in name and name.endswith("bias"):
                value += 0.15 * (energies - GRID_START - 2.0).clamp(min=0.0).sqrt()
    for name, value in checkpoint["model_state_dict"].items():
        if "llpr_ensemble_layers" in name:
            value *= 0.01
    return checkpoint
