"""The cases of the article: dynamics once, any number of models, the same numbers on the fly and afterwards."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ase.build
import ase.io
import numpy as np
import pytest
from ase.io.trajectory import Trajectory

from petdos_md.base.constants import BOLTZMANN_EV
from petdos_md.models.export import export_model
from petdos_md.models.testing import SMALL, write_checkpoints

CASES = Path(__file__).parents[2] / "examples" / "cases"
needs_chgnet = pytest.mark.skipif(importlib.util.find_spec("chgnet") is None, reason="needs chgnet")


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch):
    """Modules of the cases by name."""
    monkeypatch.syspath_prepend(str(CASES))

    def load(name: str) -> ModuleType:
        for known in ("common", "heat_capacity", "gaas", "alloy", "li3ps4"):
            monkeypatch.delitem(sys.modules, known, raising=False)
        return importlib.import_module(name)

    return load


def run(name: str, *arguments: object) -> str:
    """In a process of its own, as users do."""
    done = subprocess.run(
        [sys.executable, CASES / name, "--quick", *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def tables(told: str, label: str) -> list[str]:
    """The row of numbers of each phase by one model."""
    return re.findall(rf"K, {label}\n.*\n.*\n-.*\n(.*)", told)


@pytest.fixture
def call(case, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """:func:`run` in this process, which has the libraries already."""

    def main(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(CASES / name), "--quick", *map(str, arguments)])
        assert not case(name.removesuffix(".py")).main()
        return capfd.readouterr().out

    return main


@needs_chgnet
def test_chgnet_in_one_pass(case) -> None:
    """Against the calculator that CHGNet brings."""
    from chgnet.model import CHGNet, CHGNetCalculator

    common = case("common")
    atoms = common.of_data("lps", "alpha", 400.0)
    assert np.abs(atoms.cell.array - np.diag(atoms.cell.lengths())).max() > 0.01
    theirs, ours = atoms.copy(), atoms.copy()
    theirs.calc = CHGNetCalculator(CHGNet.load(use_device="cpu", verbose=False), use_device="cpu")
    ours.calc = common.chgnet()
    assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=1e-5 * np.abs(theirs.get_forces()).max())
    np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), atol=1e-5 * np.abs(theirs.get_stress()).max())


@needs_chgnet
@pytest.mark.parametrize(("name", "n_phases"), [("gaas.py", 6), ("li3ps4.py", 3)])
def test_phases(name: str, n_phases: int, call, tmp_path: Path) -> None:
    """A model that is named in a second call, on the stored frames, gives what it gave on the fly; nothing runs twice."""
    how = "--steps", 8, "-o", tmp_path, "--dos", "live=trio-pbesol"
    first = tables((run if name == "gaas.py" else call)(name, *how), "live")
    trajectories = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.traj")}
    assert len(first) == n_phases and len(trajectories) == n_phases
    told = call(name, *how, "later=trio-pbesol")
    assert tables(told, "live") == tables(told, "later") == first
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("*.traj")} == trajectories
    checked = ase.io.read(tmp_path / "check.xyz", ":")
    assert len({a.info["index"] for a in checked}) == len(checked) == 4 * n_phases
    for atoms in checked[::4]:
        file = tmp_path / f"{atoms.info['tag'].removesuffix(' K').replace(' ', '-')}.traj"
        np.testing.assert_allclose(atoms.positions, Trajectory(file)[atoms.info["frame"]].positions, atol=1e-6)
    assert (tmp_path / name.replace(".py", ".png")).stat().st_size > 10000


@needs_chgnet
def test_alloy(call, tmp_path: Path) -> None:
    """As above, through i-PI: labels of temperature survive the exchange."""
    how = "--clients", 1, "-o", tmp_path, "--dos", "live=trio-pbesol"
    run("alloy.py", *how)
    call("alloy.py", *how, "later=trio-pbesol")
    rows = [line.split(",") for line in (tmp_path / "heat-capacity.csv").read_text().splitlines()[1:]]
    found = {label: np.array([r[1:] for r in rows if r[0] == label], dtype=float) for label in ("live", "later")}
    assert found["live"].shape == (4, 8)
    # Columns: temperature, frames, denoised, its two errors, raw. Positions of the file have fewer digits.
    np.testing.assert_allclose(found["live"][:, :6], found["later"][:, :6], rtol=1e-3, equal_nan=True)
    assert (np.diff(found["live"][:, 2]) > 0).all()


def test_files_of_downloaded_models(case, tmp_path: Path) -> None:
    """A potential and a model of the DOS in files with the shape of PET-MAD and PET-MAD-DOS."""
    common = case("common")
    dos, members = write_checkpoints(tmp_path, SMALL, symbols=["Ga", "As"], n_channels=4806, n_members=2)
    export_model(dos, tmp_path / "dos.pt", llpr=members, grid_start=-159.6456, electrons={"Ga": 13.0, "As": 5.0})
    forces, _ = write_checkpoints(tmp_path, SMALL, symbols=["Ga", "As"], n_channels=40, energy=True)
    export_model(forces, tmp_path / "forces.pt", grid_start=-5.0)
    models = common.load_models([f"pet={tmp_path / 'dos.pt'}", "almgsi-lda"])
    assert list(models) == ["pet", "almgsi-lda"] and models["pet"].grid.n == 4806
    atoms = ase.build.bulk("GaAs", "zincblende", a=5.653, cubic=True)
    assert [common.knows(m, atoms) for m in models.values()] == [True, False]
    atoms.calc = common.find_potential(str(tmp_path / "forces.pt"), models["pet"]).calculator()
    atoms.rattle(0.1, seed=1)
    assert np.abs(atoms.get_forces()).max() > 0 and np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-4
    assert models["pet"].dos(atoms).shape == (4806,)


def test_heat_capacity_of_levels(case) -> None:
    """The derivative of the energy of Fermi-Dirac electrons at constant number, by differences."""
    heat = case("heat_capacity")
    rng = np.random.default_rng(2)
    levels, weights = np.sort(rng.uniform(-3, 3, (7, 40)), axis=1), np.full(7, 2.0 / 7)

    def energy(temperature_K: float) -> float:
        kt, low, high = BOLTZMANN_EV * temperature_K, -4.0, 4.0
        for _ in range(200):
            mu = 0.5 * (low + high)
            filled = weights[:, None] / (1 + np.exp((levels - mu) / kt))
            low, high = (mu, high) if filled.sum() < 33 else (low, mu)
        return float((filled * levels).sum())

    numeric = (energy(905.0) - energy(895.0)) / 10.0
    assert heat.heat_capacity_of_levels(levels, weights, 33.0, 900.0) == pytest.approx(numeric, rel=1e-4)
