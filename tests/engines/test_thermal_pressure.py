"""Thermal pressure and Grueneisen parameter of electrons against differences of free energy and entropy in volume."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from petdos_md.base.errors import ElectronicTemperatureError, NoSamplesError, StructureError
from petdos_md.engines.thermal_pressure import ThermalPressureObserver, thermal_pressure
from petdos_md.models.hot_electrons import HotElectronForces
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo

T_E = 8000.0


def differences(atoms: Atoms, model: DOSModel) -> tuple[float, float]:
    """Pressure (GPa) and gamma, from F and S at two volumes."""
    F, S, V = [], [], []
    for scale in (1 + 1e-4, 1 - 1e-4):
        other = atoms.copy()
        other.set_cell(atoms.cell.array * scale, scale_atoms=True)
        arguments = model.grid.energies, model.dos(other), model.n_electrons(other)
        F.append(float(thermo.free_energy(*arguments, T_E) - thermo.ground_state_energy(*arguments)))
        S.append(float(thermo.entropy(*arguments, T_E)))
        V.append(other.get_volume())
    heat = float(thermo.heat_capacity(model.grid.energies, model.dos(atoms), model.n_electrons(atoms), T_E))
    dV = V[0] - V[1]
    return -(F[0] - F[1]) / dV / units.GPa, atoms.get_volume() * (S[0] - S[1]) / dV / heat


def test_pressure_and_grueneisen(aluminium: Atoms, hot_model: DOSModel) -> None:
    found = thermal_pressure(HotElectronForces(hot_model), aluminium, T_E)
    pressure, gamma = differences(aluminium, hot_model)
    assert found.pressure_GPa == pytest.approx(pressure, rel=1e-4)
    assert found.grueneisen == pytest.approx(gamma, rel=1e-3)


def test_means_of_samples(aluminium: Atoms, hot_model: DOSModel) -> None:
    """Of structures that have nothing to do with each other: means, and errors of independent samples."""
    atoms = aluminium.copy()
    observer, each = ThermalPressureObserver(atoms, hot_model, T_E), []
    with pytest.raises(NoSamplesError):
        observer.result()
    for seed in range(16):
        other = aluminium.copy()
        other.rattle(0.1, seed=seed)
        atoms.positions = other.positions
        observer()
        each.append(differences(other, hot_model))
    result, (pressure, gamma) = observer.result(), np.array(each).T
    assert result.n_samples == 16
    assert result.pressure_GPa == pytest.approx(pressure.mean(), rel=1e-3)
    assert result.grueneisen == pytest.approx(gamma.mean(), abs=0.1 * np.abs(gamma).max())
    for error, values in ((result.pressure_error_GPa, pressure), (result.grueneisen_error, gamma)):
        assert 0.5 < error / (values.std(ddof=1) / 4) < 3.5


def test_attached_to_dynamics(aluminium: Atoms, hot_model: DOSModel) -> None:
    aluminium.calc = EMT()
    dynamics = VelocityVerlet(aluminium, 4 * units.fs)
    observer = ThermalPressureObserver(aluminium, hot_model, lambda: 4000.0 + 1000 * dynamics.nsteps)
    dynamics.attach(observer)
    dynamics.run(1)
    first, last = observer._rows
    hot = HotElectronForces(hot_model)
    assert (
        last[0] == pytest.approx(thermal_pressure(hot, aluminium, 5000.0).pressure_GPa, rel=1e-9)
        and first[0] != last[0]
    )


def test_free_electrons_in_aluminium() -> None:
    """The shipped model on the crystal: 2/3 within what the band structure of aluminium does to it."""
    import ase.build

    atoms = ase.build.bulk("Al", cubic=True, a=4.0)
    found = thermal_pressure(HotElectronForces(DOSModel.load("almgsi-lda")), atoms, T_E)
    assert 0.3 < found.grueneisen < 1.2 and found.pressure_GPa > 0


def test_bad_input(aluminium: Atoms, hot_model: DOSModel) -> None:
    with pytest.raises(ElectronicTemperatureError):
        ThermalPressureObserver(aluminium, hot_model, -1.0)
    aluminium.pbc = [True, True, False]
    with pytest.raises(StructureError, match="has no volume"):
        thermal_pressure(HotElectronForces(hot_model), aluminium, T_E)
