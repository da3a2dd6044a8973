"""``petdos md``, ``rerun``, ``analyze``, ``export``: what users type, and what they get."""

from __future__ import annotations

import csv
import json
import re
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
from helpers.kill_campaign import rows

from petdos_md.analysis.analyze import analyze
from petdos_md.cli.main import main
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

PETDOS = str(Path(sys.executable).with_name("petdos"))


@pytest.fixture
def structure(tmp_path: Path) -> str:
    ase.io.write(tmp_path / "Al.xyz", ase.build.bulk("Al", cubic=True))
    return str(tmp_path / "Al.xyz")


def md(structure: str, model: Path, output: Path, *more: str) -> list[str]:
    arguments = ["md", structure, "--potential", "emt", "--dos", str(model), "--temperature", "300", "600"]
    return [*arguments, "--steps", "40", "--every", "4", "--equilibrate", "8", "--seed", "5", "-o", str(output), *more]


class TestMd:
    def test_run_analyze_rerun(self, structure, metal_path: Path, tmp_path: Path, capsys) -> None:
        """From a structure to files; `petdos rerun` on the saved frames gives the same numbers as the run itself."""
        run, again = tmp_path / "run.zarr", tmp_path / "again.zarr"
        assert (
            main(md(structure, metal_path, run, "--supercell", "2", "1", "1", "--trajectory", f"{tmp_path}/run.traj"))
            == 0
        )
        out = capsys.readouterr().out
        assert "300" in out and "600" in out and f"petdos analyze {run}" in out and "% of the time" in out
        assert main(["rerun", "--dos", str(metal_path), f"{tmp_path}/run.traj", "-o", str(again), "--batch", "3"]) == 0
        assert "22 samples of 22 frames" in capsys.readouterr().out
        one, other = Trace.open(run, "r"), Trace.open(again, "r")
        assert len(one) == 22 and one[0].n_atoms == 8
        features = np.asarray(one.features)
        np.testing.assert_allclose(np.asarray(other.features), features, rtol=1e-5, atol=1e-6 * np.abs(features).max())
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
            "provenance.json",
            "report.html",
            "report.md",
            "summary.json",
            "thermo.csv",
        ]
        with open(tmp_path / "out" / "thermo.csv") as file:
            table = list(csv.DictReader(file))
        column = next(name for name in table[0] if name.startswith("heat_capacity ("))
        assert "eV/K" in column
        np.testing.assert_allclose([float(row[column]) for row in table], a["heat_capacity"], rtol=1e-7)

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

    def test_a_time_step_that_is_too_long(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        assert main(md(structure, metal_path, tmp_path / "run.zarr", "--timestep", "200")) == 0
        out = capsys.readouterr().out
        assert re.search(r"note: 300, 600 K: the simulation ran away .* is a time step of 200 fs too long\?", out)

    def test_npt(self, structure, metal_path, tmp_path: Path) -> None:
        run = tmp_path / "run.zarr"
        assert main(md(structure, metal_path, run, "--ensemble", "npt", "--pressure", "1")) == 0
        assert len(np.unique(Trace.open(run, "r").volume_A3)) == 22

    def test_target_error_ends_a_run_early(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        arguments = md(structure, metal_path, tmp_path / "r.zarr", "--target-error", "0.05", "--resume")
        arguments[arguments.index("--steps") + 1] = "10000"
        arguments[arguments.index("--every") + 1] = "10"
        assert main(arguments) == 0
        out, err = capsys.readouterr()
        assert f"petdos: warning: nothing to resume at {tmp_path}/r.zarr; starts anew" in err.splitlines()
        assert "% of the time of the dynamics" in out
        found = rows(tmp_path / "r.zarr")
        assert 64 <= len(found) < 2002
        assert main(arguments) == 0 and rows(tmp_path / "r.zarr") == found
        out, err = capsys.readouterr()
        assert "nothing to resume" not in err and "of the time" not in out  # no sample was taken

    def test_forces_of_one_network_and_dos_of_another(self, structure, metal_path, model_path, tmp_path: Path) -> None:
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


def rerun_at_450_K(model: Path, folder: Path) -> list[str]:
    return ["rerun", "--dos", str(model), f"{folder}/t.traj", "--temperature", "450", "-o", f"{folder}/o.zarr"]


class TestRerun:
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
        assert (
            main(["rerun", "--dos", str(metal_path), str(path), "--temperature", "450", "-o", f"{tmp_path}/o.zarr"])
            == 0
        )
        trace = Trace.open(tmp_path / "o.zarr", "r")
        first = 1 if name == "XDATCAR" else 0  # which numbers its configurations itself
        assert trace.step.tolist() == list(range(first, first + 12)) and set(trace.temperature_K) == {450.0}
        expected = np.array([metal.evaluate(f).features for f in frames])
        size = 2e-5 if name == "t.extxyz" or name == "XDATCAR" else 1e-6  # the digits of text files
        np.testing.assert_allclose(np.asarray(trace.features), expected, rtol=0, atol=size * np.abs(expected).max())
        if name != "XDATCAR":
            assert trace.potential_energy_eV.tolist() == [-float(i) for i in range(12)]

    @pytest.mark.parametrize(
        ("index", "numbers"),
        [("::5", [0, 5, 10]), ("2:7:2", [2, 4, 6]), ("-3:", [9, 10, 11]), ("4", [4]), ("-1", [11])],
    )
    def test_index(self, index: str, numbers: list[int], frames, metal_path, tmp_path: Path) -> None:
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = rerun_at_450_K(metal_path, tmp_path)
        assert main([*arguments, f"--index={index}"]) == 0
        assert Trace.open(tmp_path / "o.zarr", "r").step.tolist() == numbers

    def test_resume_evaluates_only_what_is_missing(self, frames, metal_path, tmp_path: Path, capsys) -> None:
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = rerun_at_450_K(metal_path, tmp_path)
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
        assert main(["rerun", "--dos", str(metal_path), f"{tmp_path}/t.extxyz", "-o", f"{tmp_path}/o.zarr"]) == 0
        trace = Trace.open(tmp_path / "o.zarr", "r")
        assert trace.temperatures_K.tolist() == [300, 400, 500]
        assert trace.step.tolist() == [10 * (i // 3) for i in range(12)]
        assert trace.weight.tolist() == [0.5 + i for i in range(12)]

    def test_frames_with_nan_are_skipped(self, frames, metal_path, tmp_path: Path, capsys) -> None:
        frames[3].positions[1, 2] = np.nan
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = rerun_at_450_K(metal_path, tmp_path)
        assert main(arguments) == 0
        assert "11 samples of 12 frames, 1 skipped" in capsys.readouterr().out
        assert main([*arguments, "--resume"]) == 0  # the same frame is not counted again
        assert Trace.open(tmp_path / "o.zarr", "r").n_skipped == 1
        assert int(analyze(tmp_path / "o.zarr")["n_skipped"]) == 1


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
        described = json.loads(capsys.readouterr().out)
        assert (
            described["model"] == "mine" and described["members"] == 5 and described["elements"] == ["Mg", "Al", "Si"]
        )
        assert described["valence electrons"] == {"Al": 3.0, "Mg": 2.0, "Si": 4.0}

    def test_merged_traces(self, structure, metal_path, tmp_path: Path, capsys) -> None:
        for name, seed in (("a", "1"), ("b", "2")):
            arguments = md(structure, metal_path, tmp_path / name)
            arguments[arguments.index("--seed") + 1] = seed
            assert main(arguments) == 0
        assert main(["analyze", f"{tmp_path}/a", f"{tmp_path}/b", "-o", f"{tmp_path}/out", "--no-plots"]) == 0
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["values"]["n_samples"] == [22, 22]


def error(capsys) -> str:
    """The one line on stderr that tells an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("petdos: error: ")]
    assert len(lines) == 1
    return lines[0]
