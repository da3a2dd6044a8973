"""The observer and the calculator for ASE, on a real (small) model and real dynamics."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from helpers.models import spoil_species

from petdos_md.ase import DOSCalculator, DOSObserver
from petdos_md.base.errors import ModelError, NoSamplesError, PetdosError, SettingError, StructureError, TraceError
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

    def test_another_frame_after_a_restart_is_a_new_sample(self, atoms, metal, tmp_path: Path) -> None:
        for seed in range(2):
            atoms.rattle(0.05, seed=seed)
            dyn = dynamics(atoms)
            observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, interval=5)
            dyn.attach(observer, interval=5)
            dyn.run(5)
            observer.trace.close()
        assert Trace.open(tmp_path / "t.zarr", "r").step.tolist() == [0, 5, 10, 15]

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

    def test_restored_step_count_fills_no_step_twice(self, atoms, metal, tmp_path: Path) -> None:
        """Dynamics put back to an older step, as a restart from a checkpoint does."""
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn)
        dyn.attach(observer, interval=2)
        dyn.run(8)
        observer.trace.close()
        dyn = dynamics(atoms)
        dyn.nsteps = 4
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn)
        dyn.attach(observer, interval=2)
        dyn.run(8)
        assert observer.trace.step.tolist() == [0, 2, 4, 6, 8, 10, 12]
        assert observer.n_samples == 2

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
        "temperature", [None, 0, -300.0, float("nan"), lambda: -1.0], ids=["None", "0", "-300", "nan", "function"]
    )
    def test_temperature_must_be_positive(self, atoms, metal, tmp_path: Path, temperature) -> None:
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
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn, target_error=0.02)
        dyn.attach(observer, interval=2)
        assert observer.run(2000)
        result = observer.result()
        assert result.reliable and result.heat_capacity.sampling_err <= 0.02 * result.heat_capacity.value
        assert 62 <= dyn.nsteps < 2000
        # one that was met is met after a restart, and one that cannot be met is not
        observer.trace.close()
        assert DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, target_error=0.02).converged
        assert not DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, target_error=1e-9).converged


class TestCalculator:
    def test_any_potential(self, atoms: Atoms, metal: DOSModel) -> None:
        expected = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        atoms.calc = DOSCalculator(metal, EMT(), temperature_K=500)
        got = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        dos, energies = metal.dos(atoms), metal.grid.energies
        np.testing.assert_array_equal(atoms.calc.get_property("dos", atoms), dos)
        results = atoms.calc.results
        assert results["fermi_level"] == thermo.fermi_level(energies, dos, 24.0)
        assert results["chemical_potential"] == thermo.chemical_potential(energies, dos, 24.0, 500)
        assert results["electronic_heat_capacity"] == thermo.heat_capacity(energies, dos, 24.0, 500) > 0
        atoms.positions[0, 0] += 0.1
        assert not np.array_equal(atoms.calc.get_property("dos", atoms), dos)
        with pytest.raises(KeyError):
            results["charges"]

    def test_forces_alone_cost_no_dos(self, atoms: Atoms, metal: DOSModel, monkeypatch) -> None:
        evaluations = count_evaluations(metal, monkeypatch)
        atoms.calc = DOSCalculator(metal, EMT())
        VelocityVerlet(atoms, units.fs).run(5)
        assert evaluations == []
        atoms.calc.get_property("fermi_level", atoms)
        atoms.calc.get_property("dos", atoms)
        assert evaluations == ["validate"]

    def test_one_pass_serves_both(self, atoms: Atoms, metal: DOSModel, tmp_path: Path, monkeypatch) -> None:
        evaluations = count_evaluations(metal, monkeypatch)
        atoms.calc = DOSCalculator(metal, temperature_K=600)
        dyn = dynamics(atoms)
        observer = DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn)
        dyn.attach(observer, interval=2)
        dyn.run(4)
        assert evaluations == ["evaluate_with_forces"] * 5
        assert len(observer.trace) == 3
        assert observer.trace.potential_energy_eV[-1] == atoms.get_potential_energy()
        atoms.get_stress()
        atoms.calc.get_property("electronic_heat_capacity", atoms)
        assert len(evaluations) == 5
        np.testing.assert_allclose(observer.trace[-1].features, metal.evaluate(atoms).features, rtol=1e-5, atol=1e-6)

    def test_energy_head_is_a_potential(self, atoms: Atoms, metal: DOSModel) -> None:
        """Forces and stress against finite differences of the energy (float32, hence the tolerance)."""
        atoms.calc = DOSCalculator(metal)
        forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
        energy, h = [], 0.01
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[2, 1] += sign * h
            energy.append(moved.get_potential_energy())
        assert abs((energy[1] - energy[0]) / (2 * h) - forces[2, 1]) < 2e-3 * np.abs(forces).max() + 2e-3
        energy = []
        strain = np.zeros((3, 3))
        strain[0, 1] = strain[1, 0] = 0.5e-2
        for sign in (1, -1):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.set_cell(atoms.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            energy.append(moved.get_potential_energy())
        expected = (energy[0] - energy[1]) / (2e-2 * atoms.get_volume())
        assert abs(expected - stress[0, 1]) < 1e-2 * np.abs(stress).max()

    def test_errors(self, atoms: Atoms, metal: DOSModel, metal_path: Path) -> None:
        with pytest.raises(SettingError, match="positive temperature"):
            DOSCalculator(metal, EMT(), temperature_K=-1)
        with pytest.raises(SettingError, match="expected an ASE calculator"):
            DOSCalculator(metal, "emt")
        calculator = DOSCalculator(metal, EMT())
        with pytest.raises(SettingError, match="needs a temperature"):
            calculator.get_property("electronic_heat_capacity", atoms)
        model = DOSModel.load(metal_path)
        model.has_energy = False
        with pytest.raises(ModelError, match="no energy output"):
            DOSCalculator(model)


def count_evaluations(model: DOSModel, monkeypatch) -> list[str]:
    """Names of the model's methods as they are called."""
    called: list[str] = []
    for name in ("validate", "evaluate_with_forces"):
        function = getattr(model, name)

        def wrapper(*args, _name=name, _function=function, **kwargs):
            if isinstance(args[0], Atoms):  # one structure is evaluated as a list of one
                called.append(_name)
            return _function(*args, **kwargs)

        monkeypatch.setattr(model, name, wrapper)
    return called


def test_all_errors_are_of_one_line(atoms, metal, tmp_path: Path) -> None:
    for call in (
        lambda: DOSObserver(atoms, metal, tmp_path / "t.zarr"),
        lambda: DOSObserver(Atoms(), metal, tmp_path / "t.zarr", 300),
        lambda: DOSCalculator(metal, 3),
    ):
        with pytest.raises(PetdosError) as error:
            call()
        assert "\n" not in str(error.value)
