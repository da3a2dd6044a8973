"""Seconds and memory of one evaluation against the number of atoms and ranks: in `lmp`, and in Python with the same chunks.

The model has the size of PET-MAD-DOS and random weights. Each case is a process of its own. Needs the LAMMPS plugin and
metatrain. Usage: python benchmarks/lammps_scaling.py [--atoms 1000 4000 16000 100000] [--ranks 1 2] [--chunk 8000]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from petdos_md.testing import PET_MAD_DOS_SIZE, PET_MAD_SYMBOLS, SMALL, write_checkpoints

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
compute psi all petdos {model} Si output features chunk {chunk}
thermo_style custom step c_psi[1]
print "memory before"
run 0
"""
PYTHON = """
import sys, time, ase.build
from petdos_md.model import DOSModel
model = DOSModel.load({model!r})
atoms = ase.build.bulk("Si", a=5.431, cubic=True) * {n}
atoms.rattle(0.02, seed=1)
start = time.perf_counter()
model.evaluate(atoms, max_atoms_per_chunk={chunk})
print("seconds", time.perf_counter() - start)
"""


def peak_gb(command: list[str], folder: Path) -> tuple[str, float, float]:
    """Output, seconds, and the largest resident memory of a process of the command (of one rank), as the kernel counted it."""
    start = time.perf_counter()
    # A process that waits for the command alone, so that the count is not that of an earlier case.
    watch = (
        "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]);"
        "print('peak_kB', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-c", watch, *command], cwd=folder, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stdout[-800:] + done.stderr[-800:])
    peak = re.search(r"peak_kB (\d+)", done.stdout)
    assert peak is not None
    return done.stdout, time.perf_counter() - start, int(peak.group(1)) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", default=[1000, 4000, 16000, 100000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--chunk", type=int, default=8000)
    parser.add_argument("--small", action="store_true", help="a tiny network, to try the script")
    options = parser.parse_args()
    from petdos_md.export import export_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        symbols, channels = (["Si", "Al"], 400) if options.small else (PET_MAD_SYMBOLS, 4806)
        size = SMALL if options.small else PET_MAD_DOS_SIZE
        checkpoint, _ = write_checkpoints(folder, size, symbols=symbols, n_channels=channels)
        export_model(checkpoint, folder / "model.pt", grid_start=-159.6456)
        (folder / "in.none").write_text(DECK.format(n=1, model=folder / "model.pt", chunk=options.chunk))
        _, idle_s, idle_gb = peak_gb([str(BIN / "lmp"), "-in", "in.none", "-log", "none"], folder)
        print(f"chunks of {options.chunk} atoms; lmp with 8 atoms alone: {idle_s:.1f} s and {idle_gb:.2f} GB")
        print(f"{'atoms':>8}{'where':>12}{'s/evaluation':>14}{'GB per process':>16}")
        for wanted in options.atoms:
            n = max(1, round((wanted / 8) ** (1 / 3)))
            (folder / "in.bench").write_text(DECK.format(n=n, model=folder / "model.pt", chunk=options.chunk))
            for ranks in options.ranks:
                command = [str(BIN / "lmp"), "-in", "in.bench", "-log", "none"]
                if ranks > 1:
                    command = [str(BIN / "mpirun"), "-np", str(ranks), *command]
                _, seconds, gigabytes = peak_gb(command, folder)
                print(f"{8 * n**3:>8}{f'lmp x {ranks}':>12}{seconds - idle_s:>14.1f}{gigabytes:>16.2f}", flush=True)
            script = PYTHON.format(model=str(folder / "model.pt"), n=n, chunk=options.chunk)
            said, _, gigabytes = peak_gb([sys.executable, "-c", script], folder)
            found = re.search(r"seconds (\S+)", said)
            assert found is not None
            print(f"{8 * n**3:>8}{'Python':>12}{float(found.group(1)):>14.1f}{gigabytes:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
