"""Memory of the plugin: as many atoms at once as Python evaluates in the same memory, and ranks that share a machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import ase.build
import ase.io
import pytest
from ase import Atoms

from petdos_md.base.errors import SettingError
from petdos_md.base.shipped import shipped_folder
from petdos_md.engines.lammps import plugin
from petdos_md.models.model import DOSModel

pytestmark = pytest.mark.usefixtures("lammps_plugin")

GIGABYTES = 0.108
"""Of which a slice takes 0.1: what is left holds fewer atoms than one has in its halo, and the error says how many."""
DECK = """
units metal
read_data atoms.data
pair_style zero 4.0
pair_coeff * *
compute dos all petdos almgsi-lda Al output features {}
thermo_style custom step c_dos[1] c_dos[5] c_dos[60]
thermo_modify format float %20.10g
run 0
"""


@pytest.fixture
def atoms(tmp_path: Path) -> Atoms:
    made = ase.build.bulk("Al", cubic=True) * (4, 4, 18)
    made.rattle(0.1, seed=1)
    ase.io.write(tmp_path / "atoms.data", made, format="lammps-data", masses=True)
    return made


def run(folder: Path, keywords: str, **environment: str) -> str:
    """What `lmp` itself prints, without the Python script in front of it."""
    lmp, mpi = plugin.metadata_folder("lammps").parent / "lammps" / "lmp", plugin.mpi_library()
    built = plugin.built_folder(plugin.key())
    assert mpi is not None and built is not None
    (folder / "in.deck").write_text(DECK.format(keywords))
    variables = {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(mpi.parent),
        "LAMMPS_PLUGIN_PATH": str(built),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [str(lmp), "-in", "in.deck", "-log", "none"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True).stdout


def features(printed: str) -> list[float]:
    (row,) = re.findall(r"^ +0 +(\S+) +(\S+) +(\S+)", printed, re.MULTILINE)
    return [float(x) for x in row]


def test_as_many_atoms_as_in_python(tmp_path: Path, atoms: Atoms) -> None:
    """Given by a keyword, or free on a machine that two ranks share."""
    with pytest.raises(SettingError) as caught:
        DOSModel.load("almgsi-lda", max_memory_GB=GIGABYTES).evaluate(atoms)
    (most,) = re.findall(r"chunks may have (\d+) atoms", str(caught.value))
    by_keyword = run(tmp_path, f"memory {GIGABYTES}")
    shared = run(tmp_path, "", PETDOS_LAMMPS_FREE_BYTES=f"{2e9 * GIGABYTES:.0f}", MPI_LOCALNRANKS="2")
    for printed in (by_keyword, shared):
        assert f"more than a chunk may have ({most})" in printed


def test_results_do_not_depend_on_memory(tmp_path: Path, atoms: Atoms) -> None:
    model = DOSModel.load("almgsi-lda")
    expected = model.evaluate(atoms).features[[0, 4, 59]]
    for keywords in ("memory 0.116", "memory 1", ""):
        assert features(run(tmp_path, keywords)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "keywords, said",
    [
        ("memory -1", "got memory -1, expected a number of GB > 0"),
        ("memory 0.01", "which do not suffice for one atom; allow more memory"),
    ],
)
def test_impossible_memory(tmp_path: Path, atoms: Atoms, keywords: str, said: str) -> None:
    assert said in run(tmp_path, keywords)


def test_place_on_the_machine(tmp_path: Path) -> None:
    """From what launchers set, whatever the communicator says: partitions must not all take the first device."""
    (tmp_path / "place.cpp").write_text(
        f'#include "{shipped_folder("lammps_plugin")}/machine.h"\n#include <cstdio>\n'
        'int main() { std::printf("%d %d", petdos::rank_on_machine(7), petdos::ranks_on_machine(9)); }\n'
    )
    subprocess.run(["g++", "-std=c++17", "place.cpp", "-o", "place"], cwd=tmp_path, check=True)
    for given, expected in (
        ({}, "7 9"),
        ({"MPI_LOCALRANKID": "3", "MPI_LOCALNRANKS": "4", "SLURM_LOCALID": "1"}, "3 4"),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, "2 5"),
        ({"SLURM_LOCALID": "1"}, "1 9"),
        ({"MPI_LOCALRANKID": "x", "MPI_LOCALNRANKS": "0"}, "7 1"),
    ):
        done = subprocess.run([tmp_path / "place"], env=given, capture_output=True, text=True)
        assert done.stdout == expected
