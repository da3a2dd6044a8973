"""Bad input to ``pair_style metatomic``: one line that says what to do, on every rank, and no hang."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lammps_tools import ALLOY, instance, run_lmp
from helpers.once import once
from helpers.potentials import CUTOFF_A, write_lennard_jones

pytestmark = pytest.mark.usefixtures("lammps_plugin")
BARE = ALLOY.split("pair_style")[0].replace("random 0.2 0.2 0.2", "random 0.05 0.05 0.05")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``lj.pt`` and ``plain.pt``, which has nothing but energies."""

    def write(folder: Path) -> None:
        write_lennard_jones(folder / "lj.pt")
        write_lennard_jones(folder / "plain.pt", more_outputs=False)

    return once(tmp_path_factory, "bad_potentials", write)


def error_of(deck: str, folder: Path, ranks: int = 0) -> str:
    """The one line that LAMMPS ends with on the screen; every rank ends, and none shows a backtrace.

    Where an error is raised is the same on any number of ranks, so that one of each kind is tried on two.
    """
    done = run_lmp(deck, folder, ranks)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert done.returncode != 0 and len(lines) == 1, done.stdout[-2000:] + done.stderr[-2000:]
    for word in ("Traceback", "C++ exception", "TorchScript (most", "frame #"):
        assert word not in done.stdout + done.stderr
    return lines[0]


STYLES = {
    "": "expected: pair_style metatomic MODEL keyword value",
    "no-such-model": "no such file and no shipped model",
    "{}/lj.pt device gpu": "got device gpu, expected cpu or cuda",
    "{}/lj.pt devise cpu": "unknown keyword devise, expected device, extensions",
    "{}/lj.pt device": "keyword device has no value",
    "{}/lj.pt check_consistency maybe": "got check_consistency maybe, expected on or off",
    "{}/lj.pt uncertainty_threshold -1": "got uncertainty_threshold -1, expected an energy per atom > 0, or off",
    "{}/plain.pt uncertainty_threshold 0.1": "has no energy_uncertainty for single atoms; leave out uncertainty_threshold",
    "{}/lj.pt variant other": "variant 'other' for output 'energy' not found",
    "{}/plain.pt non_conservative on": "has no non_conservative_force output",
    "{}/lj.pt chunk 0": "got chunk 0, expected a number >= 1",
}


@pytest.mark.parametrize("words", STYLES)
def test_arguments(words: str, folder: Path, tmp_path: Path) -> None:
    said = error_of(BARE + f"pair_style metatomic {words.format(folder)}\n", tmp_path)
    assert STYLES[words] in said and "pair_style metatomic:" in said


COEFFICIENTS = {
    "* * Al": "pair_coeff has 1 elements, expected one for each of the 2 atom types",
    "* * Al Mg Si": "pair_coeff has 3 elements, expected one for each of the 2 atom types",
    "* * Al Xx": "unknown element Xx in pair_coeff, expected chemical symbols or atomic numbers",
    "* * Al 200": "unknown element 200 in pair_coeff",
    "* * Al Si": "element Si is unknown to Lennard-Jones, which knows Mg Al",
    "1 2 Al Mg": "pair_coeff must start with * * for pair style metatomic",
}


@pytest.mark.parametrize("words", COEFFICIENTS)
def test_elements(words: str, folder: Path, tmp_path: Path) -> None:
    ranks = 2 if words == "* * Al Si" else 0
    said = error_of(BARE + f"pair_style metatomic {folder}/lj.pt\npair_coeff {words}\n", tmp_path, ranks)
    assert COEFFICIENTS[words].lower() in said.lower()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_device_that_is_not_there(tmp_path: Path) -> None:
    said = error_of(BARE + "pair_style metatomic almgsi-lda device cuda\n", tmp_path, ranks=2)
    assert "device cuda is not usable here with this model, expected one of: cpu" in said


