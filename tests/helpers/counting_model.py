"""A metatomic model that counts its evaluations; also one whose prediction is not finite."""
# No `from __future__ import annotations`: metatomic looks at the annotations themselves.

import json
from pathlib import Path
from typing import Dict, List, Optional  # noqa: UP035  TorchScript and metatomic want these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput, System

from petdos_md.base.grid import EnergyGrid
from petdos_md.models.readout import Readout

# ruff: noqa: UP006, UP045


class Counting(torch.nn.Module):
    """A metatomic model that counts how often it was evaluated, in its first feature."""

    def __init__(self, infinite_from: float) -> None:
        super().__init__()
        self.infinite_from = infinite_from
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels] = None
    ) -> Dict[str, TensorMap]:
        self.count += 1.0
        seen = self.count.clone()
        if float(seen) >= self.infinite_from:
            seen = seen / 0.0
        result: Dict[str, TensorMap] = {}
        for name in outputs:
            n = 2 if name == "mtt::aux::petdos_last_layer_features" else 1
            values = torch.zeros(len(systems), n, dtype=torch.float64)
            values[:, 0] = seen
            samples = Labels("system", torch.arange(len(systems)).reshape(-1, 1))
            properties = Labels("n", torch.arange(n).reshape(-1, 1))
            block = TensorBlock(values, samples, [], properties)
            result[name] = TensorMap(Labels("_", torch.tensor([[0]])), [block])
        return result


def write_counting_model(path: Path, infinite_from: float = 1e9, energy: bool = False) -> None:
    """Write the model and its readout; from some evaluation on, it returns infinity.

    :param energy: with an energy, which is the count, too
    """
    names = ("mtt::petdos", "mtt::aux::petdos_last_layer_features") + (("energy",) if energy else ())
    capabilities = ModelCapabilities(
        outputs={name: ModelOutput(unit="", sample_kind="system") for name in names},
        atomic_types=[12, 13],
        interaction_range=0.0,
        length_unit="angstrom",
        supported_devices=["cpu"],
        dtype="float64",
    )
    record = {"name": "counting", "fingerprint": "c" * 64, "electrons": {"Al": 3, "Mg": 2}}
    metadata = ModelMetadata(name="counting", extra={"petdos": json.dumps(record)})
    AtomisticModel(Counting(infinite_from).eval(), metadata, capabilities).save(str(path))
    weights = torch.ones(5, 4, dtype=torch.float64)
    Readout.save(path.with_suffix(".readout.safetensors"), EnergyGrid(0.0, 1.0, 5), weights, None, "c" * 64)
