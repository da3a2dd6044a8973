"""``prepare`` of the training recipe: targets that do not depend on how a code normalizes k-points, and what faulty data are told."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms

TRAINING = Path(__file__).parents[2] / "examples" / "training"
PARTS = ("train", "validation", "test")


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``train.py``."""
    monkeypatch.syspath_prepend(str(TRAINING))
    return importlib.import_module("train")


def data(n: int = 6) -> list[Atoms]:
    """Aluminium with bands of its own for each structure, five of them on three k-points."""
    found = []
    for index in range(n):
        atoms = ase.build.bulk("Al")
        atoms.rattle(0.05, seed=index)
        levels = np.sort(np.random.default_rng(index).uniform(-5, 15, (3, 5)))
        atoms.info = {"index": index, "tag": "fcc-Al-300K", "n_electrons": 3.0, "split": PARTS[index % 3],
                      "eigenvalues": levels, "kweights": np.array([0.5, 0.25, 0.25])}  # fmt: skip
        found.append(atoms)
    return found


def prepared(recipe: ModuleType, structures: list[Atoms], folder: Path, monkeypatch, *options: str) -> Path:
    """Where ``train.py --stage prepare`` has written."""
    ase.io.write(folder / "mine.xyz", structures, format="extxyz")
    chosen = ["--electrons", "Al=3", "--grid", "-10", "20", "--options", str(TRAINING / "options-dos")]
    command = ["train.py", "--stage", "prepare", "--data", str(folder / "mine.xyz"), "--output", str(folder / "out")]
    monkeypatch.setattr(sys, "argv", [*command, *chosen, *options])
    recipe.run(recipe.main)
    return folder / "out"


@pytest.mark.parametrize("norm", [1.0, 2.0, 8.0])
def test_targets_for_any_normalization_of_weights(norm: float, recipe, tmp_path: Path, monkeypatch) -> None:
    """Two electrons for each band, whatever the weights sum to: a sum of Gaussians, written out."""
    structures = data()
    for atoms in structures:
        atoms.info["kweights"] *= norm
    out = prepared(recipe, structures, tmp_path, monkeypatch)
    energies = -10 + 0.05 * np.arange(601)
    for part in PARTS:
        for atoms in ase.io.read(out / f"{part}.xyz", ":"):
            source = structures[atoms.info["index"]].info
            gaussians = (
                np.exp(-0.5 * ((energies[:, None, None] - source["eigenvalues"]) / 0.3) ** 2) / 0.3 / np.sqrt(2 * np.pi)
            )
            expected = 2 * gaussians.sum(axis=-1) @ (source["kweights"] / norm)
            known = energies <= source["eigenvalues"].max(axis=1).min() - 0.9
            np.testing.assert_array_equal(np.isfinite(atoms.info["dos"]), known)
            np.testing.assert_allclose(atoms.info["dos"][known], expected[known], rtol=1e-6, atol=1e-7)


def test_two_spin_channels(recipe, tmp_path: Path, monkeypatch) -> None:
    """A polarized calculation with equal channels is the unpolarized one."""
    plain = data()
    out = prepared(recipe, plain, tmp_path, monkeypatch)
    targets = [a.info["dos"] for part in PARTS for a in ase.io.read(out / f"{part}.xyz", ":")]
    polarized = data()
    for atoms in polarized:
        atoms.info["eigenvalues"] = np.stack([atoms.info["eigenvalues"]] * 2)
    (tmp_path / "b").mkdir()
    out = prepared(recipe, polarized, tmp_path / "b", monkeypatch)
    again = [a.info["dos"] for part in PARTS for a in ase.io.read(out / f"{part}.xyz", ":")]
    np.testing.assert_allclose(again, targets, rtol=1e-6)


def info(**values: object) -> Callable[[list[Atoms]], None]:
    return lambda structures: structures[4].info.update(values)


