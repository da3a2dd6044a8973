"""What the CPU gives, on a GPU: samples, forces, chunks, hot electrons, samples beside the dynamics."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from petdos_md.ase import DOSObserver
from petdos_md.models.hot_electrons import HotElectronForces
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

DEVICE = "cuda"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(scope="module")
def on_both() -> tuple[DOSModel, DOSModel]:
    """The shipped model on the CPU and on the GPU."""
    return DOSModel.load("almgsi-lda", "cpu"), DOSModel.load("almgsi-lda", DEVICE)


def alloy(n: int = 2) -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * (n, n, n)
    atoms.symbols[::3] = "Mg"
    atoms.rattle(0.1, seed=n)
    return atoms


def assert_close(found: np.ndarray, expected: np.ndarray, relative: float) -> None:
    assert np.abs(np.asarray(found, float) - expected).max() < relative * np.abs(expected).max()


def test_samples(on_both: tuple[DOSModel, DOSModel]) -> None:
    """One structure, and several in a batch."""
    cpu, gpu = on_both
    frames = [alloy(1), alloy(2), ase.build.bulk("Si"), alloy(3)]
    for found, expected in zip(gpu.evaluate(frames), cpu.evaluate(frames), strict=True):
        assert_close(found.features, expected.features, 1e-5)
    assert_close(gpu.dos(frames[1]), cpu.dos(frames[1]), 1e-5)


def test_tf32_is_that_of_torch(on_both: tuple[DOSModel, DOSModel]) -> None:
    """Off by default; `torch.set_float32_matmul_precision` turns it on, with three digits less."""
    cpu, gpu = on_both
    expected = cpu.evaluate(alloy()).features.astype(float)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        assert_close(gpu.evaluate(alloy()).features, expected, 2e-2)
    finally:
        torch.set_float32_matmul_precision(before)
    assert_close(gpu.evaluate(alloy()).features, expected, 1e-5)


@pytest.mark.parametrize("n", [2, 7])
def test_forces(on_both: tuple[DOSModel, DOSModel], n: int) -> None:
    """Of the whole network at once, and (1372 atoms) slice by slice."""
    for found, expected in zip(*(model.evaluate_with_forces(alloy(n)) for model in on_both[::-1]), strict=True):
        if isinstance(expected, np.ndarray):
            assert_close(found, expected, 1e-4)
        elif isinstance(expected, float):
            assert found == pytest.approx(expected, rel=1e-5)


def test_chunks(on_both: tuple[DOSModel, DOSModel]) -> None:
    cpu, gpu = on_both
    atoms = alloy(7)
    assert_close(gpu.evaluate(atoms, max_atoms_per_chunk=900).features, cpu.evaluate(atoms).features, 1e-5)


def test_hot_electrons(on_both: tuple[DOSModel, DOSModel]) -> None:
    expected, found = (HotElectronForces(model).evaluate(alloy(), 8000.0) for model in on_both)
    assert found.free_energy_eV == pytest.approx(expected.free_energy_eV, rel=1e-5)
    assert_close(found.forces, expected.forces, 1e-4)
    assert found.stress is not None and expected.stress is not None
    assert_close(found.stress, expected.stress, 1e-4)


def test_samples_beside_the_dynamics(on_both: tuple[DOSModel, DOSModel], tmp_path: Path) -> None:
    """The default on a GPU: the frames of every second step, evaluated on a stream of its own."""
    frames = []
    atoms = ase.build.bulk("Al", cubic=True) * (3, 3, 3)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    with DOSObserver(atoms, on_both[1], tmp_path / "t.zarr", 300, dynamics=dynamics) as observer:
        dynamics.attach(observer, interval=2)
        dynamics.attach(lambda: frames.append(atoms.copy()), interval=2)
        dynamics.run(20)
        assert observer.n_samples == 10  # the last one is being evaluated
    features = Trace.open(tmp_path / "t.zarr", "r").features
    assert_close(features, np.array([s.features for s in on_both[0].evaluate(frames)]), 1e-5)
