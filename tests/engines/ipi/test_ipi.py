"""The observer in i-PI's server, against what i-PI itself writes: labels, beads, restarts, failures, wrong input."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from helpers.ipi_runs import At, aluminium, assert_complete, assert_true, loaded, truth, write_input
from helpers.models import rattled_aluminium
from ipi.scripting import InteractiveSimulation
from ipi.utils.softexit import softexit

from petdos_md.analysis.analyze import analyze
from petdos_md.base.errors import PredictionError, SettingError, StructureError, TraceError
from petdos_md.cli.main import main
from petdos_md.engines.ipi import setup as _ipi_state
from petdos_md.ipi import attach
from petdos_md.models.model import DOSModel
from petdos_md.traces import store as _trace_store
from petdos_md.traces.trace import Trace

LADDER = (400.0, 520.0, 676.0)


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(path: Path, model, output: str = "run.zarr", every: int = 4, stop_at: int | None = None, **settings) -> None:
    """To the end, or until a signal arrives just after the outputs of a step."""
    with loaded(path) as simulation:
        observer = attach(simulation, model, output, every=every, **settings)
        if stop_at is not None:
            At(simulation, stop_at, lambda: softexit.cleanup(status="restartable", message="a signal"))
        simulation.run()
        softexit.cleanup(status=simulation.exit_status, message="the end")
        observer.close()


@pytest.mark.parametrize("threading", [False, True])
def test_labels_follow_the_ensemble(tmp_path: Path, metal, threading: bool) -> None:
    """Replica exchange, NPT: every sample is the structure that i-PI had at that temperature."""
    path = write_input(tmp_path, ensemble="npt", threading=threading)
    run(path, metal)
    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, LADDER, 4, 40)
    found = truth(tmp_path)
    assert_true(trace, metal, found)
    # A label by the number of the system would be wrong for many of them.
    moved = [found[s.step, s.temperature_K]["system"] != s.replica for s in trace]
    assert 5 < sum(moved) < 30
    np.testing.assert_allclose(trace.time_fs, 2.0 * trace.step, rtol=1e-6)
    told = trace.attributes["metadata"]
    assert told["pressures_GPa"] == [0.1, 0.1, 0.1] and told["ensemble"] == "npt" and trace.timestep_fs == 2.0
    assert trace.kinetic_temperature_K.std() > 10 and 300 < trace.kinetic_temperature_K.mean() < 800


def test_petdos_rerun_of_ipis_trajectory_agrees(tmp_path: Path, metal, metal_path: Path) -> None:
    """i-PI's own positions, sorted by ``ensemble_temperature`` and evaluated by the command: the same averages and errors."""
    run(write_input(tmp_path, threading=True), metal)
    frames = []
    for (step, temperature), there in sorted(truth(tmp_path).items()):
        if step and step % 4 == 0:
            atoms = there["beads"][0].copy()
            atoms.info = {"step": step, "temperature_K": temperature, "replica": LADDER.index(temperature)}
            frames.append(atoms)
    ase.io.write("sorted.extxyz", frames)
    assert main(["rerun", "--dos", str(metal_path), "sorted.extxyz", "-o", "again.zarr"]) == 0
    ours, again = analyze("run.zarr", metal), analyze("again.zarr", metal)
    assert ours["n_samples"].values.tolist() == again["n_samples"].values.tolist() == [10, 10, 10]
    for name in ("dos", "heat_capacity", "heat_capacity_model_std", "chemical_potential"):
        a, b = ours[name].values, again[name].values
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


def test_beads_are_averaged(tmp_path: Path, metal) -> None:
    """PIMD: a sample is the average over the geometries of the beads, evaluated one by one."""
    run(write_input(tmp_path, beads=4, steps=12, temperatures=(300.0, 400.0), exchange=3), metal)
    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, (300.0, 400.0), 4, 12)
    found = truth(tmp_path, 2, beads=4)
    assert_true(trace, metal, found)
    spread = [np.ptp([metal.evaluate(a).features for a in there["beads"]], axis=0).max() for there in found.values()]
    assert max(spread) > 1e-3  # the beads do differ
    assert trace.attributes["metadata"]["beads"] == 4


