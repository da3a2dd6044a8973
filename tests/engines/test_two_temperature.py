"""Atoms and electrons that exchange energy: conservation laws, the order of the integrator, the two-temperature equations, bad input."""

from __future__ import annotations

from pathlib import Path

import ase.build
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from scipy.integrate import solve_ivp

from petdos_md.ase import DOSCalculator, DOSObserver, HotElectronCalculator, LaserPulse, TwoTemperatureDynamics
from petdos_md.base.errors import ElectronicTemperatureError, SettingError
from petdos_md.engines.labels import kinetic_temperature_K
from petdos_md.engines.two_temperature import W_M3_K
from petdos_md.models.model import DOSModel
from petdos_md.physics import thermo
from petdos_md.physics.hot_electrons import hot_electrons
from petdos_md.traces.trace import Trace


def hot(aluminium: Atoms, model: DOSModel, T_e: float, T_i: float = 300.0) -> Atoms:
    atoms = aluminium.copy()
    atoms.calc = HotElectronCalculator(EMT(), model, T_e)
    thermalize_momenta(atoms, T_i, rng=np.random.default_rng(0))
    Stationary(atoms)
    return atoms


def test_electrons_left_alone_keep_their_entropy(aluminium: Atoms, hot_model: DOSModel) -> None:
    """Without pulse and coupling the motion is adiabatic: S is constant to the square of the time step, while T_e follows the atoms."""

    def run(timestep_fs: float) -> tuple[float, float, float]:
        atoms = hot(aluminium, hot_model, 8000.0)
        dynamics = TwoTemperatureDynamics(atoms, timestep_fs * units.fs)
        S, T, E = [], [], []
        grid = hot_model.grid.energies

        def note() -> None:
            T.append(dynamics.electronic_temperature_K)
            S.append(float(thermo.entropy(grid, hot_model.dos(atoms), 24.0, T[-1])))
            E.append(dynamics.total_energy_eV())

        dynamics.attach(note)
        dynamics.run(round(16 / timestep_fs))
        return float(np.ptp(S)), float(np.ptp(T)), float(np.ptp(E))

    coarse, fine = run(2.0), run(1.0)
    assert coarse[1] > 1.0  # T_e has followed
    assert fine[0] < 0.4 * coarse[0]
    assert max(coarse[2], fine[2]) < 1e-7


def test_samples_know_the_temperature_of_the_electrons(aluminium: Atoms, hot_model: DOSModel, tmp_path: Path) -> None:
    """That of the energy balance after each step, from 3000 K up."""
    atoms = hot(aluminium, hot_model, 3000.0)
    dynamics = TwoTemperatureDynamics(atoms, 1 * units.fs, coupling_W_m3_K=5e18, pulse=LaserPulse(0.3, 4.0, 4.0))
    told: list[float] = []
    with DOSObserver(atoms, hot_model, tmp_path / "pulse.zarr", 300.0, dynamics=dynamics) as observer:
        dynamics.attach(observer)
        dynamics.attach(lambda: told.append(dynamics.electronic_temperature_K))
        dynamics.run(8)
    trace = Trace.open(tmp_path / "pulse.zarr", "r")
    np.testing.assert_array_equal(trace.electronic_temperature_K, told)
    assert told[0] == 3000.0 and told[-1] > 5000.0
    # The energy of the trace is the free energy at a temperature that differs by the error of the integrator.
    grid, last = hot_model.grid.energies, trace[len(trace) - 1]
    free = atoms.get_potential_energy() + float(hot_electrons(grid, hot_model.dos(last), 24.0, told[-1]).free_energy)
    assert last.potential_energy_eV == pytest.approx(free, abs=2e-3)


def test_work_of_the_electrons_is_counted(aluminium: Atoms, hot_model: DOSModel) -> None:
    """K + E_0 + U from the public functions alone changes by what is absorbed and nothing else; at fixed T_e it does not."""
    pulse = LaserPulse(0.3, 4.0, 12.0)
    atoms = hot(aluminium, hot_model, 3000.0)
    dynamics = TwoTemperatureDynamics(atoms, 1 * units.fs, coupling_W_m3_K=5e18, pulse=pulse)

    def total() -> float:
        T = dynamics.electronic_temperature_K
        thermal = float(thermo.thermal_energy(hot_model.grid.energies, hot_model.dos(atoms), 24.0, T))
        return atoms.get_kinetic_energy() + atoms.get_potential_energy() + thermal

    before = total()
    dynamics.run(24)
    assert dynamics.absorbed_eV == pytest.approx(0.3 * 8, rel=1e-5)
    assert total() - before == pytest.approx(dynamics.absorbed_eV, abs=1e-7)
    assert dynamics.transferred_eV > 0.01 and dynamics.electronic_temperature_K > 4000.0


