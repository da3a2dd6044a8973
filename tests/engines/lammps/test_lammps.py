"""``compute petdos``: the numbers of the Python evaluation of the same structure, in every kind of box and on any number of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.counting_model import write_counting_model
from helpers.lammps_tools import ALLOY, LONG, deviation, instance, run_lmp, scalar, vector
from helpers.models import write_old_model

from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")


@pytest.fixture(scope="module")
def shipped() -> DOSModel:
    return DOSModel.load("almgsi-lda")


BOXES = {
    "periodic": ALLOY,
    "triclinic": ALLOY + "change_box all triclinic xy final 1.5 xz final -0.8 yz final 0.6 remap\n",
    "slab": ALLOY.replace("boundary p p p", "boundary p p f") + "change_box all z final -3 12\n",
    "cluster": ALLOY.replace("boundary p p p", "boundary s s s"),
    "newton off": "newton off\n" + ALLOY + "pair_style zero 5.0\npair_coeff * *\n",
    "one atom": "units metal\nboundary f f f\nregion box block 0 9 0 9 0 9\ncreate_box 2 box\n"
    "create_atoms 2 single 4 4 4\nmass * 27\npair_style zero 3.0\npair_coeff * *\n",
    "two atoms far apart": "units metal\nregion box block 0 40 0 40 0 40\ncreate_box 2 box\ncreate_atoms 1 single 1 1 1\n"
    "create_atoms 2 single 20 20 20\nmass * 27\npair_style zero 3.0\npair_coeff * *\n",
    "outside the box": ALLOY + "displace_atoms all move 0.9 0.9 0.9\n",
}


@pytest.mark.parametrize("box", BOXES)
def test_equals_python(box: str, shipped: DOSModel, lammps_model: DOSModel, lammps_model_path: Path) -> None:
    """DOS and Fermi level to 1e-5 in single, features to 1e-10 in double precision."""
    from petdos_md.lammps import atoms_of

    commands = f"""
    compute dos all petdos almgsi-lda Al Mg
    compute feat all petdos {lammps_model_path} Al Mg output features
    run 0
    """
    with instance(BOXES[box] + commands) as lmp:
        atoms = atoms_of(lmp, ["Al", "Mg"])
        dos = shipped.dos(atoms)
        assert np.abs(vector(lmp) - dos).max() < 1e-5 * np.abs(dos).max()
        assert deviation(vector(lmp, "feat"), lammps_model.evaluate(atoms).features) < 1e-10
        if len(atoms) > 2:
            level = thermo.fermi_level(shipped.grid.energies, dos, shipped.n_electrons(atoms))
            assert scalar(lmp) == pytest.approx(float(level), abs=2e-5)


def test_several_types_of_one_element(shipped: DOSModel) -> None:
    deck = ALLOY + "compute dos all petdos almgsi-lda Mg Mg\nrun 0\n"
    with instance(deck) as lmp:
        from petdos_md.lammps import atoms_of

        dos = shipped.dos(atoms_of(lmp, ["Mg", "Mg"]))
        assert np.abs(vector(lmp) - dos).max() < 1e-5 * np.abs(dos).max()


LENGTHS_A = {"real": 1.0, "metal": 1.0, "si": 1e10, "cgs": 1e8, "electron": 0.529177210903, "micro": 1e4, "nano": 10.0}


@pytest.mark.parametrize("units", LENGTHS_A)
def test_units(units: str, shipped: DOSModel) -> None:
    """The same structure in every style."""
    a = 4.05 / LENGTHS_A[units]
    deck = f"""
    units {units}
    region box block 0 {2 * a} 0 {2 * a} 0 {2 * a}
    create_box 1 box
    lattice fcc {a}
    create_atoms 1 box
    mass 1 1
    pair_style zero {1.2 * a}
    pair_coeff * *
    neighbor {0.1 * a} bin
    compute dos all petdos almgsi-lda Al
    run 0
    """
    import ase.build

    expected = shipped.dos(ase.build.bulk("Al", cubic=True) * 2)
    with instance(deck) as lmp:
        assert np.abs(vector(lmp) - expected).max() < 2e-5 * expected.max()


def test_window_and_thermo_norm(shipped: DOSModel, tmp_path: Path) -> None:
    """A part of the DOS, also with its energies; LAMMPS divides extensive quantities by the number of atoms if told to."""
    deck = (
        ALLOY
        + f"""
    compute all all petdos almgsi-lda Al Mg
    compute part all petdos almgsi-lda Al Mg window -2.0 3.025
    variable v equal c_part[11]
    fix ave all ave/time 1 1 1 c_part[1] c_part[2] mode vector file {tmp_path}/dos.txt
    thermo_style custom step c_part[11] c_part[11][1] c_part[11][2]
    thermo_modify norm yes
    run 0
    """
    )
    energies = shipped.grid.energies
    inside = (energies > -2.001) & (energies < 3.03)
    with instance(deck) as lmp:
        part = vector(lmp, "part")
        assert np.array_equal(part, vector(lmp, "all")[inside]) and len(part) == 101
        assert scalar(lmp, "part") == scalar(lmp, "all")
        assert float(lmp.extract_variable("v")) == part[10]
        last = lmp.last_thermo()
        assert last["c_part[11]"] == part[10] / 32 and last["c_part[11][2]"] == part[10]
        assert last["c_part[11][1]"] == pytest.approx(energies[inside][10], abs=1e-12)
        array = np.array(lmp.numpy.extract_compute("part", 0, 2))
        np.testing.assert_allclose(array, np.stack([energies[inside], part], axis=1), rtol=1e-14, atol=1e-12)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "dos.txt", skiprows=4)[:, 1:], array, rtol=1e-5, atol=1e-9)


def test_npt_swap_and_minimize(shipped: DOSModel) -> None:
    """Box, types and positions change, also without a step: the result is always that of the present configuration."""
    from petdos_md.lammps import atoms_of

    commands = """
    compute dos all petdos almgsi-lda Al Mg
    thermo_style custom step c_dos
    thermo 1
    fix md all npt temp 600 600 0.1 iso 0 20000 0.1
    fix mc all atom/swap 1 5 29494 5000 ke no types 1 2
    run 3
    """
    with instance(ALLOY + commands) as lmp:

        def agrees() -> bool:
            atoms = atoms_of(lmp, ["Al", "Mg"])
            dos = shipped.dos(atoms)
            level = thermo.fermi_level(shipped.grid.energies, dos, shipped.n_electrons(atoms))
            return bool(np.abs(vector(lmp) - dos).max() < 1e-5 * dos.max()) and abs(scalar(lmp) - level) < 2e-5

        assert lmp.extract_fix("mc", 0, 1, 1) > 0  # swaps happened
        assert agrees()
        before = vector(lmp)
        lmp.commands_string("unfix mc\nunfix md\ndisplace_atoms all random 0.1 0.1 0.1 99\nrun 0")
        assert not np.array_equal(vector(lmp), before) and agrees()
        lmp.command("minimize 0 0 3 10")
        assert agrees()


def test_evaluated_once_in_a_step(tmp_path: Path) -> None:
    write_counting_model(tmp_path / "counting.pt")
    commands = f"""
    compute feat all petdos {tmp_path}/counting.pt Al Mg output features
    fix md all nve
    fix a all ave/time 2 1 2 c_feat mode vector file {tmp_path}/a.txt
    fix b all ave/time 2 1 2 c_feat mode vector file {tmp_path}/b.txt
    fix obs all petdos 2 feat {tmp_path}/run.zarr temp 300
    variable first equal c_feat[1]
    thermo_style custom step c_feat[1] c_feat[2] v_first
    thermo 2
    run 4
    """
    with instance(ALLOY + commands):
        pass
    counts = Trace.open(tmp_path / "run.zarr", "r").features[:, 0]
    # One evaluation finds the widths of the outputs; steps 1 and 3 need none.
    assert counts.tolist() == [2.0, 3.0, 4.0]


def test_ranks_and_chunks(lammps_model: DOSModel, lammps_model_path: Path, tmp_path: Path) -> None:
    """Three ranks, one of them without atoms, and chunks: all equal the serial result, and Python's."""
    import ase.io

    def deck(out: str, chunk: int = 10000, z: str = "p", filled: int = 24) -> str:
        box = LONG.replace("${z}", z).replace("${low}", str(z.count("f"))).replace("${filled}", str(filled))
        return f"""
        {box.replace("run 0", "")}
        compute feat all petdos {lammps_model_path} Al Mg output features chunk {chunk}
        fix obs all petdos 1 feat {out}.zarr temp 300
        dump d all custom 1 {out}.dump id type x y z
        dump_modify d format float %.17g
        run 0
        """

    def features(out: str) -> np.ndarray:
        return np.array(Trace.open(tmp_path / f"{out}.zarr", "r").features[0])

    for ranks, decks in (
        (0, [deck("serial"), deck("half", z="f", filled=10)]),
        (3, [deck("three"), deck("three_chunks", 250), deck("empty_rank", z="f", filled=10)]),
    ):
        done = run_lmp("clear\n".join(decks), tmp_path, ranks)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    atoms = ase.io.read(tmp_path / "serial.dump")
    atoms.symbols[:] = np.array(["", "Al", "Mg"])[atoms.numbers]
    assert deviation(features("serial"), lammps_model.evaluate(atoms).features) < 1e-10
    assert deviation(features("three"), features("serial")) < 1e-10
    assert deviation(features("three_chunks"), features("serial")) < 1e-10
    assert deviation(features("empty_rank"), features("half")) < 1e-10


