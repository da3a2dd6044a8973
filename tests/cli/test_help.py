"""What ``petdos`` understands: help, options whose value may be left out, completion in a real bash."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.synthetic import readout, samples, write

from petdos_md.cli.main import GROUPS, command_of, main, make_parser
from petdos_md.models.readout import Readout

PETDOS = str(Path(sys.executable).with_name("petdos"))
COMMANDS = [command_of(module) for modules in GROUPS.values() for module in modules]


def test_every_module_with_a_parser_is_a_command() -> None:
    """The files of the folder are the list that GROUPS must hold."""
    import petdos_md.cli

    folder = Path(petdos_md.cli.__file__).parent
    found = {path.stem.replace("_", "-") for path in folder.glob("*.py") if "def add_parser(" in path.read_text()}
    assert found == set(COMMANDS) and len(COMMANDS) == 21


def test_answers_at_once_without_torch() -> None:
    code = (
        "import sys, petdos_md.cli.main as c\n"
        "try: c.main(['--help'])\nexcept SystemExit: print([m for m in ('torch', 'numpy', 'ase', 'xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    listed = re.findall(r"^  ([a-z-]+) +[A-Z]", done.stdout, re.M)
    assert listed == COMMANDS
    assert re.findall(r"^(\w.*):$", done.stdout, re.M) == [*GROUPS, "options"]


def test_an_analysis_needs_no_torch(tmp_path: Path) -> None:
    """Torch takes longer to import than a small trace to analyze."""
    trace = tmp_path / "run.zarr"
    code = (
        "import sys, petdos_md.cli.main as c\n"
        f"assert c.main(['analyze', {str(trace)!r}, '--model', {str(tmp_path / 'm.pt')!r}, '-o', {str(tmp_path / 'out')!r}]) == 0\n"
        "print([m for m in ('torch', 'metatomic', 'ase', 'scipy.signal', 'scipy.stats') if m in sys.modules])"
    )
    frames = samples(40, seed=1, temperature_K=300.0)
    write(trace, frames)
    weights = readout(members=0)
    (tmp_path / "m.pt").touch()  # only the readout beside it is read
    Readout.save(tmp_path / "m.readout.safetensors", weights.grid, weights.mean_weights, None, weights.fingerprint)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    example = text.split("example:")[1].replace("\\\n", " ").strip().splitlines()
    for line in example:
        words = line.split()
        assert words[:2] == ["petdos", command]
        assert make_parser().parse_args(words[1:]).command == command


def test_the_installed_script() -> None:
    done = subprocess.run([PETDOS, "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("petdos 0.")


class TestOptionalValues:
    """A value that may be left out belongs to its option only after ``=``."""

    @pytest.mark.parametrize(
        ("words", "traces", "denoise", "reweight"),
        [
            ("--denoise X.zarr -o out", ["X.zarr"], "auto", None),
            ("X.zarr -o out --denoise", ["X.zarr"], "auto", None),
            ("X.zarr Y.zarr --denoise -o out", ["X.zarr", "Y.zarr"], "auto", None),
            ("--denoise=network X.zarr -o out", ["X.zarr"], "network", None),
            ("--reweight X.zarr Y.zarr -o out", ["X.zarr", "Y.zarr"], None, "all"),
            ("X.zarr --reweight=300,400 -o out", ["X.zarr"], None, "300,400"),
            ("X.zarr -o out", ["X.zarr"], None, None),
            ("-o out -- --denoise", ["--denoise"], None, None),
        ],
    )
    def test_analyze(self, words: str, traces: list[str], denoise: str | None, reweight: str | None) -> None:
        args = make_parser().parse_args(["analyze", *words.split()])
        assert (args.traces, args.denoise, args.reweight, args.output) == (traces, denoise, reweight, "out")

    def test_levels_are_always_denoised(self) -> None:
        parse = make_parser().parse_args
        assert parse(["levels", "X.zarr", "-o", "out"]).denoise == "auto"
        assert parse(["levels", "--denoise", "X.zarr", "-o", "out"]).denoise == "auto"
        assert parse(["levels", "--denoise=F.safetensors", "X.zarr", "-o", "out"]).denoise == "F.safetensors"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("X.zarr --denoise=", "argument --denoise: expected a value after ="),
            ("X.zarr --denoise network", "got --denoise network; join a value by =, as in --denoise=network"),
            ("X.zarr --reweight 300 400", "got --reweight 300; join a value by =, as in --reweight=300"),
        ],
    )
    def test_mistakes(self, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stop:
            make_parser().parse_args(["analyze", *words.split(), "-o", "out"])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err.splitlines()[-1]

    @pytest.mark.parametrize(
        "words", ["--denoise network X.zarr", "--denoise F.safetensors X.zarr", "--reweight 300 X.zarr"]
    )
    def test_taken_for_a_trace(self, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        option, value, _ = words.split()
        assert main(["analyze", *words.split(), "-o", "out"]) == 2
        message = f"petdos: error: {value}: no such trace; join a value of {option} by =, as in {option}={value}\n"
        assert capsys.readouterr().err == message

    def test_no_abbreviations(self) -> None:
        """A script that works today must not fail when an option is added."""
        with pytest.raises(SystemExit):
            make_parser().parse_args(["analyze", "X.zarr", "-o", "out", "--carr"])


class TestCompletion:
    def script(self, shell: str, capsys: pytest.CaptureFixture[str]) -> str:
        assert main(["completion", shell]) == 0
        return capsys.readouterr().out

    @pytest.mark.parametrize(
        ("typed", "offered"),
        [
            ("tr", ["truncate"]),
            ("completion ", ["bash", "tcsh", "zsh"]),
            ("analyze --ali", ["--align"]),
            ("analyze --align ", ["average", "frames"]),
            ("truncate ", ["run.zarr"]),
            ("analyze run.zarr -o ru", ["run.zarr"]),
            ("md Al", ["Al.xyz"]),
            ("md Al.xyz --dos mod", ["model.pt"]),
            ("lammps b", ["build"]),
        ],
    )
    def test_in_bash(self, typed: str, offered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Folders where a trace is expected, files where a file is."""
        (tmp_path / "script").write_text(self.script("bash", capsys))
        work = tmp_path / "work"
        (work / "run.zarr").mkdir(parents=True)
        for name in ("Al.xyz", "model.pt"):
            (work / name).touch()
        words = ["petdos", *typed.split(" ")]
        code = 'source ../script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_petdos; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", code, "bash", *words], cwd=work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert sorted(done.stdout.split()) == offered

    @pytest.mark.parametrize(("shell", "first"), [("zsh", "#compdef petdos"), ("tcsh", "complete petdos")])
    def test_other_shells(self, shell: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Every command and every long option is in the script."""
        script = self.script(shell, capsys)
        assert first in script
        for command in COMMANDS:
            assert command in script
        for option in ("--keep-replicas", "--burn-in", "--grid-start"):
            assert option.lstrip("-") in script
