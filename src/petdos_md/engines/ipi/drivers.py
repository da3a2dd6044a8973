"""Force fields for i-PI: the energy head of a two-head model, features for servers that cannot hold the model, or both at once.

Named through the files in ``ipi_drivers`` (``petdos ipi --drivers`` prints where they are), in an ``<ffdirect>`` or by
socket clients:

    i-pi-driver-py -u -a almg -m custom -P .../petdos_potential.py -o model=almgsi-lda,template=init.xyz

Features go into the extras of i-PI as the array ``petdos``; :mod:`petdos_md.engines.ipi.collect` makes a trace of what i-PI writes.

>>> driver = PotentialDriver("almgsi-lda", "init.xyz", features=True)       # doctest: +SKIP
>>> energy, forces, virial, extras = driver.compute(cell, positions)        # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
from typing import Any

import ase.io
import numpy as np
from ipi.pes.dummy import Dummy_driver
from ipi.utils.units import unit_to_internal, unit_to_user

from ...base.errors import ModelError, SettingError
from ...base.sample import Sample
from ...models.model import DOSModel
from .asking import EXTRA, asked, file_of


class ModelDriver(Dummy_driver):
    """What the two drivers have in common.

    :param model: a shipped model or a ``.pt`` file
    :param template: a file that ASE reads, with the atoms in the order of the simulation
    :param device: ``cpu`` or ``cuda``
    :raises SettingError: if the template is not there
    :raises ModelError: if the model cannot be loaded
    :raises StructureError: if the model does not know the elements of the template
    """

    def __init__(self, model: str, template: str, device: str | None = None, **others: Any) -> None:
        super().__init__(**others)
        if not os.path.exists(str(template)):
            raise SettingError(
                f"{template}: no such file; give template=, a structure with the atoms of the simulation"
            )
        self.model = DOSModel.load(str(model), device)
        atoms = ase.io.read(str(template))
        assert isinstance(atoms, ase.Atoms)
        self._atoms = atoms
        self.model.check(atoms)

    def compute(self, cell: Any, pos: Any) -> Any:
        """As i-PI calls it: one structure, or lists of them; bohr and hartree, cell vectors in columns."""
        if isinstance(cell, list):
            return self.compute_batch([self._structure(*both) for both in zip(cell, pos, strict=True)])
        return self.compute_batch([self._structure(cell, pos)])[0]

    def compute_batch(self, structures: list[ase.Atoms]) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
        """Energy, forces, virial and extras of each structure, in the units of i-PI."""
        raise NotImplementedError

    def _structure(self, cell: np.ndarray, pos: np.ndarray) -> ase.Atoms:
        atoms = self._atoms.copy()
        if len(pos) != len(atoms):
            raise SettingError(
                f"i-PI sends {len(pos)} atoms, the template has {len(atoms)}; give the template of this simulation"
            )
        vectors = unit_to_user("length", "angstrom", np.asarray(cell).T)
        atoms.set_cell(vectors)
        atoms.pbc = np.linalg.norm(vectors, axis=1) > 0
        atoms.positions = unit_to_user("length", "angstrom", np.asarray(pos))
        return atoms


class PotentialDriver(ModelDriver):
    """Energy, forces and virial of the model's energy head.

    :param features: send features along, from the same pass of the network: ``True`` for always, the path of a trace for when its
        observer asks (:mod:`petdos_md.engines.ipi.asking`)
    """

    def __init__(
        self, model: str, template: str, device: str | None = None, features: bool | str = False, **others: Any
    ) -> None:
        super().__init__(model, template, device, **others)
        if not self.model.has_energy:
            raise ModelError(
                f"{self.model.info.name} has no energy output, so it cannot drive dynamics; give another model="
            )
        self._with_features = features
        if isinstance(features, str):
            try:
                file_of(features).touch()
            except OSError as error:
                raise SettingError(
                    f"features={features}: {file_of(features)} cannot be made ({error.strerror}); give the path of the observer's trace"
                ) from None

    def compute_batch(self, structures: list[ase.Atoms]) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
        return [self._one(atoms) for atoms in structures]

    def _one(self, atoms: ase.Atoms) -> tuple[float, np.ndarray, np.ndarray, str]:
        sample, energy, forces, stress = self.model.evaluate_with_forces(atoms)
        virial = np.zeros((3, 3)) if stress is None else -stress * atoms.get_volume()
        return (
            unit_to_internal("energy", "electronvolt", energy),
            unit_to_internal("force", "ev/ang", forces),
            unit_to_internal("energy", "electronvolt", virial),
            self._extras(sample),
        )

    def _extras(self, sample: Sample) -> str:
        if not isinstance(self._with_features, str):
            return json.dumps(extras_of(sample)) if self._with_features else ""
        # i-PI wants the same keys of all beads, always.
        return json.dumps(extras_of(sample) if asked(self._with_features, self.model) else {EXTRA: []})


class FeaturesDriver(ModelDriver):
    """Features alone, with no energy and no forces: for a force component of ``weight='0'`` beside any potential."""

    def compute_batch(self, structures: list[ase.Atoms]) -> list[tuple[float, np.ndarray, np.ndarray, str]]:
        samples = self.model.evaluate(structures)
        return [
            (0.0, np.zeros((len(atoms), 3)), np.zeros((3, 3)), json.dumps(extras_of(sample)))
            for atoms, sample in zip(structures, samples, strict=True)
        ]


def extras_of(sample: Sample) -> dict[str, list[float]]:
    """The features of a sample as extras."""
    # Nine digits give a float32 back exactly, seventeen a float64.
    digits = 9 if sample.features.dtype == np.float32 else 17
    return {EXTRA: [float(f"{value:.{digits}g}") for value in sample.features.tolist()]}
