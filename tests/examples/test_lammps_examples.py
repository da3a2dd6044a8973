"""The LAMMPS examples as they are, at a small size."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.lammps_tools import run_lmp

from petdos_md.analysis.analyze import analyze
from petdos_md.traces.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples" / "lammps"

pytestmark = pytest.mark.usefixtures("lammps_plugin")


def run(name: str, folder: Path, ranks: int = 0, **variables: int) -> str:
    given = [word for key, value in variables.items() for word in ("-var", key, str(value))]
    if ranks:
        given = ["-partition", f"{ranks}x1", *given]
    done = run_lmp((EXAMPLES / name).read_text(), folder, ranks, *given)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    return done.stdout


def test_aluminium_melting(tmp_path: Path) -> None:
    run("01_aluminium_melting.in", tmp_path, cells=2, steps=40, every=10)
    trace = Trace.open(tmp_path / "aluminium.zarr", "r")
    assert trace.temperature_K.tolist() == [t for t in (300.0, 600.0, 900.0, 1200.0, 1500.0) for _ in range(5)]
    assert trace.step.tolist() == list(range(10, 260, 10))
    result = analyze(tmp_path / "aluminium.zarr")
    heat, temperature = result["heat_capacity"].values, result["temperature"].values
    # A metal: in proportion to the temperature (Sommerfeld), 3 electrons an atom about 1 k_B at 7000 K.
    assert np.allclose(heat / temperature, heat[0] / 300.0, rtol=0.1)
    assert 0.02 < heat[0] / 32 / 8.617333262e-5 < 0.05


def test_silicon(tmp_path: Path) -> None:
    run("02_silicon.in", tmp_path, cells=2, steps=20, every=10)
    solid, liquid = (Trace.open(tmp_path / f"silicon-{name}.zarr", "r") for name in ("solid", "liquid"))
    assert solid.temperatures_K.tolist() == [1200.0] and liquid.temperatures_K.tolist() == [2000.0]
    assert solid.volume_A3 == pytest.approx(8 * 5.431**3)


@pytest.mark.slow
def test_silicon_is_a_metal_when_molten(tmp_path: Path) -> None:
    run("02_silicon.in", tmp_path, cells=2, steps=3000, every=100)
    solid, liquid = (analyze(tmp_path / f"silicon-{name}.zarr") for name in ("solid", "liquid"))
    assert liquid["dos_at_fermi_level"].item() > 3 * solid["dos_at_fermi_level"].item()
    assert solid["gap"].item() > 0.1 and liquid["gap"].item() == 0.0


def test_alloy_with_swaps(tmp_path: Path) -> None:
    said = run("03_aluminium_magnesium.in", tmp_path, cells=2, steps=40, every=10)
    swaps = [float(line.split()[-1]) for line in said.splitlines() if re.match(r" +\d+( +[-0-9.e]+){4} *$", line)]
    assert swaps[-1] > 0
    trace = Trace.open(tmp_path / "almg.zarr", "r")
    assert trace.step.tolist() == [10, 20, 30, 40, 50]
    assert trace.n_electrons.tolist() == [24 * 3.0 + 8 * 2.0] * 5


def test_parallel_tempering(tmp_path: Path) -> None:
    """The labels are those of LAMMPS's own record of the exchanges."""
    (tmp_path / "log").mkdir()
    done = run_lmp(
        (EXAMPLES / "04_parallel_tempering.in").read_text(), tmp_path, 4,
        "-partition", "4x1", "-log", "log.lammps", "-var", "steps", "120", "-var", "swap", "20", "-var", "every", "10",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    rows = re.findall(r"^(\d+) ([0-3]) ([0-3]) ([0-3]) ([0-3])$", (tmp_path / "log.lammps").read_text(), re.MULTILINE)
    table = {int(step): [int(i) for i in indices] for step, *indices in rows}
    assert len(table) == 7 and len({tuple(v) for v in table.values()}) > 1
    ladder = [600.0, 650.0, 700.0, 750.0]
    for replica in range(4):
        trace = Trace.open(tmp_path / f"tempering-{replica}.zarr", "r")
        assert set(trace.replica.tolist()) == {replica}
        for step, temperature in zip(trace.step, trace.temperature_K, strict=True):
            # An exchange takes place after the step that it is printed for.
            before = max((s for s in table if s < step), default=min(table))
            assert temperature == ladder[table[before][replica]]
    result = analyze([tmp_path / f"tempering-{replica}.zarr" for replica in range(4)])
    assert result["temperature"].values.tolist() == ladder
    assert result["heat_capacity"].values[3] > result["heat_capacity"].values[0] > 0


def test_python(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "05_python.py"), "60"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and re.search(r"^\d samples: C_el = [0-9.]+ \+- ", done.stdout), (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("name", "elements", "traces"),
    [
        ("01_aluminium_melting.in", "Al", ["aluminium"]),
        ("02_silicon.in", "Si", ["silicon-solid", "silicon-liquid"]),
        ("03_aluminium_magnesium.in", "Al Mg", ["almg"]),
        ("04_parallel_tempering.in", "Al", ["tempering-0", "tempering-1"]),
    ],
)
def test_driven_by_the_model(name: str, elements: str, traces: list[str], tmp_path: Path) -> None:
    """The same decks with the model as the potential; traces say so."""
    deck = (EXAMPLES / name).read_text()
    given = [
        "-var",
        "pair",
        "metatomic almgsi-lda",
        "-var",
        "coeff",
        elements,
        "-var",
        "steps",
        "8",
        "-var",
        "every",
        "4",
    ]
    given += ["-var", "cells", "1" if "silicon" in name else "2"]
    if "tempering" in name:
        deck = deck.replace("600 650 700 750", "600 650").replace("0 1 2 3", "0 1")
        done = run_lmp(deck, tmp_path, 2, "-partition", "2x1", "-var", "swap", "4", *given)
    else:
        done = run_lmp(deck, tmp_path, 0, *given)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-1000:]
    for trace in traces:
        found = Trace.open(tmp_path / f"{trace}.zarr", "r")
        assert len(found) >= 2 and found.attributes["metadata"]["potential"] == "metatomic"
