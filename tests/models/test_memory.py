"""Memory: what a network says that it takes against what the kernel counts, what is free, and chunks that follow from both."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms
from helpers.lammps_tools import deviation
from metatrain.utils.io import load_model

from petdos_md.base.errors import SettingError
from petdos_md.base.grid import EnergyGrid
from petdos_md.base.memory import SHARE, free_memory
from petdos_md.models import evaluator as evaluation
from petdos_md.models.model import DOSModel

GB = 1e9


def aluminium(*repeats: int) -> Atoms:
    atoms = ase.build.bulk("Al", cubic=True) * repeats
    atoms.rattle(0.1, seed=1)
    return atoms


PEAK = """
import sys, ase.build, torch
from petdos_md.models import evaluator
from petdos_md.models.model import DOSModel
evaluator.MAX_ATOMS_AT_ONCE = 0
torch.set_num_threads(1)
model, forces = DOSModel.load("almgsi-lda", device="cpu"), sys.argv[1] == "forces"
run = model.evaluate_with_forces if forces else model.evaluate
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 2)
run(atoms)
atoms = ase.build.bulk("Al", cubic=True) * (13, 13, 13)
atoms.rattle(0.1, seed=1)
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
before = peak()
run(atoms)
taken = peak() - before
system = model.evaluator.system(atoms)
pairs = sum(len(system.get_neighbor_list(o).samples) for o in system.known_neighbor_lists())
print(taken, model.evaluator.module.module.memory_needed(len(atoms), pairs, forces))
"""


@pytest.mark.parametrize("what", ["features", "forces"])
def test_what_it_says_is_what_it_takes(what: str) -> None:
    """As the kernel counts the process, 8788 atoms: not less, and not several times as much."""
    done = subprocess.run([sys.executable, "-c", PEAK, what], capture_output=True, text=True)
    taken, said = map(float, done.stdout.split())
    assert taken <= said <= 3 * taken


def test_chunks_by_memory(caplog: pytest.LogCaptureFixture) -> None:
    """Equal to the whole, and said once for each structure; a memory that suffices changes nothing."""
    atoms = aluminium(4, 4, 40)
    whole = DOSModel.load("almgsi-lda").evaluate(atoms)
    small = DOSModel.load("almgsi-lda", max_memory_GB=0.115)
    with caplog.at_level(logging.INFO, "petdos_md"):
        assert deviation(small.evaluate(atoms).features, whole.features) < 1e-6
    (record,) = [r for r in caplog.records if "chunks" in r.message]
    assert record.args is not None and record.args[0] == 2560 and record.args[2] < 1500
    large = DOSModel.load("almgsi-lda", max_memory_GB=2)
    np.testing.assert_array_equal(large.evaluate(atoms).features, whole.features)
    assert pickle.loads(pickle.dumps(small)).evaluator.max_memory_GB == 0.115


def test_chunks_by_what_is_free(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model, atoms = DOSModel.load("almgsi-lda"), aluminium(4, 4, 40)
    whole = model.evaluate(atoms)
    monkeypatch.setattr(evaluation, "ALWAYS_FITS", 0.0)
    monkeypatch.setattr(evaluation, "available_memory", lambda device: 0.115 * GB)
    with caplog.at_level(logging.INFO, "petdos_md"):
        assert deviation(model.evaluate(atoms).features, whole.features) < 1e-6
    assert "evaluated in chunks" in caplog.text


@pytest.mark.parametrize("gigabytes", [0, -1, float("nan")])
def test_no_memory(gigabytes: float) -> None:
    with pytest.raises(SettingError, match=r"max_memory_GB=.*expected a positive number"):
        DOSModel.load("almgsi-lda", max_memory_GB=gigabytes)


def test_too_little_memory() -> None:
    model = DOSModel.load("almgsi-lda", max_memory_GB=0.05)
    with pytest.raises(SettingError, match="not suffice for one atom; give max_memory_GB"):
        model.evaluate(aluminium(8, 8, 8))


def test_model_that_does_not_say(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    """metatrain's own export."""
    load_model(checkpoints[0]).export().save(str(tmp_path / "stock.pt"))
    with pytest.raises(SettingError, match="export it with `petdos export`"):
        DOSModel.load(tmp_path / "stock.pt", grid=EnergyGrid(-5.0, 0.05, 40), max_memory_GB=1)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_free_memory(tmp_path: Path) -> None:
    """The smallest of what the system and each control group leave; groups of both versions, nested, with the cache of files."""

    def found() -> float:
        return free_memory(tmp_path)

    assert found() == float("inf")
    write(tmp_path, {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n"})
    assert found() == SHARE * 8000 * 1024
    write(tmp_path, {"proc/self/cgroup": "4:memory:/batch/job\n1:cpu:/batch\n0::/batch/step\n"})
    assert found() == SHARE * 8000 * 1024
    old, new = "sys/fs/cgroup/memory/batch/", "sys/fs/cgroup/batch/step/"
    write(
        tmp_path,
        {
            new + "memory.max": "max\n",
            new + "memory.current": "5\n",
            new + "memory.stat": "anon 5\n",
            old + "memory.limit_in_bytes": "7000000\n",
            old + "memory.usage_in_bytes": "3000000\n",
            old + "memory.stat": "cache 9\ntotal_inactive_file 1000000\n",
        },
    )
    assert found() == SHARE * 5_000_000
    write(tmp_path, {new + "memory.max": "4000000\n", new + "memory.stat": "inactive_file 1\n"})
    assert found() == SHARE * (4_000_000 - 5 + 1)
    write(tmp_path, {new + "memory.current": "5000000\n"})
    assert found() == 0
