"""``pair_style metatomic`` beside other commands of LAMMPS: what moves the box, changes atoms, combines potentials, or runs several systems."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from helpers.counting_model import write_counting_model
from helpers.lammps_tools import ALLOY, instance, run_lmp
from helpers.once import once
from helpers.potentials import CUTOFF_A, EPSILON_EV, SIGMA_A, write_lennard_jones

from petdos_md.lammps import atoms_of

pytestmark = pytest.mark.usefixtures("lammps_plugin")
BARE = (
    ALLOY.split("pair_style")[0].replace("random 0.2 0.2 0.2", "random 0.05 0.05 0.05")
    + "velocity all create 600 4928459\ntimestep 0.0005\n"
)
OWN = f"pair_style lj/cut {CUTOFF_A}\npair_modify shift yes\npair_coeff * * {EPSILON_EV} {SIGMA_A}\n"
THERMO = "thermo_style custom step pe press lx ly lz\nthermo_modify norm no\n"


@pytest.fixture(scope="module")
def lj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A potential that LAMMPS has, too."""
    return once(tmp_path_factory, "lj", lambda folder: write_lennard_jones(folder / "lj.pt")) / "lj.pt"


def use(path: Path) -> str:
    return f"pair_style metatomic {path} uncertainty_threshold off\npair_coeff * * Al 12\n"


COMMANDS = {
    "npt": "fix md all npt temp 600 600 0.1 iso 0 20000 0.1\nrun 20\n",
    "nph, each direction": "fix md all nph aniso 0 5000 0.2\nrun 20\n",
    "deform": "fix md all nve\nfix d all deform 1 x erate 0.5 units box remap x\nrun 20\n",
    "triclinic npt": "change_box all triclinic\nfix md all npt temp 600 600 0.1 tri 0 0 0.2\nrun 20\n",
    "minimize": "minimize 0 1e-8 20 100\n",
    "box/relax": "fix r all box/relax iso 1000 vmax 0.01\nminimize 0 1e-8 20 100\n",
    "swap": "fix md all nve\nfix mc all atom/swap 1 5 29494 5000 ke no types 1 2\nrun 10\n",
    "gcmc": "fix md all nve\nfix mc all gcmc 2 20 20 1 29494 2000 -3.0 0.5 full_energy overlap_cutoff 1.5\nrun 10\n",
}


@pytest.mark.parametrize("commands", COMMANDS)
def test_as_the_style_of_lammps(commands: str, lj: Path) -> None:
    """The same run with the same potential, ours and that of LAMMPS, ends in the same state."""
    ends = []
    for potential in (OWN, use(lj)):
        with instance(BARE + potential + THERMO + COMMANDS[commands]) as lmp:
            ends.append([float(lmp.get_thermo(name)) for name in ("atoms", "pe", "press", "lx", "ly", "lz")])
    assert ends[0][0] == ends[1][0]
    assert np.allclose(ends[1], ends[0], rtol=1e-5, atol=1e-4)


