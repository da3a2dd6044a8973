"""PET-MAD-DOS: a checkpoint of its shape, exported, against upet's calculator on the same files."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.hub import HubServer
from upet.ase.dos import PETMADDOSCalculator
from upet.ase.dos._models import CNNModel
from upet.ase.dos.utils import NUM_ELECTRONS_PER_ELEMENT

from petdos_md.analysis.levels import band_gap
from petdos_md.base.errors import ModelError
from petdos_md.cli.main import main
from petdos_md.models.loading import PET_MAD_GRID
from petdos_md.models.model import DOSModel
from petdos_md.models.pet_mad_dos import ELECTRONS, FILES, REPOSITORY, cached_model, export_pet_mad_dos, fetch
from petdos_md.models.testing import PET_MAD_DOS_SIZE, PET_MAD_SYMBOLS, SMALL, write_checkpoints
from petdos_md.physics import thermo
from petdos_md.physics.denoise import Denoise
from petdos_md.physics.networks import networks_beside


def write_files(folder: Path, hypers: dict) -> Path:
    """All files of PET-MAD-DOS with random weights: 85 elements, 4806 energies; the DOS is made to look like one."""
    folder.mkdir()
    pet, _ = write_checkpoints(folder, hypers, symbols=PET_MAD_SYMBOLS, n_channels=PET_MAD_GRID.n)
    checkpoint = torch.load(pet, weights_only=False)
    e = torch.as_tensor(PET_MAD_GRID.energies)
    shape = 0.9 * torch.exp(-((e + 8.0) ** 2) / 8) + 0.6 / (1 + torch.exp(-(e - 3.0) * 4))
    for state in (checkpoint["model_state_dict"], checkpoint["best_model_state_dict"]):
        for name, value in (state or {}).items():
            if "_last_layers.mtt::dos" in name:
                value *= 0.02
            if "node_last_layers.mtt::dos.0" in name and name.endswith("bias"):
                value += shape
    torch.save(checkpoint, folder / "pet-mad-dos-v1.0.ckpt")
    pet.unlink()
    torch.manual_seed(7)
    for name, level in (("fermi-model.pt", -7.7 - PET_MAD_GRID.start), ("bandgap-model.pt", 1.5)):
        module = CNNModel()
        with torch.no_grad():
            module.fc2.bias.fill_(level)
        torch.save(module.state_dict(), folder / name)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("pet-mad-dos") / "files", SMALL)


def structures() -> list[Atoms]:
    gaas = ase.build.bulk("GaAs", "zincblende", a=5.65, cubic=True)
    gaas.rattle(0.1, seed=1)
    slab = ase.build.fcc111("Al", (1, 1, 3), vacuum=6.0, periodic=True)
    return [gaas, slab, ase.build.molecule("H2O"), ase.build.bulk("CeO2", "fluorite", a=5.41)]


def compare_with_upet(folder: Path, output: Path) -> None:
    report = export_pet_mad_dos(output, files=folder)
    names = {"checkpoint": "pet-mad-dos-v1.0.ckpt", "fermi_level": "fermi-model.pt", "gap": "bandgap-model.pt"}
    assert report.hashes == {folder / n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names.values()}
    model = DOSModel.load(output, device="cpu")
    networks = networks_beside(output, model.grid)
    upet = PETMADDOSCalculator(
        model_path=str(folder / names["checkpoint"]),
        bandgap_model_path=str(folder / names["gap"]),
        fermi_model_path=str(folder / names["fermi_level"]),
        device="cpu",
    )
    for atoms in structures():
        theirs = {key: value.detach().numpy() for key, value in upet.calculate(atoms).items()}
        dos, n_electrons, size = model.dos(atoms), model.n_electrons(atoms), len(atoms)
        assert n_electrons == sum(NUM_ELECTRONS_PER_ELEMENT[s] for s in atoms.symbols)
        scale = np.abs(theirs["dos_raw"]).max()
        np.testing.assert_allclose(dos, theirs["dos_raw"], rtol=1e-5, atol=1e-5 * scale)
        level = float(networks["fermi_level"](dos, size))
        # upet counts from the first channel, we on the axis of the grid
        assert level - model.grid.start == pytest.approx(
            float(theirs["fermi_level"]), abs=1e-5 * abs(level - model.grid.start)
        )
        assert float(networks["gap"](dos, size)) == pytest.approx(float(theirs["bandgap"]), rel=1e-5, abs=1e-5)
        # upet integrates to the grid point above the floor of its Fermi level; everything else is the same
        upper = model.grid.start + (np.floor(float(theirs["fermi_level"]) / 0.05) + 1) * 0.05

        def there(dos: np.ndarray, n_atoms: int, upper: float = upper) -> np.ndarray:
            return np.full(len(dos), upper)

        clean = Denoise(model.grid.energies, size, n_electrons, there)(dos.copy()[None, None], slice(0, 1))[0, 0]
        np.testing.assert_allclose(clean, theirs["dos_denoised"], rtol=1e-4, atol=1e-4 * scale)


def test_equals_upet(files: Path, tmp_path: Path) -> None:
    compare_with_upet(files, tmp_path / "pet-mad-dos.pt")


@pytest.mark.slow
def test_equals_upet_at_full_size(tmp_path: Path) -> None:
    compare_with_upet(write_files(tmp_path / "files", PET_MAD_DOS_SIZE), tmp_path / "pet-mad-dos.pt")


def test_electrons_are_those_of_upet() -> None:
    assert ELECTRONS == NUM_ELECTRONS_PER_ELEMENT and sorted(ELECTRONS) == sorted(PET_MAD_SYMBOLS)


def test_in_one_line(files: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, and what can be done with its result."""
    monkeypatch.chdir(tmp_path)
    assert main(["export", "pet-mad-dos", "--files", str(files)]) == 0
    told = capsys.readouterr().out
    for name in ("pet-mad-dos-v1.0.ckpt", "fermi-model.pt", "bandgap-model.pt"):
        assert f"{name}: sha256 {hashlib.sha256((files / name).read_bytes()).hexdigest()}" in told
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pet-mad-dos.fermi_level.safetensors", "pet-mad-dos.gap.safetensors", "pet-mad-dos.pt", "pet-mad-dos.readout.safetensors",
    ]  # fmt: skip
    model = DOSModel.load("pet-mad-dos.pt")
    atoms = structures()[0]
    dos = model.dos(atoms)
    level = thermo.fermi_level(model.grid.energies, dos, model.n_electrons(atoms))
    assert np.isfinite(level) and float(band_gap(model.grid.energies, dos, model.n_electrons(atoms), len(atoms))) >= 0
    assert main(["export", "pet-mad-dos", "--files", str(files), "--grid-start", "0"]) == 2
    assert "--grid-start is known of pet-mad-dos" in capsys.readouterr().err
    assert main(["export", str(files / "pet-mad-dos-v1.0.ckpt"), "-o", "a.pt"]) == 2
    assert "pet-mad-dos-v1.0.ckpt: give --grid-start EV" in capsys.readouterr().err


