"""Molecular dynamics of atoms and hot electrons that exchange energy: a global two-temperature model that conserves energy.

>>> atoms.calc = HotElectronCalculator(None, "almgsi-lda", 300)                                         # doctest: +SKIP
>>> pulse = LaserPulse(absorbed_eV_per_atom=0.5, duration_fs=50, center_fs=100)                         # doctest: +SKIP
>>> dyn = TwoTemperatureDynamics(atoms, 1 * units.fs, coupling_W_m3_K=2.5e17, pulse=pulse)               # doctest: +SKIP
>>> dyn.run(2000); dyn.electronic_temperature_K, dyn.total_energy_eV()                                  # doctest: +SKIP
>>> round(LaserPulse(1.0, 50.0, 100.0).absorbed_eV(0.0, 100.0, 4), 3)
2.0

The electrons of the whole cell are one reservoir with the energy U(T_e; R) and the entropy S(T_e; R) of the model's DOS. With

    E = K + E_0(R) + U(T_e; R) - U(0; R),   force = -dF/dR at T_e = -dE/dR at constant S,
    dS = (P - G V (T_e - T_i)) dt / T_e,    dK = force . dR + G V (T_e - T_i) dt,

E changes by the absorbed power P alone. T_e after a move follows from the entropy; then it is set so that the balance of energy holds
exactly, in which the work of the electronic free energy is counted: without it, energy is lost where the interaction depends on T_e
(Kuemmel and Roth, arXiv:2603.04907). One forward and one backward pass a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.md import MolecularDynamics

from ..base.errors import ChemicalPotentialError, ElectronicTemperatureError, SettingError
from ..base.sample import Sample
from ..models.hot_electrons import HotForces
from ..physics.hot_electrons import highest_temperature_K, hot_electrons
from .hot_calculator import HotElectronCalculator
from .labels import kinetic_temperature_K

W_M3_K = 1.0 / units._e * 1e-45
"""1 W/m^3/K in eV/fs/angstrom^3/K."""
_COLDEST_K, _ITERATIONS, _TOLERANCE = 1.0, 60, 1e-11


@dataclass(frozen=True)
class LaserPulse:
    """A pulse that heats the electrons, Gaussian in time.

    :param absorbed_eV_per_atom: energy absorbed in all
    :param duration_fs: full width at half maximum
    :param center_fs: time of the maximum
    :raises SettingError: for numbers that are not positive
    """

    absorbed_eV_per_atom: float
    duration_fs: float
    center_fs: float

    def __post_init__(self) -> None:
        if not (0 < self.absorbed_eV_per_atom < math.inf and 0 < self.duration_fs < math.inf):
            raise SettingError(
                f"got a pulse of {self.absorbed_eV_per_atom} eV/atom in {self.duration_fs} fs, expected positive numbers"
            )

    def absorbed_eV(self, start_fs: float, end_fs: float, n_atoms: int) -> float:
        """Energy that so many atoms absorb between two times."""
        sigma = self.duration_fs / (2 * math.sqrt(2 * math.log(2)))
        a, b = ((t - self.center_fs) / (math.sqrt(2) * sigma) for t in (start_fs, end_fs))
        return n_atoms * self.absorbed_eV_per_atom * (math.erf(b) - math.erf(a)) / 2


class TwoTemperatureDynamics(MolecularDynamics):
    """Velocity Verlet on the free energy of electrons whose temperature follows from the balance of energy.

    Attributes: ``electronic_temperature_K``; ``absorbed_eV`` from the pulse, ``transferred_eV`` to the ions, since the start.

    :param atoms: with a :class:`HotElectronCalculator`, whose T_e is the one to start from
    :param timestep: in ASE's units
    :param coupling_W_m3_K: G, in W/m^3/K
    :param pulse: absorbed by the electrons
    :param keywords: ``trajectory``, ``logfile``, ``loginterval`` as of ASE's dynamics
    :raises SettingError: for another calculator, or a coupling below 0 or without a volume
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        coupling_W_m3_K: float = 0.0,
        pulse: LaserPulse | None = None,
        **keywords: Any,
    ) -> None:
        if not isinstance(atoms.calc, HotElectronCalculator):
            raise SettingError(
                f"got atoms with a {type(atoms.calc).__name__}, expected a HotElectronCalculator: it knows the electrons"
            )
        if not 0 <= coupling_W_m3_K < math.inf or (coupling_W_m3_K and not atoms.pbc.all()):
            raise SettingError(
                f"got a coupling of {coupling_W_m3_K} W/m^3/K, expected 0 or more, and a cell that is periodic in three directions"
            )
        super().__init__(atoms, timestep, **keywords)
        self.calculator, self.pulse = atoms.calc, pulse
        self._coupling = coupling_W_m3_K * W_M3_K * (atoms.get_volume() if coupling_W_m3_K else 0.0)
        self.electronic_temperature_K = self.calculator.electronic_temperature_K
        self.absorbed_eV = self.transferred_eV = 0.0
        self._entropy = float(self._electrons().electrons.entropy)
        self.calculator.follow(self._temperature_of)
        self._expected_eV = self.total_energy_eV()

    def total_energy_eV(self) -> float:
        """K + E_0 + U(T_e) - U(0), which the pulse alone changes."""
        thermal = self._thermal(self.calculator.hot_electrons(self.atoms), self.electronic_temperature_K)[0]
        return self.atoms.get_kinetic_energy() + self.atoms.get_potential_energy() + thermal

    def step(self, forces: np.ndarray | None = None) -> np.ndarray:
        """One step; returns the forces."""
        atoms = self.atoms
        if forces is None:
            forces = atoms.get_forces(md=True)
        start_fs = self.nsteps * self.dt / units.fs
        absorbed = 0.0
        if self.pulse is not None:
            absorbed = self.pulse.absorbed_eV(start_fs, start_fs + self.dt / units.fs, len(atoms))
        given = self._coupling * (self.electronic_temperature_K - kinetic_temperature_K(atoms)) * self.dt / units.fs
        self._entropy += (absorbed - given) / self.electronic_temperature_K

        momenta = atoms.get_momenta() + 0.5 * self.dt * forces
        atoms.set_positions(atoms.get_positions() + self.dt * momenta / atoms.get_masses()[:, None])
        atoms.set_momenta(momenta, apply_constraint=False)
        forces = atoms.get_forces(md=True)
        atoms.set_momenta(atoms.get_momenta() + 0.5 * self.dt * forces)
        self._heat_ions(given)

        self.absorbed_eV += absorbed
        self.transferred_eV += given
        self._expected_eV += absorbed
        self._balance()
        return forces

    def _heat_ions(self, energy_eV: float) -> None:
        kinetic = self.atoms.get_kinetic_energy()
        if energy_eV == 0.0:
            return
        if not kinetic + energy_eV > 0:
            raise SettingError(
                f"the electrons take {-energy_eV:.3g} eV in one step from ions that have {kinetic:.3g} eV; use a shorter time step or a weaker coupling"
            )
        self.atoms.set_momenta(self.atoms.get_momenta() * math.sqrt(1 + energy_eV / kinetic), apply_constraint=False)

    def _balance(self) -> None:
        """T_e such that the energy is what it must be."""
        found = self._electrons()
        wanted = self._expected_eV - self.atoms.get_kinetic_energy() - self.atoms.get_potential_energy()

        def excess(T: float) -> tuple[float, float]:
            thermal, _, heat = self._thermal(found, T)
            return thermal - wanted, heat

        self.electronic_temperature_K = _solved(excess, self.electronic_temperature_K)
        self._entropy = self._thermal(found, self.electronic_temperature_K)[1]

    def _temperature_of(self, sample: Sample) -> float:
        """T_e of the entropy that the electrons have, after the atoms moved."""
        model = self.calculator.model
        dos = model.dos(sample)

        def excess(T: float) -> tuple[float, float]:
            _, entropy, heat = self._numbers(dos, sample.n_electrons, T)
            return entropy - self._entropy, heat / T

        self.electronic_temperature_K = _solved(excess, self.electronic_temperature_K)
        return self.electronic_temperature_K

    def _electrons(self) -> HotForces:
        return self.calculator.hot_electrons(self.atoms)

    def _thermal(self, found: HotForces, T: float) -> tuple[float, float, float]:
        return self._numbers(self.calculator.model.dos(found.sample), found.sample.n_electrons, T)

    def _numbers(self, dos: np.ndarray, n_electrons: float, T: float) -> tuple[float, float, float]:
        """U(T) - U(0), S and C_el."""
        hot = self.calculator.hot
        grid = hot.model.grid.energies
        try:
            found = hot_electrons(grid, dos, n_electrons, T, hot.undo_smearing_eV)
        except ChemicalPotentialError:
            highest = highest_temperature_K(grid, dos, n_electrons)
            raise ElectronicTemperatureError(
                f"electrons at {T:g} K spread beyond the states that the model knows; expected at most {float(f'{highest:.3g}'):g} K for this "
                "structure, use a weaker pulse"
            ) from None
        return float(found.thermal_energy), float(found.entropy), float(found.heat_capacity)


def _solved(excess: Any, start_K: float) -> float:
    """The zero of an increasing function of T_e, by Newton's method.

    :raises ElectronicTemperatureError: if there is none above zero
    """
    T = start_K
    for _ in range(_ITERATIONS):
        value, slope = excess(T)
        if not slope > 0:
            break
        # In short steps: far from the zero the function is curved, and the states of a model end above.
        new = min(max(T - value / slope, T / 3), 1.3 * T)
        if new < _COLDEST_K:
            break
        if abs(new - T) <= _TOLERANCE * T:
            return new
        T = new
    raise ElectronicTemperatureError(
        f"no electronic temperature near {start_K:g} K balances the energy: the electrons have less than none; use a weaker coupling or a shorter time step"
    )
