"""What `petdos md` leaves behind: metadata for the analysis, at the place that was named; also for the smallest of structures."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from petdos_md.analysis.mbar import reweighted_estimate
from petdos_md.base.errors import TraceError
from petdos_md.engines.checkpoint import RunState
from petdos_md.engines.md import MDSettings, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

EMT_POTENTIAL = Potential("emt", EMT)
SHORT = MDSettings((300.0, 600.0), steps=8, every=2, equilibrate=2, seed=7, checkpoint_every=4)


@pytest.fixture
def crystal() -> Atoms:
    return ase.build.bulk("Al", cubic=True)


def known(path: Path) -> dict:
    return Trace.open(path, "r").attributes["metadata"]


def test_metadata(crystal: Atoms, metal: DOSModel, tmp_path: Path) -> None:
    expected = {
        "formula": "Al4",
        "ensemble": "nvt",
        "temperatures_K": [300.0, 600.0],
        "potential": "emt",
        "bias": "none",
        "seed": 7,
    }
    run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "nvt.zarr", SHORT)
    assert known(tmp_path / "nvt.zarr") == expected
    longer = replace(SHORT, temperatures_K=(300.0, 600.0, 900.0))
    run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "nvt.zarr", longer, resume=True)
    assert known(tmp_path / "nvt.zarr") == {**expected, "temperatures_K": [300.0, 600.0, 900.0]}
    trace = Trace.open(tmp_path / "nvt.zarr", "r")
    assert [trace.temperature_K[trace.replica == r].tolist() for r in range(3)] == [
        [t] * 5 for t in (300.0, 600.0, 900.0)
    ]


def test_pressures_serve_the_reweighting(crystal: Atoms, metal: DOSModel, tmp_path: Path) -> None:
    """By replica, so that the analysis finds them as in every engine: the same answer as with the pressure given by hand."""
    settings = replace(SHORT, ensemble="npt", pressure_GPa=2.0, steps=40, temperatures_K=(300.0, 330.0))
    run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "npt.zarr", settings)
    about = known(tmp_path / "npt.zarr")
    assert about["ensemble"] == "npt" and about["pressures_GPa"] == [2.0, 2.0]
    trace = Trace.open(tmp_path / "npt.zarr", "r")
    found, by_hand = (
        reweighted_estimate(trace, [315.0], metal.readout, members=False, **given)
        for given in ({}, {"pressure_GPa": 2.0})
    )
    np.testing.assert_array_equal(found.dos, by_hand.dos)


def test_potential_of_a_relative_path(crystal: Atoms, metal_path: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(metal_path.parent)
    model = DOSModel.load(metal_path.name)
    settings = replace(SHORT, steps=2, temperatures_K=(300.0,))
    run_md(crystal, Potential.find(metal_path.name, model), model, tmp_path / "a.zarr", settings)
    assert Path(known(tmp_path / "a.zarr")["potential"]).samefile(metal_path)
    assert Path(known(tmp_path / "a.zarr")["potential"]).is_absolute()


def test_a_change_of_folder_loses_nothing(crystal: Atoms, metal: DOSModel, tmp_path: Path, monkeypatch) -> None:
    """A calculator that changes the folder, at every step."""
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()

    class Mover(EMT):
        calls = 0

        def calculate(self, *args, **kwargs) -> None:
            Mover.calls += 1
            monkeypatch.chdir(folders[Mover.calls % 2])
            super().calculate(*args, **kwargs)

    monkeypatch.chdir(folders[0])
    run_md(crystal, Potential("mover", Mover), metal, "r.zarr", SHORT, trajectory="r.traj")
    monkeypatch.chdir(tmp_path)
    assert sorted(path.name for path in folders[0].iterdir()) == ["r.traj", "r.zarr", "r.zarr.state"]
    assert not list(folders[1].iterdir())
    assert len(Trace.open(folders[0] / "r.zarr", "r")) == len(ase.io.read(folders[0] / "r.traj", ":")) == 10


def test_one_atom(metal: DOSModel, tmp_path: Path) -> None:
    """Its center of mass is all that moves: the integrator alone, against Maxwell's distribution."""
    potential = Potential("free", lambda: LennardJones(sigma=0.1, rc=0.3))
    settings = MDSettings((300.0,), 1500, 3, equilibrate=30, seed=3, thermostat_fs=5.0)
    run_md(ase.build.bulk("Al"), potential, metal, tmp_path / "one.zarr", settings)
    values = Trace.open(tmp_path / "one.zarr", "r").kinetic_temperature_K
    assert np.isfinite(values).all() and len(values) == 501
    # chi-squared with 3 degrees of freedom: mean T, variance 2/3 T^2; velocities are forgotten within 2.5 fs, so every sixth counts
    assert abs(values[::1].mean() - 300.0) < 4 * 300.0 * (2 / 3 / (len(values) / 2)) ** 0.5


def test_a_resumed_run_says_what_it_takes_again(crystal: Atoms, metal: DOSModel, tmp_path: Path, caplog) -> None:
    """Samples after the checkpoint are dropped, told once, and come out the same in every bit."""
    path = tmp_path / "r.zarr"
    run_md(crystal, EMT_POTENTIAL, metal, path, SHORT)
    whole = Trace.open(path, "r").features[:]
    state = RunState(path)
    run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "half.zarr", replace(SHORT, steps=4))
    checkpoint = RunState(tmp_path / "half.zarr").load(1)
    assert checkpoint is not None and checkpoint.n_steps == 4
    state.save(1, checkpoint)
    with caplog.at_level(logging.WARNING):
        run_md(crystal, EMT_POTENTIAL, metal, path, SHORT, resume=True)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and "goes on from step 4; 2 samples of replica 1 after it are dropped" in told[0]
    np.testing.assert_array_equal(Trace.open(path, "r").features[:], whole)


def test_two_runs_at_once(tmp_path: Path) -> None:
    """The second is refused, and the place is free when the first has ended."""
    second = RunState(tmp_path / "r.zarr").locked()
    with (
        RunState(tmp_path / "r.zarr").locked(),
        pytest.raises(TraceError, match=r"another `petdos md` is running on it \(process"),
    ):
        second.__enter__()
    with RunState(tmp_path / "r.zarr").locked():
        pass