def test_download_and_cache(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """huggingface_hub itself, against a server on this machine; without it, the error says what to do."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer(REPOSITORY, files) as hub:
        endpoint = hub.endpoint
        found = fetch(endpoint=endpoint)
        for key, name in FILES.items():
            assert found[key].read_bytes() == (files / Path(name).name).read_bytes()
        assert len(hub.downloads) == 3
        assert fetch(endpoint=endpoint) == found
        assert len(hub.downloads) == 3  # from the cache
        made = cached_model(tmp_path / "models", endpoint)
        exported = DOSModel.load(made)
        assert exported.info.name == "pet-mad-dos" and exported.grid.n == 4806
        assert {p.name.split(".")[1] for p in made.parent.iterdir()} == {"pt", "readout", "fermi_level", "gap"}
        stamp = made.stat().st_mtime_ns
        assert cached_model(tmp_path / "models", "http://127.0.0.1:1") == made and made.stat().st_mtime_ns == stamp
        # from then on the name alone will do
        shutil.copytree(tmp_path / "models", tmp_path / "xdg" / "petdos-md")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert main(["info", "pet-mad-dos"]) == 0 and "4806 from " in capsys.readouterr().out
        # a file that is gone from the repository, and nothing in the cache
        shutil.rmtree(tmp_path / "cache")
        hub.folder = tmp_path
        with pytest.raises(ModelError, match="cannot be downloaded"):
            fetch(endpoint=endpoint)
        with pytest.raises(ModelError, match="cannot be downloaded"):
            cached_model(tmp_path / "other", endpoint)
        assert [p.name for p in (tmp_path / "other").iterdir()] == ["pet-mad-dos-v1.0.lock"]  # nothing half made
