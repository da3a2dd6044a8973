"""CHGNet (DOI 10.1038/s42256-023-00716-3) for dynamics: forces and stress from one derivative of the energy.

The calculator that comes with CHGNet takes a derivative for the forces and another for the stress, both so that they could be derived once
more, as in training. Positions and cell are leaves of the same graph, so that one plain derivative gives both: the same numbers in half the time.
"""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor


class OnePassCHGNet(Calculator):
    """Energy (eV), forces (eV/angstrom) and stress (eV/angstrom^3) of a periodic structure.

    :param device: as torch names it
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.model = CHGNet.load(use_device=device, verbose=False)
        self.device = device

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        graph = self.model.graph_converter(AseAtomsAdaptor.get_structure(self.atoms)).to(self.device)
        energy = self.model([graph], task="e")["e"].sum() * (len(self.atoms) if self.model.is_intensive else 1)
        leaves = (graph.atom_frac_coord, graph.lattice)
        by_fraction, by_cell = (d.double().cpu().numpy() for d in torch.autograd.grad(energy, leaves))
        cell = self.atoms.cell.array
        # r = s h: dE/dr = dE/ds h^-T, and a strain h (1 + e) at fixed s has dE/de = h^T dE/dh.
        virial = cell.T @ by_cell
        self.results = {
            "energy": float(energy.detach()),
            "free_energy": float(energy.detach()),
            "forces": -np.linalg.solve(cell, by_fraction.T).T,
            "stress": full_3x3_to_voigt_6_stress((virial + virial.T) / 2) / self.atoms.get_volume(),
        }
