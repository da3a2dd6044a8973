"""What a user may get wrong is answered in one line, never by a traceback; a bug is called one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import pytest

from petdos_md.cli import info
from petdos_md.cli.main import main
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("analyze {run} -o {out} --burn-in -1", "burn_in=-1 (--burn-in) given, expected a number of steps >= 0"),
        ("levels {run} -o {out} --burn-in -1", "burn_in=-1 (--burn-in) given, expected a number of steps >= 0"),
        ("levels {run} -o {out} --threshold nan", "got --threshold nan, expected the states/eV/atom"),
        ("analyze {run} -o {out} --electronic-temperature 300,900", "need frames of one ensemble, got 300, 600 K"),
        ("analyze {run} -o {out} --electronic-temperature 1:inf:2", "got the temperatures 1:inf:2, expected T1,T2"),
        ("analyze {run} -o {out} --reweight=300,x", "got the temperatures 300,x, expected T1,T2"),
        ("analyze {run} -o {out} --align frames --reference raw", "give reference='fermi' (--reference fermi) with it"),
        ("validate {model} {data} -o {out} --temperature -5", "got a temperature of -5 K, expected positive ones"),
        ("calibrate {model} {data} -o {out}.pt --seed -1", "got the seed -1, expected a number >= 0"),
        ("refine {model} --data {data} -o {out}.pt --weight -1", "got the weight -1, expected 0 or more"),
        ("refine {model} --data {data} --where index=1 -o {out}.pt", "no structures with index=1, none of 4 has index in its info: the split is empty"),
        ("refine {model} --data {data} -o {model}", "is the model itself; give another -o"),
        ("export {checkpoint} --grid-start -12 --grid-step 0 -o {out}.pt", "a positive step"),
        ("export {checkpoint} --grid-start -12 --files {run} -o {out}.pt", "--files is for pet-mad-dos only"),
        ("rerun {data} --dos {model} --temperature 300 --index= -o {out}", "got index '', expected a slice"),
        ("export nothere.ckpt -o {out}.pt", "nothere.ckpt: no such checkpoint; give the path of a .ckpt"),
        ("export {checkpoint} -o {out}.pt", "give --grid-start EV, the first energy of its DOS"),
        ("md {data}@5 --potential emt --dos {model} --temperature 9 --steps 2 -o {out}", "has 4 structures, got number 5; give one from 0 to 3"),
        ("merge --keep-replicas {out} {run} {twin}", "if these are different simulations, leave out replicas='keep' (--keep-replicas)"),
        ("info {out}", "neither a model nor a trace (no such file or folder); give a trace, a .pt file"),
        ("info {folder}", "neither a model nor a trace (a folder without zarr.json); give a trace, a .pt file"),
        ("info {data}", "truncated or not a model file"),
        ("merge {run} {run}", "exists already; remove it or merge into another path"),
        ("merge {out} {run} {run}/", "given twice, expected each trace once"),
        ("merge {out} {folder}", "not a trace (zarr.json is missing)"),
        ("merge {data}/new {run}", "cannot write"),
        ("truncate {run} --replica 0", "got --replica without --step"),
        ("truncate {run} --step -1", "got --step -1, expected the last step to keep, >= 0"),
        ("truncate {run} --step 0 --replica 3", "no samples of replica 3, it has replicas: 0; choose one of these"),
        ("truncate {out} --step 0", "no such trace"),
        ("demo --quick --output {timings}", "expected the wall times of a demo, got something else; remove it"),
        ("ipi {data} --every 4 -o {out}", "--dos is missing"),
        ("md {data} --potential emt --dos {model} --temperature 9 --steps 2 --supercell 0 1 1 -o {out}", "three numbers"),
    ],
)  # fmt: skip
def test_in_one_line(command: str, message: str, checkpoints, metal_path: Path, tmp_path: Path, capsys) -> None:
    model = DOSModel.load(metal_path)
    atoms = ase.build.bulk("Al", cubic=True)
    with Trace.open(tmp_path / "run.zarr", model=model) as trace:
        for step, temperature in ((0, 300.0), (1, 600.0)):
            trace.append(model.evaluate(atoms), step=step, temperature_K=temperature)
    atoms.info["dos"] = model.dos(atoms)
    ase.io.write(tmp_path / "data.xyz", [atoms] * 4, format="extxyz")
    for name in ("folder", "timings"):
        (tmp_path / name).mkdir()
    (tmp_path / "timings" / "timings.json").write_text('{"al": {"300": 3}}')
    shutil.copytree(tmp_path / "run.zarr", tmp_path / "twin.zarr")
    names = {
        "run": "run.zarr",
        "twin": "twin.zarr",
        "data": "data.xyz",
        "out": "out",
        "folder": "folder",
        "timings": "timings",
    }
    places = {name: tmp_path / place for name, place in names.items()}
    arguments = command.format(model=metal_path, checkpoint=checkpoints[0], **places).split()
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("petdos: error: ") and message in line
    assert not list(tmp_path.glob("out*")) and len(Trace.open(tmp_path / "run.zarr", "r")) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["md", "Al.xyz"], "error: the following arguments are required: --potential, --dos, -o/--output, --temperature, --steps; see `petdos md --help`"),
        (["analyze", "", "-o", "out"], "error: argument X.zarr: got an empty name, expected that of a file or folder; see `petdos analyze --help`"),
        (["analyse"], "see `petdos --help`"),
        (["doctor", "--now"], "error: unrecognized arguments: --now; see `petdos --help`"),
    ],
)  # fmt: skip
def test_words_in_one_line(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("petdos: error: ") and line.endswith(expected)


class TestBugs:
    """An exception that nobody expected is no mistake of the user."""

    @pytest.fixture
    def broken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def describe(name: str) -> dict[str, str]:
            return {}[name]

        monkeypatch.setattr(info, "_describe", describe)

    def test_is_called_one(self, broken: None, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["info", "run.zarr"]) == 70
        (line,) = capsys.readouterr().err.splitlines()
        assert (
            line.startswith("petdos: internal error: KeyError: 'run.zarr'; this is a bug") and "PETDOS_DEBUG=1" in line
        )

    def test_is_shown(self, broken: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PETDOS_DEBUG", "1")
        with pytest.raises(KeyError):
            main(["info", "run.zarr"])

    def test_little_memory_is_none(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        import numpy as np

        monkeypatch.setattr(info, "_describe", lambda name: {name: np.ones((2**40, 2**10))})
        assert main(["info", "run.zarr"]) == 2
        assert capsys.readouterr().err.startswith("petdos: error: out of memory")


@pytest.mark.parametrize(
    ("command", "buffered"),
    [(["info", "almgsi-lda"], True), (["completion", "bash"], True), (["completion", "bash"], False)],
)
def test_output_that_nobody_can_take(command: list[str], buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is an error in one line; a reader that went away, as `head` does, is none."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")  # empty is as if it were not set
    petdos = [sys.executable, "-m", "petdos_md", *command]
    with open("/dev/full", "w") as full:
        done = subprocess.run(petdos, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "petdos: error: cannot write: No space left on device; free space on that disk\n"
    with subprocess.Popen(petdos, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