@pytest.mark.parametrize("ranks", [0, 2])
def test_warns_of_extrapolation_once(ranks: int, shipped: DOSModel, tmp_path: Path) -> None:
    """An alloy that is squeezed to a third of its volume; the grade is the one of Python."""
    commands = f"""
    timestep 0.0001
    compute dos all petdos almgsi-lda Al Mg
    fix obs all petdos 1 dos {tmp_path}/run.zarr temp 300
    run 0
    change_box all x scale 0.7 y scale 0.7 z scale 0.7 remap
    fix md all nve
    run 2
    """
    done = run_lmp(ALLOY.replace("random 0.2 0.2 0.2", "random 0.05 0.05 0.05") + commands, tmp_path, ranks)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    grades = [shipped.extrapolation_grade(sample) for sample in Trace.open(tmp_path / "run.zarr", "r")]
    assert grades[0] < 2 < min(grades[1:])
    said = [line for line in done.stdout.splitlines() if "far outside the training set of almgsi-lda" in line]
    assert (
        len(said) == 1
        and f"step 1 of replica 0 is far outside the training set of almgsi-lda (extrapolation grade {grades[1]:.1f}"
        in said[0]
    )


def test_model_with_two_outputs(lammps_model: DOSModel, lammps_model_path: Path, tmp_path: Path) -> None:
    """As models were exported before: the same features, of systems and in chunks."""
    from petdos_md.lammps import atoms_of

    write_old_model(lammps_model_path, tmp_path / "old.pt")
    for chunk in (10000, 250):
        use = f"compute feat all petdos {tmp_path}/old.pt Al Mg output features chunk {chunk}\n"
        deck = LONG.replace("${z}", "p").replace("${low}", "0").replace("${filled}", "24")
        with instance(deck + use + "run 0\n") as lmp:
            expected = lammps_model.evaluate(atoms_of(lmp, ["Al", "Mg"])).features
            assert deviation(vector(lmp, "feat"), expected) < 1e-10


