"""Runs of molecular dynamics: ensembles, settings, checkpoints, resuming after kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from helpers import kill_campaign
from helpers.kill_campaign import rows

from petdos_md.base.errors import SettingError, StructureError, TraceError
from petdos_md.cli.main import main
from petdos_md.engines.md import MDSettings, Simulation, run_md
from petdos_md.engines.potentials import Potential
from petdos_md.models.model import DOSModel
from petdos_md.traces.trace import Trace

EMT_POTENTIAL = Potential("emt", EMT)
SETTINGS = MDSettings((300.0, 600.0), steps=40, every=4, equilibrate=10, seed=7, checkpoint_every=8)


@pytest.fixture
def crystal() -> Atoms:
    return ase.build.bulk("Al", cubic=True)


class Interrupted(Exception):
    """Stands for a crash at a chosen step."""


def crash_at(replica: int, steps: int):
    def progress(simulation: Simulation) -> None:
        if simulation.replica == replica and simulation.steps_done >= steps:
            raise Interrupted

    return progress


class TestRun:
    def test_what_is_sampled(self, crystal: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        results = run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", SETTINGS, trajectory=tmp_path / "r.traj")
        trace = Trace.open(tmp_path / "r.zarr", "r")
        steps = list(range(0, 41, 4))
        assert trace.step.tolist() == steps * 2
        assert trace.replica.tolist() == [0] * 11 + [1] * 11
        assert trace.temperature_K.tolist() == [300.0] * 11 + [600.0] * 11
        assert trace.timestep_fs == 2.0 and trace.time_fs[:11].tolist() == [2.0 * s for s in steps]
        assert [r.result.n_samples for r in results if r.result] == [11, 11]
        # Every label and features against an evaluation of the frames that were written.
        frames = ase.io.read(tmp_path / "r.traj", ":")
        np.testing.assert_array_equal(np.asarray(trace.features), [metal.evaluate(f).features for f in frames])
        np.testing.assert_allclose(trace.potential_energy_eV, [f.get_potential_energy() for f in frames], rtol=1e-14)
        np.testing.assert_allclose(trace.kinetic_temperature_K, [f.get_temperature() for f in frames], rtol=1e-12)
        assert [(f.info["replica"], f.info["step"]) for f in frames] == [(r, s) for r in (0, 1) for s in steps]
        for frame in frames[5::10]:
            again = frame.copy()
            again.calc = EMT()
            np.testing.assert_allclose(again.get_potential_energy(), frame.get_potential_energy(), rtol=1e-12)

    @pytest.mark.parametrize("shared", [False, True])
    def test_frames_of_a_network(
        self, crystal: Atoms, model_path: Path, metal: DOSModel, tmp_path: Path, shared: bool
    ) -> None:
        """Energies and forces in the trajectory are those of the network, be it the model of the DOS or one beside it."""
        dos = DOSModel.load(model_path) if shared else metal
        short = replace(SETTINGS, steps=4, equilibrate=0, temperatures_K=(300.0,))
        run_md(
            crystal,
            Potential.find(str(model_path), dos),
            dos,
            tmp_path / "r.zarr",
            short,
            trajectory=tmp_path / "r.traj",
        )
        frames = ase.io.read(tmp_path / "r.traj", ":")
        assert [f.info["step"] for f in frames] == [0, 4]
        for frame in frames:
            again = frame.copy()
            again.calc = Potential.find(str(model_path)).calculator()
            assert again.get_potential_energy() == pytest.approx(frame.get_potential_energy(), rel=1e-5)
            np.testing.assert_allclose(again.get_forces(), frame.get_forces(), rtol=1e-3, atol=1e-4)

    def test_seeds(self, crystal: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        short = replace(SETTINGS, steps=4, temperatures_K=(300.0,))
        for name, seed in (("a", 7), ("b", 7), ("c", 8)):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / name, replace(short, seed=seed))
        a, b, c = (rows(tmp_path / name) for name in "abc")
        assert a == b and a != c

    def test_nvt_temperature(self, metal: DOSModel) -> None:
        """Mean kinetic temperature of the integrator as it is set up here, within 4 standard errors."""
        from petdos_md.analysis.statistics import standard_error
        from petdos_md.engines.md import _make_dynamics, _set_velocities

        atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
        atoms.calc = EMT()
        rng = np.random.default_rng(1)
        _set_velocities(atoms, 500.0, rng)
        dyn = _make_dynamics(atoms, MDSettings((500.0,), 1, thermostat_fs=50.0), 500.0, rng)
        temperatures: list[float] = []
        dyn.attach(lambda: temperatures.append(atoms.get_temperature()), interval=2)
        dyn.run(1200)
        series = np.array(temperatures[50:])
        assert abs(series.mean() - 500.0) < 4 * standard_error(series[:, None]).error[0] < 120

    def test_npt_pressure(self, metal: DOSModel, crystal: Atoms, tmp_path: Path) -> None:
        """Under 10 GPa the crystal shrinks to the volume of its equation of state at that pressure."""
        compressed = crystal.copy()
        compressed.calc = EMT()
        for scale in np.linspace(1.0, 0.9, 201):
            compressed.set_cell(crystal.cell.array * scale, scale_atoms=True)
            if -compressed.get_stress()[:3].mean() > 10 * units.GPa:
                break
        volume = compressed.get_volume()
        settings = MDSettings(
            (100.0,), 300, 10, 4.0, "npt", pressure_GPa=10.0, equilibrate=120, seed=1, barostat_fs=200.0
        )
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", settings)
        volumes = Trace.open(tmp_path / "r.zarr", "r").volume_A3
        # thermal expansion at 100 K and ideal-gas pressure: below one percent
        assert abs(volumes.mean() / volume - 1) < 0.015 and volumes.std() > 0
        assert volume < 0.93 * crystal.get_volume()

    def test_solids_start_with_twice_the_kinetic_energy(self, crystal: Atoms) -> None:
        from petdos_md.engines.md import _set_velocities

        means = []
        for structure in (crystal * (3, 3, 3), crystal * (3, 3, 3)):
            if means:
                structure.rattle(0.1)
            structure.calc = EMT()
            _set_velocities(structure, 300.0, np.random.default_rng(0))
            means.append(structure.get_temperature())
        assert 520 < means[0] < 680 and 260 < means[1] < 340

    def test_explosion_is_reported(self, crystal: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        from ase.calculators.lj import LennardJones

        potential = Potential("lj", lambda: LennardJones(sigma=2.5, epsilon=0.1, rc=5.0))
        settings = MDSettings((300.0,), 200, 5, timestep_fs=1e4, seed=1, equilibrate=0)
        with pytest.raises(StructureError, match=r"exploded .* start anew with a --timestep below"):
            run_md(crystal, potential, metal, tmp_path / "r.zarr", settings)


class TestResume:
    @pytest.mark.parametrize("ensemble", ["nvt", "npt"])
    def test_bitwise_after_crashes(self, ensemble: str, crystal, metal, tmp_path: Path) -> None:
        settings = replace(SETTINGS, ensemble=ensemble)
        names = {"output": tmp_path / "a.zarr", "trajectory": tmp_path / "a.traj"}
        run_md(crystal, EMT_POTENTIAL, metal, settings=settings, **names)
        names = {"output": tmp_path / "b.zarr", "trajectory": tmp_path / "b.traj"}
        # in equilibration, at its end, with samples beyond a checkpoint at step 0, just after a checkpoint, between, at the end of a
        # temperature, in the next one
        for replica, steps in ((0, 5), (0, 9), (0, 10), (0, 16), (0, 18), (0, 31), (0, 50), (1, 3), (1, 35)):
            with pytest.raises(Interrupted):
                run_md(
                    crystal,
                    EMT_POTENTIAL,
                    metal,
                    settings=settings,
                    resume=True,
                    progress=crash_at(replica, steps),
                    **names,
                )
        results = run_md(crystal, EMT_POTENTIAL, metal, settings=settings, resume=True, **names)
        assert rows(tmp_path / "a.zarr") == rows(tmp_path / "b.zarr")
        assert [r.result.n_samples for r in results if r.result] == [11, 11]
        a, b = (ase.io.read(tmp_path / f"{name}.traj", ":") for name in "ab")
        assert len(a) == len(b) == 22
        for one, other in zip(a, b, strict=True):
            assert one.info == other.info
            np.testing.assert_array_equal(one.positions, other.positions)
            np.testing.assert_array_equal(one.get_momenta(), other.get_momenta())
            np.testing.assert_array_equal(one.get_forces(), other.get_forces())
            np.testing.assert_array_equal(one.cell.array, other.cell.array)

    @pytest.mark.parametrize("kind", ["both heads", "file"])
    def test_bitwise_with_a_network(self, kind: str, crystal, metal, metal_path: Path, model, tmp_path: Path) -> None:
        """One forward pass for both, and a metatomic potential beside another DOS model."""
        dos = metal if kind == "both heads" else model
        potential = Potential.find(str(metal_path), dos)
        settings = replace(SETTINGS, steps=16, temperatures_K=(300.0,), timestep_fs=0.1)
        run_md(crystal, potential, dos, tmp_path / "a.zarr", settings)
        for steps in (3, 12, 20):
            with pytest.raises(Interrupted):
                run_md(crystal, potential, dos, tmp_path / "b.zarr", settings, resume=True, progress=crash_at(0, steps))
        run_md(crystal, potential, dos, tmp_path / "b.zarr", settings, resume=True)
        assert rows(tmp_path / "a.zarr") == rows(tmp_path / "b.zarr")
        assert len(rows(tmp_path / "a.zarr")) == 5

    def test_a_finished_run_can_be_made_longer(self, crystal, metal, tmp_path: Path) -> None:
        longer = replace(SETTINGS, steps=48, temperatures_K=(300.0, 600.0, 900.0))
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "a.zarr", longer)
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "b.zarr", SETTINGS)
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "b.zarr", longer, resume=True)
        a, b = rows(tmp_path / "a.zarr"), rows(tmp_path / "b.zarr")
        assert a.keys() == b.keys() and len(a) == 39
        assert all(a[key] == b[key] for key in a if key[1] <= 40)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": 8}, "has seed = 7, got 8"),
            ({"every": 5}, "has every = 4, got 5"),
            ({"steps": 30}, "has steps = 40, got 30"),
            ({"temperatures_K": (600.0,)}, "has temperatures_K = 300 600, got 600"),
        ],
    )
    def test_other_settings_are_refused(self, crystal, metal, tmp_path: Path, change, message: str) -> None:
        with pytest.raises(Interrupted):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", SETTINGS, progress=crash_at(0, 12))
        with pytest.raises(SettingError, match=message):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", replace(SETTINGS, **change), resume=True)
        crystal.rattle(0.1)
        with pytest.raises(SettingError, match="has structure = "):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", SETTINGS, resume=True)

    def test_nothing_is_overwritten(self, crystal, metal, tmp_path: Path) -> None:
        short = replace(SETTINGS, steps=4)
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", short, trajectory=tmp_path / "r.traj")
        before = rows(tmp_path / "r.zarr")
        with pytest.raises(TraceError, match="exists; give --resume"):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", short)
        with pytest.raises(TraceError, match=r"r\.traj: exists"):
            run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "s.zarr", short, trajectory=tmp_path / "r.traj")
        assert rows(tmp_path / "r.zarr") == before

    def test_half_a_frame_is_cut_off(self, crystal, metal, tmp_path: Path) -> None:
        names = {"output": tmp_path / "r.zarr", "trajectory": tmp_path / "r.traj"}
        with pytest.raises(Interrupted):
            run_md(crystal, EMT_POTENTIAL, metal, settings=SETTINGS, progress=crash_at(0, 40), **names)
        with open(tmp_path / "r.traj", "r+b") as file:
            file.truncate(os.path.getsize(tmp_path / "r.traj") - 700)
        run_md(crystal, EMT_POTENTIAL, metal, settings=SETTINGS, resume=True, **names)
        steps = [f.info["step"] for f in ase.io.read(tmp_path / "r.traj", ":") if f.info["replica"] == 0]
        assert sorted(set(steps)) == steps and steps[-1] == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures_K": ()}, "got no temperature"),
        ({"temperatures_K": (300.0, 0.0)}, "got a temperature of 0 K, expected one or more positive"),
        ({"temperatures_K": (-5.0,)}, "got a temperature of -5 K"),
        ({"temperatures_K": (300.0, 300.0)}, "temperature twice"),
        ({"steps": 0}, "got steps = 0, expected at least 1"),
        ({"every": 0}, "got every = 0"),
        ({"timestep_fs": -1.0}, "got timestep_fs = -1.0, expected a positive"),
        ({"ensemble": "nve"}, "expected nvt or npt"),
    ],
)
def test_settings(crystal, metal, tmp_path: Path, change, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        run_md(crystal, EMT_POTENTIAL, metal, tmp_path / "r.zarr", replace(SETTINGS, **change))
    assert not list(tmp_path.iterdir())


def test_npt_needs_a_cell(metal, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="npt needs a structure that is periodic"):
        run_md(Atoms("Al"), EMT_POTENTIAL, metal, tmp_path / "r.zarr", replace(SETTINGS, ensemble="npt"))


class TestKills:
    """SIGKILL at random moments; the final trace equals that of an undisturbed run, bit for bit."""

    def campaign(self, folder: Path, arguments: list[str], n_samples: int, n_kills: int, seed: int) -> None:
        assert main([*arguments, "-o", str(folder / "reference.zarr")]) == 0
        expected = rows(folder / "reference.zarr")
        assert len(expected) == n_samples
        told = run_killed(folder, arguments, seed, n_kills)
        for number in range(told["traces"]):
            assert rows(folder / f"{number}.zarr") == expected
        assert told["kills"] >= n_kills and told["in_the_middle"] >= n_kills // 3

    def md(self, folder: Path, model: Path) -> list[str]:
        ase.io.write(folder / "Al.xyz", ase.build.bulk("Al", cubic=True))
        arguments = [
            "md",
            str(folder / "Al.xyz"),
            "--potential",
            "emt",
            "--dos",
            str(model),
            "--temperature",
            "300",
            "600",
        ]
        arguments += ["--steps", "60", "--every", "2", "--equilibrate", "10", "--checkpoint-every", "6", "--seed", "3"]
        return [*arguments, "--resume"]

    def test_md(self, metal_path: Path, tmp_path: Path) -> None:
        self.campaign(tmp_path, self.md(tmp_path, metal_path), 62, n_kills=3, seed=0)

    @pytest.mark.slow
    def test_md_fifty_times(self, metal_path: Path, tmp_path: Path) -> None:
        self.campaign(tmp_path, self.md(tmp_path, metal_path), 62, n_kills=60, seed=1000)

    def test_rerun(self, metal_path: Path, tmp_path: Path) -> None:
        frames = []
        for seed in range(90):
            frames.append(ase.build.bulk("Al", cubic=True))
            frames[-1].rattle(0.1, seed=seed)
        ase.io.write(tmp_path / "t.traj", frames)
        arguments = [
            "rerun",
            "--dos",
            str(metal_path),
            str(tmp_path / "t.traj"),
            "--temperature",
            "300",
            "--batch",
            "1",
            "--resume",
        ]
        self.campaign(tmp_path, arguments, 90, n_kills=3, seed=50)


def run_killed(folder: Path, arguments: list[str], seed: int, n_kills: int) -> dict[str, int]:
    """Run a command into traces with kills; see kill_campaign.py."""
    command = [sys.executable, str(Path(kill_campaign.__file__)), str(folder), str(seed), str(n_kills), "0.5"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([*command, *arguments], env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
