"""Validation: invariances, batches, direct mode against metatrain's own numbers, and every unsuitable file or structure."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.models import ELECTRONS, GRID_START, N_CHANNELS, N_MEMBERS, energy_only_model, write_old_model

from petdos_md.base.errors import ModelError, PredictionError, StructureError
from petdos_md.base.grid import EnergyGrid
from petdos_md.models.files import MODELS, readout_path, shipped_models
from petdos_md.models.loading import PET_MAD_GRID
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints


def close(a: np.ndarray, b: np.ndarray, rtol: float = 2e-5) -> bool:
    return bool(np.abs(a - b).max() <= rtol * np.abs(b).max())


def alloy() -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.symbols[:] = ["Al", "Mg", "Si", "Al", "Al", "Mg", "Al", "Si"]
    atoms.rattle(0.1, seed=2)
    return atoms


def test_atom_order_translation_supercell_and_batch(model: DOSModel) -> None:
    atoms = alloy()
    features = model.evaluate(atoms).features
    assert close(model.evaluate(atoms[np.random.default_rng(0).permutation(8)]).features, features)
    moved = atoms.copy()
    moved.translate([1.3, -20.2, 0.7])
    assert close(model.evaluate(moved).features, features)
    assert close(model.evaluate(atoms * (2, 1, 2)).features, 4 * features)
    structures = [atoms, Atoms("Si"), atoms * (3, 1, 1), moved]
    for sample, structure in zip(model.evaluate(structures), structures, strict=True):
        assert close(sample.features, model.evaluate(structure).features)
        assert sample.n_atoms == len(structure)


def test_large_batches_are_split(model: DOSModel) -> None:
    """More atoms than one batch holds: same numbers in the same order."""
    structures = [alloy() * (2, 2, 1) for _ in range(20)]
    for seed, structure in enumerate(structures):
        structure.rattle(0.05, seed=seed)
    samples = model.evaluate(structures)
    assert close(samples[17].features, model.evaluate(structures[17]).features)
    assert len({s.features.tobytes() for s in samples}) == 20


def test_sample_describes_the_structure(model: DOSModel) -> None:
    atoms = alloy()
    sample = model.evaluate(atoms)
    assert sample.n_electrons == 4 * 3 + 2 * 2 + 2 * 4 == model.n_electrons(atoms)
    assert sample.volume_A3 == pytest.approx(atoms.get_volume())
    assert sample.features.dtype == np.float32 and sample.features.shape == (model.readout.n_features,)
    assert sample.features[-2] == 8
    cluster = Atoms("Al2", positions=[[0, 0, 0], [0, 0, 2.5]])
    assert np.isnan(model.evaluate(cluster).volume_A3)


def test_members_surround_the_mean(model: DOSModel) -> None:
    sample = model.evaluate(alloy())
    members = model.dos_members(sample)
    assert members.shape == (N_MEMBERS, N_CHANNELS) and members.dtype == np.float64
    assert np.allclose(members.mean(axis=0), model.dos(sample), atol=1e-6 * np.abs(members).max())
    assert np.array_equal(members[1:3], model.readout.members(sample.features, 1, 3))
    assert np.allclose(model.readout.project(np.eye(N_CHANNELS)[7]) @ sample.features, model.dos(sample)[7], rtol=1e-6)


def test_forces_and_stress_by_finite_differences(model: DOSModel) -> None:
    atoms = alloy()
    sample, _, forces, stress = model.evaluate_with_forces(atoms)
    assert close(sample.features, model.evaluate(atoms).features)

    def energy(structure: Atoms) -> float:
        return model.evaluate_with_forces(structure, stress=False)[1]

    h = 3e-3
    plus, minus = atoms.copy(), atoms.copy()
    plus.positions[3, 1] += h
    minus.positions[3, 1] -= h
    scale = np.abs(forces).max()
    assert forces[3, 1] == pytest.approx(-(energy(plus) - energy(minus)) / (2 * h), abs=0.01 * scale)
    strained = []
    for sign in (1, -1):
        structure = atoms.copy()
        structure.set_cell(atoms.cell.array @ (np.eye(3) + sign * h * np.diag([1, 0, 0])), scale_atoms=True)
        strained.append(energy(structure))
    assert stress is not None
    numerical = (strained[0] - strained[1]) / (2 * h * atoms.get_volume())
    assert stress[0, 0] == pytest.approx(numerical, abs=0.01 * np.abs(stress).max())
    assert np.allclose(stress, stress.T)


@pytest.fixture(scope="module")
def direct_paths(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same network as metatrain exports it, with and without its ensemble."""
    from metatrain.utils.io import load_model

    folder = tmp_path_factory.mktemp("direct")
    for checkpoint, name in zip(checkpoints, ("pet.pt", "llpr.pt"), strict=True):
        load_model(checkpoint).export().save(str(folder / name))
    return folder / "pet.pt", folder / "llpr.pt"


