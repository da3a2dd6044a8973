"""A force field for i-PI with the forces of ASE's EMT: a real metal at next to no cost."""

import ase.io
import numpy as np
from ase.calculators.emt import EMT
from ipi.pes.dummy import Dummy_driver
from ipi.utils.units import unit_to_internal, unit_to_user

__DRIVER_NAME__ = "emt"
__DRIVER_CLASS__ = "EMTDriver"


class EMTDriver(Dummy_driver):
    def __init__(self, template, **others):
        super().__init__(**others)
        self.atoms = ase.io.read(template)

    def compute_structure(self, cell, pos):
        atoms = self.atoms.copy()
        atoms.set_cell(unit_to_user("length", "angstrom", cell.T))
        atoms.positions = unit_to_user("length", "angstrom", pos)
        atoms.calc = EMT()
        virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
        return (
            unit_to_internal("energy", "electronvolt", atoms.get_potential_energy()),
            unit_to_internal("force", "ev/ang", atoms.get_forces()),
            unit_to_internal("energy", "electronvolt", virial),
            "",
        )

    def compute(self, cell, pos):
        if isinstance(cell, list):
            return [self.compute_structure(c, p) for c, p in zip(cell, pos, strict=True)]
        return self.compute_structure(np.asarray(cell), np.asarray(pos))
