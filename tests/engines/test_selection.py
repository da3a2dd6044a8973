"""``petdos select``: the frames of trajectories as the engines write them, in the order of brute force; other files are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from helpers.ipi_runs import loaded, write_input
from helpers.lammps_tools import ALLOY, run_lmp
from helpers.models import rattled_aluminium

from petdos_md.base.errors import ModelError, SettingError, TraceError
from petdos_md.cli.main import main
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.engines.selection import select_frames
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


def by_brute_force(model: DOSModel, frames: list[Atoms], n: int) -> list[int]:
    """Numbers of frames, one determinant for every candidate and pick."""
    rigidity = model.readout.rigidity
    covariance = rigidity.cholesky @ rigidity.cholesky.T
    x = [model.evaluate(a).features[:-2].astype(float) / len(a) for a in frames]
    picked: list[int] = []
    for _ in range(n):
        best = max(
            set(range(len(x))) - set(picked), key=lambda i: np.linalg.slogdet(covariance + np.outer(x[i], x[i]))[1]
        )
        picked.append(best)
        covariance = covariance + np.outer(x[best], x[best])
    return picked


@pytest.fixture
def run(guarded: DOSModel, tmp_path: Path) -> Path:
    """A trajectory of cells from half to the whole volume, one frame twice, and its trace."""
    frames = [rattled_aluminium(seed, volume) for seed, volume in enumerate((1.0, 0.9, 0.5, 0.7, 1.0, 0.6, 0.8))]
    frames.append(frames[2].copy())
    for k, atoms in enumerate(frames):
        atoms.info = {"step": 10 * k, "temperature_K": 600.0, "replica": 0}
    ase.io.write(tmp_path / "run.traj", frames)
    rerun_trajectory(guarded, tmp_path / "run.traj", tmp_path / "run.zarr")
    return tmp_path


def test_picks_and_file(run: Path, guarded: DOSModel, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of brute force; what is written is ready for DFT and equal to the frames."""
    frames = ase.io.read(run / "run.traj", ":")
    expected = by_brute_force(guarded, frames[:-1], 3)
    words = ["select", str(run / "run.zarr"), "--trajectory", str(run / "run.traj"), "-n", "3", "--first-index", "500"]
    assert main([*words, "-o", str(run / "new.extxyz")]) == 0
    printed = capsys.readouterr().out
    assert "3 of 8 frames" in printed
    written = ase.io.read(run / "new.extxyz", ":")
    assert [a.info["step"] for a in written] == [10 * k for k in expected] and expected[0] == 2
    assert [a.info["index"] for a in written] == [500, 501, 502]
    assert {a.info["tag"] for a in written} == {"selected-Al-600K"}
    for atoms, k in zip(written, expected, strict=True):
        np.testing.assert_allclose(atoms.positions, frames[k].positions, atol=1e-7)
        np.testing.assert_allclose(atoms.cell, frames[k].cell, atol=1e-7)
        assert atoms.info["extrapolation_grade"] == pytest.approx(guarded.extrapolation_grade(frames[k]), rel=1e-3)
    assert main([*words, "-o", str(run / "new.extxyz")]) == 2 and "exists; give another -o" in capsys.readouterr().err

    everything = select_frames(guarded, [run / "run.zarr"], [run / "run.traj"], 100)
    assert len(everything.chosen) == 7, "the frame that is there twice counts once"
    assert np.all(np.diff([found.gain for found in everything.chosen]) <= 1e-12)


def test_frames_of_lammps(tmp_path: Path) -> None:
    """A dump of another stride than that of the samples: common steps are candidates."""
    commands = f"""
    compute dos all petdos almgsi-lda Al Mg
    fix md all nve
    fix obs all petdos 2 dos {tmp_path}/run.zarr temp 600
    dump d all custom 3 {tmp_path}/run.dump id type x y z
    run 12
    """
    done = run_lmp(ALLOY + commands, tmp_path)
    assert done.returncode == 0, done.stdout[-2000:]
    words = ["select", str(tmp_path / "run.zarr"), "--trajectory", str(tmp_path / "run.dump"), "--species", "Al,Mg"]
    assert main([*words, "-n", "9", "-o", str(tmp_path / "new.extxyz")]) == 0
    written = ase.io.read(tmp_path / "new.extxyz", ":")
    assert sorted(a.info["step"] for a in written) == [0, 6, 12]
    model, trace = DOSModel.load("almgsi-lda"), Trace.open(tmp_path / "run.zarr", "r")
    for atoms in written:
        there = np.asarray(trace.features[trace.step.tolist().index(atoms.info["step"])])
        np.testing.assert_allclose(model.evaluate(atoms).features, there, atol=1e-3 * np.abs(there).max())


def test_frames_of_ipi(tmp_path: Path, guarded: DOSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replica exchange: the file of a system does not know the ensemble of a frame; features tell."""
    from petdos_md.ipi import attach

    monkeypatch.chdir(tmp_path)
    with loaded(write_input(tmp_path, steps=16)) as simulation:
        observer = attach(simulation, guarded, "run.zarr", every=4)
        simulation.run()
        observer.close()
    files = sorted(tmp_path.glob("*_run.pos*xyz"))
    assert len(files) == 3
    selection = select_frames(guarded, ["run.zarr"], files, 6)
    trace = Trace.open("run.zarr", "r")
    assert selection.n_candidates == len(trace) == 12
    for found in selection.chosen:
        row = next(i for i, s in enumerate(trace) if (s.step, s.replica) == (found.step, found.replica))
        np.testing.assert_allclose(
            guarded.evaluate(found.atoms).features, trace.features[row], atol=1e-3 * np.abs(trace.features[row]).max()
        )


def test_what_is_refused(run: Path, guarded: DOSModel, metal: DOSModel, model: DOSModel) -> None:
    frames = ase.io.read(run / "run.traj", ":")

    def refused(atoms: list[Atoms], error: type[Exception], message: str) -> None:
        ase.io.write(run / "other.traj", atoms)
        with pytest.raises(error, match=message):
            select_frames(guarded, [run / "run.zarr"], [run / "other.traj"], 2)

    moved = [a.copy() for a in frames]
    for atoms in moved:
        atoms.rattle(0.3, seed=5)
    refused(moved, TraceError, "step 20 of replica 0 has other features than the frames of that step")
    refused(
        [a * (1, 1, 2) for a in frames],
        TraceError,
        "frame 0 is step 0, which .* with another number of atoms or volume",
    )
    for k, atoms in enumerate(moved):
        atoms.info["step"] = 1000 + k
    refused(moved, TraceError, "no frame has the step of a sample")
    for atoms in frames:
        del atoms.info["step"]
    refused(frames, SettingError, "frame 0 does not say its step; give the steps between frames")
    counted = select_frames(guarded, [run / "run.zarr"], [run / "other.traj"], 1, stride=10)
    assert counted.chosen[0].step == 20
    with pytest.raises(ModelError, match="does not know its training set"):
        select_frames(metal, [run / "run.zarr"], [run / "run.traj"], 2)
    shutil.copytree(run / "run.zarr", run / "again.zarr")
    with pytest.raises(SettingError, match="got 2 traces and 1 trajectories"):
        select_frames(guarded, [run / "run.zarr", run / "again.zarr"], [run / "run.traj"], 2)
