"""``pair_style metatomic``: energies, forces and pressures of metatomic's ASE calculator on the same model, in every kind of box."""

from __future__ import annotations

import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from helpers.lammps_tools import ALLOY, LONG, instance, run_lmp, vector
from helpers.once import once
from helpers.potentials import (
    CUTOFF_A,
    EPSILON_EV,
    SIGMA_A,
    write_lennard_jones,
    write_sliced_potential,
    write_soap_bpnn,
)

from petdos_md.engines.potentials import metatomic_calculator
from petdos_md.models.files import as_written, find_model
from petdos_md.models.hot_electrons import HotElectronForces
from petdos_md.models.model import DOSModel

pytestmark = [
    pytest.mark.usefixtures("lammps_plugin"),
    pytest.mark.filterwarnings("ignore:module does not have '_mts_buffer_names'"),
]
BARE = (
    ALLOY.split("pair_style")[0].replace("random 0.2 0.2 0.2", "random 0.05 0.05 0.05")
    + "velocity all create 1200 4928459\ntimestep 0.0005\n"
)
LONG_BARE = LONG.split("pair_style")[0]
SHIPPED = "almgsi-lda"
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
EV_A3_PER_BAR = 1 / 1.6021765e6
"""As LAMMPS has it."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What follows ``pair_style metatomic``, by architecture."""

    def write(folder: Path) -> None:
        write_sliced_potential(folder / "sliced.pt")
        write_lennard_jones(folder / "lj.pt")
        if importlib.util.find_spec("spex"):
            write_soap_bpnn(folder / "soap.pt")

    folder = once(tmp_path_factory, "potentials", write)
    return {
        "shipped": SHIPPED,
        "sliced PET": f"{folder}/sliced.pt",
        "stock PET": f"{folder}/stock.pt",
        "SOAP-BPNN": f"{folder}/soap.pt extensions {folder}/extensions",
        "Lennard-Jones": f"{folder}/lj.pt uncertainty_threshold off",
    }


ARCHITECTURES = [
    "shipped",
    "sliced PET",
    "stock PET",
    pytest.param(
        "SOAP-BPNN",
        marks=pytest.mark.skipif(not importlib.util.find_spec("spex"), reason="needs metatrain[soap-bpnn]"),
    ),
    "Lennard-Jones",
]


def by_ase(words: str, atoms: Atoms) -> tuple[float, np.ndarray, np.ndarray | None, str]:
    """Energy, forces, stress (3, 3) and precision of a model by metatomic's own calculator."""
    atoms = atoms.copy()
    atoms.calc, dtype = calculator(words.split()[0])
    with as_written():  # compiling takes more time than all of these evaluations
        stress = atoms.get_stress(voigt=False) if atoms.pbc.all() else None
        return atoms.get_potential_energy(), atoms.get_forces(), stress, dtype


@lru_cache
def calculator(name: str) -> tuple[Any, str]:
    """That of metatomic, and the precision of the model."""
    from metatomic.torch import load_atomistic_model

    model = load_atomistic_model(str(find_model(name)))
    return metatomic_calculator()(model, uncertainty_threshold=None), model.capabilities().dtype


def by_lammps(lmp, *elements: str) -> tuple[Atoms, float, np.ndarray, np.ndarray]:
    """Configuration, energy (eV), forces (eV/angstrom) and stress of the potential alone (eV/angstrom^3) in units metal."""
    from petdos_md.lammps import atoms_of

    atoms = atoms_of(lmp, list(elements) or ["Al", "Mg"])
    forces = np.array(lmp.numpy.extract_atom("f"))[: len(atoms)]
    xx, yy, zz, xy, xz, yz = (-float(v) * EV_A3_PER_BAR for v in lmp.numpy.extract_compute("p", 0, 1))
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return atoms, float(lmp.get_thermo("pe")), forces, stress


def use(words: str, elements: str = "Al Mg") -> str:
    """The pair style, and the pressure without that of the velocities."""
    return f"pair_style metatomic {words}\npair_coeff * * {elements}\ncompute p all pressure NULL virial\n"


def assert_agree(lmp, words: str, *elements: str) -> None:
    atoms, energy, forces, stress = by_lammps(lmp, *elements)
    expected_energy, expected_forces, expected_stress, dtype = by_ase(words, atoms)
    tolerance = TOLERANCE[dtype]
    # Single precision: LAMMPS is given a sum of energies of atoms, ASE that sum after rounding.
    assert energy == pytest.approx(expected_energy, rel=tolerance / 10, abs=tolerance)
    assert np.abs(forces - expected_forces).max() < tolerance * np.abs(expected_forces).max()
    if expected_stress is not None:
        symmetric = 0.5 * (expected_stress + expected_stress.T)
        assert np.abs(stress - symmetric).max() < tolerance * np.abs(symmetric).max()


