"""The free energy of hot electrons in ASE: forces and stress against finite differences, consistency, bad input."""

from __future__ import annotations

import copy
import logging

import ase.build
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces
from helpers.models import ELECTRONS, GRID_START, N_CHANNELS, metallic

from petdos_md.ase import DOSCalculator, HotElectronCalculator
from petdos_md.base.errors import ElectronicTemperatureError, ModelError, StructureError
from petdos_md.base.grid import EnergyGrid
from petdos_md.models import evaluator
from petdos_md.models.checkpoints import load_networks
from petdos_md.models.hot_electrons import HotElectronForces
from petdos_md.models.model import DOSModel
from petdos_md.models.testing import SMALL, write_checkpoints
from petdos_md.physics import thermo
from petdos_md.physics.hot_electrons import highest_temperature_K

T_E = 8000.0


def free_energy(atoms: Atoms) -> float:
    return atoms.get_potential_energy(force_consistent=True)


def check_derivatives(atoms: Atoms, tolerance: float) -> None:
    """Forces and stress are those of ``free_energy``."""
    forces, stress, h = atoms.get_forces(), atoms.get_stress(voigt=False), 1e-4

    def moved(i: int, c: int, by: float) -> float:
        other = atoms.copy()
        other.calc = atoms.calc
        other.positions[i, c] += by
        return free_energy(other)

    def strained(i: int, j: int, by: float) -> float:
        other, strain = atoms.copy(), np.eye(3)
        other.calc = atoms.calc
        strain[i, j] += by / 2
        strain[j, i] += by / 2
        other.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        return free_energy(other)

    for i, c in ((0, 0), (3, 1), (7, 2)):
        assert forces[i, c] == pytest.approx((moved(i, c, -h) - moved(i, c, h)) / (2 * h), abs=tolerance)
    for i, j in ((0, 0), (1, 1), (0, 2)):
        expected = (strained(i, j, h / 10) - strained(i, j, -h / 10)) / (h / 5 * atoms.get_volume())
        assert stress[i, j] == pytest.approx(expected, abs=tolerance / atoms.get_volume() * 20)


@pytest.mark.parametrize("undo_smearing_eV", [0.0, 0.3])
@pytest.mark.parametrize("own", [True, False])
def test_forces_and_stress_derive_from_the_free_energy(
    aluminium: Atoms, hot_model: DOSModel, own: bool, undo_smearing_eV: float
) -> None:
    aluminium.calc = HotElectronCalculator(None if own else EMT(), hot_model, T_E, undo_smearing_eV)
    # EMT has a cutoff of its own; the network is not exactly invariant under rotations, hence the shear.
    check_derivatives(aluminium, 2e-6)


def test_float32_model(aluminium: Atoms, metal: DOSModel) -> None:
    """Energies of float32 features: differences over a larger step, and less precise."""
    aluminium.calc = calculator = HotElectronCalculator(EMT(), metal, T_E)
    numerical = calculate_numerical_forces(aluminium, eps=2e-2, iatoms=[2], force_consistent=True)
    assert np.abs(numerical[0] - calculator.get_property("forces", aluminium)[2]).max() < 5e-3