def test_model_without_energy(lammps_model_path: Path, tmp_path: Path) -> None:
    said = error_of(BARE + f"pair_style metatomic {lammps_model_path}\n", tmp_path)
    assert "has no energy output, its outputs are: " in said and "give a model that predicts energies" in said


def test_files(folder: Path, tmp_path: Path) -> None:
    """Not a model; needs an extension that is not there; exported for another metatomic, which is a warning as elsewhere."""
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
    assert "not a metatomic model" in error_of(BARE + f"pair_style metatomic {path}\n", tmp_path)
    path.write_bytes((folder / "lj.pt").read_bytes()[:-100])
    assert "truncated or not a model file" in error_of(BARE + f"pair_style metatomic {path}\n", tmp_path)

    _change(folder / "lj.pt", path, "metatomic-version", b"9.9.9")
    done = run_lmp(BARE + f"pair_style metatomic {path}\npair_coeff * * Al Mg\nrun 0\n", tmp_path, 2)
    assert done.returncode == 0
    warning = "WARNING: pair_style metatomic: Current metatomic version"
    assert done.stdout.count(warning) == 1 and "9.9.9" in done.stdout


def test_missing_extension(tmp_path: Path) -> None:
    pytest.importorskip("spex", reason="needs metatrain[soap-bpnn]")
    from helpers.potentials import write_soap_bpnn

    write_soap_bpnn(tmp_path / "soap.pt")
    for words in ("", " extensions /nowhere"):
        # In a process of its own: this one may have the extension already.
        said = error_of(BARE + f"pair_style metatomic {tmp_path}/soap.pt{words}\n", tmp_path, ranks=1)
        assert "needs the extension sphericart_torch, which is not found here; give the folder" in said


def test_systems(folder: Path, tmp_path: Path) -> None:
    box = "region b block 0 5 0 5 {}\ncreate_box 1 b\n"
    style = f"pair_style metatomic {folder}/lj.pt\npair_coeff * * Al\n"
    assert "got units lj" in error_of("units lj\n" + box.format("0 5") + style, tmp_path)
    flat = "units metal\ndimension 2\n" + box.format("-0.5 0.5") + style
    assert "three-dimensional" in error_of(flat, tmp_path)
    use = f"pair_style metatomic {folder}/lj.pt\npair_coeff * * Al Mg\n"
    assert "does not work with run_style respa" in error_of(
        BARE + use + "run_style respa 2 2 pair 1\nrun 0\n", tmp_path
    )
    virial = "compute s all stress/atom NULL\ncompute m all reduce sum c_s[1]\nthermo_style custom step c_m\nrun 0\n"
    assert "there is no virial of single atoms" in error_of(BARE + use + virial, tmp_path)


def test_forces_that_are_not_finite(tmp_path: Path) -> None:
    """On one rank alone: all of them end."""
    write_lennard_jones(tmp_path / "lj.pt", nan_below_A=2.0)
    use = f"pair_style metatomic {tmp_path}/lj.pt\npair_coeff * * Al Mg\n"
    close = "create_atoms 1 single 1.0 1.0 1.0\ncreate_atoms 1 single 1.2 1.0 1.0\n"
    long = BARE.replace("block 0 2 0 2 0 2", "block 0 2 0 2 0 24").replace("mass", close + "mass")
    said = error_of(long + use + "run 0\n", tmp_path, ranks=2)
    assert "energies or forces that are NaN or infinite: the structure is far from the training data" in said


def test_chunks_that_are_too_small(folder: Path, tmp_path: Path) -> None:
    deck = BARE + f"pair_style metatomic {folder}/lj.pt chunk 5\npair_coeff * * Al Mg\nrun 0\n"
    assert "one atom with its halo has 32 atoms, more than a chunk may have (5)" in error_of(deck, tmp_path)


