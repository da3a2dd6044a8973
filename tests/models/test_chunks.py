"""Validation in chunks: the same numbers as at once, whatever the chunks, and parts that are as small as was asked for."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from helpers.lammps_tools import deviation

from petdos_md.base.errors import ModelError, SettingError
from petdos_md.models import chunks
from petdos_md.models.model import DOSModel


def long_alloy(pbc: object = True) -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 24)
    atoms.rattle(0.15, seed=1)
    atoms.symbols[::3] = "Mg"
    atoms.pbc = pbc
    return atoms


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_chunks_equal_the_whole(lammps_model: DOSModel, pbc: object) -> None:
    """In double precision to rounding, for a network with adaptive cutoffs."""
    atoms = long_alloy(pbc)
    whole = lammps_model.evaluate(atoms)
    parts = lammps_model.evaluate(atoms, max_atoms_per_chunk=260)
    assert deviation(parts.features, whole.features) < 1e-12
    assert (parts.n_atoms, parts.n_electrons) == (whole.n_atoms, whole.n_electrons)


def test_a_smaller_halo_would_not_do(lammps_model: DOSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = long_alloy()
    whole = lammps_model.evaluate(atoms)
    monkeypatch.setattr(chunks, "EXTRA_HOPS", -1)
    assert deviation(lammps_model.evaluate(atoms, max_atoms_per_chunk=200).features, whole.features) > 1e-7


def test_shipped_model_in_chunks() -> None:
    model = DOSModel.load("almgsi-lda")
    atoms = long_alloy()
    mixed = [atoms[:8], atoms, Atoms("Si")]
    whole, parts = model.evaluate(mixed), model.evaluate(mixed, max_atoms_per_chunk=300)
    for a, b in zip(parts, whole, strict=True):
        assert deviation(a.features, b.features) < 1e-5


def test_plan_is_a_partition_with_exact_halos() -> None:
    """Against the powers of the adjacency matrix."""
    atoms = long_alloy()
    i, j = neighbor_list("ij", atoms, 4.0)
    reach = np.eye(len(atoms), dtype=bool)
    adjacency = np.zeros_like(reach)
    adjacency[i, j] = True
    for _ in range(3):
        reach |= reach @ adjacency
    planned = list(chunks.plan_chunks(atoms.positions, np.stack([i, j], axis=1), 3, 200))
    assert sorted(np.concatenate([chunk.own for chunk in planned])) == list(range(len(atoms)))
    assert len(planned) > 2
    for chunk in planned:
        assert len(chunk.atoms) <= 200
        assert np.array_equal(chunk.atoms[: len(chunk.own)], chunk.own)
        assert sorted(chunk.atoms) == np.flatnonzero(reach[chunk.own].any(axis=0)).tolist()


def test_chunks_that_are_too_small(lammps_model: DOSModel) -> None:
    with pytest.raises(SettingError, match=r"chunks may have 20 atoms, but one atom with its halo has \d+;"):
        lammps_model.evaluate(long_alloy(), max_atoms_per_chunk=20)


def test_infinite_range() -> None:
    class Capabilities:
        def engine_interaction_range(self, unit: str) -> float:
            return float("inf")

    with pytest.raises(ModelError, match="range of this model is infinite"):
        chunks.hops_needed(Capabilities(), 5.0)  # type: ignore[arg-type]


def test_direct_mode_in_chunks(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """A model that is asked for its DOS itself."""
    from helpers.models import GRID_START, N_CHANNELS
    from metatrain.utils.io import load_model

    from petdos_md.base.grid import EnergyGrid

    load_model(checkpoints[0]).export().save(str(tmp_path / "pet.pt"))
    model = DOSModel.load(tmp_path / "pet.pt", grid=EnergyGrid(GRID_START, 0.05, N_CHANNELS))
    atoms = long_alloy()
    whole, parts = model.evaluate(atoms), model.evaluate(atoms, max_atoms_per_chunk=300)
    assert np.abs(parts.features - whole.features).max() < 1e-5 * np.abs(whole.features).max()
    assert torch.get_default_dtype() == torch.float32
