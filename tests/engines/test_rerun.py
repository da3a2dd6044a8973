"""Stored trajectories, evaluated anew: labels of frames, paths, settings."""

from __future__ import annotations

from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from petdos_md.ase import DOSObserver
from petdos_md.base.errors import SettingError, TraceError
from petdos_md.engines.rerun import rerun_trajectory
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace


@pytest.fixture
def run(metal: DOSModel, tmp_path: Path) -> Path:
    """A folder with a trajectory and the trace that was written with it; the center of mass is at rest."""
    atoms = ase.build.bulk("Al", cubic=True)
    atoms.calc = EMT()
    thermalize_momenta(atoms, 600, rng=np.random.default_rng(1))
    Stationary(atoms)
    dyn = VelocityVerlet(atoms, 2 * units.fs, trajectory=str(tmp_path / "run.traj"), loginterval=2)
    with DOSObserver(atoms, metal, tmp_path / "run.zarr", 600, dynamics=dyn) as observer:
        dyn.attach(observer, interval=2)
        dyn.run(10)
    return tmp_path


def test_labels_are_those_of_the_run(run: Path, metal: DOSModel) -> None:
    rerun_trajectory(metal, run / "run.traj", run / "again.zarr", temperature_K=600)
    there, again = (Trace.open(run / name, "r") for name in ("run.zarr", "again.zarr"))
    for name in ("kinetic_temperature_K", "potential_energy_eV", "volume_A3", "n_electrons"):
        np.testing.assert_allclose(getattr(again, name), getattr(there, name), rtol=1e-12)
    np.testing.assert_allclose(again.features[:], there.features[:], rtol=1e-5, atol=1e-5)
    # 3 N - 3 degrees of freedom, as LAMMPS counts
    kinetic = [frame.get_kinetic_energy() for frame in ase.io.read(run / "run.traj", ":")]
    np.testing.assert_allclose(again.kinetic_temperature_K, 2 * np.array(kinetic) / (9 * units.kB), rtol=1e-12)
    assert again.engine == "rerun" and again.attributes["metadata"] == {"source": "run.traj"}


def test_relative_paths(run: Path, metal: DOSModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "elsewhere").mkdir()
    monkeypatch.chdir(run)
    result = rerun_trajectory(
        metal,
        "run.traj",
        "again.zarr",
        temperature_K=600,
        batch=2,
        progress=lambda n: monkeypatch.chdir(run / "elsewhere"),
    )
    assert result.n_new == 6 and len(Trace.open(run / "again.zarr", "r")) == 6
    assert not list((run / "elsewhere").iterdir())


def test_reading(run: Path, metal: DOSModel) -> None:
    rerun_trajectory(metal, run / "run.traj", run / "part.zarr", temperature_K=600, index="1::2", replica=3)
    trace = Trace.open(run / "part.zarr", "r")
    assert trace.step.tolist() == [1, 3, 5] and set(trace.replica.tolist()) == {3}
    for given, error, message in (
        ({"batch": 0}, SettingError, "got a batch of 0 structures"),
        ({"temperature_K": "600"}, SettingError, "got temperature_K='600'"),
        ({"temperature_K": 0.0}, SettingError, "got a temperature of 0 K, expected a positive one"),
        ({"index": "99:"}, SettingError, "no frames with index '99:'"),
        ({"every": 3}, TypeError, "every"),
    ):
        with pytest.raises(error, match=message):
            rerun_trajectory(metal, run / "run.traj", run / "new.zarr", **{"temperature_K": 600, **given})
        assert not (run / "new.zarr").exists()
    ase.io.write(run / "other.traj", ase.build.bulk("Al"))
    with pytest.raises(TraceError, match=r"source = run\.traj, got other\.traj"):
        rerun_trajectory(metal, run / "other.traj", run / "part.zarr", temperature_K=600, resume=True)