@pytest.mark.parametrize(("volume", "ranks"), [(1.0, 0), (0.4, 2)])
def test_uncertainty_of_the_shipped_model(volume: float, ranks: int, tmp_path: Path) -> None:
    """Silent in its domain; an alloy that is squeezed gets the number of metatomic's own evaluation."""
    from petdos_md.lammps import atoms_of
    from petdos_md.models.model import DOSModel

    squeeze = "change_box all x scale {0} y scale {0} z scale {0} remap\n".format(volume ** (1 / 3))
    alloy = BARE.replace("type/ratio", "type/fraction")  # which does not depend on the number of ranks
    deck = alloy + squeeze + "pair_style metatomic almgsi-lda\npair_coeff * * Al Mg\nrun 0\n"
    with instance(deck) as lmp:
        atoms = atoms_of(lmp, ["Al", "Mg"])
        ids = np.array(lmp.numpy.extract_atom("id"))[: len(atoms)]
    expected = DOSModel.load("almgsi-lda").evaluator.rows_of_atoms(atoms, "energy_uncertainty")[:, 0]
    done = run_lmp(deck, tmp_path, ranks)
    assert done.returncode == 0, done.stdout[-2000:]
    said = [line for line in done.stdout.splitlines() if "are uncertain by more than" in line]
    assert len(said) == (expected.max() > 0.1) == (volume < 1)
    if said:
        told = re.search(r"of (\d+) atoms are .* that of atom (\d+) by ([\d.]+) ", said[0])
        assert told is not None and int(told[1]) == (expected > 0.1).sum()
        assert float(told[3]) == pytest.approx(expected.max(), rel=1e-3)
        assert expected[ids == int(told[2])] == pytest.approx(expected.max(), rel=1e-3)


def test_uncertainty_warning(folder: Path, tmp_path: Path) -> None:
    """The least certain atom is named; the warning comes back after twice as many steps each time."""
    from ase.neighborlist import neighbor_list

    from petdos_md.lammps import atoms_of

    style = "pair_style metatomic {}/lj.pt {}\npair_coeff * * Al Mg\nfix md all nve\ntimestep 0.0001\n"
    with instance(BARE + style.format(folder, "")) as lmp:
        counts = np.bincount(neighbor_list("i", atoms_of(lmp, ["Al", "Mg"]), CUTOFF_A))
        worst = int(np.array(lmp.numpy.extract_atom("id"))[np.argmax(counts)])
    expected = f"the energies of 32 atoms are uncertain by more than 0.1, that of atom {worst} by {counts.max() / 100:g} (step 0)"
    times = {"": 3, "uncertainty_threshold 0.2": 3, "uncertainty_threshold off": 0, "uncertainty_threshold 9": 0}
    done = run_lmp("clear\n".join(BARE + style.format(folder, words) + "run 9\n" for words in times), tmp_path, 2)
    parts = done.stdout.split("Loop time of")
    assert done.returncode == 0 and len(parts) == len(times) + 1
    for part, n in zip(parts, times.values(), strict=False):
        lines = [line for line in part.splitlines() if "WARNING: pair_style metatomic: " in line]
        assert len(lines) == n
        if n:
            assert re.sub("than 0.2", "than 0.1", lines[0]).split("metatomic: ")[1].startswith(expected)


def test_forces_that_are_no_derivatives(folder: Path) -> None:
    """They are taken as the model predicts them, and so is the pressure where all directions are periodic."""
    words = f"{folder}/lj.pt non_conservative on uncertainty_threshold off scale 2.0"
    deck = BARE + f"pair_style metatomic {words}\npair_coeff * * Al Mg\ncompute p all pressure NULL virial\n"
    with instance(deck + "thermo_style custom step press c_p[1]\nrun 0\n") as lmp:
        forces = np.array(lmp.numpy.extract_atom("f"))[: lmp.get_natoms()]
        assert np.allclose(forces, 2 * np.array([1, 2, 3]) / 96.48533212331 / 10, rtol=1e-6)
        pressures = np.array(lmp.numpy.extract_compute("p", 0, 1))
        # kJ/mol/nm^3 to bar
        np.testing.assert_allclose(pressures, -2 * np.array([10, 20, 30, 1, 1, 1]) * 16.6053907, rtol=1e-5)
        lmp.commands_string("change_box all boundary p p f\nrun 0")
        assert np.isnan(lmp.get_thermo("press"))


