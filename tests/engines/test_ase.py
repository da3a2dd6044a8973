"""The observer for ASE, on a real (small) model and real dynamics."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from helpers.models import spoil_species

from petdos_md.ase import DOSCalculator, DOSObserver
from petdos_md.base.errors import NoSamplesError, PetdosError, SettingError, StructureError, TraceError
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.traces.trace import Trace


@pytest.fixture
def atoms() -> Atoms:
    """Hot aluminium with a potential."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=3)
    atoms.calc = EMT()
    return atoms


def dynamics(atoms: Atoms, seed: int = 0) -> Langevin:
    return Langevin(
        atoms, 2 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=np.random.default_rng(seed), fixcm=False
    )


class TestObserver:
    def test_samples_equal_evaluations_of_the_saved_frames(self, atoms: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        dyn, frames = dynamics(atoms), []
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn)
        dyn.attach(observer, interval=3)

        def save() -> None:
            frame = atoms.copy()
            frame.info["E"] = atoms.get_potential_energy()
            frames.append(frame)

        dyn.attach(save, interval=3)
        dyn.run(12)
        trace = observer.trace
        assert trace.step.tolist() == [0, 3, 6, 9, 12]
        np.testing.assert_array_equal(trace.time_fs, 2.0 * trace.step)
        np.testing.assert_array_equal(trace.temperature_K, 600.0)
        np.testing.assert_allclose(trace.kinetic_temperature_K, [f.get_temperature() for f in frames], rtol=1e-14)
        np.testing.assert_allclose(trace.potential_energy_eV, [f.info["E"] for f in frames], rtol=1e-14)
        np.testing.assert_allclose(trace.volume_A3, atoms.get_volume())
        np.testing.assert_array_equal(np.asarray(trace.features), [metal.evaluate(f).features for f in frames])
        assert trace.n_electrons.tolist() == [24.0] * 5
        # the running result against the definition, frame by frame
        mean = np.mean([metal.dos(f) for f in frames], axis=0)
        expected = thermo.heat_capacity(metal.grid.energies, mean, 24.0, 600.0)
        result = observer.result(members=False)
        assert result.n_samples == 5
        np.testing.assert_allclose(result.heat_capacity.value, expected, rtol=1e-9)
        members = np.mean([metal.dos_members(f) for f in frames], axis=0)
        spread = thermo.heat_capacity(metal.grid.energies, members, 24.0, 600.0).std(ddof=1)
        np.testing.assert_allclose(observer.result().heat_capacity.model_std, spread, rtol=1e-5)

    def test_no_result_before_samples(self, atoms: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600)
        with pytest.raises(NoSamplesError, match="no samples"):
            observer.result()

    @pytest.mark.parametrize("count", [True, False], ids=["dynamics", "calls"])
    def test_new_dynamics_continue_the_numbering(self, atoms, metal, tmp_path: Path, count: bool) -> None:
        """A new Dynamics fires step 0 again, on the frame that was sampled last."""
        for _ in range(3):
            dyn = dynamics(atoms)
            observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn if count else None, interval=5)
            dyn.attach(observer, interval=5)
            dyn.run(10)
            observer.trace.close()
        trace = Trace.open(tmp_path / "t.zarr", "r")
        assert trace.step.tolist() == [0, 5, 10, 15, 20, 25, 30]
        assert len(np.unique(np.asarray(trace.features), axis=0)) == 7
        assert observer.running.n_samples() == 7 and observer.n_samples == 2

    def test_another_frame_after_a_restart_is_a_new_sample(self, atoms, metal, tmp_path: Path, caplog) -> None:
        for seed in range(2):
            atoms.rattle(0.05, seed=seed)
            dyn = dynamics(atoms)
            observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, interval=5)
            dyn.attach(observer, interval=5)
            dyn.run(5)
            observer.trace.close()
        assert Trace.open(tmp_path / "t.zarr", "r").step.tolist() == [0, 5, 10, 15]
        (said,) = (r.getMessage() for r in caplog.records if "first frame" in r.getMessage())
        assert "follows as step 10" in said

    def test_burn_in_of_every_simulation(self, atoms, metal, tmp_path: Path) -> None:
        """Skipped again where a new simulation starts, but not where one goes on."""
        for seed in (0, 1, None):
            if seed is not None:
                atoms.rattle(0.05, seed=seed)
            dyn = dynamics(atoms)
            observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, burn_in=4)
            dyn.attach(observer, interval=2)
            dyn.run(8)
            observer.trace.close()
        assert Trace.open(tmp_path / "t.zarr", "r").step.tolist() == [4, 6, 8, 14, 16, 18, 20, 22, 24, 26]

    def test_a_restored_run_drops_what_it_takes_again(self, atoms, metal, tmp_path: Path, caplog) -> None:
        """Dynamics put back to a checkpoint between two samples, with other random numbers from there on."""
        path, kept = tmp_path / "t.zarr", {}
        dyn = dynamics(atoms)
        with DOSObserver(atoms, metal, path, 600, dynamics=dyn) as observer:
            dyn.attach(lambda: kept.setdefault(dyn.nsteps, (atoms.get_positions(), atoms.get_momenta())))
            dyn.attach(observer, interval=2)
            dyn.run(8)
        with Trace.open(path) as trace:  # another replica, which nobody touches
            for row in range(5):
                trace.append(trace[row], replica=1)
        before = np.asarray(Trace.open(path, "r").features)
        for n, dropped in ((5, 2), (4, 3)):
            atoms.positions[:], momenta = kept[n]
            atoms.set_momenta(momenta)
            dyn, frames = dynamics(atoms, seed=n), []
            dyn.nsteps = n
            caplog.clear()
            with DOSObserver(atoms, metal, path, 600, dynamics=dyn) as observer:
                told = f"the simulation goes on from step {n}; {dropped} samples of replica 0 after it are dropped"
                assert [told in record.message for record in caplog.records] == [True]
                dyn.attach(observer, interval=2)
                dyn.attach(lambda frames=frames: frames.append(atoms.copy()), interval=2)
                dyn.run(6)
            trace = Trace.open(path, "r")
            first = trace.replica == 0
            steps = [step for step in range(0, n + 7, 2)]
            assert trace.step[first].tolist() == steps and trace.step[~first].tolist() == [0, 2, 4, 6, 8]
            features = np.asarray(trace.features)
            np.testing.assert_array_equal(features[~first], before[5:])
            np.testing.assert_array_equal(features[first][:3], before[:3])
            np.testing.assert_array_equal(features[first][3:], [metal.evaluate(f).features for f in frames])
            assert observer.n_samples == len(frames) == 3 and observer.running.n_samples() == len(steps)

    def test_another_run_of_that_many_steps_drops_nothing(self, atoms, metal, tmp_path: Path) -> None:
        """Dynamics that were equilibrated have a count of their own; the structure tells that they are not this trace's."""
        path = tmp_path / "t.zarr"
        dyn = dynamics(atoms)
        with DOSObserver(atoms, metal, path, 600, dynamics=dyn) as observer:
            dyn.attach(observer, interval=2)
            dyn.run(8)
        atoms.rattle(0.1, seed=1)
        dyn = dynamics(atoms)
        dyn.run(4)
        with pytest.raises(
            TraceError, match="replica 0 at step 4 has another structure than these dynamics; restore the"
        ):
            DOSObserver(atoms, metal, path, 600, dynamics=dyn)
        assert Trace.open(path, "r").step.tolist() == [0, 2, 4, 6, 8]

    def test_replicas_count_apart(self, atoms, metal, tmp_path: Path) -> None:
        trace = Trace.open(tmp_path / "t.zarr", model=metal)
        for replica, temperature in enumerate((300, 900)):
            dyn = dynamics(atoms)
            observer = DOSObserver(atoms, metal, trace, temperature, dynamics=dyn, replica=replica)
            dyn.attach(observer, interval=2)
            dyn.run(4)
            assert observer.running.n_samples() == 3
        assert trace.step.tolist() == [0, 2, 4] * 2 and trace.replica.tolist() == [0] * 3 + [1] * 3
        assert trace.temperatures_K.tolist() == [300, 900]

    def test_burn_in_and_changing_temperature(self, atoms, metal, tmp_path: Path) -> None:
        dyn = dynamics(atoms)
        observer = DOSObserver(
            atoms, metal, tmp_path / "t.zarr", lambda: 300.0 + 10 * dyn.nsteps, dynamics=dyn, burn_in=4, flush_every=1
        )
        dyn.attach(observer, interval=2)
        dyn.run(8)
        assert observer.trace.step.tolist() == [4, 6, 8]
        assert observer.trace.temperature_K.tolist() == [340, 360, 380]
        assert observer.result().temperature_K == 380 and observer.result(340).n_samples == 1
        assert len(Trace.open(tmp_path / "t.zarr", "r")) == 3  # each was flushed
        observer.temperature_K = 500  # as one would set the thermostat
        dyn.run(2)
        observer.temperature_K = lambda: 510.0 + dyn.nsteps
        dyn.run(2)
        assert observer.trace.temperature_K.tolist() == [340, 360, 380, 500, 522]
        with pytest.raises(SettingError, match="got temperature_K=-3"):
            observer.temperature_K = -3

    def test_frames_with_nan_are_refused_and_dynamics_go_on(self, atoms, metal, tmp_path: Path) -> None:
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn)

        def spoil() -> None:
            if dyn.nsteps in (4, 6):
                spoil.kept = atoms.positions.copy()  # type: ignore[attr-defined]
                atoms.positions[3, 1] = np.nan

        def fix() -> None:
            if dyn.nsteps in (4, 6):
                atoms.positions[:] = spoil.kept  # type: ignore[attr-defined]

        for function in (spoil, observer, fix):
            dyn.attach(function, interval=2)
        dyn.run(10)
        assert observer.trace.step.tolist() == [0, 2, 8, 10]
        assert observer.n_skipped == 2 and observer.trace.n_skipped == 2
        assert "2 skipped" in repr(observer)
        assert np.isfinite(observer.result().heat_capacity.value)

    def test_prediction_of_nan_is_refused(self, atoms, tmp_path: Path, metal_path: Path) -> None:
        model = DOSModel.load(metal_path)
        spoil_species(model, "Mg")
        atoms.calc = EMT()
        observer = DOSObserver(atoms, model, tmp_path / "t.zarr", 600)
        atoms.symbols[0] = "Mg"
        atoms.calc = None
        observer()
        atoms.symbols[0] = "Al"
        observer()
        assert len(observer.trace) == 1 and observer.trace.skipped == {"prediction is not finite": 1}

    @pytest.mark.parametrize(
        "temperature",
        [None, 0, -300.0, float("nan"), lambda: -1.0, "300", True, [300.0]],
        ids=lambda t: "function" if callable(t) else str(t),
    )
    def test_temperature_must_be_a_positive_number(self, atoms, metal, tmp_path: Path, temperature) -> None:
        with pytest.raises(SettingError, match="expected the temperature of the ensemble, positive, in K"):
            DOSObserver(atoms, metal, tmp_path / "t.zarr", temperature)
        assert not (tmp_path / "t.zarr").exists()

    def test_structures_that_cannot_be_sampled(self, metal_path: Path, tmp_path: Path, metal) -> None:
        path = tmp_path / "t.zarr"
        with pytest.raises(StructureError, match="element Cu is unknown to metal, which knows Mg Al Si"):
            DOSObserver(ase.build.bulk("Cu"), metal, path, 300)
        with pytest.raises(StructureError, match="no atoms"):
            DOSObserver(Atoms(), metal, path, 300)
        model = DOSModel.load(metal_path)
        del model.electrons["Si"]
        with pytest.raises(StructureError, match="no number of valence electrons is known for Si"):
            DOSObserver(ase.build.bulk("Si"), model, path, 300)

    def test_trace_of_another_model(self, atoms, metal, model, tmp_path: Path) -> None:
        with Trace.open(tmp_path / "t.zarr") as trace:
            trace.append(model.evaluate(atoms), step=0, temperature_K=300)
        for given in (tmp_path / "t.zarr", Trace.open(tmp_path / "t.zarr")):
            with pytest.raises(TraceError, match="trace of another model"):
                DOSObserver(atoms, metal, given, 300)

    def test_convergence_is_that_of_the_temperature_of_now(self, atoms, metal, tmp_path: Path) -> None:
        """A trace with enough samples of another temperature only: there is nothing to be converged yet."""
        sample = metal.evaluate(atoms)
        with Trace.open(tmp_path / "t.zarr", model=metal) as trace:
            for step in range(32):
                trace.append(sample, step=step, temperature_K=300.0)
        options = {"target_error": 0.5, "min_samples": 8}
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 900, dynamics=dynamics(atoms), **options)
        assert not observer.converged and observer.running.n_samples(300.0) == 32

    def test_numbering_goes_on_from_the_largest_step(self, atoms, metal, tmp_path: Path) -> None:
        """Rows of a trace are not in the order of their steps if earlier ones came later."""
        path = tmp_path / "t.zarr"
        with Trace.open(path, model=metal) as trace:
            for step in (0, 6, 12, 3):
                atoms.rattle(0.01, seed=step)
                trace.append(metal.evaluate(atoms), step=step, temperature_K=600.0)
        atoms.rattle(0.01, seed=99)
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, path, 600, dynamics=dyn)
        dyn.attach(observer, interval=6)
        dyn.run(6)
        observer.trace.close()
        assert Trace.open(path, "r").step.tolist() == [0, 6, 12, 3, 18, 24]

    def test_stops_at_the_target_error(self, atoms, metal, tmp_path: Path) -> None:
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, target_error=0.1)
        dyn.attach(observer, interval=8)
        assert observer.run(6000)
        result = observer.result()
        assert result.reliable and result.heat_capacity.sampling_err <= 0.1 * result.heat_capacity.value
        assert 62 <= dyn.nsteps < 6000
        # one that was met is met after a restart, and one that cannot be met is not
        observer.trace.close()
        assert DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, target_error=0.1).converged
        assert not DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, target_error=1e-9).converged

    def test_an_optimizer_is_no_dynamics(self, atoms, metal, tmp_path: Path) -> None:
        for optimizer in (BFGS(atoms, logfile=None), FIRE(atoms, logfile=None)):  # the latter has a time step
            with pytest.raises(SettingError, match=f"got a {type(optimizer).__name__} as dynamics, expected molecular"):
                DOSObserver(atoms, metal, tmp_path / "t.zarr", 300, dynamics=optimizer)
        assert not (tmp_path / "t.zarr").exists()

    def test_wrong_options(self, atoms, metal, tmp_path: Path) -> None:
        for options in ({"burn_in": -1}, {"target_error": 0.0}, {"interval": 0}):
            with pytest.raises(SettingError, match=f"got .*{next(iter(options))}="):
                DOSObserver(atoms, metal, tmp_path / "t.zarr", 300, **options)
        with pytest.raises(TypeError, match="burnin"):
            DOSObserver(atoms, metal, tmp_path / "t.zarr", 300, burnin=3)

    def test_a_change_of_folder_loses_nothing(self, atoms, metal, tmp_path: Path, monkeypatch) -> None:
        (tmp_path / "scratch").mkdir()
        monkeypatch.chdir(tmp_path)
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, "run.zarr", 600, dynamics=dyn, flush_every=1)
        dyn.attach(observer, interval=2)
        dyn.run(4)
        monkeypatch.chdir(tmp_path / "scratch")
        dyn.run(4)
        observer.close()
        assert Trace.open(tmp_path / "run.zarr", "r").step.tolist() == [0, 2, 4, 6, 8]
        assert not list((tmp_path / "scratch").iterdir())

    def test_a_cell_of_a_notebook_that_is_run_again(self, atoms, metal, tmp_path: Path) -> None:
        """The first observer was never closed; the second takes over with all samples of the first on disk."""
        observers = []
        for seed in range(3):
            dyn = dynamics(atoms, seed)
            observers.append(DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn))
            dyn.attach(observers[-1], interval=2)
            dyn.run(4)
        assert observers[-1].trace.step.tolist() == [0, 2, 4, 6, 8, 10, 12]
        assert observers[-1].running.n_samples() == 7
        atoms.rattle(0.01)
        with pytest.raises(
            TraceError, match=r"was closed; open it again to write \(a newer observer of this process writes"
        ):
            observers[0].dynamics.run(2)
        observers[-1].close()
        assert len(Trace.open(tmp_path / "t.zarr", "r")) == 7

    def test_a_trace_of_ones_own_is_not_taken_over(self, atoms, metal, tmp_path: Path) -> None:
        with Trace.open(tmp_path / "t.zarr", model=metal, flush_every=100) as trace:
            observer = DOSObserver(atoms, metal, trace, 600)
            observer()
            observer.close()
            assert len(Trace.open(tmp_path / "t.zarr", "r")) == 1  # flushed, not closed
            atoms.rattle(0.01)
            observer()
            other = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, replica=1)
            with pytest.raises(TraceError, match="by another Trace object of this process; close it"):
                other()
        assert other() is None and other.trace.replica.tolist() == [0, 0, 1]

    def test_closes_itself(self, atoms, metal, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), DOSObserver(atoms, metal, tmp_path / "t.zarr", 600) as observer:
            observer()
            raise ZeroDivisionError
        assert len(Trace.open(tmp_path / "t.zarr", "r")) == 1
        with pytest.raises(TraceError, match="was closed"):
            observer()

    def test_the_same_time_step_on_reopening(self, atoms, metal, tmp_path: Path) -> None:
        """0.1 fs in ASE's units and back differs in the last digit."""
        for timestep_fs in (0.1, 0.1 * (1 + 1e-12)):
            dyn = VelocityVerlet(atoms, timestep_fs * units.fs)
            DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn).close()
        with pytest.raises(TraceError, match=r"it has timestep_fs = 0\.\d*, got 0\.2"):
            DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=VelocityVerlet(atoms, 0.2 * units.fs))


