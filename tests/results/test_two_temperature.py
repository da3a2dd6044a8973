"""Heat capacities for two-temperature models: LAMMPS's own fix ttm/mod integrates the file, and gives the energies of thermo."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import scipy.integrate
from ase import units

from petdos_md.base.errors import SettingError
from petdos_md.cli.main import main
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.results.two_temperature import HeatCapacityTable

LMP = shutil.which("lmp", path=str(Path(sys.executable).parent))
DECK = """units {units}
boundary p p p
atom_style atomic
lattice fcc 4.05
region all block 0 2 0 2 0 2
create_box 1 all
create_atoms 1 box
mass 1 26.98
pair_style zero 4.0
pair_coeff * *
neighbor 1.0 bin
velocity all create 300 1
fix nve all nve
fix ttm all ttm/mod 1 {file} 1 1 1 set {T}
thermo_style custom step f_ttm[1] ke
thermo_modify format float %.12g
run 2
"""


def electron_energies(folder: Path, file: Path, style: str, temperatures: list[float]) -> np.ndarray:
    """f_ttm[1] of the stock lmp: the energy of the electrons in the box, as its own integral of the file."""
    assert LMP is not None
    energies = []
    for T in temperatures:
        deck = folder / "deck.in"
        deck.write_text(DECK.format(units=style, file=file, T=T))
        done = subprocess.run([LMP, "-in", str(deck), "-log", "none"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "nan" not in done.stdout
        lines = done.stdout.splitlines()
        energies.append(float(lines[next(i for i, line in enumerate(lines) if "f_ttm[1]" in line) + 1].split()[1]))
    return np.array(energies)


@pytest.mark.skipif(LMP is None, reason="LAMMPS is not installed")
@pytest.mark.parametrize(("style", "unit"), [("metal", 1.0), ("real", units.kcal / units.mol)])
def test_lammps_integrates_the_file(tmp_path: Path, hot_model: DOSModel, style: str, unit: float) -> None:
    atoms = ase.build.bulk("Al", cubic=True, a=4.05) * (2, 2, 2)
    temperatures = np.arange(500.0, 12_001.0, 500.0)
    fit = HeatCapacityTable.of_structure(hot_model, atoms, temperatures).write_lammps(tmp_path / "al.ttm", style)
    assert fit.error < 0.01
    T = [1000.0, 4000.0, 8000.0, 12_000.0]
    energies = electron_energies(tmp_path, tmp_path / "al.ttm", style, T) * unit
    grid, dos, n = hot_model.grid.energies, hot_model.dos(atoms), hot_model.n_electrons(atoms)
    expected = thermo.internal_energy(grid, dos, n, T)
    np.testing.assert_allclose(np.diff(energies), np.diff(expected), rtol=0.01)


@pytest.mark.skipif(LMP is None, reason="LAMMPS is not installed")
def test_command(tmp_path: Path, hot_path: Path, hot_model: DOSModel, monkeypatch, capsys) -> None:
    """From a trace to the file: the mean of frames, whose energies LAMMPS then finds."""
    monkeypatch.chdir(tmp_path)
    frames = []
    for seed in range(3):
        atoms = ase.build.bulk("Al", cubic=True, a=4.05) * (2, 1, 1)
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    ase.io.write("frames.xyz", frames)
    assert main(["rerun", "--dos", str(hot_path), "frames.xyz", "--temperature", "300", "-o", "run.zarr"]) == 0
    command = [
        "analyze",
        "run.zarr",
        "-o",
        "out",
        "--no-plots",
        "--electronic-temperature",
        "500:12000:500",
        "--ttm",
        "al.ttm",
    ]
    assert main(command) == 0
    assert "al.ttm al.ttm.csv" in capsys.readouterr().out
    grid, dos = hot_model.grid.energies, np.mean([hot_model.dos(atoms) for atoms in frames], axis=0)
    energies = electron_energies(tmp_path, tmp_path / "al.ttm", "metal", [2000.0, 10_000.0])
    expected = np.diff(thermo.internal_energy(grid, dos, 24.0, [2000.0, 10_000.0])) * 4  # a box of 32 atoms
    np.testing.assert_allclose(np.diff(energies), expected, rtol=0.01)
    table = np.loadtxt("al.ttm.csv", delimiter=",", skiprows=1)
    assert main([*command[:-1], "al.cetab", "--ttm-format", "cascade"]) == 0
    cascade = np.loadtxt("al.cetab")
    np.testing.assert_allclose(cascade[:, 1] * 24 / frames[0].get_volume(), table[:, 1], rtol=1e-8)
    heat = thermo.heat_capacity(grid, dos, 24.0, table[:, 0]) / frames[0].get_volume()
    np.testing.assert_allclose(table[:, 1], heat, rtol=1e-3)
    np.testing.assert_allclose(table[:, 2] / table[:, 1], 1.602176634e11, rtol=1e-7)
    assert np.all(table[:, 3] > 0)


@pytest.mark.parametrize(("style", "unit"), [("metal", 1.0), ("real", units.kcal / units.mol)])
def test_table_of_cascades(tmp_path: Path, hot_model: DOSModel, style: str, unit: float) -> None:
    """Read as ``fix ttm/cascade`` does, two numbers a line and ``#`` for comments, and integrated between its rows: the energies of thermo."""
    atoms = ase.build.bulk("Al", cubic=True, a=4.05) * (2, 2, 2)
    table = HeatCapacityTable.of_structure(hot_model, atoms, np.arange(500.0, 12_001.0, 250.0))
    table.write_cascade(tmp_path / "al.cetab", style)
    lines = (tmp_path / "al.cetab").read_text().splitlines()
    T, heat = np.array([line.split() for line in lines if not line.startswith("#")], dtype=float).T
    (density,) = [float(line.split()[3]) for line in lines if line.startswith("# rho_e =")]
    assert density == pytest.approx(hot_model.n_electrons(atoms) / atoms.get_volume())
    assert (np.diff(T) > 0).all() and (heat > 0).all()
    energies = scipy.integrate.cumulative_trapezoid(heat * density * atoms.get_volume() * unit, T, initial=0.0)
    grid, dos, n = hot_model.grid.energies, hot_model.dos(atoms), hot_model.n_electrons(atoms)
    expected = thermo.internal_energy(grid, dos, n, T)
    np.testing.assert_allclose(energies[1:], expected[1:] - expected[0], rtol=2e-3)
    with pytest.raises(SettingError, match="at 500 K is not positive, which fix ttm/cascade refuses"):
        HeatCapacityTable(T, np.maximum(table.heat_capacity - table.heat_capacity[0], 0.0), 0.1).write_cascade(
            tmp_path / "x"
        )


def test_bad_input(hot_model: DOSModel, tmp_path: Path) -> None:
    atoms = ase.build.bulk("Al", cubic=True)
    with pytest.raises(SettingError, match="expected 8 or more"):
        HeatCapacityTable.of_structure(hot_model, atoms, (300.0, 600.0))
    with pytest.raises(SettingError, match="expected at most"):
        HeatCapacityTable.of_structure(hot_model, atoms, np.linspace(1000, 60_000, 20))
    table = HeatCapacityTable.of_structure(hot_model, atoms, np.linspace(1000, 10_000, 20))
    with pytest.raises(SettingError, match="got the units 'si', expected metal or real"):
        table.write_lammps(tmp_path / "x", "si")
    atoms.pbc = False
    with pytest.raises(SettingError, match="has no volume"):
        HeatCapacityTable.of_structure(hot_model, atoms)