def test_parts_are_what_they_say(aluminium: Atoms, hot_model: DOSModel) -> None:
    """energy: of the ground state; the rest from the DOS alone, by the functions of thermo."""
    aluminium.calc = DOSCalculator(hot_model)
    cold, cold_forces = aluminium.get_potential_energy(), aluminium.get_forces()
    aluminium.calc = HotElectronCalculator(None, hot_model, T_E)
    assert aluminium.get_potential_energy() == pytest.approx(cold, abs=1e-10)
    results, dos, grid = aluminium.calc.results, hot_model.dos(aluminium), hot_model.grid.energies
    n = hot_model.n_electrons(aluminium)
    expected = float(thermo.free_energy(grid, dos, n, T_E) - thermo.ground_state_energy(grid, dos, n))
    assert free_energy(aluminium) - cold == pytest.approx(expected, abs=1e-9)
    assert results["electronic_free_energy"] == pytest.approx(expected, abs=1e-9)
    assert results["entropy"] == pytest.approx(float(thermo.entropy(grid, dos, n, T_E)), rel=1e-9)
    assert results["electronic_thermal_energy"] == pytest.approx(
        float(thermo.thermal_energy(grid, dos, n, T_E)), rel=1e-9
    )
    assert results["electronic_heat_capacity"] == pytest.approx(
        float(thermo.heat_capacity(grid, dos, n, T_E)), rel=1e-9
    )
    assert results["chemical_potential"] == pytest.approx(float(thermo.chemical_potential(grid, dos, n, T_E)), abs=1e-9)
    added = aluminium.get_forces() - cold_forces
    alone = HotElectronForces(hot_model).evaluate(aluminium, T_E)
    np.testing.assert_allclose(alone.forces, added, atol=1e-9)
    assert np.abs(added).max() > 0.05  # or the test would see nothing
    aluminium.calc = HotElectronCalculator(EMT(), hot_model, T_E)
    reference = aluminium.copy()
    reference.calc = EMT()
    np.testing.assert_allclose(aluminium.get_forces() - reference.get_forces(), added, atol=1e-9)
    assert aluminium.get_potential_energy() == reference.get_potential_energy()


def test_one_pass_serves_all(aluminium: Atoms, hot_model: DOSModel, monkeypatch) -> None:
    passes = []
    forward = hot_model.evaluator._forward
    monkeypatch.setattr(hot_model.evaluator, "_forward", lambda *a, **k: passes.append(1) or forward(*a, **k))
    aluminium.calc = calculator = HotElectronCalculator(None, hot_model, T_E)
    aluminium.get_forces(), aluminium.get_stress(), free_energy(aluminium), calculator.results["dos"]
    calculator.get_sample(aluminium), calculator.results["entropy"]
    assert passes == [1]
    calculator.electronic_temperature_K = 6000.0
    aluminium.get_forces()
    assert passes == [1, 1]


def test_network_in_slices(aluminium: Atoms, hot_model: DOSModel, monkeypatch) -> None:
    """What large structures take, against differentiation of the whole network."""
    for with_energy in (True, False):
        whole = HotElectronForces(hot_model).evaluate(aluminium, T_E, with_energy=with_energy)
        with monkeypatch.context() as patch:
            patch.setattr(evaluator, "MAX_ATOMS_AT_ONCE", 1)
            sliced = HotElectronForces(hot_model).evaluate(aluminium, T_E, with_energy=with_energy)
        np.testing.assert_allclose(sliced.forces, whole.forces, atol=1e-10)
        np.testing.assert_allclose(sliced.stress, whole.stress, atol=1e-11)
        assert sliced.ground_energy_eV == pytest.approx(whole.ground_energy_eV, abs=1e-10)
        np.testing.assert_allclose(sliced.sample.features, whole.sample.features, rtol=1e-12)


def test_temperature_that_changes(aluminium: Atoms, hot_model: DOSModel) -> None:
    now = [3000.0]
    calculator = HotElectronCalculator(EMT(), hot_model, lambda: now[0])
    aluminium.calc = calculator
    low = free_energy(aluminium)
    now[0] = 6000.0
    assert free_energy(aluminium) == low and calculator.used_temperature_K == 3000.0  # read when atoms have moved
    calculator.reset()
    assert free_energy(aluminium) < low and calculator.used_temperature_K == 6000.0
    fixed = HotElectronCalculator(EMT(), hot_model, 6000.0)
    assert free_energy(aluminium) == pytest.approx(fixed.get_property("free_energy", aluminium), abs=1e-12)
    twin = copy.deepcopy(fixed)
    assert twin.get_property("entropy", aluminium) == fixed.results["entropy"]
    assert fixed.description == 6000.0 and calculator.description == "variable"


