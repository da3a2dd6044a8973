"""Uncertainties of energies: metatrain's own LLPR of the same checkpoint, brute force, and what engines make of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.models import rattled_aluminium

from petdos_md.base.errors import ModelError
from petdos_md.cli.main import main
from petdos_md.models.comparison import random_structures
from petdos_md.models.energy_ensemble import EnergyEnsemble
from petdos_md.models.export import export_model
from petdos_md.models.files import find_model
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints

OUTPUTS = ("energy_uncertainty", "energy_ensemble")


def with_energy(atoms: Atoms) -> Atoms:
    """As DFT leaves it, by EMT."""
    result = atoms.copy()
    calculator = EMT()
    energy = calculator.get_potential_energy(atoms)
    result.calc = SinglePointCalculator(result, energy=energy)
    return result


def of_system(model: DOSModel, atoms: Atoms, output: str) -> np.ndarray:
    return model.evaluator.rows([atoms], (output,))


def of_atoms(model: DOSModel, atoms: Atoms, output: str) -> np.ndarray:
    return model.evaluator.rows_of_atoms(atoms, output)


def test_equals_metatrain(tmp_path: Path) -> None:
    """Of systems and of atoms, in every kind of box; names, shapes and labels are those of metatrain, too."""
    from metatrain.llpr import __model__ as LLPRModel
    from metatrain.utils.io import load_model

    pet_path, _ = write_checkpoints(
        tmp_path, SMALL, symbols=["Al", "Mg"], n_channels=5, energy=True, dtype=torch.float64
    )
    pet = load_model(pet_path)
    llpr = LLPRModel({"num_ensemble_members": {"mtt::dos": 2, "energy": 6}}, pet.dataset_info)
    llpr.set_wrapped_model(pet)
    llpr = llpr.to(torch.float64).eval()
    generator = torch.Generator().manual_seed(3)
    buffers = dict(llpr.named_buffers())
    rows = torch.randn((60, llpr.ll_feat_size), generator=generator, dtype=torch.float64)
    buffers["cholesky_energy_uncertainty"].copy_(torch.linalg.cholesky(rows.T @ rows))
    buffers["multiplier_energy_uncertainty"].fill_(0.3)
    with torch.no_grad():
        for layer in llpr.llpr_ensemble_layers.values():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
    torch.save(llpr.get_checkpoint(), tmp_path / "llpr.ckpt")
    export_model(tmp_path / "llpr.ckpt", tmp_path / "m.pt", grid_start=0.0)
    ours = DOSModel.load(tmp_path / "m.pt", device="cpu")
    peer = DOSModel.from_atomistic(llpr.export(), ours.grid, target="mtt::dos")
    for name, atoms in random_structures(["Al", "Mg"], ours.cutoff, seed=2).items():
        for output in OUTPUTS:
            for of in (of_system, of_atoms):
                expected = of(peer, atoms, output)
                np.testing.assert_allclose(
                    of(ours, atoms, output), expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max(), err_msg=name
                )
    labels = [
        [m.evaluator._forward([m.evaluator.system(atoms)], (output,), "atom")[output] for m in (ours, peer)]
        for output in OUTPUTS
    ]
    for own, other in labels:
        assert own.keys == other.keys and own.block().properties == other.block().properties
        assert own.block().samples == other.block().samples


def test_made_at_export(checkpoints: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of training and validation structures: the formula by brute force, calibrated on the latter; all else as without."""
    training = [with_energy(rattled_aluminium(seed, 1 + 0.01 * seed)) for seed in range(6)]
    validation = [with_energy(rattled_aluminium(seed, 0.95)) for seed in range(10, 16)]
    command = ["export", str(checkpoints[0]), "--llpr", str(checkpoints[1]), "--grid-start=-12"]
    for name, structures in (("training", training), ("validation", validation)):
        ase.io.write(tmp_path / f"{name}.xyz", structures, format="extxyz")
    sets = ["--training-set", str(tmp_path / "training.xyz"), "--validation-set", str(tmp_path / "validation.xyz")]
    assert main([*command, "-o", str(tmp_path / "plain.pt")]) == 0
    assert main([*command, *sets, "-o", str(tmp_path / "known.pt")]) == 0
    assert main([*command, *sets[2:], "-o", str(tmp_path / "half.pt")]) == 2
    assert "--validation-set needs --training-set as well" in capsys.readouterr().err
    plain, known = (DOSModel.load(tmp_path / f"{name}.pt", device="cpu") for name in ("plain", "known"))
    assert plain.info.fingerprint == known.info.fingerprint
    assert known.readout.knows_training_set and known.readout.rigidity.n_structures == 6
    offered = plain.evaluator.module.capabilities().outputs
    assert not [output for output in OUTPUTS if output in offered]

    def features(atoms: Atoms) -> np.ndarray:
        return plain.evaluator.rows_of_atoms(atoms, "mtt::aux::energy_last_layer_features")

    rows = np.concatenate([features(a) for a in training])
    inverse = np.linalg.inv(rows.T @ rows + 1e-3 * np.eye(rows.shape[1]))
    sums = [features(a).sum(axis=0) for a in validation]
    deviations = np.array([np.sqrt(phi @ inverse @ phi) for phi in sums])
    errors = [plain.evaluator.rows([a], ("energy",))[0, 0] - a.get_potential_energy() for a in validation]
    alpha = np.sqrt(np.mean((errors / deviations) ** 2))
    found = [known.evaluator.rows([a], OUTPUTS)[0] for a in validation]
    np.testing.assert_allclose([row[0] for row in found], alpha * deviations, rtol=2e-3)
    for row, atoms in zip(found, validation, strict=True):
        assert row[1:].mean() == pytest.approx(plain.evaluator.rows([atoms], ("energy",))[0, 0], rel=1e-5)
        assert len(row) == 33
    # 32 members have their own spread to 13 %, one standard deviation.
    spreads = np.array([row[1:].std(ddof=1) / row[0] for row in found])
    assert (np.abs(spreads - 1) < 0.5).all()
    single = known.evaluator.rows_of_atoms(validation[0], "energy_uncertainty")
    x = features(validation[0])
    np.testing.assert_allclose(single[:, 0], alpha * np.sqrt(np.einsum("ij,jk,ik->i", x, inverse, x)), rtol=2e-3)
    with pytest.raises(ModelError, match="got 2 validation structures with energies"):
        export_model(
            checkpoints[0], tmp_path / "few.pt", grid_start=-12.0, training=training, validation=validation[:2]
        )
    assert not (tmp_path / "few.pt").exists()


