"""Checkpoints with random weights, of any size, for tests, benchmarks and trying things out without training.

>>> from petdos_md.models.testing import SMALL, write_checkpoints
>>> pet, llpr = write_checkpoints("/tmp", SMALL, symbols=["Al", "Si"], n_channels=200, n_members=4)  # doctest: +SKIP

Needs metatrain (``pip install petdos-md[train]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols

SMALL: dict[str, Any] = {
    "cutoff": 4.5,
    "d_pet": 16,
    "d_head": 12,
    "d_node": 24,
    "d_feedforward": 16,
    "num_heads": 2,
    "num_attention_layers": 1,
    "num_gnn_layers": 2,
    "featurizer_type": "residual",
}
"""A network that runs in milliseconds, with two readout layers."""

PET_MAD_DOS_SIZE: dict[str, Any] = {
    "cutoff": 4.5,
    "d_pet": 256,
    "d_head": 256,
    "d_node": 256,
    "d_feedforward": 512,
    "num_heads": 8,
    "num_attention_layers": 2,
    "num_gnn_layers": 2,
    "normalization": "LayerNorm",
    "activation": "SiLU",
    "transformer_type": "PostLN",
    "featurizer_type": "residual",
}
"""The shape of PET-MAD-DOS (10.1039/D5DD00557D): 85 elements, 4806 channels and 128 members go with it."""

PET_MAD_SYMBOLS = [s for s in chemical_symbols[1:87] if s != "At"]
"""85 elements."""


def write_checkpoints(
    folder: str | Path,
    hypers: dict[str, Any],
    *,
    symbols: list[str],
    n_channels: int,
    n_members: int = 0,
    energy: bool = False,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Path, Path | None]:
    """Write a PET checkpoint with a DOS head and, if there are members, an LLPR checkpoint that wraps it.

    :param folder: where ``pet.ckpt`` and ``llpr.ckpt`` go
    :param hypers: model hyperparameters of metatrain's ``pet`` architecture that differ from its defaults
    :param symbols: chemical elements
    :param n_channels: energies of the DOS
    :param n_members: members of the ensemble
    :param energy: whether the network also has an energy head
    :param dtype: of all weights
    :param seed: of the random weights
    :return: paths of the two files, the second None without members
    """
    from metatrain.llpr import __model__ as LLPR
    from metatrain.pet import __model__ as PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info, get_generic_target_info

    folder = Path(folder)
    scalar = {"quantity": "", "unit": "", "description": "", "type": "scalar", "num_subtargets": n_channels}
    targets = {"mtt::dos": get_generic_target_info("mtt::dos", {**scalar, "sample_kind": "system", "per_atom": False})}
    if energy:
        targets["energy"] = get_energy_target_info(
            "energy", {"quantity": "energy", "unit": "eV", "description": ""}, add_position_gradients=True
        )
    info = DatasetInfo("angstrom", sorted(atomic_numbers[s] for s in symbols), targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pet = PET({**get_default_hypers("pet")["model"], **hypers}, info).to(dtype)
        pet_path = folder / "pet.ckpt"
        torch.save(pet.get_checkpoint(), pet_path)
        if not n_members:
            return pet_path, None
        llpr = LLPR({"num_ensemble_members": {"mtt::dos": n_members}}, info)
        llpr.set_wrapped_model(pet)
        llpr.to(dtype)
        with torch.no_grad():
            layer = llpr.llpr_ensemble_layers["mtt::dos"]
            layer.weight.normal_(std=0.05)
    llpr_path = folder / "llpr.ckpt"
    torch.save(llpr.get_checkpoint(), llpr_path)
    return pet_path, llpr_path
