"""Labels and maps of metatensor around the numbers of a network; all functions compile in TorchScript.

>>> plain_map(torch.zeros((1, 3)), Labels(["system"], torch.tensor([[0]])), "feature").block().properties.names
['feature']
"""

from __future__ import annotations

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import System


def plain_map(values: torch.Tensor, samples: Labels, properties: str) -> TensorMap:
    """One block of ``(n_samples, n_properties)``."""
    return TensorMap(_single(values), [TensorBlock(values, samples, [], _range(properties, values.shape[1], values))])


def gradient_map(values: torch.Tensor, samples: Labels) -> TensorMap:
    """One block of ``(n_samples, 3, 1)`` or ``(n_samples, 3, 3, 1)``, with Cartesian components."""
    names = ["xyz"] if values.dim() == 2 else ["xyz_1", "xyz_2"]
    components = [_range(name, 3, values) for name in names]
    block = TensorBlock(values.unsqueeze(-1), samples, components, _range("energy", 1, values))
    return TensorMap(_single(values), [block])


def system_samples(n_systems: int, like: torch.Tensor) -> Labels:
    """Labels of systems, on the device of a tensor."""
    return _range("system", n_systems, like)


def atom_samples(atoms: torch.Tensor, systems: list[System]) -> Labels:
    """Labels (system, atom) of atoms that are counted over all systems, ``(n,)``."""
    sizes = torch.tensor([len(system) for system in systems], dtype=torch.long, device=atoms.device)
    ends = torch.cumsum(sizes, 0)
    system = torch.searchsorted(ends, atoms, right=True)
    values = torch.stack([system, atoms - (ends - sizes)[system]], dim=1)
    return Labels(["system", "atom"], values.to(torch.int32), assume_unique=True)


def atom_numbers(selected: Labels, systems: list[System]) -> torch.Tensor:
    """Selected atoms, counted over all systems, ``(n,)``."""
    device = systems[0].positions.device
    sizes = torch.tensor([len(system) for system in systems], dtype=torch.long, device=device)
    starts = torch.cumsum(sizes, 0) - sizes
    return starts[selected.column("system").to(device).to(torch.long)] + selected.column("atom").to(device)


def blocks_map(
    blocks: list[torch.Tensor],
    samples: Labels,
    keys: Labels,
    components: list[list[Labels]],
    properties: list[Labels],
) -> TensorMap:
    """Blocks of ``(n_samples, width)`` in the shapes of their components and properties."""
    made: list[TensorBlock] = []
    for i, values in enumerate(blocks):
        shape = [len(samples)]
        of_block: list[Labels] = []
        for component in components[i]:
            shape.append(len(component))
            of_block.append(component.to(values.device))
        shape.append(len(properties[i]))
        made.append(TensorBlock(values.reshape(shape), samples, of_block, properties[i].to(values.device)))
    return TensorMap(keys.to(blocks[0].device), made)


def add_maps(first: TensorMap, second: TensorMap) -> TensorMap:
    """Sum of two maps; the second may lack blocks."""
    made: list[TensorBlock] = []
    for key, block in first.items():
        values = block.values
        if key in second.keys:
            values = values + second.block(key).values.to(device=values.device, dtype=values.dtype)
        made.append(TensorBlock(values, block.samples, block.components, block.properties))
    return TensorMap(first.keys, made)


def symmetric_over_volume(values: torch.Tensor, cells: torch.Tensor, systems: torch.Tensor) -> torch.Tensor:
    """Symmetric part of stresses ``(n, 9 * width)``, divided by the volume of their system; zero without a volume."""
    volumes = torch.linalg.det(cells).abs()
    volumes = torch.where(volumes == 0.0, torch.full_like(volumes, torch.inf), volumes)
    stress = values.view(len(values), 3, 3, -1) / volumes[systems].view(-1, 1, 1, 1)
    return (0.5 * (stress + stress.transpose(1, 2))).reshape(values.shape)


def _range(name: str, n: int, like: torch.Tensor) -> Labels:
    return Labels([name], torch.arange(n, dtype=torch.int32, device=like.device).view(-1, 1), assume_unique=True)


def _single(like: torch.Tensor) -> Labels:
    return Labels(["_"], torch.zeros((1, 1), dtype=torch.int32, device=like.device))
