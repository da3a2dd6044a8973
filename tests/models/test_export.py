"""The model with separate readout equals the stock one of metatrain; what cannot be exported is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import ELECTRONS

from petdos_md.base.errors import ModelError
from petdos_md.models.comparison import random_structures
from petdos_md.models.export import export_model
from petdos_md.models.files import readout_path
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints

STRUCTURES = list(random_structures(["Al"], 4.5))


def randomize(path: Path, scale: float) -> None:
    """Give the last layers weights and biases of order one, so that no part of the readout hides behind another."""
    checkpoint = torch.load(path, weights_only=False)
    generator = torch.Generator().manual_seed(5)
    inner = checkpoint.get("wrapped_model_checkpoint", checkpoint)
    for state in (inner["model_state_dict"], inner["best_model_state_dict"]):
        for name, value in state.items():
            if "_last_layers.mtt::dos" in name:
                value.copy_(
                    scale * torch.randn(value.shape, generator=generator.manual_seed(len(name)), dtype=value.dtype)
                )
    torch.save(checkpoint, path)


@pytest.fixture(
    scope="module",
    params=[
        ("residual", torch.float64),
        ("feedforward", torch.float32),
        pytest.param(("residual", torch.float32), marks=pytest.mark.slow),
    ],
    ids=str,
)
def pair(request, tmp_path_factory):
    """A model with separate readout and the stock LLPR model of the same checkpoint, with its tolerance."""
    from metatrain.utils.io import load_model

    featurizer, dtype = request.param
    folder = tmp_path_factory.mktemp("exported")
    hypers = {**SMALL, "featurizer_type": featurizer}
    pet, llpr = write_checkpoints(
        folder, hypers, symbols=list(ELECTRONS), n_channels=60, n_members=6, energy=True, dtype=dtype
    )
    assert llpr is not None
    randomize(pet, 1.0)
    randomize(llpr, 1.0)
    export_model(pet, folder / "m.pt", llpr=llpr, grid_start=-10.0, electrons=ELECTRONS)
    separated = DOSModel.load(folder / "m.pt", device="cpu")
    stock = DOSModel.from_atomistic(load_model(llpr).export(), separated.grid, target="mtt::dos")
    return separated, stock, 1e-5 if dtype == torch.float32 else 1e-10


@pytest.mark.parametrize("kind", STRUCTURES)
def test_separated_equals_stock(pair, kind: str) -> None:
    separated, stock, tolerance = pair
    atoms = random_structures(list(ELECTRONS), separated.cutoff, seed=11)[kind]
    expected = stock.stock_dos(atoms)
    assert np.abs(separated.dos(atoms) - expected).max() <= tolerance * np.abs(expected).max()
    expected = stock.stock_members(atoms)
    assert expected.shape == (6, 60)
    assert np.abs(separated.dos_members(atoms) - expected).max() <= tolerance * np.abs(expected).max()
    assert expected.std(axis=0).max() > 0.01, "the members must differ for the comparison to mean anything"


def test_energy_head_is_kept(pair) -> None:
    """Energy, forces and stress of the backbone equal those of the stock network in metatomic's own ASE calculator."""
    from petdos_md.engines.potentials import metatomic_calculator

    separated, stock, tolerance = pair
    atoms = random_structures(list(ELECTRONS), separated.cutoff, seed=4)["periodic"]
    _, energy, forces, stress = separated.evaluate_with_forces(atoms)

    atoms.calc = metatomic_calculator()(stock.evaluator.module, device="cpu")
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=tolerance)
    assert np.abs(forces - atoms.get_forces()).max() <= 10 * tolerance * np.abs(forces).max()
    expected = atoms.get_stress(voigt=False)
    assert np.abs(stress - 0.5 * (expected + expected.T)).max() <= 10 * tolerance * np.abs(stress).max()


def test_edge_sum_is_the_cutoff_function(pair) -> None:
    """The last entry of features, s, by brute force on two atoms: 2 fc(r), with the network's bump function."""
    separated, _, _ = pair
    from ase import Atoms

    def s(distance: float) -> float:
        return float(separated.evaluate(Atoms("Al2", positions=[[0, 0, 0], [distance, 0, 0]])).features[-1])

    assert s(1.0) == pytest.approx(2.0)  # two directed edges, well inside
    assert s(separated.cutoff + 0.1) == 0.0
    values = [s(r) for r in np.linspace(separated.cutoff - 0.6, separated.cutoff, 12)]
    assert all(a >= b for a, b in itertools.pairwise(values))


def edit_buffer(path: Path, entry: str, values: np.ndarray) -> None:
    """Set a tensor map that metatrain keeps serialized in the weights of a checkpoint, as its own training would."""
    import metatensor.torch as mts

    checkpoint = torch.load(path, weights_only=False)
    for state in (checkpoint["model_state_dict"], checkpoint["best_model_state_dict"]):
        tensor = mts.load_buffer(state[entry])
        block = tensor.block()
        block.values[:] = torch.as_tensor(values, dtype=block.values.dtype)
        state[entry] = mts.save_buffer(mts.make_contiguous(tensor))
    torch.save(checkpoint, path)


def test_scaled_target_is_exported(tmp_path: Path) -> None:
    """A checkpoint whose DOS is scaled per channel: the scales end up in the readout."""
    from metatrain.utils.io import load_model

    pet, _ = write_checkpoints(tmp_path, SMALL, symbols=["Al"], n_channels=7)
    atoms = random_structures(["Al"], 4.5)["periodic"]
    export_model(pet, tmp_path / "plain.pt", grid_start=0.0)
    scales = np.linspace(0.5, 3.0, 7)
    edit_buffer(pet, "scaler.mtt::dos_scaler_buffer", scales)
    export_model(pet, tmp_path / "scaled.pt", grid_start=0.0)
    plain, scaled = (DOSModel.load(tmp_path / f"{name}.pt").dos(atoms) for name in ("plain", "scaled"))
    assert np.allclose(scaled, scales * plain, rtol=1e-5)
    stock = DOSModel.from_atomistic(load_model(pet).export(), DOSModel.load(tmp_path / "plain.pt").grid)
    assert np.allclose(scaled, stock.stock_dos(atoms), rtol=1e-5)


