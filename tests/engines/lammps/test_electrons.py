"""``fix petdos/electrons``: forces of hot electrons in the stock ``lmp`` against the package, finite differences, ranks, restarts, bad input."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from ase import Atoms, units
from helpers.lammps_tools import ALLOY, instance, run_lmp

from petdos_md.ase import HotElectronCalculator
from petdos_md.base.errors import SettingError
from petdos_md.models.hot_electrons import HotElectronForces, HotForces
from petdos_md.models.model import DOSModel
from petdos_md.physics.hot_electrons import highest_temperature_K, hot_electrons, smearing_share
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")
T_E = 8000.0
EV_A3_PER_BAR = 1 / 1.6021765e6
THERMO = "thermo_style custom step temp pe etotal\nthermo_modify format float %.14g\n"
COLD = ALLOY.replace("random 0.2 0.2 0.2", "random 0.05 0.05 0.05") + "compute p all pressure NULL virial\n" + THERMO


def hot(model: Path, temperature: str = "8000", extra: str = "") -> str:
    return f"compute dos all petdos {model} Al Mg\nfix hot all petdos/electrons dos temp {temperature}\n{extra}"


def state(lmp, *elements: str) -> tuple[Atoms, float, np.ndarray, np.ndarray]:
    """Configuration, energy (eV), forces (eV/angstrom) and virial (eV) in units metal."""
    from petdos_md.lammps import atoms_of

    atoms = atoms_of(lmp, list(elements) or ["Al", "Mg"])
    forces = np.array(lmp.numpy.extract_atom("f"))[: len(atoms)]
    pressure = np.array(lmp.numpy.extract_compute("p", 0, 1))
    return atoms, float(lmp.get_thermo("pe")), forces, pressure * EV_A3_PER_BAR * atoms.get_volume()


def numbers(lmp) -> np.ndarray:
    """F, U, S, mu, C_el, T_e."""
    return np.array([lmp.extract_fix("hot", 0, 1, i) for i in range(6)])


def expected(model: DOSModel, atoms: Atoms, T: float = T_E) -> tuple[HotForces, np.ndarray]:
    found = HotElectronForces(model).evaluate(atoms, T)
    assert found.stress is not None
    return found, -found.stress.reshape(9)[[0, 4, 8, 1, 2, 5]] * atoms.get_volume()


def test_adds_to_any_pair_style(hot_path: Path, hot_model: DOSModel) -> None:
    """The difference to MEAM alone is what the package computes; and the six numbers of the fix."""
    with instance(COLD + "run 0\n") as lmp:
        _, energy, forces, virial = state(lmp)
    with instance(COLD + hot(hot_path) + "run 0\n") as lmp:
        atoms, hot_energy, hot_forces, hot_virial = state(lmp)
        found = numbers(lmp)
        assert lmp.extract_fix("hot", 0, 0) == found[0]
    there, stress = expected(hot_model, atoms)
    assert hot_energy - energy == pytest.approx(there.free_energy_eV, abs=1e-8)
    np.testing.assert_allclose(hot_forces - forces, there.forces, atol=1e-9)
    np.testing.assert_allclose(hot_virial - virial, stress, atol=1e-6)
    e = there.electrons
    wanted = [e.free_energy, e.thermal_energy, e.entropy, e.chemical_potential, e.heat_capacity, T_E]
    np.testing.assert_allclose(found, [float(x) for x in wanted], rtol=1e-9)
    assert np.abs(there.forces).max() > 0.01


def test_beside_the_pair_style_of_the_same_model(hot_path: Path, hot_model: DOSModel) -> None:
    """Ground state and electrons of one network: what HotElectronCalculator gives in ASE."""
    deck = two_heads(hot_path)
    with instance(deck + hot(hot_path) + "run 0\n") as lmp:
        atoms, energy, forces, virial = state(lmp)
    atoms.calc = HotElectronCalculator(None, hot_model, T_E)
    assert energy == pytest.approx(atoms.get_potential_energy(force_consistent=True), abs=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
    expected_virial = -atoms.get_stress(voigt=False).reshape(9)[[0, 4, 8, 1, 2, 5]] * atoms.get_volume()
    np.testing.assert_allclose(virial, expected_virial, atol=1e-5)


def two_heads(model: Path) -> str:
    """The deck with the energy head of the model as the potential."""
    bare = COLD[: COLD.index("pair_style")] + f"pair_style metatomic {model}\npair_coeff * * Al Mg\n"
    return bare + COLD[COLD.index("velocity") :]


def test_passes_are_shared_with_the_pair_style(tmp_path: Path, hot_path: Path) -> None:
    """One backward pass for both (a number), one forward pass (a variable, or a virial that is not wanted), none (a copy of the model)."""
    shutil.copy(hot_path, tmp_path / "copy.pt")
    for extra in hot_path.parent.glob(f"{hot_path.stem}.*"):
        if extra != hot_path:
            shutil.copy(extra, tmp_path / extra.name.replace(hot_path.stem, "copy", 1))
    parts = "compute pair all pressure NULL pair\ncompute fix all pressure NULL fix\n"
    found, split = {}, {}
    for way, pair, T in (
        ("backward", hot_path, "8000"),
        ("forward", hot_path, "v_te"),
        ("none", tmp_path / "copy.pt", "8000"),
    ):
        deck = two_heads(pair) + "variable te equal 8000\n" + hot(hot_path, T) + parts
        with instance(deck + "fix md all nve\ntimestep 0.001\nrun 2\n") as lmp:
            atoms, *rest = state(lmp)
            found[way] = [atoms.positions, *rest, numbers(lmp), np.array(lmp.numpy.extract_compute("dos", 0, 1))]
            split[way] = [np.array(lmp.numpy.extract_compute(name, 0, 1)) for name in ("pair", "fix")]
    for way in ("backward", "forward"):
        for ours, theirs in zip(found[way], found["none"], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())
    # Whose virial it is shows which way was taken.
    assert not split["backward"][1].any()
    np.testing.assert_allclose(split["backward"][0], split["none"][0] + split["none"][1], rtol=1e-7)
    np.testing.assert_allclose(split["forward"], split["none"], rtol=1e-7)
    assert np.abs(split["none"][1]).max() > 1.0


def test_shared_pass_of_a_network_in_slices(hot_path: Path) -> None:
    """Above 1000 atoms: a replicated cell has the forces of the cell."""
    with instance(two_heads(hot_path) + "replicate 4 4 2\n" + hot(hot_path) + "run 0\n") as lmp:
        atoms, energy, forces, virial = state(lmp)
        ids = np.array(lmp.numpy.extract_atom("id"))[: len(atoms)]
    with instance(two_heads(hot_path) + hot(hot_path) + "run 0\n") as lmp:
        cell, small_energy, small, small_virial = state(lmp)
    assert len(atoms) == 1024 and energy == pytest.approx(32 * small_energy, rel=1e-10)
    np.testing.assert_allclose(virial, 32 * small_virial, rtol=1e-7, atol=1e-5)
    inside = cell.get_scaled_positions().round(6) % 1
    for row in (0, 500, 1023):
        place = np.linalg.solve(cell.cell.array.T, atoms.positions[row] - atoms.get_celldisp().ravel())
        near = np.abs((inside - place + 0.5) % 1 - 0.5).max(axis=1)
        assert near.min() < 1e-5
        np.testing.assert_allclose(forces[row], small[int(near.argmin())], atol=1e-8)
    assert len(set(ids)) == 1024


def test_shared_passes_forget_what_is_gone(hot_path: Path) -> None:
    """The same configuration with other electrons, without them, and with a virial that is left out."""
    start = two_heads(hot_path)
    wanted = {}
    for name, lines in {
        "cold": "",
        "4000": hot(hot_path, "4000"),
        "left out": hot(hot_path, extra="fix_modify hot virial no\n"),
    }.items():
        with instance(start + lines + "run 0\n") as lmp:
            wanted[name] = state(lmp)[1:]
    with instance(start + hot(hot_path) + "run 0\n") as lmp:
        lmp.commands_string("fix_modify hot virial no\nrun 0\n")
        found = {"left out": state(lmp)[1:]}
        lmp.commands_string("unfix hot\nrun 0\n")
        found["cold"] = state(lmp)[1:]
        lmp.commands_string("fix hot all petdos/electrons dos temp 4000\nrun 0\n")
        found["4000"] = state(lmp)[1:]
    for name, values in found.items():
        for ours, theirs in zip(values, wanted[name], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)
    assert np.abs(wanted["cold"][1] - wanted["4000"][1]).max() > 1e-3


@pytest.mark.parametrize("T", [4000.0, 9000.0])
def test_smearing_undone(hot_path: Path, hot_model: DOSModel, T: float) -> None:
    """As HotElectronForces(model, 0.3): energy, forces, virial, entropy, heat capacity."""
    with instance(COLD + "run 0\n") as lmp:
        _, energy, forces, virial = state(lmp)
    deck = COLD + hot(hot_path, f"{T:g} undo_smearing 0.3") + "run 0\n"
    with instance(deck) as lmp:
        atoms, hot_energy, hot_forces, hot_virial = state(lmp)
        found = numbers(lmp)
    there = HotElectronForces(hot_model, 0.3).evaluate(atoms, T)
    assert there.stress is not None
    e = there.electrons
    wanted = [e.free_energy, e.thermal_energy, e.entropy, e.chemical_potential]
    np.testing.assert_allclose(found[:4], [float(x) for x in wanted], rtol=1e-9)
    assert found[4] == pytest.approx(float(e.heat_capacity), rel=1e-6)
    assert hot_energy - energy == pytest.approx(there.free_energy_eV, abs=1e-8)
    np.testing.assert_allclose(hot_forces - forces, there.forces, atol=1e-9)
    stress = -there.stress.reshape(9)[[0, 4, 8, 1, 2, 5]] * atoms.get_volume()
    np.testing.assert_allclose(hot_virial - virial, stress, atol=1e-6)
    plain = HotElectronForces(hot_model).evaluate(atoms, T)
    assert abs(plain.free_energy_eV - there.free_energy_eV) > 1e-3  # or the test would see nothing


@pytest.mark.parametrize("smearing", [0.0, 0.3])
def test_shipped_model_in_lammps_and_ase(smearing: float) -> None:
    """Silicon, with a narrow gap, in single precision: to 1e-5 of the largest force."""
    model = DOSModel.load("almgsi-lda")
    deck = """units metal
