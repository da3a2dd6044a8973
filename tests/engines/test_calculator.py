"""The calculator for ASE, on a real (small) model."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from petdos_md.ase import DOSCalculator, DOSObserver
from petdos_md.base.errors import ModelError, SettingError
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo


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
        assert evaluations == ["evaluate"]

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

    def test_observers_find_the_energy_of_a_potential(self, atoms: Atoms, metal: DOSModel, tmp_path: Path) -> None:
        """Dynamics ask for forces alone; a potential computes its energy along, and says so."""
        atoms.calc = DOSCalculator(metal, EMT())
        dyn = dynamics(atoms)
        with DOSObserver(atoms, metal, tmp_path / "t.zarr", 600, dynamics=dyn) as observer:
            dyn.attach(observer)
            dyn.run(1)
        alone = atoms.copy()
        alone.calc = EMT()
        assert observer.trace.potential_energy_eV[-1] == alone.get_potential_energy()

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
    for name in ("evaluate", "evaluate_with_forces"):
        function = getattr(model, name)

        def wrapper(*args, _name=name, _function=function, **kwargs):
            if isinstance(args[0], Atoms):  # one structure is evaluated as a list of one
                called.append(_name)
            return _function(*args, **kwargs)

        monkeypatch.setattr(model, name, wrapper)
    return called