FAULTS: dict[str, tuple[Callable[[list[Atoms]], object], str]] = {
    "hartree": (lambda s: info(eigenvalues=s[4].info["eigenvalues"] / 27.2114)(s),
                "it is only 0.66 eV, expected 2 eV or more; write them in eV (1 hartree = 27.2114 eV)"),
    "few bands": (info(eigenvalues=np.array([[-5.0], [1], [2]])), "3 electrons fill all 1 bands; compute more of them, or correct"),
    "bands below the Fermi level": (info(eigenvalues=np.array([[-5.0, 1, 1.5]] * 3)), "the bands suffice for a DOS up to 0.60 eV only, with 2 states for 3"),
    "negative weight": (info(kweights=np.array([1.0, -0.25, 0.25])), "weights of k-points not negative"),
    "NaN": (info(eigenvalues=np.full((3, 5), np.nan)), "eigenvalues must be finite"),
    "words": (info(eigenvalues="many"), "got eigenvalues or kweights that are no numbers"),
    "index": (info(index=3), "2 structures have the index 3; each needs its own"),
    "electrons": (info(n_electrons=5.0), "Al has 3 valence electrons by --electrons, but n_electrons = 5"),
    "electrons in words": (info(n_electrons="few"), "got n_electrons = few, expected a number"),
    "split": (info(split="val"), "structure with index 4 has split=val, expected train, validation or test"),
    "no cell": (lambda s: s[4].set_cell(np.zeros((3, 3))), "its cell has the volume 0 A^3"),
    "no test": (lambda s: [a.info.update(split="train") for a in s],
                "mine.xyz: a part of the split is empty (6 train, 0 validation, 0 test); write another split"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_data(fault: str, recipe, tmp_path: Path, monkeypatch) -> None:
    """One line that names the structure, and nothing that a training would begin from."""
    break_it, said = FAULTS[fault]
    structures = data()
    break_it(structures)
    with pytest.raises(SystemExit) as end:
        prepared(recipe, structures, tmp_path, monkeypatch)
    message = str(end.value)
    assert said in message and "\n" not in message
    assert fault in ("index", "no test", "split") or "structure with index 4 and tag fcc-Al-300K: " in message
    assert not (tmp_path / "out" / "train.xyz").exists()


def test_grids(recipe, tmp_path: Path, monkeypatch, capsys) -> None:
    structures = data()
    for stop, said in (("0", "the grid ends at 0 eV, where there are only"), ("-4.5", "the grid ends at -4.5 eV")):
        with pytest.raises(SystemExit, match=said):
            prepared(recipe, structures, tmp_path, monkeypatch, "--grid", "-10", stop)
    with pytest.raises(SystemExit, match="cuts off the lowest state"):
        prepared(recipe, structures, tmp_path, monkeypatch, "--grid", "-3", "20")
    prepared(recipe, structures, tmp_path, monkeypatch, "--grid", "-7", "20")
    assert "note: the grid of the predictions, -7 to 20 eV, should reach 5 eV beyond" in capsys.readouterr().out


def test_other_options_for_what_was_begun(recipe, tmp_path: Path, monkeypatch) -> None:
    """Nothing that was made otherwise is taken for finished."""
    out = prepared(recipe, data(), tmp_path, monkeypatch)
    made = (out / "train.xyz").read_bytes()
    for options, said in (
        (["--electrons", "Al=3,Mg=2"], r"--electrons: {'Al': 3.0}, now {'Al': 3.0, 'Mg': 2.0}"),
        (["--options", str(TRAINING / "options")], r"--options: .*options-dos, now .*options\)"),
        (["--fraction", "0.5"], r"--fraction: 1.0, now 0.5"),
        (["--epochs", "2", "--stage", "all"], r"--epochs: not given, now 2"),
        (["--seen", str(out / "train.xyz"), "--stage", "all"], r"--seen: not given, now .*train.xyz"),
        (["--description", "mine", "--stage", "all"], r"--description: .*, now mine"),
        (["--name", "other", "--stage", "all"], r"--name: almgsi-lda, now other"),
        (["--quick"], r"--fraction: 1.0, now 0.1\); .* --quick sets"),
    ):
        with pytest.raises(SystemExit, match=f"out: was begun with other options \\({said}"):
            prepared(recipe, data(), tmp_path, monkeypatch, *options)
    assert (out / "train.xyz").read_bytes() == made
    changed = data()
    changed[0].info["eigenvalues"][0, 0] -= 0.1
    with pytest.raises(SystemExit, match=r"out: was begun with other contents of .*mine.xyz; give a new --output"):
        prepared(recipe, changed, tmp_path, monkeypatch)
    prepared(recipe, data(), tmp_path, monkeypatch, "--epochs", "2")  # of a stage that this one is not
    assert json.loads((out / "prepare.json").read_text())["epochs"] == 2


def test_data_that_replace_others_are_named(recipe, tmp_path: Path, monkeypatch, capsys) -> None:
    more = data(2)
    for atoms in more:
        atoms.info["eigenvalues"] += 0.5
    ase.io.write(tmp_path / "more.xyz", more, format="extxyz")
    out = prepared(
        recipe, data(), tmp_path, monkeypatch, "--data", str(tmp_path / "mine.xyz"), str(tmp_path / "more.xyz")
    )
    assert f"note: 2 structures of {tmp_path / 'more.xyz'} take the place of those" in capsys.readouterr().out
    assert [len(ase.io.read(out / f"{part}.xyz", ":")) for part in PARTS] == [2, 2, 2]


CHECKPOINT = TRAINING / "checkpoints" / "almgsi-lda.ckpt"


def test_checkpoints_to_start_from(recipe, tmp_path: Path, monkeypatch) -> None:
    """The shipped one has 751 energies and knows Al, Mg, Si; what does not fit is said before anything is written."""
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    nickel = data()
    for atoms in nickel:
        atoms.symbols[:] = "Ni"
    for structures, options, said in (
        (data(), ["--start", str(CHECKPOINT)], "has 751 energies, but the grid from -10 to 20 eV has 601; give --grid"),
        (nickel, ["--start", str(CHECKPOINT), "--grid", "-13", "24.5", "--electrons", "Ni=3"], "does not know Ni"),
        (data(), ["--start", str(tmp_path / "text.ckpt")], "text.ckpt: is no checkpoint of a network for the DOS"),
    ):
        with pytest.raises(SystemExit, match=said):
            prepared(recipe, structures, tmp_path, monkeypatch, *options)
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "near.ckpt").symlink_to(CHECKPOINT)
    monkeypatch.chdir(tmp_path)
    out = prepared(recipe, data(), tmp_path, monkeypatch, "--start", "near.ckpt", "--grid", "-13", "24.5")
    assert json.loads((out / "prepare.json").read_text())["start"] == str(CHECKPOINT)


def test_newest_whole_checkpoint(recipe, tmp_path: Path) -> None:
    """One that was being written when the training was stopped is cut, or empty."""
    import os

    import torch

    folder = tmp_path / "outputs" / "2026-01-01" / "10-00-00"
    folder.mkdir(parents=True)
    assert recipe.newest_checkpoint(tmp_path) is None
    for age, name in enumerate(("model_0.ckpt", "model_10.ckpt", "model_20.ckpt", "model_30.ckpt")):
        torch.save({"a": torch.arange(1000)}, folder / name)
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    for name, size in (("model_20.ckpt", 700), ("model_30.ckpt", 0)):
        content = (folder / name).read_bytes()[:size]
        stamp = (folder / name).stat().st_mtime
        (folder / name).write_bytes(content)
        os.utime(folder / name, (stamp, stamp))
    assert recipe.newest_checkpoint(tmp_path) == folder / "model_10.ckpt"
