"""Faults and bad input, as a user meets them: one line that says what to do, and nothing accepted is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms
from helpers.kill_campaign import rows
from helpers.models import spoil_species

from petdos_md.base.errors import TraceError
from petdos_md.cli.main import main
from petdos_md.engines.checkpoint import Checkpoint, RunState
from petdos_md.models.files import readout_path
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

HERE = Path(__file__).parent
PETDOS = str(Path(sys.executable).with_name("petdos"))


def fails(capsys, *arguments: str | Path) -> str:
    """Run a command that must fail with one line; returns the line."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if "from step" not in line and "C_el =" not in line and "no result yet" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("petdos: error: ")
    return lines[0].removeprefix("petdos: error: ")


@pytest.fixture
def structure(tmp_path: Path) -> Path:
    return write(tmp_path, ase.build.bulk("Al", cubic=True))


def write(folder: Path, atoms: Atoms) -> Path:
    path = folder / f"{atoms.get_chemical_formula() or 'none'}.traj"
    ase.io.write(path, atoms)
    return path


def md(structure: Path, model: Path | str, output: Path, steps: int = 8, temperature: float | str = 300) -> list[str]:
    common = ["--steps", str(steps), "--every", "2", "--equilibrate", "0", "--seed", "1", "-o", str(output)]
    return ["md", str(structure), "--potential", "emt", "--dos", str(model), "--temperature", str(temperature), *common]


def run_eval(structure: Path, model: Path | str, output: Path) -> list[str]:
    return ["rerun", "--dos", str(model), str(structure), "--temperature", "300", "-o", str(output)]


COMMANDS = pytest.mark.parametrize("command", [md, run_eval])


class TestStructures:
    @COMMANDS
    def test_unknown_element(self, command, metal_path, tmp_path: Path, capsys) -> None:
        path = write(tmp_path, ase.build.bulk("Cu", cubic=True))
        message = fails(capsys, *command(path, metal_path, tmp_path / "o.zarr"))
        assert "element Cu is unknown to metal, which knows Mg Al Si" in message

    @COMMANDS
    def test_no_electrons(self, command, checkpoints, tmp_path: Path, capsys) -> None:
        export = ["export", str(checkpoints[0]), "--grid-start", "-12", "-o", str(tmp_path / "m.pt")]
        assert main([*export, "--electrons", "Al=3"]) == 0
        path = write(tmp_path, ase.build.bulk("Si", cubic=True))
        message = fails(capsys, *command(path, tmp_path / "m.pt", tmp_path / "o.zarr"))
        assert "no number of valence electrons is known for Si" in message and "electrons" in message
        if command is run_eval:  # and what the message says helps
            arguments = command(path, tmp_path / "m.pt", tmp_path / "o.zarr")
            assert main([*arguments, "--electrons", "Si=4"]) == 0
            assert Trace.open(tmp_path / "o.zarr", "r").n_electrons.tolist() == [32.0]

    @COMMANDS
    def test_no_atoms(self, command, metal_path, tmp_path: Path, capsys) -> None:
        message = fails(
            capsys, *command(write(tmp_path, Atoms(cell=[4, 4, 4], pbc=True)), metal_path, tmp_path / "o.zarr")
        )
        assert "the structure has no atoms" in message

    def test_positions_with_nan(self, metal_path, tmp_path: Path, capsys) -> None:
        atoms = ase.build.bulk("Al", cubic=True)
        atoms.positions[2, 0] = np.nan
        path = write(tmp_path, atoms)
        message = fails(capsys, *md(path, metal_path, tmp_path / "o.zarr"))
        assert message == f"{path}: its positions or cell are not finite (NaN or infinite); give another structure"

    @COMMANDS
    def test_unreadable(self, command, metal_path, tmp_path: Path, capsys) -> None:
        (tmp_path / "bad.xyz").write_text("3\nnonsense\nAl 0 0\n")
        assert "frame 0 is cut: 1 of its 3 atoms are there" in fails(
            capsys, *command(tmp_path / "bad.xyz", metal_path, tmp_path / "o.zarr")
        )
        assert "no such file" in fails(capsys, *command(tmp_path / "none.xyz", metal_path, tmp_path / "o.zarr"))