BOXES = {
    "periodic": "",
    "triclinic": "change_box all triclinic xy final 1.5 xz final -0.8 yz final 0.6 remap\n",
    "slab": "change_box all boundary p p f z final -3 12\n",
    "cluster": "change_box all boundary s f m\n",
}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_ase(architecture: str, box: str, models: dict[str, str]) -> None:
    words = models[architecture]
    with instance(BARE + BOXES[box] + use(words) + "thermo_style custom step pe press c_p[1]\nrun 0\n") as lmp:
        assert_agree(lmp, words)
        lmp.command("fix md all nve")
        lmp.command("run 3")
        assert_agree(lmp, words)
        if box == "triclinic":  # two types of one element
            lmp.commands_string("pair_coeff * * Mg 12\nrun 0")
            assert_agree(lmp, words, "Mg", "Mg")


@pytest.mark.parametrize("atoms", ["one", "two far apart", "primitive cell"])
def test_few_atoms(atoms: str, models: dict[str, str]) -> None:
    """An atom without neighbors, and none; and a cell much smaller than the cutoff, in which an atom is its own neighbor many times."""
    decks = {
        "one": "boundary f f f\nregion box block 0 9 0 9 0 9\ncreate_box 2 box\ncreate_atoms 2 single 4 4 4\n",
        "two far apart": "region box block 0 40 0 40 0 40\ncreate_box 2 box\ncreate_atoms 1 single 1 1 1\ncreate_atoms 2 single 20 20 20\n",
        "primitive cell": "lattice custom 4.05 a1 0.5 0.5 0 a2 0 0.5 0.5 a3 0.5 0 0.5 basis 0 0 0 triclinic/general\n"
        "create_box 2 NULL 0 1 0 1 0 1\ncreate_atoms 1 box\n",
    }
    for name in ("shipped", "sliced PET", "Lennard-Jones"):
        with instance("units metal\n" + decks[atoms] + "mass * 27\n" + use(models[name]) + "run 0\n") as lmp:
            found, energy, forces, _ = by_lammps(lmp)
            expected, expected_forces, _, dtype = by_ase(models[name], found)
            assert energy == pytest.approx(expected, rel=TOLERANCE[dtype])
            assert np.abs(forces - expected_forces).max() < 1e-5
            if atoms == "one":
                lmp.commands_string("delete_atoms group all\nrun 0")
                assert lmp.get_natoms() == 0 and lmp.get_thermo("pe") == 0.0


STYLES = {"real": 1.0, "metal": 1.0, "si": 1e10, "cgs": 1e8, "electron": 0.529177210903, "micro": 1e4, "nano": 10.0}


@pytest.mark.parametrize("style", STYLES)
def test_units(style: str, models: dict[str, str]) -> None:
    """The same energy and forces in every style, by ASE's table of units."""
    from ase.calculators.lammps import convert

    from petdos_md.lammps import atoms_of

    a = 4.05 / STYLES[style]
    deck = f"""
    units {style}
    atom_modify map array
    region box block 0 {2 * a} 0 {2 * a} 0 {2 * a}
    create_box 1 box
    lattice fcc {a}
    create_atoms 1 box
    set atom 3 x {0.1 * a}
    mass 1 1
    neighbor {0.1 * a} bin
    """
    words = models["Lennard-Jones"]
    with instance(deck + use(words, "13") + "thermo_modify norm no\nrun 0\n") as lmp:
        atoms = atoms_of(lmp, ["Al"])
        energy, forces, *_ = by_ase(words, atoms)
        assert convert(lmp.get_thermo("pe"), "energy", style, "ASE") == pytest.approx(energy, rel=1e-6)
        found = np.array(lmp.numpy.extract_atom("f"))[: len(atoms)]
        assert np.abs(convert(found, "force", style, "ASE") - forces).max() < 1e-6 * np.abs(forces).max()


def test_closed_form(models: dict[str, str]) -> None:
    """LAMMPS's own Lennard-Jones has the same energy, pressure, energies of atoms and trajectory."""
    md = "compute each all pe/atom\nfix md all nve\nthermo_style custom step pe press\nrun 20\n"
    own = f"pair_style lj/cut {CUTOFF_A}\npair_modify shift yes\npair_coeff * * {EPSILON_EV} {SIGMA_A}\n"
    results = []
    for potential in (own, use(models["Lennard-Jones"] + " check_consistency on device cpu")):
        with instance("atom_modify map array\n" + BARE + potential + md) as lmp:
            n = lmp.get_natoms()
            order = np.argsort(np.array(lmp.numpy.extract_atom("id"))[:n])
            x = np.array(lmp.numpy.extract_atom("x"))[:n][order]
            each = np.array(lmp.numpy.extract_compute("each", 1, 1))[:n][order]
            results.append((x, each, lmp.get_thermo("pe"), lmp.get_thermo("press")))
    for found, expected in zip(results[1], results[0], strict=True):
        assert np.allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("architecture", ["shipped", "sliced PET"])