lattice diamond 5.39
region box block 0 1 0 1 0 1
create_box 1 box
create_atoms 1 box
displace_atoms all random 0.1 0.1 0.1 5 units box
mass 1 28.085
pair_style zero 5.0
pair_coeff * *
compute dos all petdos almgsi-lda Si
fix hot all petdos/electrons dos temp 10000 undo_smearing SMEARING
run 0
"""
    from petdos_md.lammps import atoms_of

    with instance(deck.replace("SMEARING", str(smearing))) as lmp:
        atoms = atoms_of(lmp, ["Si"])
        forces, energy = np.array(lmp.numpy.extract_atom("f"))[: len(atoms)], lmp.extract_fix("hot", 0, 0)
    there = HotElectronForces(model, smearing).evaluate(atoms, 10_000.0)
    assert energy == pytest.approx(there.free_energy_eV, rel=1e-6)
    assert np.abs(forces - there.forces).max() < 1e-5 * np.abs(there.forces).max()


def test_traces_know_the_temperature(tmp_path: Path, hot_path: Path) -> None:
    """A trace of other electrons is not continued."""
    run = "fix obs all petdos 1 dos run.zarr temp 1200{append}\nfix md all nve\nrun 1\n"
    assert run_lmp(COLD + hot(hot_path) + run.format(append=""), tmp_path).returncode == 0
    trace = Trace.open(tmp_path / "run.zarr", "r")
    assert trace.attributes["metadata"]["electronic_temperature_K"] == 8000.0
    assert trace.electronic_temperature_K.tolist() == [8000.0, 8000.0]
    more = " append yes"
    again = run_lmp(COLD + hot(hot_path, "6000") + run.format(append=more), tmp_path)
    assert again.returncode != 0 and "electronic_temperature_K" in again.stdout + again.stderr
    dos = f"compute dos all petdos {hot_path} Al Mg\n"
    cold = run_lmp(COLD + dos + run.format(append=more), tmp_path)
    assert cold.returncode != 0 and "it has hot electrons, got cold ones" in cold.stdout + cold.stderr
    late = run_lmp(
        COLD + dos + run.format(append=more).replace("run 1", "fix hot all petdos/electrons dos temp 8000\nrun 1"),
        tmp_path,
    )
    assert late.returncode != 0 and "defined after fix obs" in late.stdout + late.stderr


def test_samples_know_the_temperature_of_their_step(tmp_path: Path, hot_path: Path, hot_model: DOSModel) -> None:
    """A variable; the array comes with the first sample, and stock zarr reads it. Energies and features are those of that T_e."""
    deck = COLD + "variable te equal 3000+500*step\n" + hot(hot_path, "v_te")
    deck += "fix obs all petdos 2 dos run.zarr temp 1200\nfix md all nve\ntimestep 0.001\nrun 6\n"
    done = run_lmp(deck, tmp_path, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    trace = Trace.open(tmp_path / "run.zarr", "r")
    assert trace.attributes["metadata"]["electronic_temperature_K"] == "variable"
    assert trace.electronic_temperature_K.tolist() == [3000.0, 4000.0, 5000.0, 6000.0]
    np.testing.assert_array_equal(
        zarr.open_group(trace.path, mode="r")["electronic_temperature_K"][:], trace.electronic_temperature_K
    )
    text = done.stdout[done.stdout.index("Step") :].splitlines()[1:]
    energies = {int(line.split()[0]): float(line.split()[2]) for line in text if re.match(r"\s*\d+ +[\d.]+ +-", line)}
    assert trace.potential_energy_eV[0] == pytest.approx(energies[0], rel=1e-10)
    assert trace.potential_energy_eV[3] == pytest.approx(energies[6], rel=1e-10)


def test_observer_in_python(tmp_path: Path, hot_path: Path, hot_model: DOSModel) -> None:
    """The same temperatures as of the plugin."""
    from petdos_md.lammps import LAMMPSObserver

    deck = COLD + "variable te equal 3000+500*step\n" + hot(hot_path, "v_te") + "fix md all nve\ntimestep 0.001\n"
    with instance(deck) as lmp:
        observer = LAMMPSObserver(lmp, hot_model, tmp_path / "run.zarr", ["Al", "Mg"], 1200, every=2, electrons="hot")
        observer.run(4)
        observer.close()
        with pytest.raises(SettingError, match="expected the ID of a fix petdos/electrons"):
            LAMMPSObserver(lmp, hot_model, tmp_path / "no.zarr", ["Al", "Mg"], 1200, electrons="warm")
    assert Trace.open(tmp_path / "run.zarr", "r").electronic_temperature_K.tolist() == [3000.0, 4000.0, 5000.0]


def test_column_of_a_trace_that_had_none(tmp_path: Path, hot_path: Path, hot_model: DOSModel) -> None:
    """A trace of hot electrons from before there was one, gone on with: its samples get the number of the metadata."""
    run = "fix obs all petdos 1 dos run.zarr temp 1200{append}\nfix md all nve\nrun 1\n"
    assert run_lmp(COLD + hot(hot_path) + run.format(append=""), tmp_path).returncode == 0
    shutil.rmtree(tmp_path / "run.zarr" / "electronic_temperature_K")
    assert Trace.open(tmp_path / "run.zarr", "r").electronic_temperature_K.tolist() == [8000.0, 8000.0]
    first = COLD + hot(hot_path) + run.format(append=" append yes replica 1")
    done = run_lmp(first, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    group = zarr.open_group(tmp_path / "run.zarr", mode="r")
    assert group["electronic_temperature_K"][:].tolist() == [8000.0] * 4 and not list(
        (tmp_path / "run.zarr").glob(".*")
    )


@pytest.mark.parametrize("T", [300.0, 2000.0, 12_000.0])
def test_temperatures_and_units(hot_path: Path, hot_model: DOSModel, T: float) -> None:
    """In kcal/mol, from a cold crystal to as hot as the states allow."""
    deck = (COLD + hot(hot_path, f"{T}")).replace("units metal", "units real")
    deck = re.sub(r"pair_style meam.*?AlS MgS\n", "pair_style zero 5.0\npair_coeff * *\n", deck, flags=re.S)
    with instance(deck + "run 0\n") as lmp:
        from petdos_md.lammps import atoms_of

        atoms = atoms_of(lmp, ["Al", "Mg"])
        forces = np.array(lmp.numpy.extract_atom("f"))[: len(atoms)]
        energy = float(lmp.get_thermo("pe"))
    there, _ = expected(hot_model, atoms, T)
    unit = units.mol / units.kcal
    assert energy == pytest.approx(there.free_energy_eV * unit, rel=1e-6)
    np.testing.assert_allclose(forces, there.forces * unit, atol=1e-6 * unit)


TERSOFF = """units metal
boundary p p p
lattice diamond 5.43
region box block 0 1 0 1 0 1
create_box 1 box
create_atoms 1 box
displace_atoms all random 0.1 0.1 0.1 5 units box
mass 1 28.085
pair_style tersoff
pair_coeff * * Si.tersoff Si
compute p all pressure NULL virial
thermo_modify format float %.14g
"""


@pytest.mark.parametrize("potential", ["meam", "tersoff", "own"])
def test_forces_are_derivatives(hot_path: Path, potential: str) -> None:
    """By central differences of LAMMPS's own potential energy, beside potentials of LAMMPS and together with the model's own."""
    cold = {"meam": COLD, "tersoff": TERSOFF, "own": two_heads(hot_path)}[potential]
    elements, h = ("Si",) if potential == "tersoff" else ("Al", "Mg"), 1e-4
    with instance(cold + hot(hot_path).replace("Al Mg", " ".join(elements)) + "run 0\n") as lmp:
        atoms, _, forces, virial = state(lmp, *elements)
        order = np.array(lmp.numpy.extract_atom("id"))

        def change(command: str, size: float) -> float:
            """Difference of energies, moved by half the size to both sides."""
            energies = []
            for by in (size / 2, -size):
                lmp.commands_string(command.format(by) + "\nrun 0\n")
                energies.append(float(lmp.get_thermo("pe")))
            lmp.commands_string(command.format(size / 2))
            return energies[0] - energies[1]

        for i, c in ((0, 0), (3, 1), (7, 2)):
            place = " ".join("{0}" if k == c else "0.0" for k in range(3))
            lmp.commands_string(f"group one id {i + 1}\n")
            slope = change(f"displace_atoms one move {place} units box", 2 * h)
            lmp.commands_string("group one delete\n")
            row = int(np.flatnonzero(order == i + 1)[0])
            assert forces[row, c] == pytest.approx(-slope / (2 * h), abs=2e-6)
        length = atoms.cell.lengths()
        for c, name in enumerate("xyz"):
            slope = change(f"change_box all {name} delta 0.0 {{0}} remap units box", 2 * h)
            assert virial[c] == pytest.approx(-slope / (2 * h) * length[c], abs=2e-4)
    assert np.abs(forces).max() > 0.1


def test_energy_and_virial_can_be_left_out(hot_path: Path) -> None:
    with instance(COLD + hot(hot_path, extra="fix_modify hot energy no virial no\n") + "run 0\n") as lmp:
        _, energy, forces, virial = state(lmp)
    with instance(COLD + "run 0\n") as lmp:
        _, cold_energy, cold_forces, cold_virial = state(lmp)
    assert energy == cold_energy and np.abs(forces - cold_forces).max() > 0.01
    np.testing.assert_array_equal(virial, cold_virial)


@pytest.mark.parametrize(("potential", "several"), [("meam", 2), ("own", 3)])
def test_ranks(tmp_path: Path, hot_path: Path, potential: str, several: int) -> None:
    """One rank and several: the same forces, energies and pressures; beside another potential, and in one pass with the model's own."""
    dump = "dump f all custom 2 {name} id fx fy fz\ndump_modify f sort id format float %.14g\nfix md all nve\nthermo 1\nrun 2\n"
    found = {}
    # Random numbers of LAMMPS depend on the rank: all read one structure.
    assert run_lmp(COLD + "run 0\nwrite_data start.data nocoeff\n", tmp_path).returncode == 0
    deck = COLD if potential == "meam" else two_heads(hot_path)
    pair = deck[deck.index("pair_style") : deck.index("velocity")]
    read = "units metal\nread_data start.data\n" + pair
    for ranks in (0, several):
        name = f"forces.{ranks}"
        custom = THERMO.replace("pe etotal", "pe etotal press f_hot[1] f_hot[4]")
        deck = read + hot(hot_path) + custom + dump.format(name=name)
        done = run_lmp(deck, tmp_path, ranks)
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout
        table = [line.split() for line in text[text.index("Step") :].splitlines()[1:4]]
        found[ranks] = (
            np.array(table, dtype=float),
            np.loadtxt(tmp_path / name, skiprows=9, usecols=(1, 2, 3), max_rows=32),
        )
    np.testing.assert_allclose(found[several][0], found[0][0], rtol=1e-9)
    np.testing.assert_allclose(found[several][1], found[0][1], atol=1e-9 * np.abs(found[0][1]).max())