def test_export_is_reproducible_and_named(checkpoints, model_path: Path, tmp_path: Path) -> None:
    from helpers.models import GRID_START

    report = export_model(
        checkpoints[0], tmp_path / "again.pt", llpr=checkpoints[1], grid_start=GRID_START, electrons=ELECTRONS
    )
    again, first = DOSModel.load(report.backbone), DOSModel.load(model_path)
    assert again.info.fingerprint == first.info.fingerprint
    assert (again.info.name, first.info.name) == ("again", "small")
    other = export_model(checkpoints[0], tmp_path / "other.pt", grid_start=GRID_START + 1, electrons=ELECTRONS)
    assert DOSModel.load(other.backbone).info.fingerprint != first.info.fingerprint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "model.zip"}, "must end in .pt"),
        ({"target": "mtt::density"}, "has no target 'mtt::density', only"),
        ({"electrons": {"Alu": 3}}, "not a chemical symbol"),
        ({"checkpoint": "missing.ckpt"}, "no such checkpoint"),
        ({"llpr": "other"}, "wraps another network"),
    ],
)
def test_refusals(checkpoints, tmp_path: Path, arguments: dict, message: str) -> None:
    options = {"output": "m.pt", "checkpoint": checkpoints[0], "grid_start": 0.0, **arguments}
    if options.get("llpr") == "other":
        options["llpr"] = write_checkpoints(tmp_path, SMALL, symbols=["Al"], n_channels=5, n_members=2, seed=9)[1]
    checkpoint, output = options.pop("checkpoint"), tmp_path / options.pop("output")
    with pytest.raises(ModelError, match=message) as error:
        export_model(checkpoint, output, **options)
    assert "\n" not in str(error.value)
    assert not output.exists() and not readout_path(output).exists()


def test_truncated_checkpoint(checkpoints, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(checkpoints[0].read_bytes()[:20000])
    with pytest.raises(ModelError, match="not a readable metatrain checkpoint"):
        export_model(broken, tmp_path / "m.pt", grid_start=0.0)


def test_composition_baseline_is_refused(tmp_path: Path) -> None:
    """A baseline per element is not linear in features: the export says so instead of writing a wrong model."""
    pet, _ = write_checkpoints(tmp_path, SMALL, symbols=["Al"], n_channels=7)
    edit_buffer(pet, "additive_models.0.mtt::dos_composition_buffer", np.full(7, 0.5))
    with pytest.raises(ModelError, match=r"composition baseline.*atomic_baseline"):
        export_model(pet, tmp_path / "m.pt", grid_start=0.0)
    assert not (tmp_path / "m.pt").exists()


def test_members_whose_terms_cancel_are_judged_by_their_terms(tmp_path: Path) -> None:
    """Members' weights of 1e4, all but constant over nearly dependent features: float32 leaves four digits, and the readout is as exact."""
    from metatrain.utils.io import load_model

    pet, llpr = write_checkpoints(tmp_path, SMALL, symbols=list(ELECTRONS), n_channels=60, n_members=6, energy=True)
    assert llpr is not None
    model = load_model(pet)
    atoms = random_structures(list(ELECTRONS), 4.5)
    # Weights without a share along the features of all the structures compared: terms are large, their sums are not.
    export_model(pet, tmp_path / "plain.pt", llpr=llpr, grid_start=-10.0, electrons=ELECTRONS)
    plain = DOSModel.load(tmp_path / "plain.pt", device="cpu")
    n = int(model.last_layer_feature_size)
    phi = np.stack([plain.evaluate(a).features[:n] for a in random_structures(list(ELECTRONS), plain.cutoff).values()])
    null = np.linalg.svd(phi)[2][len(atoms) :]
    rng = np.random.default_rng(3)
    large = torch.tensor(1e4 * rng.standard_normal((6 * 60, len(null))) @ null, dtype=torch.float32)
    checkpoint = torch.load(llpr, weights_only=False)
    key = _ensemble_key(checkpoint)
    checkpoint["model_state_dict"][key] += large
    torch.save(checkpoint, llpr)
    report = export_model(pet, tmp_path / "m.pt", llpr=llpr, grid_start=-10.0, electrons=ELECTRONS)
    assert report.ensemble_deviation < 1e-5
    separated = DOSModel.load(tmp_path / "m.pt", device="cpu")
    sample = separated.evaluate(next(iter(random_structures(list(ELECTRONS), separated.cutoff).values())))
    stock = DOSModel.from_atomistic(load_model(llpr).export(), separated.grid, target="mtt::dos")
    expected = stock.stock_members(next(iter(random_structures(list(ELECTRONS), separated.cutoff).values())))
    # The case is real: judged by values alone, it would have been refused.
    assert np.abs(separated.dos_members(sample) - expected).max() > 1e-5 * np.abs(expected).max()
    terms = [
        (np.abs(member) @ np.abs(sample.features[:n])).max() for member in _deviations(readout_path(tmp_path / "m.pt"))
    ]
    assert separated.readout.largest_terms(sample.features) == pytest.approx(max(terms), rel=1e-5)


def _ensemble_key(checkpoint: dict) -> str:
    return next(k for k in checkpoint["model_state_dict"] if "llpr_ensemble_layers" in k and k.endswith("weight"))


def _deviations(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(path)["deviations"].astype(float)
