"""How far a structure is from the training set: against matrices inverted by brute force, and against metatrain's own LLPR."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms

from petdos_md.base.errors import ModelError
from petdos_md.base.grid import EnergyGrid
from petdos_md.cli.main import main
from petdos_md.models.export import export_model
from petdos_md.models.files import find_model, readout_path
from petdos_md.models.model import DOSModel
from petdos_md.models.readout import Readout
from petdos_md.models.rigidity import FAR_OUTSIDE, OUTSIDE, QUANTILES, Rigidity
from petdos_md.models.testing import SMALL, write_checkpoints
from petdos_md.models.training_set import learn_rigidity, store_rigidity

TRAINING = Path(__file__).parents[2] / "examples" / "training"


def rattled(n: int, seed: int) -> list[Atoms]:
    """Cells of four to eight atoms of Al and Mg."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        atoms = ase.build.bulk("Al", cubic=True, a=4.05 * rng.uniform(0.97, 1.03)) * (1, 1, int(rng.integers(1, 3)))
        atoms.symbols[: rng.integers(0, 4)] = "Mg"
        atoms.positions += rng.normal(0.0, 0.1, atoms.positions.shape)
        found.append(atoms)
    return found


def test_variances_and_quantiles_by_brute_force() -> None:
    """Leaving out is done by leaving out: every training structure, and every atom, by the inverse without it."""
    rng = np.random.default_rng(3)
    rows = np.repeat(np.arange(30), 4)
    atoms = rng.normal([2.0, 1.0, 0.0, -1.0], [0.5, 0.3, 0.2, 0.1], (120, 4))
    symbols = ["Al", "Al", "Mg", "Mg"] * 29 + ["Al", "Al", "Mg", "Si"]
    features = np.array([atoms[rows == k].mean(axis=0) for k in range(30)])
    rigidity = Rigidity.of_training(features, 0.01, (atoms, symbols, rows))

    def inverse(without: int | None = None) -> np.ndarray:
        kept = features if without is None else np.delete(features, without, axis=0)
        return np.linalg.inv(kept.T @ kept + 0.01 * np.eye(4))

    np.testing.assert_allclose(rigidity.inverse(), inverse(), rtol=1e-5)
    probe = rng.normal(size=(3, 2, 4))
    np.testing.assert_allclose(
        rigidity.variance(probe), [[x @ inverse() @ x for x in pair] for pair in probe], rtol=1e-5
    )
    alone = [x @ inverse(k) @ x for k, x in enumerate(features)]
    np.testing.assert_allclose(rigidity.quantiles, np.quantile(alone, QUANTILES), rtol=1e-5)
    np.testing.assert_allclose(
        rigidity.grade(7 * probe, np.full((3, 2), 7)), rigidity.variance(probe) / np.quantile(alone, 0.99), rtol=1e-5
    )
    of_atoms = np.array([x @ inverse(k) @ x for k, x in zip(rows, atoms, strict=True)])
    for symbol in ("Al", "Mg"):
        expected = np.quantile(of_atoms[np.array(symbols) == symbol], 0.99)
        assert rigidity.of_atoms[symbol] == pytest.approx(expected, rel=1e-5)
    assert set(rigidity.of_atoms) == {"Al", "Mg"}, "one atom of Si tells nothing"
    assert np.isnan(rigidity.grade_of_atoms(probe[0], ["Si", "Al"])).tolist() == [True, False]
    with pytest.raises(ModelError, match="no training structures"):
        Rigidity.of_training(np.empty((0, 4)))


