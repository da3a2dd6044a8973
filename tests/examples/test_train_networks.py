"""The training recipe learns what can be known, and writes networks that the package reads."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from helpers.structures import structures

from petdos_md.models.model import DOSModel
from petdos_md.physics.networks import networks_beside
from petdos_md.validation.references import read_references

SCRIPT = Path(__file__).parents[2] / "examples" / "training" / "networks.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("train_networks", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_networks"] = module
    spec.loader.exec_module(module)
    return module


def test_learns_a_level(recipe) -> None:
    """Square-root bands whose bottom moves: the level is 9 eV above it. Untrained, the error is the scatter of the levels."""
    rng = np.random.default_rng(0)
    energies = 0.05 * np.arange(760)

    def data(n: int):
        bottom = rng.uniform(5, 9, n)
        dos = 0.2 * np.sqrt(np.maximum(energies - bottom[:, None], 0.0))[:, None]
        noisy = dos + 0.01 * rng.normal(size=(n, 3, 760))
        return recipe.Data(
            torch.tensor(noisy, dtype=torch.float32), {"fermi_level": torch.tensor(bottom + 9, dtype=torch.float32)}
        )

    train, validation = data(48), data(16)
    reported = []
    module, best = recipe.train_network(
        train,
        validation,
        "fermi_level",
        0.05,
        learning_rate=1e-3,
        warmup=3,
        max_epochs=24,
        report=lambda *x: reported.append(x),
    )
    scatter = float(validation.targets["fermi_level"].var())
    assert best < 0.1 * scatter and len(reported) == 24
    found = recipe.predict(module, validation)
    assert float(((found - validation.targets["fermi_level"]) ** 2).mean()) == pytest.approx(best, rel=1e-4)
    assert best == pytest.approx(min(x[2] for x in reported), rel=1e-6)


def test_shift(recipe) -> None:
    x = torch.arange(5.0)
    assert recipe.moved(x, 2).tolist() == [0, 0, 0, 1, 2] and recipe.moved(x, -1).tolist() == [1, 2, 3, 4, 4]


def test_from_data_to_files(metal: DOSModel, metal_path: Path, tmp_path: Path) -> None:
    """The script as it is typed, for two epochs: targets are those of the eigenvalues, networks are read beside a model."""
    written = []
    for i, atoms in enumerate(structures(10)):
        rng = np.random.default_rng(i)
        levels = np.sort(
            np.concatenate([rng.uniform(-7, -3, (2, 6)), rng.uniform(4, 5, (2, 2)), rng.uniform(7, 8, (2, 1))], axis=1),
            axis=1,
        )
        atoms.info |= {"eigenvalues": levels, "kweights": np.array([1.0, 1.0])}
        written.append(atoms)
    ase.io.write(tmp_path / "data.xyz", written, format="extxyz")
    command = [
        sys.executable,
        str(SCRIPT),
        str(metal_path),
        str(tmp_path / "data.xyz"),
        "-o",
        str(tmp_path / "out"),
        "--epochs",
        "2",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    networks = networks_beside(tmp_path / "out" / metal_path.name, metal.grid)
    assert sorted(networks) == ["dos_at_fermi_level", "fermi_level", "gap"]
    assert all(network.model == metal.info.fingerprint for network in networks.values())
    reference = read_references(tmp_path / "data.xyz", metal)[0]
    assert np.isfinite(networks["fermi_level"](metal.dos(reference.atoms), 4))
    assert "test rmse" in done.stdout and (tmp_path / "out" / "networks.json").is_file()