def test_two_temperature_equations(hot_model: DOSModel) -> None:
    """Atoms of a model without forces of electrons worth mentioning: T_e and T_i beside those of scipy, with the same C_e."""
    atoms = ase.build.bulk("Al", cubic=True) * (2, 2, 2)
    grid, n = hot_model.grid.energies, hot_model.n_electrons(atoms)
    atoms.calc = _Flat(hot_model, 6000.0)
    thermalize_momenta(atoms, 300.0, rng=np.random.default_rng(1))
    Stationary(atoms)
    dos, G, V = hot_model.dos(atoms), 2e18, atoms.get_volume()
    start = kinetic_temperature_K(atoms)
    dynamics = TwoTemperatureDynamics(atoms, 1 * units.fs, coupling_W_m3_K=G, pulse=LaserPulse(0.2, 10.0, 20.0))
    dynamics.run(60)
    C_i = 1.5 * (len(atoms) - 1) * units.kB  # free particles

    def power(t: float) -> float:
        return LaserPulse(0.2, 10.0, 20.0).absorbed_eV(t - 0.01, t + 0.01, len(atoms)) / 0.02

    def rates(t: float, T: np.ndarray) -> list[float]:
        flow = G * W_M3_K * V * (T[0] - T[1])
        return [(power(t) - flow) / float(thermo.heat_capacity(grid, dos, n, T[0])), flow / C_i]

    expected = solve_ivp(rates, (0, 60), [6000.0, start], rtol=1e-7, max_step=1.0).y[:, -1]
    assert dynamics.electronic_temperature_K == pytest.approx(expected[0], rel=2e-3)
    assert kinetic_temperature_K(atoms) == pytest.approx(expected[1], rel=5e-3)


class _Flat(HotElectronCalculator):
    """Free particles: neither the potential nor the electrons give forces, so that T_i is heated by the coupling alone."""

    def __init__(self, model: DOSModel, T_e: float) -> None:
        super().__init__(_Nothing(), model, T_e)
        self._first = None

    def _hot(self, atoms: Atoms):
        from dataclasses import replace

        self._first = self._first or super()._hot(atoms)
        follow = self._temperature_of
        T = follow(self._first.sample) if follow else self._used_K
        return replace(self._first, temperature_K=T, forces=np.zeros((len(atoms), 3)), stress=np.zeros((3, 3)))


class _Nothing(EMT):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}


def test_bad_input(aluminium: Atoms, hot_model: DOSModel) -> None:
    atoms = aluminium.copy()
    atoms.calc = DOSCalculator(hot_model)
    with pytest.raises(SettingError, match="got atoms with a DOSCalculator, expected a HotElectronCalculator"):
        TwoTemperatureDynamics(atoms, units.fs)
    atoms = hot(aluminium, hot_model, 8000.0)
    with pytest.raises(SettingError, match="coupling of -1"):
        TwoTemperatureDynamics(atoms, units.fs, coupling_W_m3_K=-1)
    atoms.pbc = [True, True, False]
    with pytest.raises(SettingError, match="periodic in three directions"):
        TwoTemperatureDynamics(atoms, units.fs, coupling_W_m3_K=1e17)
    with pytest.raises(SettingError, match="expected positive numbers"):
        LaserPulse(0.1, 0.0, 5.0)
    drained = hot(aluminium, hot_model, 8000.0)
    with pytest.raises((SettingError, ElectronicTemperatureError), match=r"shorter time step|weaker coupling"):
        TwoTemperatureDynamics(drained, 2 * units.fs, coupling_W_m3_K=1e22).run(5)
    burnt = hot(aluminium, hot_model, 8000.0)
    with pytest.raises(ElectronicTemperatureError, match="expected at most"):
        TwoTemperatureDynamics(burnt, 2 * units.fs, pulse=LaserPulse(20.0, 4.0, 4.0)).run(5)
