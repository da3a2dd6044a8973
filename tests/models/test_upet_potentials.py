"""Published potentials by name: a checkpoint of their shape behind a server on this machine, against upet's own calculator."""

from __future__ import annotations

import functools
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import torch
from helpers.hub import HubServer
from huggingface_hub import HfApi
from upet import _models
from upet.ase import UPETCalculator

from petdos_md.base.errors import ModelError, SettingError
from petdos_md.cli.main import main
from petdos_md.engines.potentials import Potential
from petdos_md.models.testing import SMALL
from petdos_md.models.upet_potentials import REPOSITORY, cached_potential, parse
from petdos_md.traces.trace import Trace

NAMES = ("pet-mad-s-v1.0.2", "pet-mad-s-v1.10.0", "pet-mad-xs-v2.0.0", "pet-mad-dos-v1.0")


def write_potential(path: Path, seed: int) -> None:
    """A checkpoint with an energy alone, of random weights."""
    from metatrain.pet import __model__ as PET
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    energy = get_energy_target_info(
        "energy", {"quantity": "energy", "unit": "eV", "description": ""}, add_position_gradients=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        info = DatasetInfo("angstrom", [12, 13, 14], {"energy": energy})
        torch.save(PET({**get_default_hypers("pet")["model"], **SMALL}, info).get_checkpoint(), path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upet")
    for seed, name in enumerate(NAMES):
        write_potential(folder / f"{name}.ckpt", seed)
    return folder


@pytest.fixture
def hub(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server in place of the Hub, for upet too; caches of their own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _models._get_upet_repo_files.cache_clear()
    with HubServer(REPOSITORY, files) as server:
        monkeypatch.setattr(_models, "HfApi", functools.partial(HfApi, endpoint=server.endpoint))
        yield server
    _models._get_upet_repo_files.cache_clear()


@pytest.mark.parametrize(
    ("name", "version"),
    [("pet-mad", NAMES[1]), ("pet-mad-s-1.0.2", NAMES[0])],
)
def test_equals_upet(name: str, version: str, files: Path, hub: HubServer, tmp_path: Path) -> None:
    """Size and version by upet's rules; energies and forces are those of its calculator on the same checkpoint."""
    path = cached_potential(name, endpoint=hub.endpoint)
    assert path == tmp_path / "cache" / "petdos-md" / version / f"{version}.pt"
    given = parse(name)
    assert given is not None
    size, newest = _models.upet_resolve_model(given.model, given.size, given.version)
    assert version == f"{given.model}-{size}-v{newest}"
    atoms = ase.build.bulk("Al", cubic=True)
    atoms.rattle(0.1, seed=1)
    expected = UPETCalculator(checkpoint_path=files / f"{version}.ckpt", device="cpu")
    ours = Potential.find(str(path)).calculator()
    assert ours.get_potential_energy(atoms) == pytest.approx(expected.get_potential_energy(atoms), rel=1e-6)
    np.testing.assert_allclose(ours.get_forces(atoms), expected.get_forces(atoms), atol=1e-5)


def test_fetched_once_and_the_newest_that_is_there(hub: HubServer, files: Path) -> None:
    old = cached_potential("pet-mad-s-v1.0.2", endpoint=hub.endpoint)
    assert len(hub.downloads) == 1 and not any("/api/" in r for r in hub.requests)
    requests = list(hub.requests)
    assert cached_potential("pet-mad-s") == old == cached_potential("pet-mad") and hub.requests == requests
    new = cached_potential("pet-mad-s-v1.10.0", endpoint=hub.endpoint)
    assert cached_potential("pet-mad-s") == new  # 1.10 is newer than 1.2
    assert (
        "model='pet-mad', size='m'" in str(parse("pet-mad-m"))
        and parse("pet-mad-dos") is None
        and parse("Al.pt") is None
    )


def test_drives_dynamics(hub: HubServer, tmp_path: Path, metal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command; the trace knows which version it was."""
    monkeypatch.chdir(tmp_path)
    cached_potential("pet-mad-s-v1.0.2", endpoint=hub.endpoint)
    ase.io.write("Al.xyz", ase.build.bulk("Al", cubic=True))
    command = ["md", "Al.xyz", "--potential", "pet-mad-s", "--dos", str(metal_path), "--temperature", "300"]
    assert main([*command, "--steps", "2", "--every", "1", "--equilibrate", "0", "--seed", "1", "-o", "run.zarr"]) == 0
    trace = Trace.open("run.zarr", "r")
    assert len(trace) == 3 and trace.attributes["metadata"]["potential"].endswith("pet-mad-s-v1.0.2.pt")


def test_one_line_where_it_is_not(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (
        ("pet-mad-l", r"pet-mad-l cannot be found on lab-cosmo/upet \(of pet-mad: s-v1.0.2, s-v1.10.0, xs-v2.0.0\)"),
        ("pet-none", r"pet-none cannot be found on lab-cosmo/upet \(of pet-none: none\)"),
        ("pet-mad-s-v9.9.9", r"models/pet-mad-s-v9.9.9.ckpt of lab-cosmo/upet cannot be downloaded"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            cached_potential(name, endpoint=hub.endpoint)
        assert "\n" not in str(caught.value) and "petdos export" in str(caught.value)
    words = [sys.executable, "-m", "petdos_md", "md", "Al.xyz", "--potential", "pet-mad-s", "--dos", "almgsi-lda"]
    ase.io.write(tmp_path / "Al.xyz", ase.build.bulk("Al", cubic=True))
    nowhere = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    words += ["--temperature", "300", "--steps", "2", "-o", "run.zarr"]
    done = subprocess.run(words, cwd=tmp_path, env=nowhere, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not (tmp_path / "run.zarr").exists()
    assert not list((tmp_path / "cache" / "petdos-md").glob("*.pt"))
    monkeypatch.setitem(sys.modules, "upet", None)
    with pytest.raises(ModelError, match=r"pet-mad-s needs upet: pip install -U upet"):
        Potential.find("pet-mad-s")
    with pytest.raises(SettingError, match="one of upet"):
        Potential.find("morse")


def test_a_bar_in_a_terminal_alone(hub: HubServer, tmp_path: Path) -> None:
    """What the download shows: nothing into a file, in a terminal the name of the file and how much of it is there."""
    code = "import sys; from petdos_md.models.hub import download; download(sys.argv[1], sys.argv[2], '', sys.argv[3])"
    words = [sys.executable, "-c", code, REPOSITORY, "models/pet-mad-s-v1.0.2.ckpt", hub.endpoint]
    environment = os.environ | {"HF_HOME": str(tmp_path / "one")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    done = subprocess.run(words, env=os.environ | {"HF_HOME": str(tmp_path / "two")}, stderr=terminal)
    os.close(terminal)
    shown = os.read(reader, 65536).decode()
    assert done.returncode == 0 and "pet-mad-s-v1.0.2.ckpt" in shown and "100%" in shown