def test_finite_differences(architecture: str, models: dict[str, str]) -> None:
    """Forces and pressure are derivatives of the energy that LAMMPS prints."""
    step = {"shipped": 5e-3, "sliced PET": 1e-4}[architecture]
    with instance("atom_modify map array\n" + BARE + use(models[architecture]) + "run 0\n") as lmp:

        def energy() -> float:
            lmp.command("run 0")
            return float(lmp.get_thermo("pe"))

        tolerance = {"shipped": 2e-2, "sliced PET": 1e-6}[architecture]
        _, _, forces, stress = by_lammps(lmp)
        scale = np.abs(forces).max()
        ids = np.array(lmp.numpy.extract_atom("id"))
        for row, axis in ((0, 0), (5, 1), (17, 2)):
            move = [f"{sign * step * (k == axis)}" for sign in (1, -2) for k in range(3)]
            lmp.command(f"group one id {ids[row]}")
            lmp.command(f"displace_atoms one move {' '.join(move[:3])} units box")
            up = energy()
            lmp.command(f"displace_atoms one move {' '.join(move[3:])} units box")
            down = energy()
            lmp.command(f"displace_atoms one move {' '.join(move[:3])} units box")
            lmp.command("group one delete")
            assert -(up - down) / (2 * step) == pytest.approx(forces[row, axis], abs=tolerance * scale)
        volume = lmp.get_thermo("vol")
        length = lmp.get_thermo("lx")
        lmp.command(f"change_box all x final 0 {length * (1 + step)} remap units box")
        up = energy()
        lmp.command(f"change_box all x final 0 {length * (1 - step)} remap units box")
        down = energy()
        assert (up - down) / (2 * step) / volume == pytest.approx(stress[0, 0], rel=10 * tolerance, abs=1e-5)


def to_files(out: str, newton: str, words: str, z: str = "p", filled: int = 24) -> str:
    """A deck that writes energy and pressures to ``OUT.txt``, forces and energies of atoms to ``OUT.dump``."""
    box = LONG_BARE.replace("${z}", z).replace("${low}", str(z.count("f"))).replace("${filled}", str(filled))
    values = "pe " + " ".join(f"c_p[{k}]" for k in range(1, 7))
    return f"""
    newton {newton}
    {box}
    {use(words)}
    compute each all pe/atom
    thermo_style custom step {values}
    thermo_modify norm no
    dump d all custom 1 {out}.dump id fx fy fz c_each
    dump_modify d format float %.17g sort id
    run 0
    print "{" ".join(f"$({value}:%.17g)" for value in values.split())}" file {out}.txt
    """


