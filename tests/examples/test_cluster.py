"""The job scripts of the cluster page: the text by shellcheck where there is one, the body by running it as a queue would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import pytest

from petdos_md.traces.trace import Trace

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "cluster"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def run(script: str, folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(FOLDER / script), *words]
    return subprocess.run(command, cwd=folder, env=environment(**settings), capture_output=True, text=True)


def environment(**settings: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | settings


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


IPI = """<simulation verbosity='low' safe_stride='2'>
<output prefix='run'><properties stride='2' filename='out'> [step, ensemble_temperature{{kelvin}}, potential{{electronvolt}}] </properties></output>
<total_steps> {steps} </total_steps><prng><seed> 1 </seed></prng>
<ffsocket name='potential' mode='unix'><address> {address} </address></ffsocket>
<system><initialize nbeads='1'><file mode='ase'> Al.xyz </file><velocities mode='thermal' units='kelvin'> 600 </velocities></initialize>
<forces><force forcefield='potential'/></forces>
<ensemble><temperature units='kelvin'> 600 </temperature></ensemble>
<motion mode='dynamics'><dynamics mode='nvt'><timestep units='femtosecond'> 2 </timestep>
<thermostat mode='langevin'><tau units='femtosecond'> 100 </tau></thermostat></dynamics></motion></system>
</simulation>
"""


@pytest.mark.slow
def test_ipi_ends_softly_and_goes_on(tmp_path: Path) -> None:
    """The queue's warning arrives during the run; the same script, submitted again, goes on from RESTART. Each sample is there once."""
    ase.io.write(tmp_path / "Al.xyz", ase.build.bulk("Al", cubic=True))
    address = f"petdos-{os.getpid()}"
    drivers = subprocess.run(["petdos", "ipi", "--drivers"], env=environment(), capture_output=True, text=True).stdout
    potential = f"{drivers.strip()}/petdos_potential.py"
    client = f"i-pi-driver-py -u -a {address} -m custom -P {potential} -o model=almgsi-lda,template=Al.xyz"
    settings: dict[str, str] = {"CLIENT": client, "CLIENTS": "1", "EVERY": "2", "SLURM_CPUS_PER_TASK": "1"}
    (tmp_path / "input.xml").write_text(IPI.format(steps=100000, address=address))
    script, log = ["bash", str(FOLDER / "ipi.sh")], (tmp_path / "log").open("w")
    first = subprocess.Popen(script, cwd=tmp_path, env=environment(**settings), stdout=log, stderr=log)
    begun = time.monotonic()
    while not ((tmp_path / "run.out").exists() and len((tmp_path / "run.out").read_text().splitlines()) > 10):
        assert first.poll() is None and time.monotonic() - begun < 300, (tmp_path / "log").read_text()
        time.sleep(0.05)
    first.terminate()  # the script alone, as `#SBATCH --signal=B:` does
    first.wait(timeout=120)
    restart = (tmp_path / "RESTART").read_text()
    step = int(re.search(r"<step>(.*?)</step>", restart).group(1))
    (tmp_path / "RESTART").write_text(re.sub(r"<total_steps>.*?<", f"<total_steps>{step + 9}<", restart))
    done = run("ipi.sh", tmp_path, **settings)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    trace = Trace.open(tmp_path / "run.zarr", "r")
    last = int(trace.step[-1])
    assert trace.step.tolist() == list(range(2, last + 1, 2)) and last >= step + 7


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
