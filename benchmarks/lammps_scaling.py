"""Seconds and memory of one evaluation against the number of atoms and ranks: in `lmp`, and in Python with the same chunks.

The model has the size of PET-MAD-DOS and random weights. Each case is a process of its own, and evaluates once. With a folder the
model is made once, and cases may be run one at a time. Needs the LAMMPS plugin and metatrain.

    python benchmarks/lammps_scaling.py [--atoms 1000 4000 16000 100000] [--where 1 2 python] [--chunk 16000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from petdos_md.models.testing import PET_MAD_DOS_SIZE, PET_MAD_SYMBOLS, SMALL, write_checkpoints

BIN = Path(sys.executable).parent
DECK = """
units metal
lattice diamond 5.431
region box block 0 {n} 0 {n} 0 {n}
create_box 1 box
create_atoms 1 box
displace_atoms all random 0.05 0.05 0.05 1
mass 1 28.085
pair_style zero 4.0
pair_coeff * *
fix md all nve
compute feat all petdos {model} Si output features chunk {chunk} threads {threads}
thermo_style custom step c_feat[1]
variable start timer
run 0
variable stop timer
print "seconds $(v_stop-v_start)"
"""
PYTHON = """
import time, ase.build, torch
from petdos_md.models.model import DOSModel
torch.set_num_threads({threads})
model = DOSModel.load({model!r})
atoms = ase.build.bulk("Si", a=5.431, cubic=True) * {n}
atoms.rattle(0.02, seed=1)
start = time.perf_counter()
model.evaluate(atoms, max_atoms_per_chunk={chunk})
print("seconds", time.perf_counter() - start)
"""


def measure(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Seconds that the command prints; processor seconds of all its processes, loading included; and the largest resident memory
    (GB) of one of them, as the kernel counted it."""
    # A process that waits for the command alone, so that the count is not that of an earlier case.
    watch = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print('processor', used.ru_utime + used.ru_stime); print('peak_kB', used.ru_maxrss); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", watch, *command], cwd=folder, capture_output=True, text=True)
    found = [re.search(rf"^{word} (\S+)", done.stdout, re.MULTILINE) for word in ("seconds", "processor", "peak_kB")]
    if done.returncode or None in found:
        raise SystemExit(done.stdout[-800:] + done.stderr[-800:])
    seconds, processor, peak = (float(match.group(1)) for match in found if match)
    return seconds, processor, peak * 1024 / 1e9


def command_of(where: str, n: int, model: Path, chunk: int, folder: Path, threads: int) -> list[str]:
    """What evaluates n^3 cells: Python, or `lmp` on so many ranks, which share the threads."""
    if where == "python":
        return [sys.executable, "-c", PYTHON.format(model=str(model), n=n, chunk=chunk, threads=threads)]
    ranks = int(where)
    (folder / "in.bench").write_text(DECK.format(n=n, model=model, chunk=chunk, threads=max(1, threads // ranks)))
    command = [str(BIN / "lmp"), "-in", "in.bench", "-log", "none"]
    return command if ranks == 1 else [str(BIN / "mpirun"), "-np", where, *command]


def build(folder: Path, small: bool) -> Path:
    """A model with random weights."""
    from petdos_md.models.export import export_model

    path = folder / ("small.pt" if small else "model.pt")
    if not path.exists():
        symbols, channels = (["Si", "Al"], 400) if small else (PET_MAD_SYMBOLS, 4806)
        size = SMALL if small else PET_MAD_DOS_SIZE
        checkpoint, _ = write_checkpoints(folder, size, symbols=symbols, n_channels=channels)
        export_model(checkpoint, path, grid_start=-159.6456)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 4000, 16000, 100000])
    parser.add_argument("--where", nargs="+", default=["1", "2", "python"], help="numbers of ranks of lmp, or python")
    parser.add_argument("--chunk", type=int, default=16000)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all ranks together")
    parser.add_argument("--folder", type=Path, help="keeps the model for the next run")
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the script")
    options = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with tempfile.TemporaryDirectory() as name:
        folder = (options.folder or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        model = build(folder, options.small)
        print(f"chunks of at most {options.chunk} atoms, {options.threads} threads in all")
        print(f"{'atoms':>8}{'where':>12}{'s/evaluation':>14}{'processor s':>13}{'GB per process':>16}")
        for wanted in options.atoms:
            n = max(1, round((wanted / 8) ** (1 / 3)))
            for where in options.where:
                command = command_of(where, n, model, options.chunk, folder, options.threads)
                seconds, processor, gigabytes = measure(command, folder)
                label = "Python" if where == "python" else f"lmp x {where}"
                print(f"{8 * n**3:>8}{label:>12}{seconds:>14.1f}{processor:>13.1f}{gigabytes:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
