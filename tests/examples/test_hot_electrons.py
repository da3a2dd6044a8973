"""The examples of hot electrons: what the page says of the comparison with DFT holds for the shipped model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from petdos_md.models.files import shipped_models

EXAMPLES = Path(__file__).parents[2] / "examples" / "hot_electrons"
pytestmark = pytest.mark.skipif(not shipped_models(), reason="no model is shipped")


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / command[0]), *command[1:]], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_comparison_with_dft(tmp_path: Path) -> None:
    """Free energies to 3 % from 10 000 K on, forces of solid silicon, the soft mode of silicon in both."""
    tables = [part.splitlines() for part in run(tmp_path, "compare.py").strip().split("\n\n") if part.startswith("|")]
    cells = [[word.strip() for word in line.strip("|").split("|")] for line in tables[0][2:]]
    assert {row[0].split("-")[1] for row in cells} == {"Al", "Si"}
    for row in cells:
        dft, model = float(row[2]), float(row[3].split("±")[0])
        if float(row[1]) >= 10_000:
            assert abs(model / dft - 1) < 0.03
            if row[0].startswith("dia-Si"):
                assert float(row[7]) > 0.8
    modes = {
        float(line.strip("|").split("|")[0]): [float(x) for x in line.strip("|").split("|")[1:]]
        for line in tables[-1][2:]
    }
    assert min(modes[0.0]) > 0 and modes[20_000.0][2] < 0 and modes[20_000.0][3] < 0
    assert modes[10_000.0][3] == pytest.approx(modes[10_000.0][2], abs=0.6)
    assert (tmp_path / "outputs/hot_electrons/dft.png").stat().st_size > 10_000


def test_softening_and_laser_pulse(tmp_path: Path) -> None:
    run(tmp_path, "softening.py", "--steps", "3", "--repeat", "1", "--electronic-temperature", "300", "10000")
    assert len((tmp_path / "outputs/hot_electrons/softening.csv").read_text().splitlines()) == 5
    told = run(tmp_path, "laser_pulse.py", "--steps", "30", "--repeat", "1", "--center", "30", "--duration", "15")
    found = re.search(r"absorbed ([\d.]+) eV/atom", told)
    assert found and float(found[1]) == pytest.approx(0.3, abs=2e-3)
    deviation = re.search(r"largest deviation of the energy: ([\d.e+-]+) meV", told)
    assert deviation and float(deviation[1]) < 1e-6
    hottest = re.search(r"highest T_e: (\d+) K, of the equations (\d+) K", told)
    assert hottest and float(hottest[1]) == pytest.approx(float(hottest[2]), rel=0.03)
