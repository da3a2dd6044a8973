"""What hot electrons do to the atoms: free energy, forces and stress from one forward and one backward pass of a network.

>>> hot = HotElectronForces(DOSModel.load("almgsi-lda"))                             # doctest: +SKIP
>>> found = hot.evaluate(atoms, 8000.0)                                              # doctest: +SKIP
>>> found.free_energy_eV, found.forces                                               # doctest: +SKIP

The DOS is linear in the features, g = A x, and the free energy has the response h to the DOS (:mod:`petdos_md.physics.hot_electrons`):
its gradient is that of v . x with the constant vector v = A^T h, which is known after the forward pass.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from ..base.constants import BOLTZMANN_EV
from ..base.errors import ElectronicTemperatureError
from ..base.sample import Sample
from ..physics.dft import SMEARING_EV
from ..physics.hot_electrons import HotElectrons, check_temperature, hot_electrons, smearing_share
from .model import DOSModel

logger = logging.getLogger(__name__)

WARN_SHARE = 0.1
"""Share of the smearing in dF, at kT below the smearing, from which on a warning is given."""


@dataclass(frozen=True)
class HotForces:
    """Atoms among hot electrons.

    :param sample: of the structure
    :param temperature_K: T_e
    :param electrons: numbers of one structure; ``free_energy`` is dF
    :param ground_energy_eV: E_0 of the model's energy head, 0 if it was not asked for
    :param forces: ``(n_atoms, 3)`` eV/angstrom, of ground_energy_eV + dF
    :param stress: ``(3, 3)`` eV/angstrom^3, or None
    """

    sample: Sample
    temperature_K: float
    electrons: HotElectrons
    ground_energy_eV: float
    forces: np.ndarray
    stress: np.ndarray | None

    @property
    def free_energy_eV(self) -> float:
        """dF, the free energy relative to the ground state."""
        return float(self.electrons.free_energy)


@dataclass(frozen=True)
class HotModelErrors:
    """Standard deviations over members (n - 1): of dF (eV) and of its forces ``(n_atoms, 3)`` (eV/angstrom)."""

    free_energy_eV: float
    forces: np.ndarray


class HotElectronForces:
    """The free energy of hot electrons of a DOS model as a function of structures.

    :param model: its DOS gives the free energy; its energy head, on request, the ground state
    :param undo_smearing_eV: width of a Gaussian in the DOS to undo (0.3 for all targets of this package), 0 for none
    """

    def __init__(self, model: DOSModel, undo_smearing_eV: float = 0.0) -> None:
        self.model, self.undo_smearing_eV = model, undo_smearing_eV
        self._warned = False

    def evaluate(
        self,
        atoms: Atoms,
        temperature_K: float | Callable[[Sample], float],
        *,
        with_energy: bool = False,
        stress: bool = True,
    ) -> HotForces:
        """dF, its forces and stress, together with those of the energy head on request.

        :param temperature_K: T_e; a function of the sample if it depends on that (forces are those at constant T_e)
        :param stress: whether it is wanted; None is returned if not, or if the structure is not periodic in three directions
        :raises ElectronicTemperatureError: if T_e is no positive number, the states of the model end too low for it, or the smearing cannot
            be undone at it
        :raises StructureError: as :meth:`DOSModel.evaluate`, or if the number of electrons is not known
        :raises ModelError: if an energy is asked of a model that has none
        """
        if not callable(temperature_K):
            checked_electronic_temperature_K(temperature_K)
        n_electrons = self.model.n_electrons(atoms)
        kept: list[tuple[float, HotElectrons]] = []

        def gradient(sample: Sample) -> np.ndarray:
            T = checked_electronic_temperature_K(temperature_K(sample) if callable(temperature_K) else temperature_K)
            kept.append((T, self._electrons(self.model.dos(sample), n_electrons, T)))
            return self.model.readout.project(kept[0][1].kernel)

        sample, energy, forces, tensor = self.model.evaluate_with_functional(atoms, gradient, with_energy, stress)
        return HotForces(sample, *kept[0], energy, forces, tensor)

    def electrons(self, sample: Sample, temperature_K: float) -> HotElectrons:
        """What a sample says of hot electrons, without forces.

        :raises ElectronicTemperatureError: as :meth:`evaluate`
        """
        temperature_K = checked_electronic_temperature_K(temperature_K)
        return self._electrons(self.model.dos(sample), sample.n_electrons, temperature_K)

    def electrons_of_members(self, atoms: Atoms, temperature_K: float) -> HotElectrons:
        """What each member of the ensemble says, with its own mu: arrays ``(n_members,)``.

        :raises ModelError: if the model has no ensemble
        :raises ElectronicTemperatureError, StructureError: as :meth:`evaluate`
        """
        temperature_K = checked_electronic_temperature_K(temperature_K)
        members, n_electrons = self.model.dos_members(atoms), self.model.n_electrons(atoms)
        return hot_electrons(self.model.grid.energies, members, n_electrons, temperature_K, self.undo_smearing_eV)

    def model_errors(self, atoms: Atoms, temperature_K: float) -> HotModelErrors:
        """Spread over the members of the ensemble, each with its own mu; costs one forward and one backward pass for each.

        :raises ModelError: if the model has no ensemble
        :raises ElectronicTemperatureError, StructureError: as :meth:`evaluate`
        """
        model, found = self.model, self.electrons_of_members(atoms, temperature_K)
        vectors = model.readout.project_members(found.kernel)
        forces = np.array(
            [model.evaluate_with_functional(atoms, lambda _, v=v: v, False, False)[2] for v in vectors]  # type: ignore[misc]
        )
        return HotModelErrors(float(found.free_energy.std(ddof=1)), forces.std(axis=0, ddof=1))

    def _electrons(self, dos: np.ndarray, n_electrons: float, temperature_K: float) -> HotElectrons:
        grid = self.model.grid.energies
        found = hot_electrons(grid, dos, n_electrons, temperature_K, self.undo_smearing_eV)
        check_temperature(grid, dos, n_electrons, temperature_K, float(found.chemical_potential))
        if not self._warned and BOLTZMANN_EV * temperature_K < SMEARING_EV:
            share = float(smearing_share(grid, dos, n_electrons, temperature_K, SMEARING_EV))
            if abs(share) > WARN_SHARE * abs(float(found.free_energy)):
                self._warned = True
                logger.warning(
                    "at T_e = %g K, kT = %.2f eV is below the smearing of %g eV of the DOS, which makes up about %.2g of the %.2g eV that the free "
                    "energy of the electrons changes by",
                    temperature_K,
                    BOLTZMANN_EV * temperature_K,
                    SMEARING_EV,
                    share,
                    float(found.free_energy),
                )
        return found


def checked_electronic_temperature_K(value: Any) -> float:
    """A temperature of electrons.

    :param value: a number, or a function without arguments that returns one
    :raises ElectronicTemperatureError: if it is no positive number
    """
    if callable(value):
        value = value()
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not 0 < float(value) < math.inf:
        shown = repr(value) if isinstance(value, str) else value
        raise ElectronicTemperatureError(
            f"got the electronic temperature {shown}, expected a positive number of K; leave it out for cold electrons"
        )
    return float(value)
