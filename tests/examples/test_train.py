"""Adapted models: checkpoints with low-rank adapters, as metatrain's fine-tuning writes them, and merged by the training recipe."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from metatrain.pet.modules.finetuning import apply_finetuning_strategy
from metatrain.utils.io import load_model

from petdos_md.models.comparison import random_structures
from petdos_md.models.export import export_model
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints

TRAINING = Path(__file__).parents[2] / "examples" / "training"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with adapters that do something, laid out as the trainer lays out its best model."""
    folder = tmp_path_factory.mktemp("lora")
    plain, _ = write_checkpoints(folder, SMALL, symbols=["Al", "Si"], n_channels=40)
    model = load_model(plain)
    strategy = {"method": "lora", "config": {"rank": 8, "alpha": 0.5}, "read_from": str(plain), "inherit_heads": {}}
    model = apply_finetuning_strategy(model, strategy)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 1.0)
    model.finetune_config = strategy
    checkpoint = model.get_checkpoint()
    checkpoint["best_model_state_dict"]["finetune_config"] = strategy
    torch.save(checkpoint, folder / "adapted.ckpt")
    return folder / "adapted.ckpt"


def test_export_with_adapters(adapted: Path, tmp_path: Path) -> None:
    """Straight from the checkpoint, equal to metatrain's own model, which differs from the one without adapters."""
    report = export_model(adapted, tmp_path / "adapted.pt", grid_start=-5.0)
    assert report.dos_deviation <= 1e-5
    plain = export_model(adapted.with_name("pet.ckpt"), tmp_path / "plain.pt", grid_start=-5.0)
    atoms = random_structures(["Al", "Si"], 4.5)["periodic"]
    a, b = (DOSModel.load(r.backbone).dos(atoms) for r in (report, plain))
    assert np.abs(a - b).max() > 1e-2 * np.abs(b).max()


def test_merged_adapters_are_the_same_function(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's merged network against the one with adapters; what is left is a plain checkpoint."""
    monkeypatch.syspath_prepend(str(TRAINING))
    spec = importlib.util.spec_from_file_location("train_recipe", TRAINING / "train.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_recipe", recipe)
    spec.loader.exec_module(recipe)
    model = load_model(adapted)
    recipe.merge_adapters(model)
    torch.save(model.get_checkpoint(), tmp_path / "merged.ckpt")
    names = load_model(tmp_path / "merged.ckpt").state_dict().keys()
    assert names == load_model(adapted.with_name("pet.ckpt")).state_dict().keys()
    export_model(tmp_path / "merged.ckpt", tmp_path / "merged.pt", grid_start=-5.0)
    export_model(adapted, tmp_path / "adapted.pt", grid_start=-5.0)
    merged, kept = (DOSModel.load(tmp_path / f"{name}.pt") for name in ("merged", "adapted"))
    for atoms in random_structures(["Al", "Si"], 4.5).values():
        expected = kept.dos(atoms)
        np.testing.assert_allclose(merged.dos(atoms), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(SystemExit, match="has no adapters"):
        recipe.merge_adapters(load_model(tmp_path / "merged.ckpt"))