def test_model_errors_are_those_of_members(aluminium: Atoms, hot_model: DOSModel) -> None:
    """Each member as a model of its own: its DOS moved by finite differences of its own free energy."""
    errors = HotElectronCalculator(EMT(), hot_model, T_E).model_errors(aluminium)
    grid, n, h = hot_model.grid.energies, hot_model.n_electrons(aluminium), 1e-4

    def members(by: float) -> np.ndarray:
        moved = aluminium.copy()
        moved.positions[2, 1] += by
        dos = hot_model.dos_members(moved)
        return thermo.free_energy(grid, dos, n, T_E) - thermo.ground_state_energy(grid, dos, n)

    assert errors.free_energy_eV == pytest.approx(members(0.0).std(ddof=1), rel=1e-6)
    forces = (members(-h) - members(h)) / (2 * h)
    assert errors.forces[2, 1] == pytest.approx(forces.std(ddof=1), rel=1e-3)


def test_direct_model(aluminium: Atoms, tmp_path) -> None:
    """A model that is asked for the DOS itself has forces of hot electrons by its own gradient."""
    pet_path, _ = write_checkpoints(
        tmp_path, SMALL, symbols=list(ELECTRONS), n_channels=N_CHANNELS, n_members=2, dtype=torch.float64
    )
    torch.save(metallic(torch.load(pet_path, weights_only=False), smooth=1.0), tmp_path / "metal.ckpt")
    pet, _ = load_networks(tmp_path / "metal.ckpt", None, "mtt::dos")
    model = DOSModel.from_atomistic(pet.export(), EnergyGrid(GRID_START, 0.05, N_CHANNELS), electrons=ELECTRONS)
    assert model.info.kind == "direct"
    aluminium.calc = HotElectronCalculator(EMT(), model, T_E)
    check_derivatives(aluminium, 2e-6)


def test_bad_input(aluminium: Atoms, hot_model: DOSModel) -> None:
    for bad in (0.0, -300.0, np.nan, np.inf, None, "hot", True):
        with pytest.raises(ElectronicTemperatureError, match="expected a positive number of K"):
            HotElectronCalculator(EMT(), hot_model, bad)
    with pytest.raises(ElectronicTemperatureError, match="got the electronic temperature nan"):
        HotElectronCalculator(EMT(), hot_model, lambda: float("nan"))
    highest = highest_temperature_K(hot_model.grid.energies, hot_model.dos(aluminium), hot_model.n_electrons(aluminium))
    with pytest.raises(ElectronicTemperatureError, match=f"expected at most {float(f'{highest:.3g}'):g} K"):
        HotElectronCalculator(EMT(), hot_model, 1.1 * highest).get_property("forces", aluminium)
    with pytest.raises(ElectronicTemperatureError, match="cannot be undone at 2000 K"):
        HotElectronCalculator(EMT(), hot_model, 2000.0, 0.3).get_property("forces", aluminium)
    with pytest.raises(StructureError, match="element Cu is unknown"):
        HotElectronCalculator(EMT(), hot_model, T_E).get_property("forces", ase.build.bulk("Cu"))
    known = dict(hot_model.electrons)
    try:
        hot_model.electrons.pop("Al")
        with pytest.raises(StructureError, match="no number of valence electrons is known for Al"):
            HotElectronCalculator(EMT(), hot_model, T_E).get_property("forces", aluminium)
    finally:
        hot_model.electrons.update(known)
    has, hot_model.has_energy = hot_model.has_energy, False
    try:
        with pytest.raises(ModelError, match="no energy output"):
            HotElectronCalculator(None, hot_model, T_E)
    finally:
        hot_model.has_energy = has


def test_warning_where_the_change_is_smearing(caplog) -> None:
    """Silicon at kT = 0.17 eV: a DOS smeared by 0.3 eV has carriers where there are none."""
    atoms = ase.build.bulk("Si", "diamond", a=5.39, cubic=True)
    hot = HotElectronForces(DOSModel.load("almgsi-lda"))
    with caplog.at_level(logging.WARNING):
        hot.evaluate(atoms, 2000.0)
        hot.evaluate(atoms, 2000.0)
        hot.evaluate(atoms, 8000.0)
    assert len(caplog.records) == 1 and "below the smearing of 0.3 eV" in caplog.text
    share, change = (
        float(word) for word in __import__("re").findall(r"(-?[0-9.e-]+)(?: of the|\s*eV that)", caplog.text)[:2]
    )
    assert abs(share) > 0.1 * abs(change)
