"""The command ``petdos``: what users type, and what they get."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from kill_campaign import rows

from petdos_md import doctor
from petdos_md.analysis import analyze
from petdos_md.cli import main
from petdos_md.model import DOSModel
from petdos_md.trace import Trace

PETDOS = str(Path(sys.executable).with_name("petdos"))
COMMANDS = ["demo", "md", "ipi", "eval", "analyze", "levels", "evaluate", "calibrate", "export", "info", "doctor"]


@pytest.fixture
def structure(tmp_path: Path) -> str:
    ase.io.write(tmp_path / "Al.xyz", ase.build.bulk("Al", cubic=True))
    return str(tmp_path / "Al.xyz")


def md(structure: str, model: Path, output: Path, *more: str) -> list[str]:
    arguments = ["md", structure, "--potential", "emt", "--dos", str(model), "--temperature", "300", "600"]
    return [*arguments, "--steps", "40", "--every", "4", "--equilibrate", "8", "--seed", "5", "-o", str(output), *more]


class TestHelp:
    def test_answers_at_once_without_torch(self) -> None:
        code = (
            "import sys, petdos_md.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False"
        for command in COMMANDS:
            assert f"    {command} " in done.stdout or f"    {command}\n" in done.stdout

    @pytest.mark.parametrize("command", COMMANDS)
    def test_examples_are_understood(self, command: str, capsys) -> None:
        from petdos_md.cli import make_parser

        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        example = text.split("example:")[1].replace("\\\n", " ").strip().splitlines()
        for line in example:
            words = line.split()
            assert words[:2] == ["petdos", command]
            assert make_parser().parse_args(words[1:]).command == command

    def test_the_installed_script(self) -> None:
        done = subprocess.run([PETDOS, "--version"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("petdos 0.")


class TestMd:
    def test_run_analyze_evaluate_again(self, structure, metal_path: Path, tmp_path: Path, capsys) -> None:
        """From a structure to files; `petdos eval` on the saved frames gives the same numbers as the run itself."""
        run, again = tmp_path / "run.zarr", tmp_path / "again.zarr"
        assert (
            main(md(structure, metal_path, run, "--supercell", "2", "1", "1", "--trajectory", f"{tmp_path}/run.traj"))
            == 0
        )
        out = capsys.readouterr().out
        assert "300" in out and "600" in out and f"petdos analyze {run}" in out and "% of the time" in out
        assert main(["eval", str(metal_path), f"{tmp_path}/run.traj", "-o", str(again), "--batch", "3"]) == 0
        assert "22 samples of 22 frames" in capsys.readouterr().out
        one, other = Trace.open(run, "r"), Trace.open(again, "r")
        assert len(one) == 22 and one[0].n_atoms == 8
        psi = np.asarray(one.psi)
        np.testing.assert_allclose(np.asarray(other.psi), psi, rtol=1e-5, atol=1e-6 * np.abs(psi).max())
        for name in ("step", "replica", "temperature_K", "time_fs", "potential_energy_eV", "volume_A3", "n_electrons"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_allclose(one.kinetic_temperature_K, other.kinetic_temperature_K, rtol=1e-12)
        a, b = analyze(run), analyze(again)
        for name in ("heat_capacity", "chemical_potential", "fermi_level", "dos", "heat_capacity_model_std"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6, err_msg=name)
        # the written report holds the numbers of the analysis
        assert main(["analyze", str(run), "-o", f"{tmp_path}/out", "--reference", "raw"]) == 0
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "dos.nc",
            "dos.png",
            "heat_capacity.png",
            "summary.json",
            "thermo.csv",
        ]
        with open(tmp_path / "out" / "thermo.csv") as file:
            table = list(csv.DictReader(file))
        column = next(name for name in table[0] if name.startswith("heat_capacity ("))
        assert "eV/K" in column
        assert [float(row[column]) for row in table] == a["heat_capacity"].values.tolist()

    def test_resume_does_nothing_to_a_finished_run(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        run = tmp_path / "run.zarr"
        assert main(md(structure, metal_path, run)) == 0
        before = rows(run)
        assert main(md(structure, metal_path, run)) == 2
        assert (
            error(capsys)
            == f"petdos: error: {run}: exists; give --resume to go on with that run, or another -o to start a new one"
        )
        assert main(md(structure, metal_path, run, "--resume")) == 0
        assert rows(run) == before

    def test_seed_is_drawn_and_kept(self, structure, metal_path, tmp_path: Path) -> None:
        seeds = []
        for name in "ab":
            arguments = md(structure, metal_path, tmp_path / name)
            del arguments[arguments.index("--seed") : arguments.index("--seed") + 2]
            assert main(arguments) == 0
            seeds.append(Trace.open(tmp_path / name, "r").attributes["metadata"]["seed"])
            assert main([*arguments, "--resume"]) == 0
        assert seeds[0] != seeds[1]
        assert rows(tmp_path / "a") != rows(tmp_path / "b")

    def test_npt(self, structure, metal_path, tmp_path: Path) -> None:
        run = tmp_path / "run.zarr"
        assert main(md(structure, metal_path, run, "--ensemble", "npt", "--pressure", "1")) == 0
        assert len(np.unique(Trace.open(run, "r").volume_A3)) == 22

    def test_target_error_ends_a_run_early(self, structure, metal_path, tmp_path: Path) -> None:
        arguments = md(structure, metal_path, tmp_path / "r.zarr", "--target-error", "0.05", "--resume")
        arguments[arguments.index("--steps") + 1] = "10000"
        arguments[arguments.index("--every") + 1] = "10"
        assert main(arguments) == 0
        found = rows(tmp_path / "r.zarr")
        assert 64 <= len(found) < 2002
        assert main(arguments) == 0 and rows(tmp_path / "r.zarr") == found

    def test_drawn_by_a_network_and_told_by_another(self, structure, metal_path, model_path, tmp_path: Path) -> None:
        arguments = md(structure, metal_path, tmp_path / "run.zarr", "--timestep", "0.1")
        for name, value in (("--potential", str(model_path)), ("--steps", "4"), ("--equilibrate", "0")):
            arguments[arguments.index(name) + 1] = value
        assert main(arguments) == 0
        trace = Trace.open(tmp_path / "run.zarr", "r")
        energy = DOSModel.load(model_path).evaluate_with_forces(ase.io.read(structure))[1]
        assert abs(trace.potential_energy_eV[0] / energy - 1) < 1e-5
        assert trace.model.name == "metal" and trace.step.tolist() == [0, 4, 0, 4]

    def test_interrupt(self, structure, metal_path, tmp_path: Path) -> None:
        """Ctrl-C: one line, and nothing sampled is lost."""
        arguments = md(structure, metal_path, tmp_path / "run.zarr")
        arguments[arguments.index("--steps") + 1] = "100000"
        # A shell's background jobs, and so perhaps this test, ignore Ctrl-C and hand that down.
        listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        with subprocess.Popen([PETDOS, *arguments], stderr=subprocess.PIPE, text=True, **listens) as process:
            try:
                until = time.monotonic() + 60
                while time.monotonic() < until and len(rows(tmp_path / "run.zarr")) < 3:
                    time.sleep(0.2)
                process.send_signal(signal.SIGINT)
                _, stderr = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "petdos: interrupted; the same command with --resume goes on"
        assert len(rows(tmp_path / "run.zarr")) >= 3


class TestEval:
    @pytest.fixture
    def frames(self) -> list[Atoms]:
        frames = []
        for seed in range(12):
            atoms = ase.build.bulk("Al", cubic=True)
            atoms.rattle(0.1, seed=seed)
            atoms.calc = SinglePointCalculator(atoms, energy=-float(seed), forces=np.zeros((4, 3)))
            frames.append(atoms)
        return frames

    @pytest.mark.parametrize("name", ["t.extxyz", "t.traj", "t.db", "XDATCAR"])
    def test_formats(self, name: str, frames, metal, metal_path, tmp_path: Path) -> None:
        path = tmp_path / name
        ase.io.write(path, frames)
        assert main(["eval", str(metal_path), str(path), "--temperature", "450", "-o", f"{tmp_path}/o.zarr"]) == 0
        trace = Trace.open(tmp_path / "o.zarr", "r")
        assert trace.step.tolist() == list(range(12)) and set(trace.temperature_K) == {450.0}
        expected = np.array([metal.evaluate(f).psi for f in frames])
        size = 2e-5 if name == "t.extxyz" or name == "XDATCAR" else 1e-6  # the digits of text files
        np.testing.assert_allclose(np.asarray(trace.psi), expected, rtol=0, atol=size * np.abs(expected).max())
        if name != "XDATCAR":
            assert trace.potential_energy_eV.tolist() == [-float(i) for i in range(12)]

    @pytest.mark.parametrize(
        ("index", "numbers"),
        [("::5", [0, 5, 10]), ("2:7:2", [2, 4, 6]), ("-3:", [9, 10, 11]), ("4", [4]), ("-1", [11])],
    )
    def test_index(self, index: str, numbers: list[int], frames, metal_path, tmp_path: Path) -> None:
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = ["eval", str(metal_path), f"{tmp_path}/t.traj", "--temperature", "450", "-o", f"{tmp_path}/o.zarr"]
        assert main([*arguments, f"--index={index}"]) == 0
        assert Trace.open(tmp_path / "o.zarr", "r").step.tolist() == numbers

    def test_resume_evaluates_only_what_is_missing(self, frames, metal_path, tmp_path: Path, capsys) -> None:
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = ["eval", str(metal_path), f"{tmp_path}/t.traj", "--temperature", "450", "-o", f"{tmp_path}/o.zarr"]
        assert main([*arguments, "--index", ":5"]) == 0
        assert main(arguments) == 2
        assert "exists; give --resume" in error(capsys)
        assert main([*arguments, "--resume"]) == 0
        assert "7 samples of 12 frames, 5 were there" in capsys.readouterr().out
        assert Trace.open(tmp_path / "o.zarr", "r").step.tolist() == list(range(12))

    def test_labels_in_the_file(self, frames, metal_path, tmp_path: Path) -> None:
        for i, atoms in enumerate(frames):
            atoms.info.update(temperature_K=300.0 + 100 * (i % 3), step=10 * (i // 3), replica=i % 3, weight=0.5 + i)
        ase.io.write(tmp_path / "t.extxyz", frames)
        assert main(["eval", str(metal_path), f"{tmp_path}/t.extxyz", "-o", f"{tmp_path}/o.zarr"]) == 0
        trace = Trace.open(tmp_path / "o.zarr", "r")
        assert trace.temperatures_K.tolist() == [300, 400, 500]
        assert trace.step.tolist() == [10 * (i // 3) for i in range(12)]
        assert trace.weight.tolist() == [0.5 + i for i in range(12)]

    def test_frames_with_nan_are_refused(self, frames, metal_path, tmp_path: Path, capsys) -> None:
        frames[3].positions[1, 2] = np.nan
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = ["eval", str(metal_path), f"{tmp_path}/t.traj", "--temperature", "450", "-o", f"{tmp_path}/o.zarr"]
        assert main(arguments) == 0
        assert "11 samples of 12 frames, 1 refused" in capsys.readouterr().out
        assert main([*arguments, "--resume"]) == 0  # the same frame is not counted again
        assert Trace.open(tmp_path / "o.zarr", "r").n_refused == 1
        assert int(analyze(tmp_path / "o.zarr")["n_refused"]) == 1


class TestMistakes:
    """What a user may get wrong is answered in one line, never by a traceback."""

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("analyze {run} -o {out} --burn-in -1", "burn_in=-1 given, expected a number of steps >= 0"),
            ("levels {run} -o {out} --burn-in -1", "burn_in=-1 given, expected a number of steps >= 0"),
            ("analyze {run} -o {out} --electronic-temperature 300,900", "need frames of one ensemble, got 300, 600 K"),
            ("analyze {run} -o {out} --align frames --reference raw", "give reference='fermi' with it"),
            ("evaluate {model} {data} -o {out} --temperature -5", "got a temperature of -5 K, expected positive ones"),
            ("calibrate {model} {data} -o {out}.pt --seed -1", "got the seed -1, expected a number >= 0"),
            ("export {checkpoint} --grid-start -12 --grid-step 0 -o {out}.pt", "a positive step"),
            ("eval {model} {data} --temperature 300 --index= -o {out}", "got index '', expected a slice"),
        ],
    )
    def test_in_one_line(self, command: str, message: str, checkpoints, metal_path, tmp_path: Path, capsys) -> None:
        model = DOSModel.load(metal_path)
        atoms = ase.build.bulk("Al", cubic=True)
        with Trace.open(tmp_path / "run.zarr", model=model) as trace:
            for step, temperature in ((0, 300.0), (1, 600.0)):
                trace.append(model.evaluate(atoms), step=step, temperature_K=temperature)
        atoms.info["dos"] = model.dos(atoms)
        ase.io.write(tmp_path / "data.xyz", [atoms] * 4, format="extxyz")
        places = {"run": tmp_path / "run.zarr", "data": tmp_path / "data.xyz", "out": tmp_path / "out"}
        arguments = command.format(model=metal_path, checkpoint=checkpoints[0], **places).split()
        assert main(arguments) == 2
        assert message in error(capsys)
        assert not list(tmp_path.glob("out*"))


class TestOthers:
    def test_export_and_info(self, checkpoints, tmp_path: Path, capsys) -> None:
        pet, llpr = map(str, checkpoints)
        output = str(tmp_path / "mine.pt")
        arguments = [
            "export",
            pet,
            "--llpr",
            llpr,
            "--electrons",
            "Al=3,Mg=2,Si=4",
            "--grid-start",
            "-12",
            "-o",
            output,
        ]
        assert main(arguments) == 0
        assert "400 energies, 5 members" in capsys.readouterr().out
        assert main(["info", output, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["model"] == "mine" and told["members"] == 5 and told["elements"] == ["Mg", "Al", "Si"]
        assert told["valence electrons"] == {"Al": 3.0, "Mg": 2.0, "Si": 4.0}

    def test_info_of_a_trace(self, metal, tmp_path: Path, capsys) -> None:
        with Trace.open(tmp_path / "t.zarr", model=metal, engine="me", timestep_fs=1.5) as trace:
            sample = metal.evaluate(ase.build.bulk("Al"))
            for step in range(4):
                trace.append(sample, step=step, temperature_K=300.0 if step else 500.0)
            trace.refuse("it was bad")
        assert main(["info", str(tmp_path / "t.zarr"), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["samples"] == 4 and told["by temperature"] == {"300 K": 3, "500 K": 1}
        assert told["refused"] == {"it was bad": 1} and told["fingerprint"] == metal.info.fingerprint
        assert main(["info", str(tmp_path / "t.zarr")]) == 0
        assert "300 K 3, 500 K 1" in capsys.readouterr().out

    def test_merged_traces(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        for name, seed in (("a", "1"), ("b", "2")):
            arguments = md(structure, metal_path, tmp_path / name)
            arguments[arguments.index("--seed") + 1] = seed
            assert main(arguments) == 0
        assert main(["analyze", f"{tmp_path}/a", f"{tmp_path}/b", "-o", f"{tmp_path}/out", "--no-plots"]) == 0
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["values"]["n_samples"] == [22, 22]

    def test_doctor(self, capsys) -> None:
        from petdos_md.model_files import shipped_models

        status = main(["doctor"])
        out = capsys.readouterr().out
        works = {
            line.split()[1]: line.split()[0] for line in out.splitlines() if line[:6] in ("  ok  ", "  --  ", "  FAIL")
        }
        assert works["torch"] == works["disk"] == works["figures"] == "ok"
        assert (works["shipped"] == "ok") == bool(shipped_models())
        assert status == int("FAIL" in out)

    def test_doctor_says_how_to_mend(self, monkeypatch, capsys) -> None:
        def fail() -> str:
            raise OSError("no space\nleft")

        monkeypatch.setattr(doctor, "checks", lambda: [doctor.Check("disk", fail, "buy a disk")])
        assert main(["doctor"]) == 1
        lines = capsys.readouterr().out.splitlines()
        found = next(i for i, line in enumerate(lines) if "FAIL" in line)
        assert "no space left" in lines[found] and lines[found + 1].strip() == "to mend: buy a disk"

    def test_doctor_knows_the_tested_versions(self) -> None:
        path = Path(__file__).parent.parent / "constraints.txt"
        pinned = dict(line.split("==") for line in path.read_text().lower().splitlines() if "==" in line)
        for name, version in {**doctor.TESTED, **doctor.OPTIONAL}.items():
            assert pinned[name.lower()].startswith(version), name


def error(capsys) -> str:
    """The one line on stderr that tells an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("petdos: error: ")]
    assert len(lines) == 1
    return lines[0]
