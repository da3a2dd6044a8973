"""Frames far outside the training set: counted, shown, warned of; against grades computed one by one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from ase import units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from helpers.models import rattled_aluminium
from helpers.synthetic import N_ATOMS, N_FEATURES, readout, samples, write

from petdos_md.analysis.analyze import analyze
from petdos_md.analysis.following import Follower
from petdos_md.analysis.levels import frame_levels
from petdos_md.ase import DOSObserver
from petdos_md.cli.main import main
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.models.model import DOSModel
from petdos_md.models.readout import Readout
from petdos_md.models.rigidity import Rigidity
from petdos_md.results.plot import plot_extrapolation
from petdos_md.results.report import format_table, write_report
from petdos_md.results.watching import watch_text
from petdos_md.traces.trace import Trace


def knowing() -> Readout:
    """The synthetic readout with a training set whose features scatter less than those of the run."""
    seen = np.random.default_rng(8).normal([2.0, 1.0, 3.0], 0.2, (60, N_FEATURES)) / N_ATOMS
    result = readout()
    result.rigidity = Rigidity.of_training(seen, 1e-3)
    return result


def grades_of(found: list, rigidity: Rigidity) -> np.ndarray:
    matrix = np.linalg.inv(rigidity.cholesky @ rigidity.cholesky.T)
    x = np.array([s.features[:N_FEATURES].astype(float) / N_ATOMS for s in found])
    return np.array([row @ matrix @ row for row in x]) / rigidity.reference


def test_what_an_analysis_says(tmp_path: Path) -> None:
    hot, cold = samples(150, seed=2, temperature_K=900.0), samples(100, seed=3, temperature_K=300.0, replica=1)
    path = write(tmp_path / "run.zarr", [*hot, *cold])
    source = knowing()
    expected = {t: grades_of(s, source.rigidity) for t, s in ((900.0, hot), (300.0, cold))}
    assert 0 < (expected[900.0] > 2).sum() < 150, "some frames must be far outside for the test to mean anything"

    data = analyze(path, source)
    for temperature, grades in expected.items():
        at = data.sel(temperature=temperature)
        assert float(at["extrapolation_grade"]) == pytest.approx(grades.mean(), rel=1e-6)
        assert float(at["extrapolation_grade_max"]) == pytest.approx(grades.max(), rel=1e-6)
        assert int(at["n_far_outside"]) == (grades > 2).sum()
        of_frames = at["extrapolation_grade_quantiles"]
        np.testing.assert_allclose(of_frames, np.quantile(grades, of_frames["quantile"]), rtol=1e-6)
    far = (expected[900.0] > 2).sum()
    assert [f"900 K: {far} of 150 frames are far outside the training set" in n for n in data.attrs["notes"]].count(
        True
    ) == 1
    assert f"{expected[900.0].max():.2g}" in format_table(data)
    assert (
        int(analyze(path, source, temperatures_K=[900.0], burn_in=500)["n_far_outside"][0])
        == (grades_of(hot[50:], source.rigidity) > 2).sum()
    )

    # Temperatures of the electrons are none of the frames, which stand in the figure once.
    several = analyze(path, source, temperatures_K=[900.0], electronic_temperatures_K=[1000.0, 5000.0])
    (axes,) = plot_extrapolation(several).axes
    drawn = [line.get_xdata() for line in axes.get_lines() if line.get_marker() in ("o", "_")]
    np.testing.assert_allclose([x for x in drawn if len(x)], [[900.0], [900.0]])

    levels = frame_levels(path, source, members=False)
    np.testing.assert_allclose(levels["extrapolation_grade"], [*expected[300.0], *expected[900.0]], rtol=1e-6)
    write_report(data, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "thermo.csv")
    assert table["n_far_outside"].tolist() == [(expected[t] > 2).sum() for t in (300.0, 900.0)]
    assert (tmp_path / "out" / "extrapolation.png").is_file()
    assert "How far frames are from the training set" in (tmp_path / "out" / "report.html").read_text()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["values"]["n_far_outside"] == table["n_far_outside"].tolist()
    with xr.open_dataset(tmp_path / "out" / "dos.nc") as stored:
        assert "training set" in stored["extrapolation_grade"].attrs["long_name"]
        np.testing.assert_allclose(stored["extrapolation_grade_max"], data["extrapolation_grade_max"])

    follower = Follower(tmp_path / "run.zarr", source)
    follower.update()
    states = {s.result.temperature_K: s.result for s in follower.states}
    for temperature, grades in expected.items():
        assert states[temperature].n_far_outside == (grades > 2).sum()
        assert states[temperature].grade_max == pytest.approx(grades.max(), rel=1e-6)
    shown = "\n".join(watch_text(follower))
    total = sum((grades > 2).sum() for grades in expected.values())
    assert f"{total} samples are far outside the training set" in shown


def test_a_model_that_does_not_know_says_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "run.zarr", samples(80, seed=2, temperature_K=900.0))
    data = analyze(path, readout())
    assert not [name for name in data.data_vars if "grade" in str(name) or "outside" in str(name)]
    assert "grade" not in format_table(data)
    write_report(data, tmp_path / "out")
    assert not (tmp_path / "out" / "extrapolation.png").exists()
    follower = Follower(tmp_path / "run.zarr", readout())
    follower.update()
    assert follower.states[0].result.n_far_outside == 0 and np.isnan(follower.states[0].result.grade_max)
    with pytest.raises(ValueError, match="does not record its training set"):
        plot_extrapolation(data)


def test_warns_once_and_names_elements(guarded: DOSModel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A trajectory that leaves the training set; the number of atoms is counted by hand, atom by atom."""
    frames = [rattled_aluminium(50), rattled_aluminium(51, 0.5), rattled_aluminium(52, 0.45)]
    grades = [guarded.extrapolation_grade(frame) for frame in frames]
    assert grades[0] < 2 < min(grades[1:])
    ase.io.write(tmp_path / "run.extxyz", frames)
    with caplog.at_level(logging.WARNING):
        rerun_trajectory(guarded, tmp_path / "run.extxyz", tmp_path / "run.zarr", temperature_K=300.0)
    said = [r.getMessage() for r in caplog.records if "training set" in r.getMessage()]
    assert len(said) == 1 and "frame 1 is far outside its training set" in said[0]
    assert f"extrapolation grade {grades[1]:.1f}" in said[0]
    rigidity = guarded.readout.rigidity
    inverse = np.linalg.inv(rigidity.cholesky @ rigidity.cholesky.T)
    own = [x @ inverse @ x / rigidity.of_atoms["Al"] for x in guarded.features_of_atoms(frames[1])]
    n = sum(grade > 1 for grade in own)
    assert n > 0 and f"by atoms: {n} of 8 Al (grade up to {max(own):.1f})" in said[0]


def test_warning_of_dynamics(guarded: DOSModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys) -> None:
    """Atoms that fly together: once in the log, counted in the averages that progress shows."""
    atoms = rattled_aluminium(1, 0.5)
    atoms.calc = EMT()
    dyn = VelocityVerlet(atoms, 1 * units.fs)
    with DOSObserver(atoms, guarded, tmp_path / "run.zarr", 300.0, dynamics=dyn) as observer:
        dyn.attach(observer)
        dyn.run(3)
        result = observer.result(members=False)
    assert [("far outside" in r.getMessage()) for r in caplog.records].count(True) == 1
    grades = [guarded.extrapolation_grade(s) for s in Trace.open(tmp_path / "run.zarr", "r")]
    assert result.n_far_outside == sum(g > 2 for g in grades) > 1
    assert main(["analyze", str(tmp_path / "run.zarr"), "-o", str(tmp_path / "out"), "--no-plots"]) == 0
    assert f"{result.n_far_outside} of 4 frames are far outside" in capsys.readouterr().out