def test_energy_of_the_whole_alone(folder: Path, tmp_path: Path) -> None:
    """The same energy and forces as of a model with energies of atoms; those are not made up."""
    found = []
    for name in ("plain", "lj"):
        use = f"pair_style metatomic {folder}/{name}.pt\npair_coeff * * Al Mg\n"
        with instance(BARE + use + "run 0\n") as lmp:
            found.append((float(lmp.get_thermo("pe")), np.array(lmp.numpy.extract_atom("f"))[: lmp.get_natoms()]))
        if name == "plain":
            asked = "compute e all pe/atom\ncompute s all reduce sum c_e\nthermo_style custom step c_s\nrun 0\n"
            assert "plain.pt has no energies of single atoms; leave out" in error_of(BARE + use + asked, tmp_path)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-12)


def test_host_that_has_the_style(lammps_plugin: Path, tmp_path: Path) -> None:
    """Another plugin that was first: its style stays, ours says so and keeps its other name."""
    from petdos_md.engines.lammps.build import _plugin_flags, compiler

    (tmp_path / "other.cpp").write_text(OTHER)
    flags = ["-std=c++17", "-fPIC", "-shared", *_plugin_flags()]
    subprocess.run(
        [compiler(), *flags, str(tmp_path / "other.cpp"), "-o", str(tmp_path / "otherplugin.so")], check=True
    )
    deck = f"plugin load {tmp_path}/otherplugin.so\nplugin load {lammps_plugin}/petdosplugin.so\n" + BARE
    use = "pair_style {} almgsi-lda\npair_coeff * * Al Mg\nrun 0\n"
    code = "import lammps, os, sys\nos.environ.pop('LAMMPS_PLUGIN_PATH')\n"
    for style in ("metatomic", "petdos/metatomic"):
        path = tmp_path / f"{style.replace('/', '.')}.deck"
        path.write_text(deck + use.format(style))
        code += f"l = lammps.lammps(cmdargs=['-log', 'none'])\ntry: l.file('{path}')\nexcept Exception as e: print('failed', e, flush=True)\nl.close()\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    told = "this LAMMPS has a pair_style metatomic of its own, which stays; ours is petdos/metatomic"
    assert done.returncode == 0 and told in done.stderr
    theirs, ours = re.split("Total wall time.*", done.stdout, maxsplit=1)
    assert "the other one" in theirs and "Loop time" not in theirs
    assert "failed" not in ours and "pair_style metatomic: almgsi-lda" in ours and "Loop time" in ours


OTHER = """
#include "error.h"
#include "lammps.h"
#include "pair.h"
using namespace LAMMPS_NS;
struct Other : Pair {
  Other(LAMMPS *lmp) : Pair(lmp) {}
  void compute(int, int) override {}
  void settings(int, char **) override { error->all(FLERR, "the other one"); }
  void coeff(int, char **) override {}
};
struct Plugin { const char *version, *style, *name, *info, *author; void *(*create)(void *); void *handle; };
static void *create(void *lmp) { return new Other(static_cast<LAMMPS *>(lmp)); }
extern "C" void lammpsplugin_init(void *lmp, void *handle, void *regfunc)
{
  Plugin plugin{static_cast<LAMMPS *>(lmp)->version, "pair", "metatomic", "test", "test", create, handle};
  reinterpret_cast<void (*)(Plugin *, void *)>(regfunc)(&plugin, lmp);
}
"""


def _change(source: Path, target: Path, name: str, content: bytes) -> None:
    """A copy of a model with one of its extra files replaced."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry, content if entry.filename.endswith(name) else old.read(entry))