def test_interactive_simulation(tmp_path: Path, metal) -> None:
    """In a script, run by run; RESTART after each never runs ahead of the trace."""
    softexit.reset()
    path = write_input(tmp_path)
    simulation = InteractiveSimulation(path.read_text())
    observer = attach(simulation, metal, "run.zarr", every=4)
    for n in (7, 5, 8):
        simulation.run(n)
        on_disk = Trace.open("run.zarr", "r")
        assert_complete(on_disk, LADDER, 4, simulation.step)
    assert observer.n_samples == len(on_disk) == 15
    observer.close()
    assert observer not in simulation.outputs
    simulation.stop()
    softexit.reset()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, metal) -> Trace:
    """The trace of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(write_input(folder, ensemble="npt"), metal)
    return Trace.open(folder / "run.zarr", "r")


@pytest.mark.parametrize(("safe_stride", "stop_at"), [(1, 21), (7, 20), (50, 30)])
def test_resumed_equals_uninterrupted(tmp_path: Path, metal, whole: Trace, safe_stride: int, stop_at: int) -> None:
    """A signal at any step and any safe_stride: the samples are those of the run that nobody interrupted."""
    path = write_input(tmp_path, safe_stride=safe_stride, ensemble="npt")
    run(path, metal, stop_at=stop_at)
    resumed_at = stop_at - stop_at % safe_stride
    ahead = Trace.open("run.zarr", "r")
    assert_complete(ahead, LADDER, 4, stop_at)
    assert (ahead.step > resumed_at).sum() == 3 * (stop_at // 4 - resumed_at // 4)
    if resumed_at == 0:  # i-PI's RESTART is its very input: what was sampled would be sampled again
        with pytest.raises(TraceError, match="starts at step 0"):
            run(Path("RESTART"), metal)
        return
    run(Path("RESTART"), metal)
    parts = Trace.open("run.zarr", "r")
    assert_complete(parts, LADDER, 4, 40)
    assert_true(parts, metal, truth(tmp_path))
    order = [np.lexsort((t.replica, t.step)) for t in (whole, parts)]
    size = np.abs(whole.features[:]).max()
    np.testing.assert_allclose(parts.features[:][order[1]], whole.features[:][order[0]], rtol=0, atol=2e-5 * size)


def test_older_checkpoint(tmp_path: Path, metal) -> None:
    """Going back to a checkpoint drops the samples after it, and they are taken again."""
    path = write_input(tmp_path, checkpoint=10, threading=True)
    run(path, metal)
    ended = Trace.open("run.zarr", "r")
    late = ended.features[:][ended.step > 20]
    run(Path("run.chk_1"), metal)
    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, LADDER, 4, 40)
    assert_true(trace, metal, truth(tmp_path))
    assert len(late) == 15


def test_samples_are_on_disk_before_a_checkpoint(tmp_path: Path, metal, monkeypatch) -> None:
    """A kill just after i-PI wrote a checkpoint loses no sample that it covers, threads or not."""
    for threads in (False, True):
        folder = tmp_path / str(threads)
        path = write_input(folder, checkpoint=6, threading=threads)
        monkeypatch.chdir(folder)
        seen = {}

        def look(seen: dict = seen) -> None:
            for file in Path(".").glob("run.chk_*"):
                seen.setdefault(file.name, len(Trace.open("run.zarr", "r")))

        with loaded(path) as simulation:
            observer = attach(simulation, metal, "run.zarr", every=2)
            for step in range(1, 25):
                At(simulation, step, look)
            simulation.tsteps = 24
            simulation.run()
        look()
        observer.close()
        for index in range(1, 5):
            # Threads may write a checkpoint a moment before or after this looks.
            assert seen[f"run.chk_{index}"] >= 3 * 3 * index


def test_restart_in_a_new_folder(tmp_path: Path, metal, monkeypatch) -> None:
    """With the old trace named, the new one is whole and the old one stays as it was."""
    path = write_input(tmp_path / "old", safe_stride=10)
    monkeypatch.chdir(tmp_path / "old")
    run(path, metal, stop_at=26)
    before = Trace.open("run.zarr", "r").step.tolist()
    (tmp_path / "new").mkdir()
    for name in ("init.xyz", "RESTART"):
        (tmp_path / "new" / name).write_bytes(Path(name).read_bytes())
    monkeypatch.chdir(tmp_path / "new")
    run(Path("RESTART"), metal, previous=tmp_path / "old" / "run.zarr")
    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, LADDER, 4, 40)
    assert_true(trace, metal, truth(tmp_path / "old") | truth(tmp_path / "new"))
    assert Trace.open(tmp_path / "old" / "run.zarr", "r").step.tolist() == before and max(before) == 24


def test_resuming_without_the_trace_is_reported(tmp_path: Path, metal, capsys) -> None:
    run(write_input(tmp_path, safe_stride=10), metal, stop_at=26)
    capsys.readouterr()
    run(Path("RESTART"), metal, output="other.zarr")
    assert "other.zarr: a new trace: samples before step 20" in capsys.readouterr().out
    assert_complete(Trace.open("other.zarr", "r"), LADDER, 4, 40, first=24)


def test_trace_behind_the_checkpoint_is_reported(tmp_path: Path, metal, capsys) -> None:
    """Samples that are gone (a copy that is too old, a full disk) are missed in silence by nobody."""
    run(write_input(tmp_path, safe_stride=10), metal, stop_at=26)
    with Trace.open("run.zarr", "a") as trace:
        trace.truncate(12)
    run(Path("RESTART"), metal)
    assert "resumes at step 20, but samples of 3 replicas end at step 12" in capsys.readouterr().out


def test_burn_in(tmp_path: Path, metal) -> None:
    run(write_input(tmp_path), metal, burn_in=18)
    assert_complete(Trace.open("run.zarr", "r"), LADDER, 4, 40, first=20)


class Failing(DOSModel):
    """A model that cannot evaluate what a test chooses."""

    def __init__(self, model, bad) -> None:
        self._model, self._bad, self.calls = model, bad, 0
        self.info, self.readout, self.check, self.n_electrons = (
            model.info,
            model.readout,
            model.check,
            model.n_electrons,
        )

    def evaluate(self, structures):
        self.calls += 1
        for atoms in structures:
            error = self._bad(atoms, self.calls)
            if error:
                raise error
        return self._model.evaluate(structures)


def test_failures_are_counted_and_end_the_run(tmp_path: Path, metal, capsys) -> None:
    """The other replicas keep their samples; after five in a row there is a RESTART, and nothing was raised."""

    def bad(atoms, _):
        if simulation.step + 1 > 12:
            second = _ipi_state.structures(simulation.syslist[1])[0]
            if np.array_equal(atoms.positions, second.positions):
                return PredictionError("nan")
        return None

    model = Failing(metal, bad)
    path = write_input(tmp_path, steps=100)
    with loaded(path) as simulation:
        observer = attach(simulation, model, "run.zarr", every=4, max_failed=5)
        simulation.run()
        assert simulation.step < 40 and softexit.triggered and simulation.exit_status == "bad"
        softexit.cleanup(status=simulation.exit_status, message="the end")
    observer.close()
    out = capsys.readouterr().out
    assert "step 16: 1 of 3 replicas gave no sample: prediction is not finite (failure 1 of 5 in a row)" in out
    assert "5 failures in a row; see above" in out
    trace = Trace.open("run.zarr", "r")
    assert trace.skipped == {"prediction is not finite": 5} and observer.n_skipped == 5
    assert len(trace) == 3 * 3 + 5 * 2
    # RESTART holds the step of the last failure: the run can go on, with another model say.
    assert "<step>32</step>" in Path("RESTART").read_text().replace(" ", "")
    run(Path("RESTART"), metal, stop_at=40)
    trace = Trace.open("run.zarr", "r")
    assert trace.n_skipped == 5 and trace.step.max() == 40


def test_one_failure_does_not_end_the_run(tmp_path: Path, metal) -> None:
    model = Failing(metal, lambda atoms, calls: MemoryError("none left") if calls % 3 == 0 else None)
    run(write_input(tmp_path), model, max_failed=2)
    trace = Trace.open("run.zarr", "r")
    # The whole batch failed; of the three that were then evaluated one by one none was the third call.
    assert trace.step.max() == 40 and trace.n_skipped + len(trace) == 30 and len(trace) > 20


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the disk of the trace is full, to be set by the test."""
    real, full = _trace_store.Store.append, [False]

    def append(self, rows):
        if full[0]:
            raise OSError(28, "No space left on device")
        real(self, rows)

    monkeypatch.setattr(_trace_store.Store, "append", append)
    return full


