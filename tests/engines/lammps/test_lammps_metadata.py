"""What ``fix petdos`` tells about the simulation, and which simulations may go on with a trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.calculators.lammps import convert
from ase.units import GPa
from helpers.lammps_tools import ALLOY, instance, run_lmp

from petdos_md.lammps import atoms_of
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")
COMPUTE = "compute dos all petdos almgsi-lda Al Mg\n"
NVT = "fix md all nvt temp 600 600 0.1\n"
NVE = "fix md all nve\n"
PAIR = ALLOY[ALLOY.index("pair_style") : ALLOY.index("velocity")]


def metadata(path: Path) -> dict[str, Any]:
    return dict(Trace.open(path, "r").attributes["metadata"])


def recorded(path: Path, fixes: str, *, deck: str = ALLOY, more: str = "", run: str = "run 0") -> dict[str, Any]:
    """The metadata of a trace of a run with these fixes."""
    with instance(f"{deck}{COMPUTE}{fixes}fix obs all petdos 1 dos {path} {more}\n{run}\n"):
        pass
    return metadata(path)


ENSEMBLES = {
    "nve": (NVE, "temp 300", "nve", None),
    "nvt": (NVT, "", "nvt", None),
    "npt": ("fix md all npt temp 600 600 0.1 iso 5000 5000 1\n", "", "npt", [0.5]),
    "npt of two directions": ("fix md all npt temp 600 600 0.1 x 2e4 2e4 1 y 2e4 2e4 1\n", "", "npt", [2.0]),
    "npt, pressures differ": ("fix md all npt temp 600 600 0.1 x 1 1 1 y 2 2 1 z 3 3 1\n", "", "npt", None),
    "npt, pressure ramps": ("fix md all npt temp 600 600 0.1 iso 1 500 1\n", "", "npt", None),
    "npt of a second replica": ("fix md all npt temp 600 600 0.1 iso 1 1 1\n", "replica 1", "npt", [None, 1e-4]),
    "nph": ("fix md all nph iso -10000 -10000 1\n", "temp 300", "nph", [-1.0]),
    "langevin": (NVE + "fix bath all langevin 600 600 0.1 93\n", "", "nvt", None),
    "csvr and berendsen": (
        NVE + "fix t all temp/csvr 600 600 0.1 93\nfix p all press/berendsen iso 1 1 1\n", "", "npt", None,
    ),
    "sheared": (NVT + "fix shear all deform 1 x erate 0.001\n", "", None, None),
    "limited": ("fix md all nve/limit 0.01\n", "temp 300", None, None),
    "nothing moves": ("", "temp 300", None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble_and_pressure(name: str, tmp_path: Path) -> None:
    fixes, more, ensemble, pressures = ENSEMBLES[name]
    found = recorded(tmp_path / "run.zarr", fixes, more=more)
    assert found.get("ensemble") == ensemble
    assert found.get("pressures_GPa") == (pressures if pressures is None else pytest.approx(pressures, nan_ok=True))
    temperature = 300.0 if "300" in more else 600.0
    assert found["temperatures_K"] == [None] * ("replica" in more) + [temperature]
    assert found["potential"] == "meam" and found.keys().isdisjoint({"seed", "source", "bias", "beads"})


@pytest.mark.parametrize("units", ["real", "metal", "si", "cgs", "electron", "micro", "nano"])
def test_pressure_in_all_units(units: str, tmp_path: Path) -> None:
    """ASE converts it in its own way; timestep and temperature are the same in all of them."""
    lengths_A = {
        "real": 1.0,
        "metal": 1.0,
        "si": 1e10,
        "cgs": 1e8,
        "electron": 0.529177210903,
        "micro": 1e4,
        "nano": 10,
    }
    a = 4.05 / lengths_A[units]
    deck = f"""
    units {units}
    region box block 0 {2 * a} 0 {2 * a} 0 {2 * a}
    create_box 2 box
    lattice fcc {a}
    create_atoms 1 box
    mass * 1
    pair_style zero {1.2 * a}
    pair_coeff * *
    neighbor {0.1 * a} bin
    variable damp equal 100*dt
    """
    fixes = "fix md all npt temp 600 600 ${damp} iso 7.5 7.5 ${damp}\n"
    found = recorded(tmp_path / "run.zarr", fixes, deck=deck)
    assert found["pressures_GPa"] == pytest.approx([convert(7.5, "pressure", units, "ASE") / GPa], rel=1e-6)
    assert found["temperatures_K"] == [600.0] and found["formula"] == "Al32"


def test_formula_is_that_of_ase(tmp_path: Path) -> None:
    """Also on two ranks; none where atoms may become others."""
    with instance(ALLOY) as lmp:
        expected = atoms_of(lmp, ["Al", "Mg"]).get_chemical_formula()
    assert recorded(tmp_path / "one.zarr", NVT)["formula"] == expected
    deck = ALLOY.replace("type/ratio", "type/fraction") + COMPUTE + NVT + "fix obs all petdos 1 dos two.zarr\nrun 0\n"
    with instance(ALLOY.replace("type/ratio", "type/fraction")) as lmp:
        expected = atoms_of(lmp, ["Al", "Mg"]).get_chemical_formula()
    done = run_lmp(deck, tmp_path, 2)
    assert done.returncode == 0, done.stdout[-2000:]
    assert metadata(tmp_path / "two.zarr")["formula"] == expected != "Al32"
    swap = NVT + "fix mc all atom/swap 1 5 29494 5000 ke no types 1 2\n"
    found = recorded(tmp_path / "swap.zarr", swap, more="temp f_md")
    assert "formula" not in found and "ensemble" not in found


def test_potentials(tmp_path: Path) -> None:
    """Sub-styles of hybrid ones, each as often as it is there; a style is the same on other hardware."""
    bare = ALLOY[: ALLOY.index("pair_style")] + ALLOY[ALLOY.index("velocity") :]
    library = "library.meam AlS SiS MgS CuS FeS AlSiMgCuFe.meam AlS MgS"
    lj = "pair_coeff 1 1 lj/cut{0} 0.01 2.6\npair_coeff 1 2 lj/cut{0} 0.01 2.6\npair_coeff 2 2 lj/cut{0} 0.01 2.6\n"
    pairs = {
        "hybrid/overlay lj/cut meam": "pair_style hybrid/overlay meam lj/cut 5\n"
        + f"pair_coeff * * meam {library}\n" + lj.format(""),
        "hybrid/overlay lj/cut lj/cut": "pair_style hybrid/overlay lj/cut 5 lj/cut 4\n" + lj.format(" 1") + lj.format(" 2"),
        "lj/cut": "pair_style lj/cut/omp 5\n" + lj.replace(" lj/cut{0}", ""),
    }  # fmt: skip
    bare = "package omp 1\n" + bare
    for i, (expected, pair) in enumerate(pairs.items()):
        assert recorded(tmp_path / f"{i}.zarr", NVT, deck=bare + pair)["potential"] == expected


THERMOSTATS = {
    "nvt": NVT,
    "npt": "fix md all npt temp 600 600 0.1 iso 0 0 1\n",
    "langevin": NVE + "fix t all langevin 600 600 0.1 93\n",
    "csvr": NVE + "fix t all temp/csvr 600 600 0.1 93\n",
    "berendsen": NVE + "fix t all temp/berendsen 600 600 0.1\n",
    "rescale": NVE + "fix t all temp/rescale 1 600 600 0.1 1\n",
}


@pytest.mark.parametrize("name", THERMOSTATS)
def test_thermostat_that_is_defined_later(name: str, tmp_path: Path) -> None:
    """The order of the fixes does not matter for the temperature."""
    observed = f"fix obs all petdos 1 dos {tmp_path}/run.zarr\n"
    with instance(ALLOY + COMPUTE + observed + THERMOSTATS[name] + "run 2\n"):
        pass
    trace = Trace.open(tmp_path / "run.zarr", "r")
    assert trace.temperature_K.tolist() == [600.0] * 3
    assert metadata(tmp_path / "run.zarr")["temperatures_K"] == [600.0]


def test_what_is_known_besides(tmp_path: Path) -> None:
    """Versions; no time step that changes; a bias; the trajectory of a rerun, which has no ensemble."""
    (tmp_path / "colvars.in").write_text(
        "colvar {\n name d\n distance {\n group1 { atomNumbers 1 }\n group2 { atomNumbers 20 }\n }\n}\n"
        "harmonic {\n colvars d\n centers 5.0\n forceConstant 1.0\n}\n"
    )
    biased = NVT + f"fix bias all colvars {tmp_path}/colvars.in output {tmp_path}/out\n"
    variable = "fix steps all dt/reset 1 1e-5 0.002 0.1\n"
    dump = f"dump d all custom 2 {tmp_path}/run.dump id type x y z\n"
    deck = ALLOY.replace("boundary", "atom_modify map array\nboundary")
    found = recorded(tmp_path / "run.zarr", biased + variable + dump, deck=deck, run="run 4")
    trace = Trace.open(tmp_path / "run.zarr", "r")
    assert found["bias"] == "colvars" and trace.attributes["timestep_fs"] is None
    assert trace.attributes["versions"].keys() >= {"petdos-md", "lammps", "torch", "metatomic-torch"}
    assert trace.attributes["schema_version"] == 2
    again = recorded(tmp_path / "again.zarr", NVT, run=f"rerun {tmp_path}/run.dump dump x y z")
    assert again["source"] == f"{tmp_path}/run.dump" and "ensemble" not in again


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of NpT with a sample."""
    path = tmp_path_factory.mktemp("begun") / "run.zarr"
    recorded(path, "fix md all npt temp 600 600 0.1 iso 5000 5000 1\n")
    return path


