"""The numbered examples and the demo run as they are and tell what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from petdos_md.analysis.analyze import analyze
from petdos_md.cli.demo import systems
from petdos_md.cli.main import main
from petdos_md.models.files import shipped_models
from petdos_md.traces.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(not shipped_models(), reason="no model is shipped")


def run(name: str, folder: Path, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo(tmp_path: Path, capsys) -> None:
    """The table holds the numbers of the traces; a second call runs nothing again; figures are there."""
    assert main(["demo", "--quick", "--output", str(tmp_path)]) == 0
    first = capsys.readouterr().out
    rows = [line.split() for line in first.splitlines() if re.match(r"\S* +\d+ +11 ", line)]
    assert len(rows) == 6
    numbers = iter(rows)
    for system in systems():
        data = analyze(tmp_path / f"{system.file}.zarr")
        assert data["temperature"].values.tolist() == list(system.temperatures_K[:2])
        for i in range(2):
            words = next(numbers)
            words = words[1:] if i == 0 else words
            heat = data["heat_capacity"].values[i] / len(system.atoms) / 8.617333262145e-5
            assert float(words[0]) == system.temperatures_K[i] and words[1] == "11"
            assert abs(float(words[2]) - data["chemical_potential"].values[i]) < 6e-4
            assert abs(float(words[5]) - heat) < 6e-5
            assert 0 < float(words[-1]) < 20
        trace = Trace.open(tmp_path / f"{system.file}.zarr", "r")
        assert trace.n_skipped == 0 and np.isfinite(np.asarray(trace.features)).all()
    for name in ("dos.png", "heat_capacity.png", "al/thermo.csv", "si/dos.nc", "almg/summary.json"):
        assert (tmp_path / name).stat().st_size > 200
    assert main(["demo", "--quick", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == first


def test_electron_temperature(tmp_path: Path) -> None:
    """Aluminium at 5000 K has 4.5e5 J/m3/K (Lin, Zhigilei, Celli, Phys. Rev. B 77, 075133)."""
    found = re.search(r"at 5000 K: ([0-9.]+)e5", run("05_electron_temperature.py", tmp_path))
    assert found and 3.0 < float(found.group(1)) < 6.5


@pytest.mark.slow
def test_observe(tmp_path: Path) -> None:
    assert len(re.findall(r"step +\d+: C_el", run("01_observe.py", tmp_path))) == 5
    run("01_observe.py", tmp_path)
    trace = Trace.open(tmp_path / "outputs/01/run.zarr", "r")
    assert trace.step.tolist() == [*range(60, 241, 5), *range(305, 486, 5)]


@pytest.mark.slow
def test_any_potential(tmp_path: Path) -> None:
    assert re.search(r"reached after \d+ steps", run("02_any_potential.py", tmp_path))


@pytest.mark.slow
def test_temperatures(tmp_path: Path) -> None:
    first = run("03_temperatures.py", tmp_path)
    assert run("03_temperatures.py", tmp_path) == first and "1200" in first


@pytest.mark.slow
def test_trajectory(tmp_path: Path) -> None:
    values = re.findall(r"([0-9.]+) meV/K", run("04_trajectory.py", tmp_path))
    assert len(values) == 2 and abs(float(values[0]) / float(values[1]) - 1) < 1e-5


@pytest.mark.slow  # the gallery of the pages runs it, too
def test_silicon_melting(tmp_path: Path) -> None:
    """Liquid silicon is a metal, the solid is not."""
    first = run("06_silicon_melting.py", tmp_path, "--quick")
    found = re.search(r"liquid at 2000 K is ([0-9.]+) times", first)
    assert found and float(found.group(1)) > 3
    assert (tmp_path / "outputs/06-quick/silicon-melting.png").stat().st_size > 10000


def test_heat_capacity_of_dft(tmp_path: Path) -> None:
    """Predictions lie within a few percent of DFT, and gamma of aluminium near its value from band theory."""
    told = run("07_heat_capacity_vs_dft.py", tmp_path, "--quick")
    for deviation in re.findall(r"deviation of the mean C_el\(T\) ([0-9.]+) %", told):
        assert float(deviation) < 15
    found = re.search(r"model ([0-9.]+) ± ([0-9.]+), DFT of the same frames ([0-9.]+)", told)
    assert found
    model, error, dft = map(float, found.groups())
    assert abs(model - dft) < 4 * error and 0.8 < dft < 1.25


@pytest.mark.slow  # the gallery of the pages runs it, too
def test_side_by_side(tmp_path: Path) -> None:
    told = run("08_side_by_side.py", tmp_path, "--quick")
    assert len(re.findall(r"^(Mg|Mg2Si|Si), (solid|liquid) at", told, re.M)) == 6
    assert (tmp_path / "outputs/08-quick/side-by-side.png").stat().st_size > 10000