def test_full_disk_costs_nothing_once_there_is_space(tmp_path: Path, metal, full, capsys) -> None:
    """Samples wait in memory while they cannot be written."""
    path = write_input(tmp_path, checkpoint=3)
    with loaded(path) as simulation:
        attach(simulation, metal, "run.zarr", every=4, max_failed=20)
        At(simulation, 10, lambda: full.__setitem__(0, True))
        At(simulation, 30, lambda: full.__setitem__(0, False))
        simulation.run()
        softexit.cleanup(status="success", message="the end")
    assert "No space left on device" in capsys.readouterr().out
    assert_complete(Trace.open("run.zarr", "r"), LADDER, 4, 40)


def test_disk_that_stays_full_ends_the_run(tmp_path: Path, metal, full, capsys) -> None:
    """Although samplings succeed in between; from the checkpoint that the message names, nothing is missing in the end."""
    path = write_input(tmp_path, steps=100, checkpoint=3)
    with loaded(path) as simulation:
        observer = attach(simulation, metal, "run.zarr", every=2, max_failed=5)
        At(simulation, 10, lambda: full.__setitem__(0, True))
        simulation.run()
        assert simulation.step < 40 and simulation.exit_status == "bad"
        softexit.cleanup(status=simulation.exit_status, message="the end")
    told = "and taken again on resuming from a checkpoint up to step 9"
    with pytest.raises(TraceError, match=f"No space left on device; free space on that disk; .* {told}$"):
        observer.close()
    out = capsys.readouterr().out
    assert f"{told} (failure 5 of 5 in a row)" in out and "5 failures in a row; see above" in out
    assert Trace.open("run.zarr", "r").step.max() == 8
    shutil.copytree("run.zarr", "kept.zarr")  # what is left when the process has ended
    full[0] = False
    observer.close()
    (checkpoint,) = [p for p in tmp_path.glob("run.chk_*") if "<step>9</step>" in p.read_text().replace(" ", "")]
    run(checkpoint, metal, "kept.zarr", every=2, stop_at=40)
    assert_complete(Trace.open("kept.zarr", "r"), LADDER, 2, 40)


