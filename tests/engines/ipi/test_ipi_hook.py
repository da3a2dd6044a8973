"""Stock i-PI with the hook, and the launcher: kills of every kind, drivers over sockets, and the private door."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.ipi_runs import assert_complete, assert_true, loaded, truth, write_input
from ipi.engine.outputs import CheckpointOutput
from ipi.engine.simulation import Simulation
from ipi.utils.softexit import Softexit

from petdos_md.analysis.analyze import analyze
from petdos_md.base.errors import ModelError, SettingError, TraceError
from petdos_md.cli.main import main
from petdos_md.engines.ipi import hook
from petdos_md.traces.trace import Trace

LADDER = (400.0, 520.0, 676.0)
IPI = Path(sys.executable).with_name("i-pi")
PETDOS = Path(sys.executable).with_name("petdos")


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Run:
    """A simulation in a process of its own."""

    def __init__(self, *command: object) -> None:
        self.rows = n_rows()
        with open("log", "ab") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=subprocess.STDOUT)

    def wait_for(self, rows: int, timeout_s: float = 600.0) -> None:
        """Until i-PI has written so many more rows of properties, one every other step, or has ended."""
        start = time.monotonic()
        while n_rows() < self.rows + rows and self.process.poll() is None:
            assert time.monotonic() - start < timeout_s, Path("log").read_text()[-2000:]
            time.sleep(0.01)

    def end(self, sign: int | None = None, timeout_s: float = 600.0) -> int:
        if sign is not None:
            self.process.send_signal(sign)
        try:
            return self.process.wait(timeout_s)
        finally:
            self.process.kill()


def n_rows() -> int:
    path = Path("0_run.out")
    return path.read_text().count("\n") if path.exists() else 0


def step_of(path: str | Path) -> int:
    match = re.search(r"<step>\s*(\d+)\s*</step>", Path(path).read_text())
    assert match
    return int(match[1])


def test_killed_in_every_way(tmp_path: Path, metal, metal_path: Path, monkeypatch) -> None:
    """SIGKILL and a checkpoint, SIGTERM, EXIT, the wall clock, a new folder: in the end every sample once, and the right one."""
    old, new = tmp_path / "old", tmp_path / "new"
    element = hook.snippet(str(metal_path), 4, "run.zarr")
    steps = 1200
    path = write_input(old, hook=element, steps=steps, checkpoint=50, safe_stride=7, threading=True)
    monkeypatch.chdir(old)

    killed = Run(IPI, path)
    killed.wait_for(60)
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL and not Path("RESTART").exists()
    # The last checkpoint may be half written; the one before is whole, and i-PI is well past it.
    checkpoint = sorted(Path(".").glob("run.chk_*"), key=lambda p: int(p.name.split("_")[1]))[-2]
    resumed_at = step_of(checkpoint)
    assert_complete_up_to("run.zarr", resumed_at)

    stopped = Run(IPI, checkpoint)
    stopped.wait_for(30)
    assert stopped.end(signal.SIGTERM) == 0
    resumed_at = step_of("RESTART")
    assert resumed_at % 7 == 0
    assert_complete_up_to("run.zarr", resumed_at)

    left = Run(IPI, "RESTART")
    left.wait_for(30)
    Path("EXIT").touch()
    assert left.end() == 0
    Path("EXIT").unlink()
    assert_complete_up_to("run.zarr", step_of("RESTART"))

    text = Path("RESTART").read_text()
    Path("RESTART").write_text(
        re.sub(r"<total_time>[^<]*</total_time>", "", text).replace("</prng>", "</prng><total_time> 1 </total_time>")
    )
    assert Run(IPI, "RESTART").end() == 0
    resumed_at = step_of("RESTART")
    assert resumed_at < steps
    assert_complete_up_to("run.zarr", resumed_at)
    before = len(Trace.open("run.zarr", "r"))

    new.mkdir()
    for name in ("RESTART", "init.xyz"):
        shutil.copy(name, new)
    monkeypatch.chdir(new)
    end = resumed_at + 40
    text = re.sub(r"<total_time>[^<]*</total_time>", "", Path("RESTART").read_text())
    Path("RESTART").write_text(re.sub(r"<total_steps>[^<]*</total_steps>", f"<total_steps>{end}</total_steps>", text))
    assert Run(IPI, "RESTART").end() == 0, Path("log").read_text()[-3000:]
    assert len(Trace.open(old / "run.zarr", "r")) == before

    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, LADDER, 4, end - end % 4)
    found = truth(old) | truth(new)
    assert_true(trace, metal, found)
    # The average is that of i-PI's own trajectory, sorted by the temperature of the ensemble.
    data = analyze(trace, metal, reference="raw")
    for i, temperature in enumerate(LADDER):
        frames = [v["beads"][0] for (step, t), v in found.items() if t == temperature and step and step % 4 == 0]
        features = [sample.features for sample in metal.evaluate(frames)]
        reference = metal.readout.dos(np.mean(features, axis=0, dtype=np.float64))
        np.testing.assert_allclose(data["dos"].values[i], reference, rtol=0, atol=1e-5 * reference.max())


def assert_complete_up_to(path: str, step: int) -> None:
    trace = Trace.open(path, "r")
    for slot in range(3):
        mine = trace.step[(trace.replica == slot) & (trace.step <= step)]
        np.testing.assert_array_equal(np.sort(mine), np.arange(4, step + 1, 4))


def test_launcher(tmp_path: Path, metal, metal_path: Path, capsys) -> None:
    """`petdos ipi input.xml`, then RESTART: the table at the end, and every sample once."""
    write_input(tmp_path, steps=24)
    command = ["ipi", "--dos", str(metal_path), "--every", "4", "-o", "run.zarr"]
    assert main([*command, "input.xml"]) == 0
    assert "samples: run.zarr" in capsys.readouterr().out
    text = Path("RESTART").read_text()
    Path("RESTART").write_text(re.sub(r"<total_steps>\s*24", "<total_steps> 40", text))
    assert main([*command, "RESTART"]) == 0
    trace = Trace.open("run.zarr", "r")
    assert_complete(trace, LADDER, 4, 40)
    assert_true(trace, metal, truth(tmp_path))
    capsys.readouterr()
    assert main([*command, "input.xml"]) == 2
    error = capsys.readouterr().err
    assert "holds 30 samples, but the simulation starts at step 0" in error
    assert not list(tmp_path.glob("#*run.out*"))  # refused before i-PI moved its own files away


def test_launcher_on_a_full_disk(tmp_path: Path, metal_path: Path, disk: Path) -> None:
    """It ends by itself, with one line and a status that is not 0; with room again, nothing is missing."""
    path = write_input(tmp_path, steps=24, checkpoint=2)
    (disk / "ballast").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 20 * 4096))
    command = [PETDOS, "ipi", path, "--dos", metal_path, "--every", "2", "-o", disk / "run.zarr"]
    assert Run(*command).end() == 2
    log = Path("log").read_text()
    told = "cannot write: No space left on device; free space on that disk; "
    assert log.count(f"petdos: error: {disk}/run.zarr: {told}") == log.count("petdos: error: ") == 1
    assert "from a checkpoint up to step 0, the input (failure 10 of 10 in a row)" in log and "11 of 10" not in log
    assert "Traceback" not in log and len(Trace.open(disk / "run.zarr", "r")) == 0
    (disk / "ballast").unlink()
    assert Run(*command).end() == 0, Path("log").read_text()[-3000:]
    assert_complete(Trace.open(disk / "run.zarr", "r"), LADDER, 2, 24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["input.xml", "--every", "4", "-o", "x.zarr"], "--dos is missing"),
        (["--dos", "almgsi-lda", "--every", "4", "-o", "x.zarr"], "no input given"),
        (["none.xml", "--dos", "almgsi-lda", "--every", "4", "-o", "x.zarr"], "none.xml: no such file"),
        (["broken.xml", "--dos", "METAL", "--every", "4", "-o", "x.zarr"], "broken.xml: i-PI cannot start it"),
        (["hooked.xml", "--dos", "METAL", "--every", "4", "-o", "x.zarr"], "names petdos_observer.py itself"),
        (["input.xml", "--dos", "METAL", "--every", "0", "-o", "x.zarr"], "got every = 0"),
    ],
)
def test_launcher_refuses(tmp_path: Path, metal_path: Path, arguments: list[str], message: str, capsys) -> None:
    path = write_input(tmp_path, hook=hook.snippet(str(metal_path), 4, "x.zarr"))
    path.rename("hooked.xml")
    path = write_input(tmp_path)
    Path("broken.xml").write_text(path.read_text().replace("<total_steps>", "<total_stepps>"))
    capsys.readouterr()
    assert main(["ipi", *(a.replace("METAL", str(metal_path)) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_what_the_command_prints_works(metal_path: Path, tmp_path: Path, capsys) -> None:
    """The folder of drivers, and an element that i-PI understands."""
    assert main(["ipi", "--drivers"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert {p.name for p in folder.glob("*.py")} == {
        f"petdos_{name}.py" for name in ("observer", "potential", "features", "electrons")
    }
    assert main(["ipi", "--snippet", "--dos", str(metal_path), "--every", "4", "-o", "my.zarr", "--burn-in", "8"]) == 0
    path = write_input(tmp_path, hook=capsys.readouterr().out, steps=12)
    with loaded(path) as simulation:
        simulation.run()
        pars = simulation.fflist["petdos"].pars
        assert pars["previous"] == str(tmp_path / "my.zarr") and pars["every"] == 4
        simulation.outputs[0].close()
    assert_complete(Trace.open("my.zarr", "r"), LADDER, 4, 12, first=8)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("dos: nowhere.pt, every: 4, output: x.zarr", ModelError, "nowhere.pt"),
        ("dos: METAL, every: 0, output: x.zarr", SettingError, "got every = 0"),
        ("dos: METAL, every: 4.5, output: x.zarr", SettingError, "got every = 4.5"),
        ("dos: METAL, every: 4", SettingError, "'output' is missing"),
        ("dos: METAL, evry: 4, every: 4, output: x.zarr", SettingError, "got an unknown one, 'evry'"),
        ("dos: METAL, every: 4, output: full.zarr", TraceError, "holds 1 samples"),
    ],
)
def test_wrong_parameters_in_the_input(
    tmp_path: Path, metal, metal_path: Path, aluminium, settings: str, error: type, message: str
) -> None:
    with Trace.open("full.zarr", model=metal) as trace:
        trace.append(metal.evaluate(aluminium), temperature_K=300.0)
    element = hook.snippet("D", 4, "x.zarr")
    element = re.sub(r"\{.*\}", "{" + settings.replace("METAL", str(metal_path)) + "}", element)
    with pytest.raises(error, match=message), loaded(write_input(tmp_path, hook=element)):
        pass


def test_the_observer_is_no_potential(tmp_path: Path, metal_path: Path) -> None:
    path = write_input(tmp_path, hook=hook.snippet(str(metal_path), 4, "x.zarr"), forces="<force forcefield='petdos'/>")
    with pytest.raises(SettingError, match=r"petdos_observer.py is no potential"), loaded(path):
        pass


def test_unsupported_version(metal_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ipi.__version__", "4.0.0")
    with pytest.raises(SettingError, match=r"got i-PI 4\.0\.0"):
        hook.ObserverDriver(dos=str(metal_path), every=4, output="x.zarr")


def test_the_door_is_where_it_was() -> None:
    """Everything of i-PI that the adapter counts on and that i-PI does not promise. If this fails, read the release notes."""
    original = getattr(Simulation.bind, "petdos_wraps", Simulation.bind)
    assert str(inspect.signature(original)) == "(self, read_only=False)"
    source = inspect.getsource(original)
    assert "self.outputs = []" in source and 'self.chk = eoutputs.CheckpointOutput("RESTART", 1, True, 0)' in source
    # In threads, i-PI asks each output in turn whether it is active before it hands the first of them to a thread.
    outputs = inspect.getsource(Simulation.write_outputs)
    assert "self.executor.submit(o.write).result for o in self.outputs if o.active()" in outputs
    assert "writes = [o.write for o in self.outputs]" in outputs
    loop = inspect.getsource(Simulation._run_loop)
    run_step, write, store = (
        loop.index(s)
        for s in (
            "self.run_step(self.step)",
            "if write_outputs:\n",
            "self.chk.store()\n                    self.chk.status.step",
        )
    )
    assert run_step < write < store
    assert "with softexit.lock:" in loop
    assert str(inspect.signature(CheckpointOutput.write)) == "(self, store=True)"
    cleanup = inspect.getsource(Softexit.cleanup)
    assert "if not self.lock.acquire(blocking=False):\n            return" in cleanup
    assert list(inspect.signature(Softexit.cleanup).parameters) == ["self", "status", "message"]
    load = inspect.signature(Simulation.load_from_xml).parameters
    assert "post_init_hook" in load and "request_banner" in load
    from ipi.engine.smotion import ReplicaExchange

    assert "self.repindex[i], self.repindex[j] = (" in inspect.getsource(ReplicaExchange.step)


def test_stock_program_reports_a_wrong_model(tmp_path: Path) -> None:
    """`i-pi input.xml` ends at once, with the reason in its last line."""
    path = write_input(tmp_path, hook=hook.snippet("nowhere.pt", 4, "x.zarr"))
    done = subprocess.run([IPI, path], capture_output=True, text=True, timeout=600)
    assert done.returncode != 0 and "nowhere.pt" in done.stderr.strip().splitlines()[-1]
    assert not os.path.exists("x.zarr")
