"""A metatomic model whose features are one output, made of one that has two."""
# No `from __future__ import annotations`: metatomic looks at the annotations themselves.

from typing import Dict, List, Optional  # noqa: UP035  TorchScript and metatomic want these

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelOutput, System

# ruff: noqa: UP006, UP045


class OneOutput(torch.nn.Module):
    """Joins the last-layer features and the sum of the cutoff function."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, systems: List[System], outputs: Dict[str, ModelOutput], selected_atoms: Optional[Labels] = None
    ) -> Dict[str, TensorMap]:
        wanted = outputs["petdos::features"]
        names = ["mtt::aux::petdos_last_layer_features", "mtt::petdos"]
        inner_outputs: Dict[str, ModelOutput] = {}
        for name in names:
            inner_outputs[name] = wanted
        found = self.inner(systems, inner_outputs, selected_atoms)
        blocks = [found[name].block(0) for name in names]
        values = torch.cat([block.values.reshape(block.values.size(0), -1) for block in blocks], dim=1)
        properties = Labels("n", torch.arange(values.size(1), device=values.device).reshape(-1, 1))
        block = TensorBlock(values, blocks[0].samples, [], properties)
        key = Labels("_", torch.zeros((1, 1), dtype=torch.int32, device=values.device))
        return {"petdos::features": TensorMap(key, [block])}
