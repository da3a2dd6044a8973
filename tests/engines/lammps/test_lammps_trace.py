"""``fix petdos``: the trace of every other engine, safe against kills and restarts, with the right temperature on each sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from helpers.counting_model import write_counting_model
from helpers.lammps_tools import ALLOY, BIN, deviation, instance, run_lmp

from petdos_md.base.errors import SettingError, TraceError
from petdos_md.lammps import LAMMPSObserver, attach
from petdos_md.models.model import DOSModel
from petdos_md.traces.metadata import same
from petdos_md.traces.trace import Trace

pytestmark = pytest.mark.usefixtures("lammps_plugin")
COMPUTE = "compute dos all petdos almgsi-lda Al Mg\n"
NVT = "fix md all nvt temp 600 600 0.1\n"


@pytest.fixture(scope="module")
def shipped() -> DOSModel:
    return DOSModel.load("almgsi-lda")


def read(path: Path) -> Trace:
    return Trace.open(path, "r")


def test_same_trace_as_python(shipped: DOSModel, tmp_path: Path) -> None:
    """The C++ and the Python route sample the same run: every label and every number, attributes and array metadata too."""
    with instance(ALLOY + NVT) as lmp:
        observer = LAMMPSObserver(lmp, shipped, tmp_path / "py.zarr", ["Al", "Mg"], 600.0, every=3)
        observer.run(7)
        observer.run(5)
        assert observer.trace is not None and observer.n_samples == 5 and observer.n_skipped == 0
        observer.trace.close()
    with instance(ALLOY + NVT) as lmp:
        attach(lmp, "almgsi-lda", tmp_path / "cpp.zarr", ["Al", "Mg"], every=3)
        lmp.command("run 7")
        lmp.command("run 5")
        assert lmp.extract_fix("petdos", 0, 0) == 5
    py, cpp = read(tmp_path / "py.zarr"), read(tmp_path / "cpp.zarr")
    assert cpp.step.tolist() == [0, 3, 6, 9, 12]
    for name in (
        "step",
        "replica",
        "time_fs",
        "temperature_K",
        "kinetic_temperature_K",
        "potential_energy_eV",
        "volume_A3",
    ):
        assert np.allclose(getattr(cpp, name), getattr(py, name), rtol=1e-9, atol=0), name
    for name in ("n_atoms", "n_electrons", "weight"):
        assert np.array_equal(getattr(cpp, name), getattr(py, name))
    for a, b in zip(cpp, py, strict=True):
        assert deviation(a.features, b.features) < 1e-5
    assert cpp.model == py.model and cpp.engine == py.engine == "lammps" and cpp.timestep_fs == py.timestep_fs == 1.0
    told, expected = (trace.attributes.pop("metadata") for trace in (cpp, py))
    for key in told.keys() & expected.keys():  # either may know more
        assert same(told[key], expected[key]), key
    equal = {**cpp.attributes, "created": "", "versions": {}, "metadata": {}}
    assert equal == {**py.attributes, "created": "", "versions": {}, "metadata": {}}
    for name in (*[f.name for f in (tmp_path / "cpp.zarr").iterdir() if f.is_dir()],):
        ours, theirs = (json.loads((tmp_path / t / name / "zarr.json").read_text()) for t in ("cpp.zarr", "py.zarr"))
        assert ours == theirs
    assert np.array_equal(zarr.open_group(tmp_path / "cpp.zarr", mode="r")["features"][:], np.asarray(cpp.features))


def test_many_samples_in_chunks_of_rows(tmp_path: Path) -> None:
    """More rows than a chunk of any array has, over several flushes; Python goes on with the trace."""
    write_counting_model(tmp_path / "counting.pt")
    deck = f"""
    compute feat all petdos {tmp_path}/counting.pt Al Mg output features
    fix obs all petdos 1 feat {tmp_path}/run.zarr temp 300
    run 1100
    """
    small = ALLOY.replace("0 2 0 2 0 2", "0 1 0 1 0 1").replace("pair_style meam", "pair_style zero 2.0")
    with instance(
        "\n".join(line for line in small.splitlines() if "library" not in line) + "\npair_coeff * *\n" + deck
    ):
        pass
    trace = read(tmp_path / "run.zarr")
    assert trace.step.tolist() == list(range(1101))
    assert trace.features[:, 0].tolist() == list(range(2, 1103))
    with Trace.open(tmp_path / "run.zarr", "a") as again:
        assert not again.append(again[5])
        assert again.append(again[5], step=2000)
        assert len(again) == 1102


def test_temperature_labels(tmp_path: Path) -> None:
    """A number, a variable, the only thermostat, a thermostat by name."""
    deck = (
        ALLOY
        + COMPUTE
        + "variable t equal 100+step\nfix md all nvt temp 450 450 0.1\nfix more all langevin 700 700 0.1 9\n"
    )
    given = {
        "temp 321.5": [321.5] * 2,
        "temp v_t": [100.0, 102.0],
        "temp f_md": [450.0] * 2,
        "temp f_more": [700.0] * 2,
    }
    for i, (temp, expected) in enumerate(given.items()):
        with instance(deck + f"fix obs all petdos 2 dos {tmp_path}/{i}.zarr {temp}\nrun 2\n"):
            pass
        assert read(tmp_path / f"{i}.zarr").temperature_K.tolist() == expected
    with instance(ALLOY + COMPUTE + NVT + f"fix obs all petdos 2 dos {tmp_path}/only.zarr\nrun 2\n"):
        pass
    assert read(tmp_path / "only.zarr").temperature_K.tolist() == [600.0, 600.0]
    ramp = (
        deck.replace("450 450", "450 500")
        + f"fix obs all petdos 2 dos {tmp_path}/ramp.zarr temp f_md ramp yes\nrun 4\n"
    )
    with instance(ramp):
        pass
    assert read(tmp_path / "ramp.zarr").temperature_K.tolist() == [450.0, 475.0, 500.0]


NVE = "fix md all nve\n"
NO_ONE_TEMPERATURE = {
    "a ramp of nvt": ("fix md all nvt temp 450 500 0.1\n", "", "fix md is a ramp.*ramp yes"),
    "a ramp of langevin": (
        NVE + "fix bath all langevin 450 500 0.1 93\n", "", "the target temperature changes at every step.*ramp yes",
    ),
    "a variable that ramps": (
        NVE + "variable t equal 450+10*step\nfix bath all langevin v_t 450 0.1 93\n", "temp v_t",
        "variable t changes at every step.*ramp yes",
    ),
    "a variable that follows velocities": (
        NVE + "variable t equal temp\n", "temp v_t", "variable t changes at every step.*ramp yes",
    ),
    "no thermostat": (NVE, "", "temperature of the ensemble is not known.*temp T"),
    "two thermostats": (
        NVE + "fix a all langevin 450 450 0.1 93\nfix b all langevin 500 500 0.1 93\n", "",
        "fixes a and b both have a target temperature",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ONE_TEMPERATURE)
def test_temperature_that_is_not_one(name: str, tmp_path: Path) -> None:
    fixes, temp, expected = NO_ONE_TEMPERATURE[name]
    observed = f"fix obs all petdos 50 dos {tmp_path}/x.zarr {temp}\n"
    with pytest.raises(Exception, match=expected), instance(ALLOY + COMPUTE + fixes + observed + "run 50\n"):
        pass
    trace = tmp_path / "x.zarr"
    assert not trace.exists() or read(trace).step.tolist() in ([], [0])


def test_variables_that_may_change(tmp_path: Path) -> None:
    """In steps, as that of a schedule, or at every step if that is meant."""
    stairs = "variable t equal 450+100*floor(step/5)\n"
    ramp = "variable t equal 450+10*step\n"
    for name, variable, more in (("stairs", stairs, ""), ("ramp", ramp, " ramp yes")):
        observed = f"fix obs all petdos 5 dos {tmp_path}/{name}.zarr temp v_t{more}\nrun 10\n"
        with instance(ALLOY + COMPUTE + NVE + variable + observed):
            pass
    assert read(tmp_path / "stairs.zarr").temperature_K.tolist() == [450.0, 550.0, 650.0]
    assert read(tmp_path / "ramp.zarr").temperature_K.tolist() == [450.0, 500.0, 550.0]


def wait_for_group(group: int) -> None:
    """`lmp` is a script that starts LAMMPS: the latter dies a moment later and frees its lock."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL: what was flushed is there, the trace is whole, and the next run goes on with it."""
    write_counting_model(tmp_path / "counting.pt")
    rest = (
        "compute feat all petdos counting.pt Al Mg output features\nfix md all nve/limit 0.01\nthermo 1\n"
        "fix obs all petdos 1 feat run.zarr temp 300 append yes\nrestart 64 at.*\nrun 100000\n"
    )
    (tmp_path / "in.deck").write_text(ALLOY + rest)
    kept = 0
    for round_ in range(3):
        process = subprocess.Popen([str(BIN / "lmp"), "-in", "in.deck", "-log", "none"], cwd=tmp_path,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.05)
            if (tmp_path / "run.zarr").exists() and len(read(tmp_path / "run.zarr")) > kept + 64:
                break
        time.sleep(0.013 * round_)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_group(process.pid)
        trace = read(tmp_path / "run.zarr")
        assert len(trace) > kept
        assert trace.step.tolist() == list(range(len(trace)))
        assert np.allclose(trace.time_fs, trace.step, rtol=1e-12)
        assert (trace.features[:, 2] == 32.0).all() and trace.n_skipped == 0
        kept = len(trace)
        whole = [p for p in tmp_path.glob("at.*") if p.read_bytes().endswith(b"LammpS RestartT\0")]
        newest = max(whole, key=lambda p: int(p.suffix[1:]))
        assert int(newest.suffix[1:]) < kept
        pair = ALLOY[ALLOY.index("pair_style") : ALLOY.index("velocity")]
        (tmp_path / "in.deck").write_text(f"read_restart {newest.name}\n{pair}{rest}")
    with Trace.open(tmp_path / "run.zarr", "a") as python:
        assert python.append(python[0], step=10**6)