OTHERS = {
    "potential": ("npt temp 600 600 0.1 iso 5000 5000 1\n", "pair_style zero 5.0\npair_coeff * *\n", '"meam", got "zero"'),
    "formula": ("npt temp 600 600 0.1 iso 5000 5000 1\n", "set group all type 1\n", "got \"Al32\""),
    "ensemble": ("nvt temp 600 600 0.1\n", "", '"npt", got "nvt"'),
    "pressures_GPa": ("npt temp 600 600 0.1 iso 5001 5001 1\n", "", "[0.5], got [0.5001]"),
    "timestep_fs": ("npt temp 600 600 0.1 iso 5000 5000 1\n", "timestep 0.00100001\n", "1.0, got 1.00001"),
}  # fmt: skip


@pytest.mark.parametrize("key", OTHERS)
@pytest.mark.parametrize("ranks", [0, 2])
def test_another_simulation_is_refused(key: str, ranks: int, begun: Path, tmp_path: Path) -> None:
    """In one line, and the trace is as it was."""
    before = {path: path.read_bytes() for path in begun.rglob("*.json")}
    fix, more, expected = OTHERS[key]
    deck = ALLOY.replace("type/ratio", "type/fraction") if ranks else ALLOY
    if ranks and key != "formula":
        pytest.skip("one of them tells whether all ranks stop")
    done = run_lmp(
        f"{deck}{more}{COMPUTE}fix md all {fix}fix obs all petdos 1 dos {begun} append yes\nrun 5\n", tmp_path, ranks
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
    assert done.returncode != 0 and len(said) == 1, done.stdout[-1000:]
    assert said[0].startswith(f"ERROR: fix petdos: {begun}: trace of another simulation: it has {key} = ")
    assert expected in said[0] and "; write to another path" in said[0]
    assert before == {path: path.read_bytes() for path in begun.rglob("*.json")}


def test_within_the_tolerance(begun: Path, tmp_path: Path) -> None:
    """Numbers to 1e-6; what only one side knows agrees with everything; what the trace did not know is added."""
    npt = "fix md all npt temp 600 600 0.1 iso 5000.001 5000.001 1\n"
    recorded(begun, npt, deck=ALLOY + "timestep 0.0010000001\n", more="append yes")
    bare = tmp_path / "bare.zarr"
    Trace.open(bare, model=DOSModel.load("almgsi-lda"), engine="ase", metadata={"seed": 5}).close()
    found = recorded(bare, NVT, more="append yes")
    assert found == {**found, "seed": 5, "ensemble": "nvt", "temperatures_K": [600.0], "potential": "meam"}
    attributes = Trace.open(bare, "r").attributes
    assert attributes["engine"] == "ase, lammps" and attributes["timestep_fs"] == 1.0
    assert attributes["versions"]["lammps"].startswith("2025")


def test_temperatures_of_replicas(tmp_path: Path) -> None:
    """A further replica has an entry of its own; a replica at another temperature than before has a schedule."""
    path = tmp_path / "run.zarr"
    assert recorded(path, NVT)["temperatures_K"] == [600.0]
    nvt = "fix md all nvt temp 900 900 0.1\n"
    assert recorded(path, nvt, more="append yes replica 2")["temperatures_K"] == [600.0, None, 900.0]
    assert recorded(path, nvt, more="append yes replica 1")["temperatures_K"] == [600.0, 900.0, 900.0]
    again = "unfix md\nfix md all nvt temp 700 700 0.1\nrun 1"
    assert recorded(path, NVT, more="append yes", run=f"run 1\n{again}")["temperatures_K"] == [None, 900.0, 900.0]
    later = ALLOY + "reset_timestep 2\n"
    assert recorded(path, NVT, deck=later, more="append yes")["temperatures_K"] == [None, 900.0, 900.0]


def test_each_run_is_of_the_same_simulation(tmp_path: Path) -> None:
    """The time step or the ensemble may not change under a fix that is there."""
    changes = {"timestep_fs = 1.0, got 2.0": "timestep 0.002\n", 'ensemble = "nvt", got "nve"': f"unfix md\n{NVE}"}
    for i, (expected, change) in enumerate(changes.items()):
        observed = f"fix obs all petdos 1 dos {tmp_path}/{i}.zarr temp 600\n"
        with (
            pytest.raises(Exception, match=expected),
            instance(f"{ALLOY}{COMPUTE}{NVT}{observed}run 2\n{change}run 2\n"),
        ):
            pass
        assert Trace.open(tmp_path / f"{i}.zarr", "r").step.tolist() == [0, 1, 2]


def test_hill_formulas(tmp_path: Path) -> None:
    """elements.cpp on its own, against ASE, with and without carbon."""
    import subprocess

    import numpy as np

    from petdos_md.engines.lammps import build, plugin

    (source,) = (path for path in plugin.sources() if path.name == "elements.cpp")
    (tmp_path / "main.cpp").write_text(
        '#include "elements.h"\n#include <iostream>\nint main() { int n; while (std::cin >> n) { std::map<std::string, int64_t> c;'
        "std::string s; int64_t k; while (n--) { std::cin >> s >> k; c[s] = k; } std::cout << petdos::hill_formula(c) << '\\n'; } }\n"
    )
    command = [build.compiler(), "-std=c++17", f"-I{source.parent}", "main.cpp", str(source), "-o", "hill"]
    subprocess.run(command, cwd=tmp_path, check=True)
    rng = np.random.default_rng(1)
    symbols = ["C", "H", "O", "N", "Al", "Br", "Cl", "Ca", "He", "U"]
    cases = [
        {str(s): int(rng.integers(0, 13)) for s in rng.choice(symbols, rng.integers(1, 7), replace=False)}
        for _ in range(200)
    ]
    text = "".join(f"{len(c)} {' '.join(f'{s} {k}' for s, k in c.items())}\n" for c in cases)
    done = subprocess.run([str(tmp_path / "hill")], input=text, capture_output=True, text=True, check=True)
    expected = [Atoms("".join(s * k for s, k in c.items())).get_chemical_formula() for c in cases]
    assert done.stdout.splitlines() == expected


def test_json_is_strict(begun: Path) -> None:
    """No NaN in the attributes, whatever was not known."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads((begun / "zarr.json").read_text(), parse_constant=refuse)