def test_variable_and_restart(tmp_path: Path, hot_path: Path) -> None:
    """A schedule in time; a run that goes on from a restart file equals the unbroken one."""
    schedule = "variable te equal 3000+1000*step\n"
    settings = COLD.split("velocity")[1].split("\n", 1)[1] + schedule
    run = hot(hot_path, "v_te") + "fix md all nve\ntimestep 0.001\nthermo 1\n"
    custom = "thermo_style custom step pe etotal f_hot[1] f_hot[6]\nthermo_modify format float %.14g\n"
    first = COLD + schedule + run + custom + "restart 2 half.*\nrun 4\n"
    done = run_lmp(first, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    pair = "\n".join(line for line in COLD.splitlines() if line.startswith("pair_"))
    second = f"units metal\nread_restart half.2\n{pair}\n{settings}{run}{custom}run 2\n"
    again = run_lmp(second, tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr

    def rows(text: str) -> np.ndarray:
        lines = text[text.rindex("Step") :].splitlines()[1:]
        return np.array([line.split() for line in lines if re.match(r"\s*\d+ ", line)][:5], dtype=float)

    whole, rest = rows(done.stdout), rows(again.stdout)
    np.testing.assert_array_equal(whole[:, 4], 3000 + 1000 * np.arange(5))
    np.testing.assert_allclose(rest, whole[2:], rtol=1e-7)


def test_free_energy_is_conserved(tmp_path: Path, hot_path: Path) -> None:
    """etotal of LAMMPS, with the energy of the fix, by the square of the time step."""
    spread = {}
    for timestep in (0.001, 0.002):
        deck = COLD + hot(hot_path) + f"fix md all nve\ntimestep {timestep}\nthermo 1\nrun {round(0.02 / timestep)}\n"
        done = run_lmp(deck, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout[done.stdout.index("Step") :].splitlines()[1:]
        energies = [float(line.split()[3]) for line in lines if re.match(r"\s*\d+ ", line)]
        spread[timestep] = float(np.ptp(energies[: round(0.02 / timestep) + 1]))
    assert spread[0.001] < 0.4 * spread[0.002] and spread[0.002] < 0.1


BAD = {
    "temp missing": ("fix hot all petdos/electrons dos", "expected: fix ID all petdos/electrons COMPUTE temp T"),
    "zero": (
        "fix hot all petdos/electrons dos temp 0",
        "got temp 0, expected the temperature of the electrons, positive",
    ),
    "negative": (
        "fix hot all petdos/electrons dos temp -5",
        "got temp -5, expected the temperature of the electrons, positive",
    ),
    "group": (
        "group some id 1:4\nfix hot some petdos/electrons dos temp 8000",
        "got group some; the electrons belong to the whole",
    ),
    "compute": ("fix hot all petdos/electrons pe temp 8000", "got compute pe, expected the ID of a compute petdos"),
    "no variable": ("fix hot all petdos/electrons dos temp v_x", "expected an equal-style variable of that name"),
    "NaN": (
        "variable x equal exp(1000)-exp(1000)\nfix hot all petdos/electrons dos temp v_x",
        "expected the temperature of the electrons",
    ),
    "becomes zero": (
        "variable x equal 1000-step*1000\nfix hot all petdos/electrons dos temp v_x",
        "variable x is 0.000000",
    ),
    "smearing": (
        "fix hot all petdos/electrons dos temp 2000 undo_smearing 0.3",
        "a smearing of 0.3 eV cannot be undone at 2000 K",
    ),
    "negative smearing": ("fix hot all petdos/electrons dos temp 8000 undo_smearing -1", "expected the width in eV"),
    "two": (
        "fix hot all petdos/electrons dos temp 8000\nfix more all petdos/electrons dos temp 9000",
        "fix more is one already, and their energies would add up",
    ),
    "respa": ("run_style respa 2 2\nfix hot all petdos/electrons dos temp 8000", "does not work with run_style respa"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path: Path, hot_path: Path, name: str) -> None:
    command, told = BAD[name]
    deck = f"{COLD}compute pe all pe\ncompute dos all petdos {hot_path} Al Mg\n{command}\nfix md all nve\nrun 2\n"
    done = run_lmp(deck, tmp_path)
    assert done.returncode != 0 and told in done.stdout + done.stderr, done.stdout + done.stderr


def test_warning_where_the_change_is_smearing(tmp_path: Path) -> None:
    """Silicon at kT = 0.17 eV: once, with the numbers of Python; none where kT is well above the smearing."""
    deck = (
        TERSOFF
        + "compute dos all petdos almgsi-lda Si\nfix hot all petdos/electrons dos temp {}\nfix md all nve\nrun 2\n"
    )
    cold, hot = (run_lmp(deck.format(T), tmp_path) for T in (2000, 8000))
    assert cold.returncode == hot.returncode == 0, cold.stdout + cold.stderr
    told = [line for line in cold.stdout.splitlines() if "below the smearing of 0.3 eV" in line]
    assert len(told) == 1 and "below the smearing" not in hot.stdout
    share, change = (float(x) for x in re.findall(r"about (\S+) of the (\S+) eV that", told[0])[0])
    model = DOSModel.load("almgsi-lda")
    with instance(TERSOFF + "run 0\n") as lmp:
        atoms = state(lmp, "Si")[0]
    grid, dos, n = model.grid.energies, model.dos(atoms), model.n_electrons(atoms)
    assert share == pytest.approx(float(smearing_share(grid, dos, n, 2000.0, 0.3)), rel=0.06)
    assert change == pytest.approx(float(hot_electrons(grid, dos, n, 2000.0).free_energy), rel=0.06)


def test_too_hot(tmp_path: Path, hot_path: Path, hot_model: DOSModel) -> None:
    """The highest temperature is that which Python tells."""
    with instance(COLD + "run 0\n") as lmp:
        atoms = state(lmp)[0]
    highest = highest_temperature_K(hot_model.grid.energies, hot_model.dos(atoms), hot_model.n_electrons(atoms))
    done = run_lmp(COLD + hot(hot_path, "60000") + "run 0\n", tmp_path)
    found = re.search(r"expected at most ([0-9.e+]+) K", done.stdout + done.stderr)
    assert done.returncode != 0 and found and float(found[1]) == pytest.approx(highest, rel=5e-3)