def test_error_elsewhere_keeps_samples(tmp_path: Path) -> None:
    """LAMMPS ends without destroying its fixes when something else fails: samples in memory are written all the same."""
    deck = ALLOY + NVT + COMPUTE + "fix obs all petdos 1 dos run.zarr\nfix stop all halt 2 v_s > 4 error hard\n"
    done = run_lmp(deck.replace("fix stop", "variable s equal step\nfix stop") + "run 50\n", tmp_path, 1)
    assert done.returncode != 0 and "Fix halt condition" in done.stdout + done.stderr
    assert read(tmp_path / "run.zarr").step.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_predictions_that_are_not_finite(tmp_path: Path) -> None:
    """Skipped and counted by the fix, an error for who asks the compute."""
    write_counting_model(tmp_path / "counting.pt", infinite_from=4.0)
    deck = ALLOY + NVT + f"compute feat all petdos {tmp_path}/counting.pt Al Mg output features\n"
    with (
        instance(deck + f"fix obs all petdos 1 feat {tmp_path}/run.zarr\nrun 4\n") as lmp,
        pytest.raises(Exception, match="compute petdos: the DOS model returned NaN or infinity"),
    ):
        lmp.numpy.extract_compute("feat", 0, 1)
    trace = read(tmp_path / "run.zarr")
    assert trace.step.tolist() == [0, 1]
    assert trace.skipped == {"prediction is not finite": 3} and trace.attributes["skipped_last_step"] == {"0": 4}


