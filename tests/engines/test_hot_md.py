"""`petdos md` among hot electrons: forces of the schedule, labels of the trace, restarts, bad input."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet

from petdos_md.analysis.analyze import analyze
from petdos_md.ase import DOSObserver, HotElectronCalculator
from petdos_md.base.errors import ElectronicTemperatureError, TraceError
from petdos_md.cli.main import main
from petdos_md.engines.schedule import TemperatureSchedule
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


def command(folder: Path, model: Path, name: str, *more: str) -> list[str]:
    given = [
        str(folder / "Al.xyz"),
        "--potential",
        str(model),
        "--dos",
        str(model),
        "-o",
        str(folder / name),
        "--seed",
        "1",
    ]
    return ["md", *given, "--temperature", "300", "--every", "1", "--equilibrate", "2", *more]


@pytest.fixture
def folder(tmp_path: Path, aluminium: Atoms) -> Path:
    ase.io.write(tmp_path / "Al.xyz", aluminium)
    return tmp_path


def test_schedule_moves_the_atoms(folder: Path, hot_path: Path, hot_model: DOSModel) -> None:
    """Potential energies of the trace are free energies, which weight the ensemble; each T_e is that of its step."""
    hot = ["--electronic-temperature", "0:4000,6:8000", "--steps", "3"]
    assert main(command(folder, hot_path, "hot.zarr", *hot, "--trajectory", str(folder / "hot.traj"))) == 0
    assert main(command(folder, hot_path, "cold.zarr", "--steps", "3")) == 0
    trace = Trace.open(folder / "hot.zarr", "r")
    assert trace.attributes["metadata"]["electronic_temperature_K"] == [[0.0, 4000.0], [6.0, 8000.0]]
    frames = ase.io.read(folder / "hot.traj", ":")
    schedule = TemperatureSchedule.parse("0:4000,6:8000")
    for step, frame in enumerate(frames):
        # The forces that led here were those of the last whole step.
        T_e = schedule.at(2.0 * max(step - 1, 0))
        calculator = HotElectronCalculator(None, hot_model, T_e)
        np.testing.assert_allclose(frame.get_forces(), calculator.get_property("forces", frame), atol=1e-7)
        assert trace.potential_energy_eV[step] == pytest.approx(calculator.get_property("free_energy", frame), abs=1e-7)
        assert trace.electronic_temperature_K[step] == pytest.approx(T_e, rel=1e-12)
    again = ["rerun", "--dos", str(hot_path), str(folder / "hot.traj"), "-o", str(folder / "again.zarr")]
    assert main(again) == 0
    rerun = Trace.open(folder / "again.zarr", "r")
    np.testing.assert_array_equal(rerun.electronic_temperature_K, trace.electronic_temperature_K)
    cold = Trace.open(folder / "cold.zarr", "r")
    assert (
        "electronic_temperature_K" not in cold.attributes["metadata"] and np.isnan(cold.electronic_temperature_K).all()
    )
    assert not (folder / "cold.zarr" / "electronic_temperature_K").exists()
    assert np.abs(np.asarray(trace.features)[-1] - np.asarray(cold.features)[-1]).max() > 1e-6


def test_analysis_says_that_electrons_were_hot(
    folder: Path, hot_path: Path, hot_model: DOSModel, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(folder, hot_path, "hot.zarr", "--steps", "2", "--electronic-temperature", "8000")) == 0
    data = analyze(folder / "hot.zarr", hot_model)
    (note,) = [note for note in data.attrs["notes"] if "among electrons" in note]
    capsys.readouterr()
    assert "among electrons at 8000 K" in note and "--electronic-temperature" in note
    out = ["-o", str(folder / "results"), "--no-plots", "--electronic-temperature", "frames"]
    assert main(["analyze", str(folder / "hot.zarr"), *out]) == 0
    assert "among electrons" not in capsys.readouterr().out
    at = pd.read_csv(folder / "results" / "thermo.csv")
    theirs = analyze(folder / "hot.zarr", hot_model, electronic_temperatures_K=[8000.0])
    assert at["heat_capacity (eV/K)"][0] == pytest.approx(float(theirs["heat_capacity"][0]), rel=1e-6)
    assert main(["ramp", str(folder / "hot.zarr"), "-o", str(folder / "ramp"), "--no-plots"]) == 0
    ramp = pd.read_csv(folder / "ramp" / "ramp.csv")
    assert ramp["electronic_temperature (K)"].tolist() == [8000.0]
    assert ramp["heat_capacity (eV/K)"][0] == pytest.approx(float(theirs["heat_capacity"][0]), rel=1e-6)


def test_resumed_run_equals_an_unbroken_one(folder: Path, hot_path: Path) -> None:
    hot = ["--electronic-temperature", "0:4000,6:8000", "--checkpoint-every", "2"]
    assert main(command(folder, hot_path, "whole.zarr", *hot, "--steps", "6")) == 0
    assert main(command(folder, hot_path, "parts.zarr", *hot, "--steps", "4")) == 0
    assert main(command(folder, hot_path, "parts.zarr", *hot, "--steps", "6", "--resume")) == 0
    whole, parts = (Trace.open(folder / name, "r") for name in ("whole.zarr", "parts.zarr"))
    np.testing.assert_array_equal(np.asarray(whole.features), np.asarray(parts.features))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("0", "got the electronic temperature 0"),
        ("-5", "expected a positive number of K"),
        ("nan", "expected a positive number of K"),
        ("warm", "got the electronic temperature warm"),
        ("0:300,0:400", "ascending times"),
        ("0:300,5:-1", "ascending times"),
        ("0:300,5", "ascending times"),
        ("60000", "expected at most"),
    ],
)
def test_bad_temperatures(folder: Path, hot_path: Path, capsys, text: str, error: str) -> None:
    """In one line, and nothing is left behind."""
    assert main(command(folder, hot_path, "run.zarr", "--steps", "2", f"--electronic-temperature={text}")) != 0
    told = capsys.readouterr().err.strip().splitlines()
    assert error in told[-1] and not any(line.startswith("Traceback") for line in told)
    assert not (folder / "run.zarr").exists()


def test_trace_of_other_electrons_is_not_continued(aluminium: Atoms, hot_model: DOSModel, tmp_path: Path) -> None:
    def run(path: str, T_e: float | None) -> None:
        atoms = aluminium.copy()
        atoms.calc = EMT() if T_e is None else HotElectronCalculator(EMT(), hot_model, T_e)
        thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
        dynamics = VelocityVerlet(atoms, units.fs)
        with DOSObserver(atoms, hot_model, tmp_path / path, 300, dynamics=dynamics) as observer:
            dynamics.attach(observer)
            dynamics.run(1)

    run("hot.zarr", 8000.0)
    assert Trace.open(tmp_path / "hot.zarr", "r").attributes["metadata"]["electronic_temperature_K"] == 8000.0
    run("cold.zarr", None)
    for path, T_e, told in (
        ("hot.zarr", 6000.0, "electronic_temperature_K = 8000.0, got 6000.0"),
        ("hot.zarr", None, "it has electrons at 8000 K, got cold electrons"),
        ("cold.zarr", 8000.0, "it has cold electrons, got electrons at 8000 K"),
    ):
        with pytest.raises(TraceError, match=told):
            run(path, T_e)


def test_energy_is_conserved(aluminium: Atoms, hot_model: DOSModel) -> None:
    """F + kinetic energy at fixed T_e by velocity Verlet: the fluctuation falls with the square of the time step."""

    def fluctuation(timestep_fs: float) -> float:
        atoms = aluminium.copy()
        atoms.calc = HotElectronCalculator(EMT(), hot_model, 8000.0)
        thermalize_momenta(atoms, 300, rng=np.random.default_rng(0))
        dynamics, energies = VelocityVerlet(atoms, timestep_fs * units.fs), []
        total = lambda: energies.append(atoms.get_potential_energy(force_consistent=True) + atoms.get_kinetic_energy())  # noqa: E731
        dynamics.attach(total)
        dynamics.run(round(8 / timestep_fs))
        return float(np.ptp(energies))

    assert fluctuation(0.5) < 0.35 * fluctuation(1.0)


def test_schedule_text() -> None:
    assert TemperatureSchedule.of([[0, 300], [5, 600]]) == TemperatureSchedule.parse("0:300,5:600")
    assert TemperatureSchedule.of(8000).at(1e6) == 8000.0
    with pytest.raises(ElectronicTemperatureError):
        TemperatureSchedule(())
