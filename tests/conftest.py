"""Models and places that all tests share; a run makes each model once, whatever the number of its workers."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# One thread for a worker: there is a worker for each core, and one thread makes small models reproducible and quick.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Ranks that wait leave their core to others, of which tests have more than there are cores.
os.environ.setdefault("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "1")
os.environ.setdefault("MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT", "200")

import ase.build
import pytest
from ase import Atoms
from helpers.once import once


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """A command that fails silences the package until its process ends; here, processes go on with the next test."""
    yield
    logging.getLogger("petdos_md").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """PET with energy and DOS heads, and the LLPR that wraps it."""
    from helpers.models import write_small_checkpoints

    folder = once(tmp_path_factory, "checkpoints", write_small_checkpoints)
    return folder / "pet.ckpt", folder / "llpr.ckpt"


@pytest.fixture(scope="session")
def model_path(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout with random weights."""
    from helpers.models import write_model

    return once(tmp_path_factory, "small", lambda at: write_model(at / "small.pt", checkpoints)) / "small.pt"


@pytest.fixture(scope="session")
def model(model_path: Path):
    """The model with separate readout, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(model_path)


@pytest.fixture(scope="session")
def metal_path(checkpoints: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout whose DOS is that of a metal with a ripple that follows the structure."""
    from helpers.models import write_metal

    return once(tmp_path_factory, "metal", lambda at: write_metal(at / "metal.pt", checkpoints)) / "metal.pt"


@pytest.fixture(scope="session")
def metal(metal_path: Path):
    """The model of a metal, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(metal_path)


@pytest.fixture(scope="session")
def guarded(metal_path: Path, tmp_path_factory: pytest.TempPathFactory):
    """The model of a metal that knows its training set, rattled crystals of aluminium."""
    from helpers.models import write_guarded

    from petdos_md.models.model import DOSModel

    folder = once(tmp_path_factory, "guarded", lambda at: write_guarded(at / "guarded.pt", metal_path))
    return DOSModel.load(folder / "guarded.pt")


@pytest.fixture(scope="session")
def hot_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a metal in double precision, with an energy head."""
    from helpers.models import write_hot_metal

    return once(tmp_path_factory, "hot", lambda at: write_hot_metal(at / "hot.pt")) / "hot.pt"


@pytest.fixture(scope="session")
def hot_model(hot_path: Path):
    """The model of a metal in double precision, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(hot_path)


@pytest.fixture
def aluminium() -> Atoms:
    """A rattled cell of 8 atoms."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=3)
    return atoms


@pytest.fixture(scope="session")
def lammps_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with separate readout in double precision with adaptive cutoffs."""
    from helpers.models import write_double_model

    return once(tmp_path_factory, "double", lambda at: write_double_model(at / "double.pt")) / "double.pt"


@pytest.fixture(scope="session")
def lammps_model(lammps_model_path: Path):
    """The model in double precision, loaded."""
    from petdos_md.models.model import DOSModel

    return DOSModel.load(lammps_model_path)


@pytest.fixture(scope="session")
def lammps_plugin() -> Path:
    """The folder of the LAMMPS plugin, compiled if it is not there; workers wait for each other by its lock."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers must collect the same tests: a name with an address of memory would differ from one to the other."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(
                f"{item.nodeid}: the name holds an address; give the parameters names with ids=[...]"
            )