def test_restart_waits_for_samples_that_are_being_written(tmp_path: Path, metal, monkeypatch) -> None:
    """After a signal, one thread leaves Python (which closes traces) while another writes RESTART and ends the process."""
    from petdos_md.traces import store as _trace_store

    path = write_input(tmp_path, steps=9)
    with loaded(path) as simulation:
        observer = attach(simulation, metal, "run.zarr", every=4)
        simulation.run()
        real, begun, inside, most = _trace_store.Store.append, threading.Event(), [], []

        def slowly(self, rows):
            inside.append(rows)
            most.append(len(inside))
            begun.set()
            time.sleep(0.2)
            real(self, rows)
            inside.pop()

        monkeypatch.setattr(_trace_store.Store, "append", slowly)
        write_restart = simulation.chk.write
        leaving = threading.Thread(target=observer.close)
        leaving.start()
        begun.wait()
        write_restart(store=False)
        # At this moment i-PI would end the process: nobody may be writing.
        assert not inside and most == [1]
        assert_complete(Trace.open("run.zarr", "r"), LADDER, 4, 8)
        leaving.join()


# -- wrong input ---------------------------------------------------------------------------------------------------


def refuse(path: Path, model, error: type, message: str, **settings) -> None:
    with loaded(path) as simulation, pytest.raises(error, match=message) as caught:
        attach(simulation, model, settings.pop("output", "run.zarr"), **{"every": 4, **settings})
    assert "\n" not in str(caught.value)


def test_wrong_settings(tmp_path: Path, metal) -> None:
    path = write_input(tmp_path)
    refuse(path, metal, SettingError, "got every = 0, expected a whole number >= 1", every=0)
    refuse(path, metal, SettingError, "got burn_in = -1", burn_in=-1)
    refuse(path, metal, SettingError, "got max_failed = 0", max_failed=0)
    refuse(path, "nowhere.pt", Exception, "nowhere.pt")


def test_unknown_element(tmp_path: Path, metal) -> None:
    atoms = aluminium()
    atoms.symbols[2] = "Cu"
    refuse(write_input(tmp_path, atoms=atoms), metal, StructureError, "element Cu is unknown")


def test_ramp(tmp_path: Path, metal) -> None:
    ramp = "<motion mode='t_ramp'><t_ramp><t_start> 0.001 </t_start><t_end> 0.002 </t_end><total_steps> 50 </total_steps></t_ramp></motion>"
    refuse(write_input(tmp_path, motion=ramp), metal, SettingError, "TemperatureRamp.*run the ramp without petdos")


