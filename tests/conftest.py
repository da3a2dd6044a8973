"""Models with random weights, made once for all tests: real networks of metatrain, exported by the real commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Two cores: more threads than that only get in each other's way, and one makes small models reproducible and quick.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import ase.build
import pytest
from ase import Atoms

ELECTRONS = {"Al": 3, "Mg": 2, "Si": 4}
GRID_START = -12.0
N_CHANNELS = 400
N_MEMBERS = 5


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PET with energy and DOS heads, and the LLPR that wraps it."""
    from petdos_md.models.testing import SMALL, write_checkpoints

    folder = tmp_path_factory.mktemp("checkpoints")
    pet, llpr = write_checkpoints(
        folder, SMALL, symbols=list(ELECTRONS), n_channels=N_CHANNELS, n_members=N_MEMBERS, energy=True
    )
    assert llpr is not None
    return pet, llpr


@pytest.fixture(scope="session")
def model_path(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout with random weights."""
    from petdos_md.models.export import export_model

    path = tmp_path_factory.mktemp("models") / "small.pt"
    export_model(checkpoints[0], path, llpr=checkpoints[1], grid_start=GRID_START, electrons=ELECTRONS)
    return path


@pytest.fixture(scope="session")
def model(model_path: Path):
    """The model with separate readout, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(model_path)


@pytest.fixture(scope="session")
def metal_path(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout whose DOS is that of a metal (a square root per atom) with a ripple that follows the structure."""
    import metatomic.torch  # noqa: F401  so that torch can read the metadata in checkpoints
    import torch

    from petdos_md.models.export import export_model

    folder = tmp_path_factory.mktemp("metal")
    energies = GRID_START + 0.05 * torch.arange(N_CHANNELS)
    changed = []
    for path in checkpoints:
        checkpoint = torch.load(path, weights_only=False)
        inner = checkpoint.get("wrapped_model_checkpoint") or checkpoint
        for state in (inner["model_state_dict"], inner["best_model_state_dict"]):
            for name, value in state.items():
                if "_last_layers.mtt::dos" in name:
                    value *= 0.001
                if "node_last_layers.mtt::dos.0" in name and name.endswith("bias"):
                    value += 0.15 * (energies - GRID_START - 2.0).clamp(min=0.0).sqrt()
        for name, value in checkpoint["model_state_dict"].items():
            if "llpr_ensemble_layers" in name:
                value *= 0.01
        changed.append(folder / path.name)
        torch.save(checkpoint, changed[-1])
    export_model(changed[0], folder / "metal.pt", llpr=changed[1], grid_start=GRID_START, electrons=ELECTRONS)
    return folder / "metal.pt"


@pytest.fixture(scope="session")
def metal(metal_path: Path):
    """The model of a metal, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(metal_path)


@pytest.fixture
def aluminium() -> Atoms:
    """A rattled cell of 8 atoms."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture(scope="session")
def lammps_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout in double precision with adaptive cutoffs, whose halo must be wider than the reach of its messages."""
    import torch

    from petdos_md.models.export import export_model
    from petdos_md.models.testing import SMALL, write_checkpoints

    folder = tmp_path_factory.mktemp("double")
    hypers = {**SMALL, "num_neighbors_adaptive": 12.0}
    pet, llpr = write_checkpoints(
        folder, hypers, symbols=list(ELECTRONS), n_channels=N_CHANNELS, n_members=2, dtype=torch.float64
    )
    export_model(pet, folder / "double.pt", llpr=llpr, grid_start=GRID_START, electrons=ELECTRONS)
    return folder / "double.pt"


@pytest.fixture(scope="session")
def lammps_model(lammps_model_path: Path):
    """The model in double precision, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(lammps_model_path)


@pytest.fixture(scope="session")
def lammps_plugin() -> Path:
    """The folder of the LAMMPS plugin, compiled if it is not there."""
    from petdos_md.engines.lammps.build import build

    return build()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