@pytest.mark.parametrize("at_once", [True, False])
def test_energies_of_many_atoms_keep_their_digits(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 cells have 256 times the energy of one, to the last digits of a float32 network: sums are in double precision."""
    monkeypatch.setattr("petdos_md.models.evaluator.MAX_ATOMS_AT_ONCE", 10**6 if at_once else 0)
    model, cell = DOSModel.load("almgsi-lda"), ase.build.bulk("Al", cubic=True)
    alone, many = model.evaluate_with_forces(cell)[1], model.evaluate_with_forces(cell * (8, 8, 4))[1]
    assert many == pytest.approx(256 * alone, rel=2e-7)


def test_direct_mode_equals_separated(model: DOSModel, direct_paths: tuple[Path, Path]) -> None:
    grid = EnergyGrid(GRID_START, 0.05, N_CHANNELS)
    plain, ensemble = (DOSModel.load(p, grid=grid, electrons=ELECTRONS) for p in direct_paths)
    atoms = alloy()
    assert plain.info.kind == "direct" and plain.n_members == 0
    assert close(plain.dos(atoms), model.dos(atoms))
    assert close(ensemble.dos_members(atoms), model.dos_members(atoms))
    assert close(ensemble.dos_members(atoms), ensemble.stock_members(atoms))
    with pytest.raises(ModelError, match=r"no ensemble.*--llpr"):
        plain.dos_members(atoms)
    assert plain.info.fingerprint != ensemble.info.fingerprint != model.info.fingerprint
    kernel = np.linspace(0, 1, N_CHANNELS)
    sample = plain.evaluate(atoms)
    assert plain.readout.project(kernel) @ sample.features == pytest.approx(kernel @ plain.dos(sample), rel=1e-5)


def test_direct_mode_needs_a_grid(direct_paths: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"has {N_CHANNELS} channels.*grid=EnergyGrid"):
        DOSModel.load(direct_paths[0])
    with pytest.raises(ModelError, match="got 7 points"):
        DOSModel.load(direct_paths[0], grid=EnergyGrid(0.0, 0.1, 7))
    from metatrain.utils.io import load_model

    pet, _ = write_checkpoints(tmp_path, SMALL, symbols=["Ga", "As"], n_channels=PET_MAD_GRID.n)
    load_model(pet).export().save(str(tmp_path / "mad.pt"))
    assert DOSModel.load(tmp_path / "mad.pt").grid == PET_MAD_GRID


def message(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_unsuitable_structures(model: DOSModel, model_path: Path) -> None:
    with pytest.raises(StructureError) as error:
        model.evaluate(Atoms("GaAs", positions=[[0, 0, 0], [0, 0, 2]]))
    assert "element Ga is unknown" in message(error) and "Mg Al Si" in message(error)
    with pytest.raises(StructureError, match="no atoms"):
        model.evaluate(Atoms())
    broken = alloy()
    broken.positions[2, 0] = np.nan
    for call in (model.evaluate, model.evaluate_with_forces):
        with pytest.raises(StructureError, match="not finite"):
            call(broken)


def test_unknown_electron_numbers(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    from petdos_md.models.export import export_model

    export_model(checkpoints[0], tmp_path / "bare.pt", grid_start=0.0, electrons={"Al": 3})
    bare = DOSModel.load(tmp_path / "bare.pt")
    atoms = alloy()
    assert np.isnan(bare.evaluate(atoms).n_electrons)
    with pytest.raises(StructureError, match=r"known for Mg, Si; give electrons="):
        bare.n_electrons(atoms)
    assert DOSModel.load(tmp_path / "bare.pt", electrons={"Mg": 2, "Si": 4}).n_electrons(atoms) == 24


def test_nan_prediction(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """A network with a broken weight: the sample is skipped, not stored as NaN."""
    from petdos_md.models.export import export_model

    export_model(checkpoints[0], tmp_path / "m.pt", grid_start=0.0, electrons=ELECTRONS)
    model = DOSModel.load(tmp_path / "m.pt")
    with torch.no_grad():
        for name, parameter in model.evaluator.module.named_parameters():
            if "node_heads.mtt::petdos" in name:
                parameter[:] = np.nan
    with pytest.raises(PredictionError, match="NaN or infinity"):
        model.evaluate(alloy())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("missing", "no such file and no shipped model"),
        ("truncated", "truncated or not a model file"),
        ("text", "truncated or not a model file"),
        ("zip", "a zip archive but no model"),
        ("script", "not a metatomic model"),
        ("checkpoint", "is a training checkpoint, not a model; run `petdos export"),
        ("energy only", "expected one DOS output"),
        ("no readout", "no such readout"),
        ("other readout", "belongs to another model"),
        ("truncated readout", "not a readable readout"),
        ("readout is text", "not a readable readout"),
    ],
)
def test_unsuitable_files(
    content: str, expected: str, model_path: Path, checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "m.pt"
    readout = readout_path(path)
    if content in ("no readout", "other readout", "truncated readout", "readout is text"):
        shutil.copy(model_path, path)
    if content == "truncated":
        path.write_bytes(model_path.read_bytes()[:-100])
    elif content == "text":
        path.write_text("not a model")
    elif content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
    elif content == "script":
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    elif content == "checkpoint":
        shutil.copy(checkpoints[0], path)
    elif content == "energy only":
        energy_only_model(path)
    elif content == "other readout":
        from petdos_md.models.export import export_model

        export_model(checkpoints[0], tmp_path / "other.pt", grid_start=1.0)
        shutil.copy(readout_path(tmp_path / "other.pt"), readout)
    elif content == "truncated readout":
        readout.write_bytes(readout_path(model_path).read_bytes()[:3000])
    elif content == "readout is text":
        readout.write_text("hello, this is a text and not a set of tensors")
    with pytest.raises(ModelError) as error:
        DOSModel.load(path)
    assert expected in message(error)


def test_device_that_is_not_there(model_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ModelError, match=r"got device 'cuda', but this machine has none; expected one of: cpu"):
        DOSModel.load(model_path, device="cuda")


def test_sample_of_another_model(model: DOSModel, checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    from petdos_md.models.export import export_model

    export_model(checkpoints[0], tmp_path / "other.pt", grid_start=1.0)
    sample = DOSModel.load(tmp_path / "other.pt").evaluate(alloy())
    with pytest.raises(ModelError, match="was made by 'other', not by 'small'"):
        model.dos(sample)


def test_shipped_model_loads_by_name() -> None:
    assert "almgsi-lda" in shipped_models()
    shipped = DOSModel.load("almgsi-lda")
    assert shipped.has_energy and shipped.n_members >= 32
    assert {s: shipped.electrons[s] for s in ELECTRONS} == ELECTRONS
    assert shipped.info.path == "almgsi-lda"
    size = sum(f.stat().st_size for f in MODELS.iterdir())
    assert size <= 40e6  # of all shipped models: what the wheel carries


def test_model_with_two_outputs(lammps_model: DOSModel, lammps_model_path: Path, tmp_path: Path) -> None:
    """As models were exported before: metatrain's network gives the same features, whole and in chunks, and has the same identity."""
    write_old_model(lammps_model_path, tmp_path / "old.pt")
    old = DOSModel.load(tmp_path / "old.pt")
    assert old.info.fingerprint == lammps_model.info.fingerprint and old.info.n_features == lammps_model.info.n_features
    for atoms in (alloy() * (2, 2, 2), alloy() * (24, 1, 1)):
        for most in (None, 150):
            found = old.evaluate(atoms, max_atoms_per_chunk=most).features
            expected = lammps_model.evaluate(atoms, max_atoms_per_chunk=most).features
            assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()
