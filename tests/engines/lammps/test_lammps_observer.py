"""The observer for LAMMPS in Python: restarts, metadata, paths. It needs no plugin."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ase import units
from helpers.lammps_tools import ALLOY, instance

from petdos_md.base.errors import SettingError, TraceError
from petdos_md.lammps import LAMMPSObserver
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

NVT = "fix md all nvt temp 600 600 0.1\n"
SYMBOLS = ["Al", "Mg"]


@pytest.fixture(scope="module")
def shipped() -> DOSModel:
    return DOSModel.load("almgsi-lda")


def again(folder: Path) -> str:
    """A deck that goes on from the restart file."""
    potential = [line for line in ALLOY.splitlines() if line.startswith("pair_")]
    return "\n".join([f"read_restart {folder}/at.5", *potential, NVT])


def test_warns_of_extrapolation_once(shipped: DOSModel, tmp_path: Path, caplog) -> None:
    with (
        instance(
            ALLOY + "change_box all x scale 0.7 y scale 0.7 z scale 0.7 remap\nfix md all nve\ntimestep 0.0001\n"
        ) as lmp,
        LAMMPSObserver(lmp, shipped, tmp_path / "run.zarr", SYMBOLS, 600.0) as observer,
    ):
        observer.run(2)
    assert ": 3 samples in " in repr(observer)
    assert min(shipped.extrapolation_grade(sample) for sample in Trace.open(tmp_path / "run.zarr", "r")) > 2
    said = [r.getMessage() for r in caplog.records]
    assert (
        len(said) == 1 and "step 0 of replica 0 is far outside its training set" in said[0] and "by atoms: " in said[0]
    )


def test_a_restart_drops_what_it_takes_again(shipped: DOSModel, tmp_path: Path, caplog) -> None:
    """From a restart file of an earlier step: each step once, with the structure of the second run."""
    with instance(ALLOY + NVT) as lmp:
        observer = LAMMPSObserver(lmp, shipped, tmp_path / "run.zarr", SYMBOLS, 600.0, every=2)
        observer.run(5)
        lmp.command(f"write_restart {tmp_path}/at.5")
        observer.run(5)
        observer.close()
    with Trace.open(tmp_path / "run.zarr") as trace:
        assert trace.step.tolist() == [0, 2, 4, 6, 8, 10]
        trace.append(trace[5], replica=1)
        before = np.asarray(trace.features)
    frames = []
    with instance(again(tmp_path)) as lmp:
        lmp.command("velocity all scale 900")  # another way from here on
        observer = LAMMPSObserver(lmp, shipped, tmp_path / "run.zarr", SYMBOLS, 600.0, every=2)
        observer.run(3)
        told = "the simulation goes on from step 5; 3 samples of replica 0 after it are dropped, to be taken again"
        # Random displacements of 0.8 angstrom are far from what the model knows, which it says besides.
        logged = [r.message for r in caplog.records if "training set" not in r.message]
        assert [told in message for message in logged] == [True]
        frames.append(observer.sample().features)
        observer.run(2)
        frames.append(observer.sample().features)
        result = observer.result()
        observer.close()
        assert len([r for r in caplog.records if "training set" not in r.message]) == 1
    trace = Trace.open(tmp_path / "run.zarr", "r")
    mine = [shipped.dos(sample) for sample in trace if sample.replica == 0]
    np.testing.assert_allclose(result.dos, np.mean(mine, axis=0), atol=1e-6)
    first = trace.replica == 0
    assert trace.step[first].tolist() == [0, 2, 4, 6, 8, 10] and trace.step[~first].tolist() == [10]
    features = np.asarray(trace.features)
    np.testing.assert_array_equal(features[first][:3], before[:3])
    np.testing.assert_array_equal(features[first][4:], frames)
    np.testing.assert_array_equal(features[~first], before[6:])
    assert np.abs(features[first][4:] - before[4:6]).max() > 1e-3


def test_a_trace_with_samples_is_never_begun_again(shipped: DOSModel, tmp_path: Path) -> None:
    for first in (True, False):
        with instance(ALLOY + NVT) as lmp:
            observer = LAMMPSObserver(lmp, shipped, tmp_path / "run.zarr", SYMBOLS, 600.0, every=2)
            if first:
                observer.run(4)
                continue
            with pytest.raises(
                TraceError, match="samples of replica 0 up to step 4, but the simulation starts at step 0"
            ):
                observer.run(4)
    assert Trace.open(tmp_path / "run.zarr", "r").step.tolist() == [0, 2, 4]


def test_metadata(shipped: DOSModel, tmp_path: Path) -> None:
    with instance(ALLOY + NVT) as lmp:
        n_mg = sum(np.array(lmp.gather_atoms_concat("type", 0, 1)) == 2)
        expected = {"formula": f"Al{32 - n_mg}Mg{n_mg}", "potential": "meam"}
        for name, temperature, more in (
            ("fixed", 600, {"temperatures_K": [None, 600.0]}),
            ("ramp", lambda: 300.0, {}),
        ):
            observer = LAMMPSObserver(lmp, shipped, tmp_path / name, SYMBOLS, temperature, replica=1)
            observer.close()
            known = Trace.open(tmp_path / name, "r").attributes
            assert known["metadata"] == {**expected, **more}
            assert known["timestep_fs"] == 1.0 and known["versions"]["lammps"]
        lmp.command("timestep 0.002")
        with pytest.raises(TraceError, match=r"trace of another simulation: it has timestep_fs = 1\.0, got 2\.0"):
            LAMMPSObserver(lmp, shipped, tmp_path / "fixed", SYMBOLS, 600.0, replica=1)
        with pytest.raises(SettingError, match="temperature_K='600'"):
            LAMMPSObserver(lmp, shipped, tmp_path / "text", SYMBOLS, "600")


def test_time_steps_of_all_units_are_the_same(shipped: DOSModel, tmp_path: Path) -> None:
    """One trace for decks in metal (ps) and real (fs) units, and of ASE."""
    deck = "units {}\nregion b block 0 9 0 9 0 9\ncreate_box 1 b\nmass 1 27\ncreate_atoms 1 single 1 1 1\ntimestep {}\n"
    for style, step in (("metal", 0.0001), ("real", 0.1), ("electron", 0.1)):
        with instance(deck.format(style, step)) as lmp:
            LAMMPSObserver(lmp, shipped, tmp_path / "run.zarr", ["Al"], 300.0).close()
    Trace.open(tmp_path / "run.zarr", timestep_fs=0.1 * units.fs / units.fs).close()


def test_a_change_of_folder_loses_nothing(shipped: DOSModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    with instance(ALLOY + NVT) as lmp:
        observer = LAMMPSObserver(lmp, shipped, "run.zarr", SYMBOLS, 600.0, every=2)
        observer.run(2)
        lmp.command("shell cd sub")
        assert os.getcwd() == str(tmp_path / "sub")
        observer.run(2)
        observer.close()
    assert Trace.open(tmp_path / "run.zarr", "r").step.tolist() == [0, 2, 4]
    assert not list((tmp_path / "sub").iterdir())
