"""The inputs in examples/ipi run with stock i-PI as they are, and survive being killed."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.ipi_runs import assert_complete, assert_true, truth

from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

RUN = Path(__file__).parents[2] / "examples" / "ipi" / "run.py"
COLUMNS = ("step", "time", "ensemble_temperature", "temperature", "potential", "volume")


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(RUN), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def test_replica_exchange_of_an_alloy(tmp_path: Path) -> None:
    """16 replicas, NPT, atom swaps, exchange, forces over sockets by two clients: all killed at once, gone on with, analyzed."""
    folder = tmp_path / "run"
    command = "replica_exchange", "--steps", 10, "--every", 2, "--output", folder
    first = start(*command)
    checkpoint, begun = folder / "run.checkpoint_1", time.monotonic()
    while not (checkpoint.exists() and "</simulation>" in checkpoint.read_text()):
        assert time.monotonic() - begun < 900 and first.poll() is None, (folder / "log").read_text()[-2000:]
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = start(*command)
    told, _ = second.communicate(timeout=1800)
    assert second.returncode == 0, told
    assert "going on from run.checkpoint_" in told

    ladder = tuple(round(500 * 2.4 ** (i / 15), 2) for i in range(16))
    model, trace = DOSModel.load("almgsi-lda"), Trace.open(folder / "run.zarr", "r")
    assert_complete(trace, ladder, 2, 10)
    found = truth(folder, 16, name="{:02d}_", columns=COLUMNS)
    assert_true(trace, model, found)
    assert trace.attributes["metadata"]["pressures_GPa"] == [0.0] * 16 and np.ptp(trace.volume_A3) > 0
    # The potential that came over the sockets is the energy head of the same model.
    for there in list(found.values())[:3]:
        assert abs(model.evaluate_with_forces(there["beads"][0])[1] - there["energy"]) < 2e-6 * abs(there["energy"])
    with (folder / "results" / "thermo.csv").open() as file:
        heat = [float(row["heat_capacity (eV/K)"]) for row in csv.DictReader(file)]
    assert len(heat) == 16 and (np.diff(heat) > 0).all()
    with (folder / "results" / "reweighted.csv").open() as file:
        reweighted = list(csv.DictReader(file))
    assert len(reweighted) == 61 and all(float(row["heat_capacity_model_std (eV/K)"]) > 0 for row in reweighted)
    own = [float(row["plain heat_capacity (eV/K)"]) for row in reweighted]
    np.testing.assert_allclose([x for x in own if x == x], heat, rtol=1e-7)  # thermo.csv has 8 digits
    for name in ("heat_capacity.png", "heat_capacity_reweighted.png"):
        assert (folder / "results" / name).stat().st_size > 10000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "temperature", "beads"), [("nvt", 600.0, 1), ("npt", 600.0, 1), ("pimd", 100.0, 4)])
def test_small_examples(tmp_path: Path, name: str, temperature: float, beads: int) -> None:
    folder = tmp_path / "run"
    done = start(name, "--steps", 20, "--every", 5, "--output", folder)
    told, _ = done.communicate(timeout=1800)
    assert done.returncode == 0, told
    model, trace = DOSModel.load("almgsi-lda"), Trace.open(folder / "run.zarr", "r")
    assert_complete(trace, (temperature,), 5, 20)
    assert_true(trace, model, truth(folder, 1, beads, name="", columns=COLUMNS))
    assert re.search(rf"^ *{temperature:g} +4 ", told, re.MULTILINE)
