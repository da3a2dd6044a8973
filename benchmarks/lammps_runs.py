"""What the benchmarks of LAMMPS share: boxes of about so many atoms, `lmp` on a deck, the times that it reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

BIN = Path(sys.executable).parent


def cells(atoms: int) -> tuple[int, int, int]:
    """Cells of 8 atoms, as close to a cube of so many atoms as whole numbers allow."""
    shapes = ((x, y, z) for x in range(1, 40) for y in range(x, x + 2) for z in range(y, y + 2))
    return min(shapes, key=lambda n: abs(8 * n[0] * n[1] * n[2] - atoms))


def lmp(deck: str, folder: Path, ranks: int = 1) -> str:
    """What `lmp` prints. The ranks share the threads of this process, so that they wait as its own do."""
    (folder / "in.bench").write_text(deck)
    command = [str(BIN / "lmp"), "-in", "in.bench", "-log", "none"]
    if ranks > 1:
        command = [str(BIN / "mpirun"), "-np", str(ranks), *command]
    threads = str(max(1, torch.get_num_threads() // ranks))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stdout[-500:] + done.stderr[-500:])
    return done.stdout


def loops(said: str) -> list[float]:
    """Seconds per step of each run, as LAMMPS reports them."""
    return [float(s) / int(n) for s, n in re.findall(r"Loop time of (\S+) on .* for (\d+) steps", said)]