def test_ranks(models: dict[str, str], tmp_path: Path) -> None:
    """Three and four ranks, one of them without atoms, newton on and off: all equal the serial result, and chunks do."""
    sliced, lj = models["sliced PET"], models["Lennard-Jones"]
    half: dict[str, Any] = {"z": "f", "filled": 10}
    for ranks, decks in (
        (0, [to_files("serial", "on", sliced), to_files("half", "on", sliced, **half), to_files("lj", "on", lj)]),
        (0, [to_files("chunks", "on", sliced + " chunk 250"), to_files("shipped", "on", SHIPPED)]),
        (3, [to_files("three", "off", sliced), to_files("empty_rank", "on", sliced, **half)]),
        (4, [to_files("lj4", "off", lj), to_files("shipped4", "on", SHIPPED)]),
    ):
        done = run_lmp("clear\n".join(decks), tmp_path, ranks)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def parts(out: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Energy, pressures, forces, energies of atoms."""
        rows, numbers = np.loadtxt(tmp_path / f"{out}.dump", skiprows=9), np.loadtxt(tmp_path / f"{out}.txt")
        return numbers[:1], numbers[1:], rows[:, 1:4], rows[:, 4]

    for found, expected, rel in (
        ("three", "serial", 1e-10),
        ("chunks", "serial", 1e-10),
        ("empty_rank", "half", 1e-10),
        ("lj4", "lj", 1e-10),
        ("shipped4", "shipped", 1e-5),
    ):
        for a, b in zip(parts(found), parts(expected), strict=True):
            assert np.abs(a - b).max() < rel * np.abs(b).max(), (found, expected)


def test_derivatives_in_slices(models: dict[str, str]) -> None:
    """More atoms than are differentiated at once: the network's own derivatives, which equal ASE's."""
    deck = BARE.replace("block 0 2 0 2 0 2", "block 0 7 0 6 0 6")
    with instance(deck + use(models["sliced PET"]) + "run 0\n") as lmp:
        assert lmp.get_natoms() == 1008
        assert_agree(lmp, models["sliced PET"])


def test_shared_pass_in_slices_with_uncertainty(tmp_path: Path) -> None:
    """One pass over more atoms than are differentiated at once for forces, uncertainties and DOS, and for hot electrons, too: as in Python."""
    deck = BARE.replace("block 0 2 0 2 0 2", "block 0 7 0 6 0 6") + f"log {tmp_path}/log\n"
    pair = f"pair_style metatomic {SHIPPED} uncertainty_threshold 0.05\npair_coeff * * Al Mg\n"
    more = f"compute p all pressure NULL virial\ncompute dos all petdos {SHIPPED} Al Mg\nfix md all nve\nthermo 2\n"
    more += "thermo_style custom step pe c_dos c_p[1]\n"
    # The pass of step 2 is asked for the DOS, too, and its warning is the second one of the first pair style.
    with instance(deck + pair + more + "run 2\n") as lmp:
        atoms, energy, forces, _ = by_lammps(lmp)
        dos, ids = vector(lmp), np.array(lmp.numpy.extract_atom("id"))[: len(atoms)]
        lmp.commands_string(pair + "fix hot all petdos/electrons dos temp 8000\nrun 0\n")
        _, hot_energy, hot_forces, _ = by_lammps(lmp)
        hot_forces = hot_forces[np.argsort(np.array(lmp.numpy.extract_atom("id"))[: len(atoms)])[ids - 1]]
        hot_dos = vector(lmp)
    assert len(atoms) == 1008
    model = DOSModel.load(SHIPPED)
    sample, expected_energy, expected, _ = model.evaluate_with_forces(atoms)
    electrons = HotElectronForces(model).evaluate(atoms, 8000.0)
    tolerance = 2e-5 * np.abs(expected).max()
    # In Python, a sum of a thousand atoms in single precision.
    assert energy == pytest.approx(expected_energy, rel=1e-5)
    assert hot_energy - energy == pytest.approx(electrons.free_energy_eV, rel=1e-5)
    assert np.abs(forces - expected).max() < tolerance
    assert np.abs(hot_forces - expected - electrons.forces).max() < tolerance < 0.01 * np.abs(electrons.forces).max()
    for found in (dos, hot_dos):
        assert np.abs(found - model.dos(sample)).max() < 1e-5 * dos.max()
    uncertain = model.evaluator.rows_of_atoms(atoms, "energy_uncertainty")[:, 0]
    said = re.findall(r"of (\d+) atoms .* atom (\d+) by (\S+) \(step 2\)", (tmp_path / "log").read_text())
    assert len(said) == 2
    for above, worst, by in said:
        assert int(above) == (uncertain > 0.05).sum() and float(by) == pytest.approx(uncertain.max(), rel=1e-4)
        assert uncertain[ids == int(worst)] == pytest.approx(uncertain.max(), rel=1e-4)


def test_trajectory(models: dict[str, str]) -> None:
    """Velocity Verlet of ASE with metatomic's calculator: the same positions after 50 steps."""
    from ase.md.verlet import VelocityVerlet

    from petdos_md.lammps import atoms_of

    words = models["sliced PET"]
    with instance(
        "atom_modify map array sort 0 0\n" + BARE + use(words) + "fix md all nve\ntimestep 0.002\nrun 0\n"
    ) as lmp:
        atoms = atoms_of(lmp, ["Al", "Mg"])
        n = len(atoms)
        # LAMMPS's own unit of energy, in which it integrates: 1.0364269e-4 eV for g/mol (angstrom/ps)^2.
        time_unit = 1.0364269e-4**0.5
        atoms.set_masses([26.98] * n)
        atoms.set_velocities(np.array(lmp.numpy.extract_atom("v"))[:n] * time_unit)
        lmp.command("run 50")
        found = np.array(lmp.numpy.extract_atom("x"))[:n]
    atoms.calc = calculator(words)[0]
    with as_written():
        VelocityVerlet(atoms, 0.002 / time_unit).run(50)
    apart = found - atoms.positions
    assert np.abs(apart - 8.1 * np.round(apart / 8.1)).max() < 1e-9