def test_agrees_with_metatrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uncertainty that metatrain's LLPR gives to a structure, without its calibration, is N sqrt(h)."""
    monkeypatch.syspath_prepend(str(TRAINING))
    from ensemble import TARGET, UNCERTAINTY, dos_dataset, wrapped

    monkeypatch.delitem(sys.modules, "ensemble")
    pet, _ = write_checkpoints(tmp_path, SMALL, symbols=["Al", "Mg"], n_channels=5, dtype=torch.float64)
    training = rattled(12, seed=1)
    for atoms in training:
        atoms.info["dos"] = np.zeros(5)
    ase.io.write(tmp_path / "train.xyz", training)
    llpr = wrapped(pet, 2)
    llpr.compute_covariance([dos_dataset(tmp_path / "train.xyz", 5)], 4, False)
    llpr.compute_cholesky_decomposition(1e-3)
    torch.save(llpr.get_checkpoint(), tmp_path / "llpr.ckpt")
    peer = DOSModel.from_atomistic(llpr.export(), EnergyGrid(0.0, 0.05, 5), target=TARGET)

    stored = ase.io.read(tmp_path / "train.xyz", ":")
    export_model(pet, tmp_path / "known.pt", grid_start=0.0, training=stored)
    export_model(pet, tmp_path / "covariance.pt", llpr=tmp_path / "llpr.ckpt", grid_start=0.0)
    known, covariance = (DOSModel.load(tmp_path / f"{name}.pt") for name in ("known", "covariance"))
    for atoms in rattled(4, seed=2):
        expected = float(peer.evaluator.rows([atoms], (UNCERTAINTY,))[0, 0]) / len(atoms)
        x = known.evaluate(atoms).features[:-2] / len(atoms)
        for model in (known, covariance):
            assert np.sqrt(model.readout.rigidity.variance(x)) == pytest.approx(expected, rel=1e-4)
    assert known.readout.knows_training_set and not covariance.readout.knows_training_set
    assert np.isnan(covariance.extrapolation_grade(training[0])) and np.isfinite(known.extrapolation_grade(training[0]))


def test_stored_beside_a_model(metal_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of before has no sign and says so; with it, nothing else of the model changes."""
    for path in (metal_path, readout_path(metal_path)):
        shutil.copy(path, tmp_path)
    path = tmp_path / metal_path.name
    before = DOSModel.load(path)
    atoms = rattled(1, seed=9)[0]
    sample = before.evaluate(atoms)
    assert before.readout.rigidity is None and np.isnan(before.extrapolation_grade(sample))
    assert np.isnan(before.extrapolation_grade_of_atoms(atoms)).all()
    main(["info", str(path)])
    assert "no sign when a structure is far from it" in capsys.readouterr().out

    training = rattled(25, seed=4)
    store_rigidity(path, learn_rigidity(before, training))
    after = DOSModel.load(path)
    assert after.info == before.info
    np.testing.assert_array_equal(after.dos_members(sample), before.dos_members(sample))
    main(["info", str(path)])
    assert "25 structures: a sign" in capsys.readouterr().out

    x = np.array([before.evaluate(a).features[:-2].astype(float) / len(a) for a in training])
    inverse = np.linalg.inv(x.T @ x + 1e-3 * np.eye(x.shape[1]))
    own = np.einsum("si,ij,sj->s", x, inverse, x)
    probe = sample.features[:-2].astype(float) / len(atoms)
    expected = probe @ inverse @ probe / np.quantile(own / (1 - own), 0.99)
    assert after.extrapolation_grade(sample) == pytest.approx(expected, rel=1e-3)
    squeezed = atoms.copy()
    squeezed.set_cell(0.75 * atoms.cell, scale_atoms=True)
    assert after.extrapolation_grade(atoms) < FAR_OUTSIDE < after.extrapolation_grade(squeezed)

    with pytest.raises(ModelError, match=r"got a rigidity of 3; it is of another model"):
        store_rigidity(path, Rigidity(np.eye(3)))


def test_features_of_atoms_add_up(metal: DOSModel) -> None:
    atoms = rattled(1, seed=6)[0]
    of_atoms = metal.features_of_atoms(atoms)
    np.testing.assert_allclose(of_atoms.sum(axis=0), metal.evaluate(atoms).features[:-2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["almgsi-lda", "trio-pbesol"])
def test_shipped_models_know_their_training_set(name: str) -> None:
    """A crystal as in the training data is inside; at three fifths of its volume it is far outside."""
    rigidity = Readout.load(readout_path(find_model(name))).rigidity
    assert rigidity is not None and rigidity.n_structures == {"almgsi-lda": 339, "trio-pbesol": 266}[name]
    model = DOSModel.load(name, device="cpu")
    symbol, a = {"almgsi-lda": ("Si", 5.4), "trio-pbesol": ("GaAs", 5.65)}[name]
    structure = "diamond" if symbol == "Si" else "zincblende"
    crystal = ase.build.bulk(symbol, structure, a=a, cubic=True)
    crystal.rattle(0.05, seed=1)
    squeezed = crystal.copy()
    squeezed.set_cell(0.6 ** (1 / 3) * crystal.cell, scale_atoms=True)
    assert model.extrapolation_grade(crystal) < OUTSIDE < FAR_OUTSIDE < model.extrapolation_grade(squeezed)
    assert (model.extrapolation_grade_of_atoms(crystal) < OUTSIDE).all()