def test_spread_of_members() -> None:
    """A thousand members spread by the uncertainty, in every direction of the features."""
    rng = np.random.default_rng(4)
    made = EnergyEnsemble.fit(
        rng.normal(size=(50, 4)) * [3, 1, 0.3, 0.1], rng.normal(size=(9, 4)), rng.normal(size=9), n_members=1000
    )
    probes = rng.normal(size=(20, 4))
    np.testing.assert_allclose((made.members @ probes.T).std(axis=0, ddof=1), made.uncertainty(probes), rtol=0.08)
    np.testing.assert_allclose(made.members.mean(axis=0), 0, atol=1e-12)


def test_shipped_model_in_metatomics_calculator() -> None:
    """No warning for a crystal of silicon at 300 K; one where it is squeezed to three fifths of its volume."""
    from petdos_md.engines.potentials import metatomic_calculator

    crystal = ase.build.bulk("Si", cubic=True, a=5.39)
    crystal.rattle(0.08, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        crystal.calc = metatomic_calculator()(str(find_model("almgsi-lda")), device="cpu")
        energy = crystal.get_potential_energy()
        assert energy == pytest.approx(
            DOSModel.load("almgsi-lda", device="cpu").evaluate_with_forces(crystal)[1], rel=1e-6
        )
    crystal.set_cell(0.6 ** (1 / 3) * crystal.cell, scale_atoms=True)
    with pytest.warns(UserWarning, match="uncertainties are larger than the threshold"):
        crystal.get_potential_energy()
