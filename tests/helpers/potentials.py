"""Metatomic models with an energy, of several architectures: what `pair_style metatomic` is tried with."""
# No `from __future__ import annotations`: metatomic looks at the annotations themselves.

from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  TorchScript and metatomic want these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelCapabilities,
    ModelMetadata,
    ModelOutput,
    NeighborListOptions,
    System,
)

from .models import ELECTRONS, GRID_START, SMALL, export_model, write_checkpoints

# ruff: noqa: UP006, UP045

CUTOFF_A, SIGMA_A, EPSILON_EV = 5.0, 2.3, 0.2


class LennardJones(torch.nn.Module):
    """A truncated and shifted Lennard-Jones potential, in nanometers and kJ/mol, from half of the pairs.

    It also says an uncertainty of each energy, 0.01 eV for each pair of the atom, twice the energy (``energy/twice``), and forces and a stress
    of its own which are no derivatives: all forces are 1, 2, 3 kJ/mol/nm, the stress is 10, 20, 30 kJ/mol/nm^3 on the diagonal and 1 beside it.
    """

    def __init__(self, nan_below_nm: float, cutoff_nm: float, sigma_nm: float, epsilon: float) -> None:
        super().__init__()
        self.nan_below, self.cutoff, self.sigma, self.epsilon = nan_below_nm, cutoff_nm, sigma_nm, epsilon
        self.uncertainty = 0.01 * 96.48533212331

    @torch.jit.export
    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return [NeighborListOptions(cutoff=self.cutoff, full_list=False, strict=True)]

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels] = None
    ) -> Dict[str, TensorMap]:
        system = systems[0]
        positions = system.positions
        block = system.get_neighbor_list(self.requested_neighbor_lists()[0])
        pairs = block.samples.values.to(torch.long)
        r2 = (self.sigma**2) / (block.values.squeeze(-1) ** 2).sum(1)
        shift = (self.sigma / self.cutoff) ** 6
        energies = 4 * self.epsilon * (r2**6 - r2**3 - shift**2 + shift)
        if len(r2) > 0 and float(self.sigma / r2.max().sqrt()) < self.nan_below:
            energies = energies * float("nan")
        of_atoms = torch.zeros_like(positions[:, 0])
        counts = torch.zeros_like(of_atoms)
        for column in range(2):
            of_atoms = of_atoms.index_add(0, pairs[:, column], 0.5 * energies)
            counts = counts.index_add(0, pairs[:, column], torch.ones_like(energies))
        chosen = torch.arange(len(positions))
        if selected_atoms is not None:
            chosen = selected_atoms.column("atom").to(torch.long)
        labels = torch.stack([torch.zeros_like(chosen), chosen], dim=1).to(torch.int32)
        atoms = Labels(["system", "atom"], labels, assume_unique=True)
        whole = Labels(["system"], torch.zeros((1, 1), dtype=torch.int32))
        xyz = Labels(["xyz"], torch.arange(3, dtype=torch.int32).view(-1, 1))
        result: Dict[str, TensorMap] = {}
        for name, output in outputs.items():
            samples, components = atoms, torch.jit.annotate(List[Labels], [])
            if name == "energy_uncertainty":
                values = self.uncertainty * counts[chosen].unsqueeze(1)
            elif name == "non_conservative_force":
                values = torch.tensor([[[1.0], [2.0], [3.0]]], dtype=positions.dtype).repeat(len(chosen), 1, 1)
                components = [xyz]
            elif name == "non_conservative_stress":
                values = torch.ones((1, 3, 3, 1), dtype=positions.dtype)
                for k in range(3):
                    values[0, k, k] = 10.0 * (k + 1)
                samples, components = whole, [xyz.rename("xyz", "xyz_1"), xyz.rename("xyz", "xyz_2")]
            else:
                values = (2.0 if name == "energy/twice" else 1.0) * of_atoms[chosen].unsqueeze(1)
                if output.sample_kind == "system":
                    values, samples = values.sum(0, keepdim=True), whole
            property = Labels(["energy"], torch.zeros((1, 1), dtype=torch.int32))
            blocks = [TensorBlock(values, samples, components, property)]
            result[name] = TensorMap(Labels(["_"], torch.zeros((1, 1), dtype=torch.int32)), blocks)
        return result


def write_lennard_jones(path: Path, more_outputs: bool = True, nan_below_A: float = 0.0, reach: float = 1.0) -> None:
    """A :class:`LennardJones` for aluminium and magnesium, in double precision.

    :param more_outputs: with all outputs and energies of atoms, else the energy of the whole alone
    :param nan_below_A: a shorter distance makes everything NaN
    :param reach: declared range over the cutoff
    """
    kJ_mol = 96.48533212331
    model = LennardJones(nan_below_A / 10, CUTOFF_A / 10, SIGMA_A / 10, EPSILON_EV * kJ_mol)
    outputs = {"energy": ModelOutput(unit="kJ/mol", sample_kind="atom" if more_outputs else "system")}
    if more_outputs:
        outputs["energy/twice"] = ModelOutput(unit="kJ/mol", sample_kind="atom", description="two of them")
        outputs["non_conservative_stress"] = ModelOutput(unit="kJ/mol/nm^3", sample_kind="system")
        outputs["energy_uncertainty"] = ModelOutput(unit="kJ/mol", sample_kind="atom")
        outputs["non_conservative_force"] = ModelOutput(unit="kJ/mol/nm", sample_kind="atom")
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=[12, 13],
        interaction_range=reach * CUTOFF_A / 10,
        length_unit="nm",
        supported_devices=["cpu"],
        dtype="float64",
    )
    AtomisticModel(model.eval(), ModelMetadata(name="Lennard-Jones"), capabilities).save(str(path))


def write_sliced_potential(path: Path) -> None:
    """PET as petdos exports it, with energy and DOS, in double precision and with adaptive cutoffs; and ``stock.pt``, as metatrain does."""
    from metatrain.utils.io import load_model

    hypers = {**SMALL, "num_neighbors_adaptive": 12.0}
    pet, llpr = write_checkpoints(
        path.parent, hypers, symbols=list(ELECTRONS), n_channels=60, n_members=2, energy=True, dtype=torch.float64
    )
    export_model(pet, path, llpr=llpr, grid_start=GRID_START, electrons=ELECTRONS)
    load_model(pet).export().save(str(path.with_name("stock.pt")))


def write_soap_bpnn(path: Path) -> None:
    """metatrain's SOAP-BPNN for aluminium and magnesium, with what it needs in the folder ``extensions``."""
    from metatrain.soap_bpnn import __model__ as SoapBPNN
    from metatrain.utils.architectures import get_default_hypers
    from metatrain.utils.data import DatasetInfo
    from metatrain.utils.data.target_info import get_energy_target_info

    hypers: Any = get_default_hypers("soap_bpnn")["model"]
    hypers["soap"].update(max_angular=3, max_radial=3)
    energy = get_energy_target_info("energy", {"quantity": "energy", "unit": "eV", "description": ""})
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = SoapBPNN(hypers, DatasetInfo("angstrom", [12, 13], {"energy": energy}))
    model.export().save(str(path), collect_extensions=str(path.with_name("extensions")))