def test_all_errors_are_of_one_line(atoms, metal, tmp_path: Path) -> None:
    for call in (
        lambda: DOSObserver(atoms, metal, tmp_path / "t.zarr"),
        lambda: DOSObserver(Atoms(), metal, tmp_path / "t.zarr", 300),
        lambda: DOSCalculator(metal, 3),
    ):
        with pytest.raises(PetdosError) as error:
            call()
        assert "\n" not in str(error.value)


class TestOverlap:
    """Samples that are evaluated while the dynamics go on are those that are taken in between, bit by bit."""

    def run(self, atoms: Atoms, metal: DOSModel, path: Path, overlap: bool, **options: object) -> DOSObserver:
        dyn = dynamics(atoms, seed=5)
        observer = DOSObserver(atoms, metal, path, 600, dynamics=dyn, overlap=overlap, **options)
        dyn.attach(observer, interval=2)
        dyn.run(10)
        return observer

    def test_same_trace(self, atoms: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        taken: list[int | None] = []
        for overlap in (False, True):
            start = atoms.copy()
            start.calc = EMT()
            with self.run(
                start, metal, tmp_path / f"{overlap}.zarr", overlap, on_sample=lambda s: taken.append(s.step)
            ) as observer:
                # The last sample is being evaluated still; what asks for results waits for it.
                assert observer.n_samples == (5 if overlap else 6)
                assert observer.result(members=False).n_samples == observer.n_samples == 6
        assert taken == 2 * [0, 2, 4, 6, 8, 10]
        one, other = (Trace.open(tmp_path / f"{overlap}.zarr", "r") for overlap in (False, True))
        np.testing.assert_array_equal(one.features, other.features)
        for label in ("step", "replica", "time_fs", "temperature_K", "kinetic_temperature_K", "potential_energy_eV"):
            np.testing.assert_array_equal(getattr(one, label), getattr(other, label))

    def test_flush_and_close_wait(self, atoms: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        observer = self.run(atoms, metal, tmp_path / "t.zarr", True)
        observer.flush()
        assert len(Trace.open(tmp_path / "t.zarr", "r")) == 6
        observer.dynamics.run(2)
        observer.close()
        assert Trace.open(tmp_path / "t.zarr", "r").step.tolist() == [0, 2, 4, 6, 8, 10, 12]

    def test_a_prediction_of_nan_is_skipped(self, atoms: Atoms, tmp_path: Path, metal_path: Path) -> None:
        spoiled = DOSModel.load(metal_path)
        spoil_species(spoiled, "Al")
        observer = self.run(atoms, spoiled, tmp_path / "t.zarr", True)
        observer.close()
        assert observer.n_skipped == 6 and len(Trace.open(tmp_path / "t.zarr", "r")) == 0

    def test_other_errors_are_not_lost(self, atoms: Atoms, metal: DOSModel, tmp_path: Path, monkeypatch) -> None:
        observer = self.run(atoms, metal, tmp_path / "t.zarr", True)
        observer.flush()
        atoms.numbers[0] = 29
        observer.dynamics.nsteps += 1
        observer()
        with pytest.raises(StructureError, match="Cu is unknown"):
            observer.result()