class TestTemperatures:
    @pytest.mark.parametrize("value", ["0", "-300", "nan", "inf"])
    def test_not_positive(self, value: str, structure, metal_path, tmp_path: Path, capsys) -> None:
        arguments = md(structure, metal_path, tmp_path / "o.zarr", temperature=value)
        at = arguments.index("--temperature")
        arguments[at : at + 2] = [f"--temperature={value}"]
        assert f"got a temperature of {value} K, expected one or more positive ones" in fails(capsys, *arguments)
        arguments = ["rerun", "--dos", metal_path, structure, f"--temperature={value}", "-o", tmp_path / "o.zarr"]
        assert f"got a temperature of {value} K, expected a positive one" in fails(capsys, *arguments)
        assert not (tmp_path / "o.zarr").exists()

    def test_missing(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        message = fails(capsys, "rerun", "--dos", metal_path, structure, "-o", tmp_path / "o.zarr")
        assert "frame 0 does not give the temperature of its ensemble; give --temperature" in message
        assert not (tmp_path / "o.zarr").exists()
        with pytest.raises(SystemExit):
            main(["md", str(structure), "--potential", "emt", "--dos", str(metal_path), "--steps", "1", "-o", "x.zarr"])
        assert "the following arguments are required: --temperature" in capsys.readouterr().err


class TestModelFiles:
    @pytest.fixture
    def copy(self, metal_path: Path, tmp_path: Path) -> Path:
        """A model of one's own to spoil."""
        for path in (metal_path, readout_path(metal_path)):
            shutil.copy(path, tmp_path / path.name)
        return tmp_path / metal_path.name

    def told(self, model: Path | str, structure, tmp_path: Path, capsys) -> str:
        messages = {
            fails(capsys, *run_eval(structure, model, tmp_path / "o.zarr")),
            fails(capsys, *md(structure, model, tmp_path / "o.zarr")),
            fails(capsys, "info", model),
        }
        assert len(messages) == 1 and not (tmp_path / "o.zarr").exists()
        return messages.pop()

    def test_truncated(self, copy: Path, structure, tmp_path: Path, capsys) -> None:
        copy.write_bytes(copy.read_bytes()[:-1000])
        assert f"{copy}: truncated or not a model file" in self.told(copy, structure, tmp_path, capsys)

    def test_foreign(self, structure, tmp_path: Path, capsys) -> None:
        (tmp_path / "x.pt").write_text("not a model")
        assert "truncated or not a model file; expected a .pt written by `petdos export`" in self.told(
            tmp_path / "x.pt", structure, tmp_path, capsys
        )
        np.savez(tmp_path / "y.npz", a=1)
        os.rename(tmp_path / "y.npz", tmp_path / "y.pt")
        assert "a zip archive but no model" in self.told(tmp_path / "y.pt", structure, tmp_path, capsys)

    def test_checkpoint(self, checkpoints, structure, tmp_path: Path, capsys) -> None:
        message = self.told(checkpoints[0], structure, tmp_path, capsys)
        assert "is a training checkpoint, not a model; run `petdos export" in message
        arguments = md(structure, "x", tmp_path / "o.zarr")
        arguments[arguments.index("emt")] = str(checkpoints[0])
        assert "no such file" in fails(capsys, *arguments)

    def test_readout_of_another_model(self, copy: Path, model_path: Path, structure, tmp_path: Path, capsys) -> None:
        shutil.copy(readout_path(model_path), readout_path(copy))
        message = self.told(copy, structure, tmp_path, capsys)
        assert "belongs to another model than metal.pt; keep the two files of one `petdos export` together" in message

    def test_readout_missing_or_truncated(self, copy: Path, structure, tmp_path: Path, capsys) -> None:
        content = readout_path(copy).read_bytes()
        readout_path(copy).write_bytes(content[: len(content) // 2])
        assert "not a readable readout" in self.told(copy, structure, tmp_path, capsys)
        readout_path(copy).unlink()
        assert "no such readout; it is written beside the model" in self.told(copy, structure, tmp_path, capsys)

    def test_none(self, structure, tmp_path: Path, capsys) -> None:
        for arguments in (
            run_eval(structure, "no-model", tmp_path / "o.zarr"),
            md(structure, "no-model", tmp_path / "o.zarr"),
        ):
            assert "no-model: no such file and no shipped model" in fails(capsys, *arguments)
        assert "no-model: neither a model nor a trace" in fails(capsys, "info", "no-model")

    def test_potentials(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        for name, message in (
            ("nothing", "nothing: no such potential; expected emt, a shipped model"),
            (str(structure), "truncated or not a model file"),
        ):
            arguments = md(structure, metal_path, tmp_path / "o.zarr")
            arguments[arguments.index("emt")] = name
            assert message in fails(capsys, *arguments)

    def test_mu_outside_the_grid(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        """More electrons than states: the run is finished and kept, and told what is wrong."""
        arguments = [*md(structure, metal_path, tmp_path / "o.zarr"), "--electrons", "Al=300"]
        message = fails(capsys, *arguments)
        assert "the run is complete and its samples are in" in message and "electrons" in message
        assert len(Trace.open(tmp_path / "o.zarr", "r")) == 5
        assert "electrons" in fails(capsys, "analyze", tmp_path / "o.zarr", "-o", tmp_path / "out")


class TestTraces:
    def test_of_another_model(self, structure, metal_path, model_path, tmp_path: Path, capsys) -> None:
        assert main(run_eval(structure, metal_path, tmp_path / "o.zarr")) == 0
        before = rows(tmp_path / "o.zarr")
        assert "trace of another model" in fails(
            capsys, *run_eval(structure, model_path, tmp_path / "o.zarr"), "--resume"
        )
        message = fails(capsys, "analyze", tmp_path / "o.zarr", "--model", model_path, "-o", tmp_path / "out")
        assert "model" in message
        assert rows(tmp_path / "o.zarr") == before

    def test_of_another_grid(self, structure, checkpoints, metal_path, tmp_path: Path, capsys) -> None:
        export = ["export", str(checkpoints[0]), "--electrons", "Al=3,Mg=2,Si=4"]
        for start in ("-12", "-11"):
            assert main([*export, "--grid-start", start, "-o", f"{tmp_path}/m{start}.pt"]) == 0
        assert main(run_eval(structure, tmp_path / "m-12.pt", tmp_path / "o.zarr")) == 0
        message = fails(capsys, *run_eval(structure, tmp_path / "m-11.pt", tmp_path / "o.zarr"), "--resume")
        assert "trace of another" in message

    def test_not_a_trace(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        (tmp_path / "o.zarr").mkdir()
        (tmp_path / "o.zarr" / "file").write_text("mine")
        for arguments in (
            [*run_eval(structure, metal_path, tmp_path / "o.zarr"), "--resume"],
            ["analyze", tmp_path / "o.zarr", "-o", tmp_path / "out"],
            ["info", tmp_path / "o.zarr"],
        ):
            assert str(tmp_path / "o.zarr") in fails(capsys, *arguments)
        assert (tmp_path / "o.zarr" / "file").read_text() == "mine"
        assert "none.zarr" in fails(capsys, "analyze", tmp_path / "none.zarr", "-o", tmp_path / "out")

    def test_without_samples(self, metal, tmp_path: Path, capsys) -> None:
        Trace.open(tmp_path / "o.zarr", model=metal).close()
        assert "no samples" in fails(capsys, "analyze", tmp_path / "o.zarr", "-o", tmp_path / "out")

    def test_two_writers(self, structure, metal_path, metal, tmp_path: Path, capsys) -> None:
        """While one `petdos md` runs, another one and a `petdos rerun` into the same trace are refused; the first is not disturbed."""
        first = subprocess.Popen([PETDOS, *md(structure, metal_path, tmp_path / "o.zarr", steps=600)])
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until and not rows(tmp_path / "o.zarr"):
                time.sleep(0.1)
            message = fails(capsys, *md(structure, metal_path, tmp_path / "o.zarr", steps=600), "--resume")
            assert "another `petdos md` is running on it" in message
            other = write(tmp_path, ase.build.bulk("Si"))
            assert first.poll() is None
            message = fails(capsys, *run_eval(other, metal_path, tmp_path / "o.zarr"), "--resume")
            assert "its samples are not of Si2.traj" in message
            with pytest.raises(TraceError, match=r"o\.zarr"):
                Trace.open(tmp_path / "o.zarr").append(metal.evaluate(ase.build.bulk("Al")), step=-1, temperature_K=300)
            assert first.wait(timeout=120) == 0
        finally:
            first.kill()
        assert len(rows(tmp_path / "o.zarr")) == 301

    @COMMANDS
    def test_disk_full(self, command, metal_path, disk: Path, tmp_path: Path) -> None:
        """One line; with room again, the same command with --resume ends as if nothing had happened."""
        frames = []
        for seed in range(120):
            frames.append(ase.build.bulk("Al", cubic=True))
            frames[-1].rattle(0.05, seed=seed)
        ase.io.write(tmp_path / "Al.traj", frames)
        more = ["--resume"] if command is run_eval else ["--resume", "--checkpoint-every", "20"]
        steps = {} if command is run_eval else {"steps": 238}

        arguments = [*command(tmp_path / "Al.traj", metal_path, disk / "o.zarr", **steps), *more]

        def free() -> int:
            status = os.statvfs(disk)
            return status.f_bavail * status.f_frsize

        empty = free()
        assert main(arguments) == 0
        needed = empty - free()
        expected = rows(disk / "o.zarr")
        assert len(expected) == 120
        for path in disk.iterdir():
            shutil.rmtree(path)
        (disk / "ballast").write_bytes(bytes(empty - needed + 4096))
        done = subprocess.run([PETDOS, *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if "from step" not in line and "starts anew" not in line]
        assert len(lines) == 1 and lines[0].startswith("petdos: error: ")
        assert "o.zarr" in lines[0] and "No space left on device" in lines[0]
        kept = rows(disk / "o.zarr")
        assert 0 < len(kept) < 120
        (disk / "ballast").unlink()
        assert main(arguments) == 0
        found = rows(disk / "o.zarr")
        assert found.keys() == expected.keys() and all(found[key] == kept[key] for key in kept)
        if command is md:
            assert found == expected

    def test_disk_full_at_a_checkpoint(self, disk: Path) -> None:
        """The last checkpoint stays, and nothing is left of the one that was cut off."""
        state = RunState(disk / "o.zarr")
        state.folder.mkdir()
        rng = np.random.default_rng(1)
        first, second = (
            Checkpoint("sample", n, {"positions": rng.random((n, 3))}, rng.bit_generator.state) for n in (1000, 200_000)
        )
        state.save(0, first)
        with pytest.raises(TraceError) as caught:
            state.save(0, second)
        path = state.folder / "replica000.npz"
        assert str(caught.value) == f"{path}: cannot write: No space left on device; free space on that disk and resume"
        assert [p.name for p in state.folder.iterdir()] == [path.name]
        kept = state.load(0)
        assert kept is not None and kept.n_steps == 1000 and kept.random == first.random
        np.testing.assert_array_equal(kept.arrays["positions"], first.arrays["positions"])


class TestPredictions:
    def test_nan_is_refused_and_counted(self, metal_path, tmp_path: Path, monkeypatch, capsys) -> None:
        """A model that knows no magnesium but does not say so."""
        load = DOSModel.load.__func__

        def load_spoilt(cls, *args, **kwargs):
            model = load(cls, *args, **kwargs)
            spoil_species(model, "Mg")
            return model

        monkeypatch.setattr(DOSModel, "load", classmethod(load_spoilt))
        frames = [ase.build.bulk("Al", cubic=True) for _ in range(6)]
        frames[2].symbols[0] = frames[5].symbols[0] = "Mg"
        ase.io.write(tmp_path / "t.traj", frames)
        assert main(run_eval(tmp_path / "t.traj", metal_path, tmp_path / "o.zarr")) == 0
        assert "4 samples of 6 frames, 2 skipped" in capsys.readouterr().out
        trace = Trace.open(tmp_path / "o.zarr", "r")
        assert trace.step.tolist() == [0, 1, 3, 4] and trace.skipped == {"prediction is not finite": 2}
        assert main(["analyze", str(tmp_path / "o.zarr"), "-o", str(tmp_path / "out")]) == 0
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["n_skipped"] == 2
        # dynamics go on to their end although no frame can be sampled, and say so
        path = write(tmp_path, frames[2])
        message = fails(capsys, *md(path, metal_path, tmp_path / "p.zarr"))
        assert "the potential emt cannot evaluate Al3Mg (NotImplementedError: No EMT-potential for Mg)" in message
        from ase.calculators.lj import LennardJones

        from petdos_md.engines import potentials

        lj = potentials.Potential("lj", lambda: LennardJones(sigma=2.5, epsilon=0.1))
        monkeypatch.setattr(potentials.Potential, "find", classmethod(lambda *_: lj))
        message = fails(capsys, *md(path, metal_path, tmp_path / "q.zarr"))
        assert "no samples" in message and Trace.open(tmp_path / "q.zarr", "r").n_skipped == 5


def test_debug_shows_where_an_error_came_from(monkeypatch) -> None:
    from petdos_md.base.errors import ModelError

    monkeypatch.setenv("PETDOS_DEBUG", "1")
    with pytest.raises(ModelError):
        main(["info", "nothing"])