def test_temperature_that_changes_all_the_same(tmp_path: Path, metal, capsys) -> None:
    """What changes a temperature behind everybody's back is refused, sample by sample, and ends the run."""
    path = write_input(tmp_path)
    with loaded(path) as simulation:
        attach(simulation, metal, "run.zarr", every=4, max_failed=3)
        At(simulation, 10, lambda: setattr(simulation.syslist[0].ensemble, "temp", 0.004))
        simulation.run()
    trace = Trace.open("run.zarr", "r")
    assert trace.skipped == {"the temperature of the ensemble has changed": 3}
    assert set(trace.temperature_K.tolist()) == set(LADDER)
    assert "the temperature of the ensemble has changed from" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beads": 2}, "beads = 1, got 2"),
        ({"temperatures": (400.0, 520.0, 677.0)}, "temperatures_K"),
        ({"ensemble": "npt"}, "ensemble = nvt, got npt"),
    ],
)
def test_trace_of_another_simulation(tmp_path: Path, metal, changes: dict, message: str) -> None:
    run(write_input(tmp_path, steps=8), metal)
    path = write_input(tmp_path, **changes)
    path.write_text(path.read_text().replace("<total_steps>", "<step> 8 </step><total_steps>"))
    refuse(path, metal, TraceError, message)


def test_trace_of_other_structures(tmp_path: Path, metal) -> None:
    """The same setup with another seed: the structures at the checkpoint's step tell."""
    run(write_input(tmp_path, steps=8), metal)
    path = write_input(tmp_path)
    text = path.read_text().replace("<total_steps>", "<step> 8 </step><total_steps>")
    path.write_text(text)
    refuse(path, metal, TraceError, "replica 0 at step 8 has another structure")


def test_trace_with_samples_is_never_begun_again(tmp_path: Path, metal) -> None:
    path = write_input(tmp_path, steps=8)
    run(path, metal)
    refuse(path, metal, TraceError, "holds 6 samples, but the simulation starts at step 0; go on with RESTART")
    assert len(Trace.open("run.zarr", "r")) == 6


def test_trace_of_another_model(tmp_path: Path, metal, model) -> None:
    run(write_input(tmp_path, steps=8), metal)
    path = write_input(tmp_path)
    path.write_text(path.read_text().replace("<total_steps>", "<step> 8 </step><total_steps>"))
    refuse(path, model, TraceError, "trace of another model")


def test_unsupported_version(tmp_path: Path, metal, monkeypatch) -> None:
    path = write_input(tmp_path)
    monkeypatch.setattr("ipi.__version__", "4.0.0")
    refuse(
        path,
        metal,
        SettingError,
        r"got i-PI 4.0.0, expected 3.3.x \(tested: 3.3.1\); install one with: pip install ipi==3.3.1",
    )


def test_left_over_exit_file(tmp_path: Path, metal, capsys) -> None:
    path = write_input(tmp_path)
    with loaded(path) as simulation:
        Path("EXIT").touch()
        attach(simulation, metal, "run.zarr", every=4)
        assert "there is a file EXIT in this folder" in capsys.readouterr().out
        Path("EXIT").unlink()


def test_bias_is_reported(tmp_path: Path, metal, capsys) -> None:
    path = write_input(tmp_path, bias="<bias><force forcefield='emt'/></bias>")
    with loaded(path) as simulation:
        attach(simulation, metal, "run.zarr", every=4)
    assert "there is a bias potential" in capsys.readouterr().out


def test_extrapolation_is_reported(tmp_path: Path, guarded, capsys) -> None:
    """Two beads of an aluminium that is squeezed to half its volume: said once, with the grade of their mean."""
    path = write_input(tmp_path, steps=8, beads=2, atoms=rattled_aluminium(1, 0.5), temperatures=(400.0,))
    run(path, guarded)
    grades = [guarded.extrapolation_grade(sample) for sample in Trace.open("run.zarr", "r")]
    assert len(grades) == 2 and min(grades) > 2
    said = [line for line in capsys.readouterr().out.splitlines() if "far outside its training set" in line]
    assert (
        len(said) == 1
        and f"step 4 of replica 0 is far outside its training set (extrapolation grade {grades[0]:.1f}" in said[0]
    )


def test_rounded_numbers_of_a_checkpoint_are_the_same_simulation() -> None:
    """RESTART keeps nine digits."""
    exact = _ipi_state.Setup("Al8", 1, "npt", (500.0, 530.05123456789), (0.1, 0.0), 2.0)
    rounded = _ipi_state.Setup("Al8", 1, "npt", (500.00000000000006, 530.051235), (0.10000000013, 1e-17), 2.0000000001)
    known = json.loads(json.dumps(exact.metadata()))
    assert rounded.agreed("x", known, 2.0) == exact
    with pytest.raises(TraceError, match="pressures_GPa"):
        _ipi_state.Setup("Al8", 1, "npt", exact.temperatures_K, (0.1, 0.001), 2.0).agreed("x", known, 2.0)