def test_units_of_labels(tmp_path: Path) -> None:
    """The same gas in real and in metal units."""
    deck = """
    units {units}
    region box block 0 9 0 9 0 9
    create_box 1 box
    create_atoms 1 single 1 1 1
    create_atoms 1 single 3.5 1 1
    mass 1 26.98
    pair_style lj/cut 8
    pair_coeff 1 1 {epsilon} 2.6
    timestep {dt}
    compute dos all petdos almgsi-lda Al
    fix md all nve
    fix obs all petdos 2 dos {path} temp 300
    run 4
    """
    traces = []
    for units, epsilon, dt in (("metal", 0.4, 0.002), ("real", 0.4 / 0.0433641153087705, 2.0)):
        path = tmp_path / f"{units}.zarr"
        with instance(deck.format(units=units, epsilon=epsilon, dt=dt, path=path)):
            pass
        traces.append(read(path))
    metal, real = traces
    assert metal.timestep_fs == pytest.approx(2.0) and real.timestep_fs == pytest.approx(2.0)
    assert real.time_fs.tolist() == pytest.approx([0.0, 4.0, 8.0])
    assert np.allclose(real.potential_energy_eV, metal.potential_energy_eV, rtol=1e-5)
    assert np.abs(metal.potential_energy_eV).min() > 0.1
    assert np.allclose(real.volume_A3, 729.0) and np.allclose(real.features, metal.features, rtol=1e-4, atol=1e-4)


