"""Adapted models: checkpoints with low-rank adapters, as metatrain's fine-tuning writes them, and merged by the training recipe."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from metatrain.pet.modules.finetuning import apply_finetuning_strategy
from metatrain.utils.io import load_model

from petdos_md.base.errors import PetdosError
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


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``train.py``."""
    monkeypatch.syspath_prepend(str(TRAINING))
    spec = importlib.util.spec_from_file_location("train_recipe", TRAINING / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "train_recipe", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--start", "nothere.ckpt"], "nothere.ckpt: no such file"),
        (["--data", "nothere.xyz"], "nothere.xyz: no such file"),
        (["--data", "al.cif"], "al.cif: cannot be read as extended XYZ"),
        (["--data", "bare.xyz"], "bare.xyz: no 'index' in the info of structure 0"),
        (["--fraction", "2"], "got --fraction 2, expected a part"),
        (["--epochs", "0"], "got --epochs 0, expected 1 or more"),
        (["--grid", "30", "-20"], "got --grid 30 -20, expected START below STOP, in eV"),
        (["--seen", "nothere.xyz"], "nothere.xyz: no such file"),
        (["--seen", "al.cif"], "al.cif: cannot be read as extended XYZ, expected the train.xyz of --start"),
        (["--electrons", "Xx=4"], "got --electrons Xx=4, expected element=number of valence electrons"),
        (["--stage", "export"], "has no train.xyz, validation.xyz, test.xyz, model.ckpt, llpr.ckpt; run the stages"),
    ],
)
def test_errors_in_one_line(options, said, recipe, tmp_path: Path, monkeypatch, capsys) -> None:
    """Nothing is begun and nothing is left behind that would count as a finished stage."""
    monkeypatch.chdir(tmp_path)
    ase.io.write("al.cif", ase.build.bulk("Al"))
    ase.io.write("bare.xyz", ase.build.bulk("Al"), format="extxyz")
    monkeypatch.setattr(sys, "argv", ["train.py", *options, "--output", "out"])
    with pytest.raises(SystemExit) as end:
        recipe.run(recipe.main)
    message = str(end.value) if end.value.code != 2 else capsys.readouterr().err.splitlines()[-1]
    assert said in message and "\n" not in message
    assert not list(tmp_path.glob("out/*"))


def test_interrupted(recipe, tmp_path: Path, capsys) -> None:
    def stopped() -> None:
        with recipe.whole(tmp_path / "model.ckpt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        recipe.run(stopped)
    assert end.value.code == 130 and capsys.readouterr().err == "\ninterrupted; the same command goes on\n"
    assert not list(tmp_path.iterdir())


def test_a_table_says_why_numbers_are_missing(recipe, tmp_path: Path, capsys) -> None:
    """A reference of more electrons than the predicted DOS holds, as with a network that has learned nothing."""
    model, folder = DOSModel.load("almgsi-lda"), tmp_path
    rows = []
    for index, factor in enumerate((1, 40)):
        atoms = ase.build.bulk("Al")
        atoms.rattle(0.1, seed=index)
        _, energy, forces, stress = model.evaluate_with_forces(atoms)
        target = factor * model.dos(atoms)
        atoms.info = {"index": index, "tag": "my-own-300K", "dos": target, "n_electrons": 3.0 * factor}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
        rows.append(atoms)
    ase.io.write(folder / "validation.xyz", rows[:1], format="extxyz")
    validate = importlib.import_module("validate")
    for structures, missing in ((rows, "1 of 2"), (rows[1:], "1 of 1"), (rows[:1], "")):
        ase.io.write(folder / "test.xyz", structures, format="extxyz")
        summary = validate.validate_model(Path("almgsi-lda"), folder, folder)
        table = capsys.readouterr().out
        assert json.loads((folder / "validation.json").read_text())["test"]["structures"] == len(structures)
        assert summary["test"]["force_mae_meV_A"] == pytest.approx(0, abs=0.1)
        assert ("| C_el(1000 K), z-score spread | ? |" in table) == (len(structures) == 1 and missing != "")
        assert (f"{missing} structures count neither in" in table) == (missing != "") and "nan" not in table


def test_a_covariance_that_rounding_made_indefinite(recipe, tmp_path: Path, capsys) -> None:
    """An eigenvalue of -0.5, as sums in single precision leave it: of 0.001 times powers of ten, 1 is the first that is enough."""
    ensemble = importlib.import_module("ensemble")
    model = ensemble.wrapped(write_checkpoints(tmp_path, SMALL, symbols=["Al"], n_channels=40)[0], 4)
    covariance = dict(model.named_buffers())[f"covariance_{ensemble.UNCERTAINTY}"]
    n = len(covariance)
    vectors = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    values = np.linspace(1.0, 50.0, n)
    covariance.copy_(torch.tensor(vectors * values @ vectors.T))
    assert ensemble.decompose(model, 1e-3) == 1e-3 and capsys.readouterr().out == ""
    values[0] = -0.5
    covariance.copy_(torch.tensor(vectors * values @ vectors.T))
    assert ensemble.decompose(model, 1e-3) == pytest.approx(1.0)
    assert "regularizer raised from 0.001 to 1," in capsys.readouterr().out
    covariance.fill_(float("nan"))
    with pytest.raises(PetdosError, match="are there NaN in the training set"):
        ensemble.decompose(model, 1e-3)


def test_merged_adapters_are_the_same_function(adapted: Path, tmp_path: Path, recipe: ModuleType) -> None:
    """The recipe's merged network against the one with adapters; what is left is a plain checkpoint."""
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
