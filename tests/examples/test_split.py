"""How the training recipe divides its data, and what it makes of several data sets."""

from __future__ import annotations

import argparse
import importlib
import io
import lzma
import sys
from pathlib import Path
from types import ModuleType

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms

from petdos_md.base.grid import EnergyGrid

TRAINING = Path(__file__).parents[2] / "examples" / "training"
DATA = TRAINING / "data"


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch):
    """Modules of the recipe by name, as its scripts import each other."""
    monkeypatch.syspath_prepend(str(TRAINING / "dft"))
    monkeypatch.syspath_prepend(str(TRAINING))

    def load(name: str) -> ModuleType:
        for known in ("split", "prepare", "compute", "gpaw_dft"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        return importlib.import_module(name)

    return load


def series(kind: str, number: int, steps: int, rng: np.random.Generator) -> list[Atoms]:
    """Snapshots of a walk in small steps from a random structure."""
    atoms = ase.build.bulk("Ni", "fcc", a=3.6, cubic=True) * (2, 1, 1)
    atoms.symbols[:] = rng.permutation(["Ni", "Co"] * 4)
    atoms.rattle(0.3, rng=rng)
    found = []
    for step in range(steps):
        atoms.rattle(0.02, rng=rng)
        found.append(atoms.copy())
        found[-1].info = {"index": 100 * number + step, "tag": f"{kind}-{300 + step}K"}
    return found


def test_near_snapshots_stay_together(recipe) -> None:
    """Of eight walks of four snapshots each, none is divided; both kinds give to the test set."""
    split = recipe("split")
    rng = np.random.default_rng(3)
    walks = [series("solid" if n % 2 else "liq", n, 4, rng) for n in range(8)]
    structures = [walks[n][k] for k in range(4) for n in range(8)]
    parts = dict(zip((a.info["index"] for a in structures), split.split_by_series(structures), strict=True))
    of_walks = [{parts[a.info["index"]] for a in walk} for walk in walks]
    assert all(len(found) == 1 for found in of_walks)
    assert {split.kind_of(w[0]) for w, found in zip(walks, of_walks, strict=True) if found == {"test"}} <= {
        "solid",
        "liq",
    }
    assert sorted(part for found in of_walks for part in found).count("train") >= 4


def test_distance_does_not_see_translations_and_images(recipe) -> None:
    split = recipe("split")
    atoms = ase.build.bulk("Si", cubic=True)
    moved = atoms.copy()
    moved.positions += [0.7, -3.1, 9.0]
    moved.wrap()
    np.testing.assert_allclose(split.distance_matrix([atoms, moved]), 0.0, atol=1e-9)
    moved.positions[0] += [0.4, 0.0, 0.0]
    # One of eight atoms off by d: about its own mean, the root mean square is d sqrt(7) / 8.
    found = split.distance_matrix([atoms, moved])
    assert found[0, 1] == found[1, 0] == pytest.approx(0.4 * np.sqrt(7) / 8)


@pytest.mark.parametrize("name", ["gaas", "lps", "hea"])
def test_split_of_the_data(name: str, recipe) -> None:
    """The committed parts are those that the rule gives."""
    split = recipe("split")
    with lzma.open(DATA / f"{name}-pbesol.xyz.xz", "rt") as handle:
        structures = ase.io.read(io.StringIO(handle.read()), index=":", format="extxyz")
    given = [split.split_of(a) for a in structures]
    assert given == split.split_by_series(structures)
    assert {"train", "validation", "test"} == set(given)


def test_data_sets_with_the_same_numbers(recipe, tmp_path: Path) -> None:
    """Two data sets that count from zero lose no structure, and a network of the DOS alone needs no energies."""
    prepare = recipe("prepare")
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        structures = series(name, 0, 10, rng)
        for atoms in structures:
            atoms.info |= {
                "n_electrons": 4,
                "kweights": [2.0],
                "eigenvalues": rng.uniform(0.5, 3, (1, 6)).cumsum(axis=1) - 3,
            }
        ase.io.write(tmp_path / f"{name}.xyz", structures, format="extxyz")
    args = argparse.Namespace(
        data=[tmp_path / "a.xyz", tmp_path / "b.xyz"], options=TRAINING / "options-dos", output=tmp_path,
        grid=EnergyGrid(-30.0, 0.05, 1201), tags=None, without_tags=["b-301K"], fraction=0.5,
        electrons={"Ni": 0.25, "Co": 0.75}, epochs=None, start=None, adapt="full", seen=[], description="", name="a", stage="all",
    )  # fmt: skip
    prepare.prepare(args)
    parts = {name: ase.io.read(tmp_path / f"{name}.xyz", ":") for name in ("train", "validation", "test")}
    tags = {name: sorted(str(a.info["tag"]) for a in found) for name, found in parts.items()}
    assert tags["test"] == ["a-303K", "b-303K"] and tags["validation"] == ["a-307K", "b-307K"]
    # Eight of a, seven of b: half of each.
    assert [t[0] for t in tags["train"]] == ["a"] * 4 + ["b"] * 4 and "b-301K" not in tags["train"]
    assert all(a.calc is None and len(a.info["dos"]) == 1201 for a in parts["train"])
    assert not list(tmp_path.glob("part-*")) and not list(tmp_path.glob(".petdos-export-*"))
    prepare.check_choice(args)
    args.fraction = 0.2
    with pytest.raises(
        SystemExit, match=r"was begun with other options \(--fraction: 0.5, now 0.2\); give a new --output"
    ):
        prepare.check_choice(args)
    args.fraction = 0.5
    args.electrons = {"Ni": 1.0, "Co": 0.75}
    with pytest.raises(
        SystemExit, match=r"index 0 and tag a-300K: .* has 7 valence electrons by --electrons, but n_electrons = 4"
    ):
        prepare.prepare(args)
    args.electrons = {"Ni": 0.25, "Co": 0.75}
    args.options = TRAINING / "options"
    with pytest.raises(SystemExit, match="20 of 20 structures lack energy, forces or stress"):
        prepare.prepare(args)
    args.options = TRAINING / "options-dos"
    for change, message in (
        ({"index": 2}, r"b.xyz: 2 structures have the index 2; each needs its own"),
        ({"index": "a0"}, r"b.xyz: got index a0, expected a whole number"),
        ({"eigenvalues": [[-2.0, 0.5]]}, r"structure with index 3 and tag b-303K: 4 electrons fill all 2 bands"),
        (
            {"kweights": [1.0, 1.0]},
            r"structure with index 3 and tag b-303K: expected eigenvalues \(n_kpoints, n_bands\)",
        ),
    ):
        wrong = [a.copy() for a in structures]
        wrong[3].info |= change | ({"tag": "b-302K"} if change == {"index": 2} else {})
        ase.io.write(tmp_path / "b.xyz", wrong, format="extxyz")
        with pytest.raises(SystemExit, match=message):
            prepare.prepare(args)
    del structures[3].info["kweights"]
    ase.io.write(tmp_path / "b.xyz", structures, format="extxyz")
    with pytest.raises(SystemExit, match="no 'kweights' in the info of structure 13; expected index, tag"):
        prepare.prepare(args)