def test_rerun_equals_the_run(tmp_path: Path) -> None:
    """A trajectory dumped by LAMMPS, evaluated again by LAMMPS and by `petdos rerun`: the same samples."""
    from petdos_md.engines.rerun import rerun_trajectory

    commands = f"""
    compute dos all petdos almgsi-lda Al Mg
    fix md all nve
    fix obs all petdos 2 dos {tmp_path}/run.zarr temp 600
    dump d all custom 2 {tmp_path}/run.dump id type element x y z
    dump_modify d element Al Mg format float %.17g sort id
    run 6
    """
    with instance(ALLOY + commands):
        pass
    again = f"""
    compute dos all petdos almgsi-lda Al Mg
    fix obs all petdos 2 dos {tmp_path}/again.zarr temp 600
    rerun {tmp_path}/run.dump dump x y z
    """
    with instance(ALLOY + again):
        pass
    rerun_trajectory(
        DOSModel.load("almgsi-lda"), tmp_path / "run.dump", tmp_path / "python.zarr", temperature_K=600.0,
        file_format="lammps-dump-text",
    )  # fmt: skip
    run, rerun, evaluated = (Trace.open(tmp_path / f"{n}.zarr", "r") for n in ("run", "again", "python"))
    assert run.step.tolist() == rerun.step.tolist() == [0, 2, 4, 6]
    assert np.allclose(run.potential_energy_eV, rerun.potential_energy_eV, rtol=1e-9)
    for a, b, c in zip(run, rerun, evaluated, strict=True):
        assert deviation(b.features, a.features) < 1e-5 and deviation(c.features, a.features) < 1e-5