def test_hybrid(lj: Path) -> None:
    """Sums and scaled sums of potentials; types that belong to another potential."""
    zbl = "pair_coeff * * zbl 13 13\n"
    both = "pair_style hybrid/overlay {} zbl 3 4\npair_coeff * * {}\n" + zbl
    own = both.format(f"lj/cut {CUTOFF_A}", f"lj/cut {EPSILON_EV} {SIGMA_A}") + "pair_modify pair lj/cut shift yes\n"
    decks = {
        "own": own,
        "ours": both.format(f"metatomic {lj} uncertainty_threshold off", "metatomic Al Mg"),
        "half and half": "pair_style hybrid/overlay {0} scale 0.5 {0} scale 0.5 zbl 3 4\n".format(
            f"metatomic {lj} uncertainty_threshold off"
        )
        + "pair_coeff * * metatomic 1 Al Mg\npair_coeff * * metatomic 2 13 12\n"
        + zbl,
        "numbered": f"pair_style hybrid/overlay metatomic_1 {lj} uncertainty_threshold off zbl 3 4\n"
        "pair_coeff * * metatomic_1 13 12\n" + zbl,
        "variant": both.format(
            f"metatomic {lj} variant/energy twice scale 0.5 uncertainty_threshold off", "metatomic Al Mg"
        ),
    }
    found = {}
    for name, deck in decks.items():
        with instance(BARE + deck + THERMO + "run 0\n") as lmp:
            forces = np.array(lmp.numpy.extract_atom("f"))[: lmp.get_natoms()]
            found[name] = (float(lmp.get_thermo("pe")), float(lmp.get_thermo("press")), forces)
    for name in ("ours", "half and half", "numbered", "variant"):
        for a, b in zip(found[name], found["own"], strict=True):
            assert np.allclose(a, b, rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("newton", ["on", "off"])
def test_charges(newton: str, lj: Path) -> None:
    """Overlaid with Coulomb forces: what these add is the sum over pairs, cut or by Ewald's of LAMMPS alone."""
    deck = f"newton {newton}\natom_style charge\n{BARE}set type 1 charge 0.5\nset type 2 charge -0.7\n"
    ours = f"metatomic {lj} uncertainty_threshold off"
    ewald = "kspace_style ewald 1e-6\n"
    decks = {
        "alone": f"pair_style {ours}\npair_coeff * * Al Mg\n",
        "cut": f"pair_style hybrid/overlay {ours} coul/cut 6\npair_coeff * * metatomic Al Mg\npair_coeff * * coul/cut\n",
        "long": f"pair_style hybrid/overlay {ours} coul/long 6\npair_coeff * * metatomic Al Mg\npair_coeff * * coul/long\n{ewald}",
        "ewald": f"pair_style coul/long 6\npair_coeff * *\n{ewald}",
    }
    energies, forces = {}, {}
    for name, styles in decks.items():
        with instance(deck + styles + THERMO + "run 0\n") as lmp:
            n = lmp.get_natoms()
            order = np.argsort(np.array(lmp.numpy.extract_atom("id"))[:n])
            energies[name] = float(lmp.get_thermo("pe"))
            forces[name] = np.array(lmp.numpy.extract_atom("f"))[:n][order]
            charges = np.array(lmp.numpy.extract_atom("q"))[:n][order]
            constant = float(lmp.extract_global("qqrd2e"))
            atoms = atoms_of(lmp, ["Al", "Mg"])[order]
    i, j, distances, vectors = neighbor_list("ijdD", atoms, 6.0)
    products = constant * charges[i] * charges[j]
    expected = np.zeros((len(atoms), 3))
    np.add.at(expected, i, -(products / distances**3)[:, None] * vectors)
    assert energies["cut"] - energies["alone"] == pytest.approx(0.5 * (products / distances).sum(), rel=1e-6)
    np.testing.assert_allclose(forces["cut"] - forces["alone"], expected, atol=1e-5)
    assert energies["long"] - energies["alone"] == pytest.approx(energies["ewald"], rel=1e-7)
    np.testing.assert_allclose(forces["long"] - forces["alone"], forces["ewald"], atol=1e-6)


@pytest.mark.parametrize("ranks", [0, 2])
def test_lost_atoms(ranks: int, lj: Path, tmp_path: Path) -> None:
    """An atom that flies out of the box: an error that ends all ranks, or the run of the others, as with the style of LAMMPS."""
    cluster = """
    units metal
    boundary f f f
    lattice fcc 4.05
    region box block 0 4 0 4 0 4
    create_box 2 box
    region inner block 1 2 1 2 1 2
    create_atoms 1 region inner
    mass * 26.98
    group fast id 1
    timestep 0.0005
    {potential}
    thermo_style custom step atoms pe
    thermo_modify norm no lost {lost} format float %.10g
    fix md all nve
    velocity fast set 0 0 -400 units box
    run 30
    """

    def finish(potential: str, lost: str, ranks: int) -> subprocess.CompletedProcess[str]:
        return run_lmp(cluster.format(potential=potential, lost=lost), tmp_path, ranks)

    failed = finish(use(lj), "error", ranks)
    assert (
        failed.returncode != 0 and "ERROR: Lost atoms: original" in failed.stdout and "Traceback" not in failed.stderr
    )
    ends = []
    for potential, on in ((OWN, 0), (use(lj), ranks)):
        done = finish(potential, "ignore", on)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        (last,) = [line.split() for line in done.stdout.splitlines() if re.match(r"\s+30 +\d+ +-?\d", line)]
        ends.append((int(last[1]), float(last[2])))
    assert ends[0][0] == ends[1][0] == 13
    assert ends[1][1] == pytest.approx(ends[0][1], rel=1e-6)


def test_types_of_another_style(lj: Path) -> None:
    """NULL leaves out the atoms of a type."""
    deck = BARE + "pair_style hybrid {}\npair_coeff * * {}\npair_coeff 1 2 zero\npair_coeff 2 2 zero\n" + THERMO
    ends = []
    for style, first in (
        (f"lj/cut {CUTOFF_A} zero {CUTOFF_A}", None),
        (f"metatomic {lj} uncertainty_threshold off zero {CUTOFF_A}", "metatomic Al NULL"),
    ):
        commands = (
            deck.format(style, first)
            if first
            else deck.replace("* * {}", f"1 1 lj/cut {EPSILON_EV} {SIGMA_A}", 1).format(style)
        )
        commands += "" if first else "pair_modify pair lj/cut shift yes\n"
        with instance(commands + "run 0\n") as lmp:
            forces = np.array(lmp.numpy.extract_atom("f"))[: lmp.get_natoms()]
            ends.append((float(lmp.get_thermo("pe")), forces))
    assert ends[1][0] == pytest.approx(ends[0][0], rel=1e-6)
    assert np.allclose(ends[1][1], ends[0][1], atol=1e-7)


def test_rerun_restart_and_partitions(lj: Path, tmp_path: Path) -> None:
    """A stored trajectory has the energies of the run; a restarted run is the unbroken one; partitions do not mix."""
    deck = (
        BARE
        + use(lj)
        + """
    fix md all nve
    thermo 5
    thermo_style custom step pe
    thermo_modify norm no format float %.12g
    dump d all custom 5 run.dump id type x y z
    dump_modify d format float %.17g
    restart 10 run.*.restart
    run 20
    """
    )

    def energies(text: str) -> dict[str, float]:
        rows = [line.split() for line in text.splitlines()]
        return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[0].isdigit() and "." in row[1]}

    def finish(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return energies(done.stdout)

    run = finish(run_lmp(deck, tmp_path))
    assert sorted(run) == ["0", "10", "15", "20", "5"]
    again = (
        BARE
        + use(lj)
        + "thermo 5\nthermo_style custom step pe\nthermo_modify norm no format float %.12g\nrerun run.dump dump x y z\n"
    )
    assert finish(run_lmp(again, tmp_path)) == pytest.approx(run, rel=1e-9)
    resumed = "read_restart run.10.restart\n" + use(lj) + "fix md all nve\nthermo 5\nthermo_style custom step pe\n"
    resumed += "thermo_modify norm no format float %.12g\nrun 10\n"
    assert finish(run_lmp(resumed, tmp_path)) == pytest.approx({k: run[k] for k in ("10", "15", "20")}, rel=1e-8)

    variables = "variable a world 4.05 4.2\nvariable n world one two\nlog ${n}.log\n"
    done = run_lmp(
        variables + deck.replace("fcc 4.05", "fcc $a").replace("run.", "${n}."), tmp_path, 2, "-partition", "2x1"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [energies((tmp_path / f"{n}.log").read_text()) for n in ("one", "two")]
    assert found[0] == pytest.approx(run, rel=1e-8) and found[1]["20"] != pytest.approx(run["20"], rel=1e-2)


def test_tempering_and_neb(lj: Path, tmp_path: Path) -> None:
    """Commands that drive several replicas run, and end as with LAMMPS's own style."""
    temper = "variable t world 600 700\nfix md all nvt temp $t $t 0.1\ntemper 20 10 $t md 3847 58382\n"
    neb = "fix n all neb 1.0\nmin_style quickmin\nneb 0.0 0.0 5 5 5 final final.txt\n"
    (tmp_path / "final.txt").write_text("1\n1 0.6 0.1 0.1\n")
    for commands in (temper, neb):
        last = []
        for potential in (OWN, use(lj)):
            deck = "atom_modify map array\nvariable p world 0 1\nlog $p.log\nthermo 10\n" + BARE + potential
            done = run_lmp(deck + commands, tmp_path, 2, "-partition", "2x1")
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            rows = [line.split() for line in (done.stdout + (tmp_path / "0.log").read_text()).splitlines()]
            last.append([float(x) for x in [row for row in rows if row and row[0].isdigit()][-1][:6]])
        a, b = last
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_one_pass_for_forces_and_features(tmp_path: Path) -> None:
    """A model that counts: a step in which samples are taken costs one evaluation, as one in which none are."""
    path = tmp_path / "counting.pt"
    write_counting_model(path, energy=True)
    commands = f"""
    pair_style metatomic {path}
    pair_coeff * * Al Mg
    compute feat all petdos {path} Al Mg output features
    fix md all nve
    fix obs all petdos 2 feat {tmp_path}/run.zarr temp 300
    variable first equal c_feat[1]
    thermo_style custom step pe v_first
    thermo 3
    run 6
    """
    from petdos_md.traces.trace import Trace

    with instance(BARE + commands):
        pass
    counts = Trace.open(tmp_path / "run.zarr", "r").features[:, 0]
    # One evaluation finds the widths of the outputs, then there is one for each of the steps 0 to 6.
    assert counts.tolist() == [2.0, 4.0, 6.0, 8.0]
