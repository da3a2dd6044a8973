"""Pressure of hot electrons and their Grueneisen parameter, of a structure and averaged along a run.

>>> observer = ThermalPressureObserver(atoms, "almgsi-lda", electronic_temperature_K=8000)          # doctest: +SKIP
>>> dyn.attach(observer, interval=10); dyn.run(1000)                                                # doctest: +SKIP
>>> result = observer.result()                                                                     # doctest: +SKIP
>>> result.pressure_GPa, result.pressure_error_GPa, result.grueneisen                              # doctest: +SKIP
>>> ThermalPressure(2.0, 0.6).pressure_GPa
2.0

The thermal pressure is -dF/dV at constant T_e, relative to the ground state. With dS/dV = dp/dT at constant volume, the electronic
Grueneisen parameter is gamma = V (dp/dT) / C_el; 2/3 for free electrons (Wallace, Thermodynamics of Crystals, 1972).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from ..analysis.statistics import standard_error
from ..base.errors import NoSamplesError, StructureError
from ..base.sample import Sample
from ..models.hot_electrons import HotElectronForces, checked_electronic_temperature_K
from ..models.model import DOSModel
from ..physics.hot_electrons import hot_electrons

_DELTA = 1e-3
"""Relative step of T_e in the derivative of the response."""


@dataclass(frozen=True)
class ThermalPressure:
    """Of one structure."""

    pressure_GPa: float
    grueneisen: float


@dataclass(frozen=True)
class MeanThermalPressure:
    """Means over samples, with standard errors (NaN for fewer samples than an error needs).

    The Grueneisen parameter is the ratio of the means of V dp/dT and of C_el; its error is that of the linearised ratio.
    """

    pressure_GPa: float
    pressure_error_GPa: float
    grueneisen: float
    grueneisen_error: float
    n_samples: int


def thermal_pressure(hot: HotElectronForces, atoms: Atoms, electronic_temperature_K: float) -> ThermalPressure:
    """Of a structure that is periodic in three directions; two passes of the network.

    :raises StructureError: if it is not periodic, or cannot be evaluated
    :raises ElectronicTemperatureError: if T_e is no positive number, or the states of the model end too low for it
    """
    pressure, slope, heat = _parts(hot, atoms, electronic_temperature_K)
    return ThermalPressure(pressure, slope / heat)


class ThermalPressureObserver:
    """Takes samples of the electrons' pressure while ASE runs molecular dynamics; made for ``dyn.attach``.

    :param atoms: what the dynamics move
    :param model: the DOS model; its name or path, too
    :param electronic_temperature_K: T_e, or a function without arguments
    :param undo_smearing_eV: as of :class:`~petdos_md.models.hot_electrons.HotElectronForces`
    """

    def __init__(
        self,
        atoms: Atoms,
        model: DOSModel | str | os.PathLike[str],
        electronic_temperature_K: float | Callable[[], float],
        undo_smearing_eV: float = 0.0,
    ) -> None:
        loaded = DOSModel.of(model)
        self.atoms, self._temperature = atoms, electronic_temperature_K
        self._hot = HotElectronForces(loaded, undo_smearing_eV)
        self._rows: list[tuple[float, float, float]] = []
        self._now()

    def __call__(self) -> None:
        """Take a sample."""
        self._rows.append(_parts(self._hot, self.atoms, self._now()))

    def result(self) -> MeanThermalPressure:
        """Means so far.

        :raises NoSamplesError: before there are samples
        """
        if not self._rows:
            raise NoSamplesError(
                "there are no samples of the thermal pressure yet; attach the observer and run the dynamics"
            )
        pressure, slope, heat = np.array(self._rows).T
        ratio = float(slope.mean() / heat.mean())
        errors = standard_error(np.column_stack([pressure, (slope - ratio * heat) / heat.mean()])).error
        return MeanThermalPressure(float(pressure.mean()), float(errors[0]), ratio, float(errors[1]), len(self._rows))

    def _now(self) -> float:
        return checked_electronic_temperature_K(self._temperature)


def _parts(hot: HotElectronForces, atoms: Atoms, T: float) -> tuple[float, float, float]:
    """Pressure (GPa), V dp/dT and C_el (eV/K)."""
    if not atoms.pbc.all():
        raise StructureError(
            "the structure has no volume; a pressure needs a cell that is periodic in three directions"
        )
    model, n_electrons = hot.model, hot.model.n_electrons(atoms)

    def response(sample: Sample) -> np.ndarray:
        dos = model.dos(sample)
        up, down = (
            hot_electrons(model.grid.energies, dos, n_electrons, T * (1 + s * _DELTA), hot.undo_smearing_eV).kernel
            for s in (1, -1)
        )
        return model.readout.project((up - down) / (2 * _DELTA * T))

    found = hot.evaluate(atoms, T)
    # The gradient of dF/dT = -S: its "stress" is V dp/dT / V with the opposite sign.
    tensor = model.evaluate_with_functional(atoms, response)[3]
    assert found.stress is not None and tensor is not None
    slope = -float(np.trace(tensor)) / 3 * atoms.get_volume()
    return -float(np.trace(found.stress)) / 3 / units.GPa, slope, float(found.electrons.heat_capacity)