def test_python_observer_refuses(shipped: DOSModel, tmp_path: Path) -> None:
    with instance(ALLOY) as lmp:
        with pytest.raises(SettingError, match="got 1 symbols"):
            LAMMPSObserver(lmp, shipped, tmp_path / "x.zarr", ["Al"], 300.0)
        with pytest.raises(SettingError, match="temperature_K=0"):
            LAMMPSObserver(lmp, shipped, tmp_path / "x.zarr", ["Al", "Mg"], 0.0)
        with pytest.raises(SettingError, match="every=0"):
            LAMMPSObserver(lmp, shipped, tmp_path / "x.zarr", ["Al", "Mg"], 300.0, every=0)
    with (
        instance("units lj\nregion b block 0 5 0 5 0 5\ncreate_box 1 b\nmass 1 1\n") as lmp,
        pytest.raises(SettingError, match="units lj"),
    ):
        LAMMPSObserver(lmp, shipped, tmp_path / "x.zarr", ["Al"], 300.0)


def test_python_observer_on_two_ranks(shipped: DOSModel, tmp_path: Path) -> None:
    """Runs that begin at a step that the trace holds: only the first rank knows of it, and none may wait for another."""
    # What is random in the deck must not depend on the number of ranks.
    deck = ALLOY.replace("displace_atoms all random 0.2 0.2 0.2 123\n", "").replace("type/ratio", "type/fraction")
    deck = deck.replace("4928459", "4928459 loop geom") + NVT
    script = tmp_path / "run.py"
    script.write_text(f"""
import sys
import petdos_md.lammps as pml
import lammps
lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string({deck!r})
observer = pml.LAMMPSObserver(lmp, "almgsi-lda", sys.argv[1], ["Al", "Mg"], 600.0, every=2)
observer.run(4)
observer.run(3)
""")
    command = [str(BIN / "mpirun"), "-np", "2", sys.executable, str(script), str(tmp_path / "two.zarr")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with instance(deck) as lmp:
        observer = LAMMPSObserver(lmp, shipped, tmp_path / "one.zarr", ["Al", "Mg"], 600.0, every=2)
        observer.run(4)
        observer.run(3)
        observer.close()
    one, two = read(tmp_path / "one.zarr"), read(tmp_path / "two.zarr")
    assert two.step.tolist() == one.step.tolist() == [0, 2, 4, 6]
    for a, b in zip(two, one, strict=True):
        assert deviation(a.features, b.features) < 1e-4
    assert np.allclose(two.potential_energy_eV, one.potential_energy_eV, rtol=1e-6)


def test_trace_of_another_model_python(shipped: DOSModel, model: DOSModel, tmp_path: Path) -> None:
    Trace.open(tmp_path / "other.zarr", model=model).close()
    with instance(ALLOY) as lmp, pytest.raises(TraceError, match="another model"):
        LAMMPSObserver(lmp, shipped, tmp_path / "other.zarr", ["Al", "Mg"], 300.0)


def test_import_order() -> None:
    """Torch after LAMMPS would use its slow BLAS: said once."""
    code = "import lammps; l = lammps.lammps(cmdargs=['-log', 'none', '-screen', 'none']); import petdos_md.lammps"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "import petdos_md.lammps before lammps.lammps()" in done.stderr
