"""The job scripts of the cluster page: the text by shellcheck where there is one, the body by running it as a queue would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import pytest

from petdos_md.traces.trace import Trace

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def run(script: str, folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(FOLDER / script), *words],
        cwd=folder,
        env=os.environ | {"PATH": path} | settings,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_text(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n#SBATCH ") and "set -euo pipefail" in text
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)


@pytest.mark.slow
def test_an_array_of_temperatures(tmp_path: Path) -> None:
    """Two tasks, one of which is submitted again with more steps, then the analysis."""
    ase.io.write(tmp_path / "Al.xyz", ase.build.bulk("Al", cubic=True))
    for task, steps in (("0", "40"), ("1", "20"), ("1", "40")):
        done = run("ase.sh", tmp_path, STEPS=steps, SLURM_ARRAY_TASK_ID=task, SLURM_CPUS_PER_TASK="1")
        assert done.returncode == 0, done.stderr
    assert [len(Trace.open(tmp_path / f"T{t}.zarr", "r")) for t in (300, 600)] == [5, 5]
    done = run("analyze.sh", tmp_path, "T300.zarr", "T600.zarr")
    assert done.returncode == 0, done.stderr
    assert len(Trace.open(tmp_path / "all.zarr", "r")) == 10
    assert (tmp_path / "results" / "report.html").is_file() and (tmp_path / "results" / "dos.pdf").is_file()


@pytest.mark.slow
def test_lammps_goes_on_from_its_newest_whole_restart(tmp_path: Path, lammps_plugin: Path) -> None:
    settings = {"LAUNCH": "", "DECK": str(FOLDER / "in.lammps"), "SLURM_ARRAY_TASK_ID": "1"}
    for steps, n in (("20", 3), ("50", 6)):
        done = run("lammps.sh", tmp_path, STEPS=steps, **settings)
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-500:]
        assert len(Trace.open(tmp_path / "T600" / "run.zarr", "r")) == n
    (tmp_path / "T600" / "restart.b").write_bytes(b"cut off")  # newer, and not whole
    assert run("lammps.sh", tmp_path, STEPS="60", **settings).returncode == 0
    assert len(Trace.open(tmp_path / "T600" / "run.zarr", "r")) == 7
