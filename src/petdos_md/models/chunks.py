"""Large structures piece by piece: atoms are evaluated in chunks, each with the halo of neighbors that its features depend on.

>>> model = DOSModel.load("almgsi-lda", max_memory_GB=4)                   # doctest: +SKIP

A chunk is a part of the same periodic structure with the pairs whose two atoms are in it, so the features of its own atoms are
those of the whole structure to rounding, and so is their sum. The time grows with the halos (as (1 + 2 h / L)^3 for chunks of
width L and halos of width h), the memory is that of one chunk, neighbor lists aside. The LAMMPS plugin does the same in C++
(``lammps_plugin/halo.h``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import ModelCapabilities, NeighborListOptions, System

from ..base.errors import ModelError, SettingError

EXTRA_HOPS = 2
"""A model declares the reach of its messages. The weight of an edge depends on the environments of both its atoms (adaptive cutoffs),
and so do features of the last layer, which are averaged over both directions of an edge."""


@dataclass(frozen=True)
class Chunk:
    """A part of a structure.

    :param own: atoms whose features are wanted
    :param atoms: those, followed by their halo
    """

    own: np.ndarray
    atoms: np.ndarray


def hops_needed(capabilities: ModelCapabilities, cutoff: float) -> int:
    """How many steps from neighbor to neighbor the features of an atom reach.

    :param cutoff: of the neighbor list (angstrom)
    :raises ModelError: if the range of the model is infinite
    """
    reach = float(capabilities.engine_interaction_range("angstrom"))
    if not math.isfinite(reach):
        raise ModelError(
            "the range of this model is infinite: it cannot be evaluated in chunks, leave out max_atoms_per_chunk"
        )
    return math.ceil(reach / cutoff - 1e-9) + EXTRA_HOPS if cutoff > 0 else 0


def plan_chunks(positions: np.ndarray, pairs: np.ndarray, hops: int, max_atoms: int) -> Iterator[Chunk]:
    """Split a structure in halves, along the longest extension of a part, until every part with its halo is small enough.

    :param positions: ``(n, 3)``
    :param pairs: ``(n_pairs, 2)`` atoms that are neighbors, each pair in both directions
    :param hops: width of the halo, see :func:`hops_needed`
    :param max_atoms: of a part with its halo
    :raises SettingError: if a single atom with its halo has more
    """
    order = np.argsort(pairs[:, 0], kind="stable")
    neighbors = pairs[order, 1]
    first = np.searchsorted(pairs[order, 0], np.arange(len(positions) + 1))
    waiting = [np.arange(len(positions))]
    while waiting:
        own = waiting.pop()
        atoms = _with_halo(own, neighbors, first, hops)
        if len(atoms) <= max_atoms:
            yield Chunk(own, atoms)
        elif len(own) == 1:
            raise SettingError(
                f"chunks may have {max_atoms} atoms, but one atom with its halo has {len(atoms)}; give a larger max_memory_GB or "
                "max_atoms_per_chunk"
            )
        else:
            axis = int(np.ptp(positions[own], axis=0).argmax())
            along = own[np.argsort(positions[own, axis], kind="stable")]
            waiting += [along[: len(own) // 2], along[len(own) // 2 :]]


def sum_over_chunks(
    system: System, hops: int, max_atoms: int, run: Callable[[System, int], list[torch.Tensor]]
) -> list[np.ndarray]:
    """Sum of outputs over all atoms of a system with neighbor lists, each ``(width,)``, float64.

    :param run: evaluates a system; returns sums of outputs over its first so many atoms, ``(1, width)``
    :raises SettingError: see :func:`plan_chunks`
    :raises ModelError: if the model asks for half neighbor lists
    """
    lists = system.known_neighbor_lists()
    widest = max(lists, key=lambda options: options.cutoff)
    if not widest.full_list:
        raise ModelError("this model asks for half neighbor lists: it cannot be evaluated in chunks")
    pairs = system.get_neighbor_list(widest).samples.values[:, :2].cpu().numpy()
    totals: list[np.ndarray] = []
    for chunk in plan_chunks(system.positions.double().cpu().numpy(), pairs, hops, max_atoms):
        part = _part(system, lists, torch.as_tensor(chunk.atoms, device=system.device))
        sums = [values[0].double().cpu().numpy() for values in run(part, len(chunk.own))]
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
    return totals


def _with_halo(own: np.ndarray, neighbors: np.ndarray, first: np.ndarray, hops: int) -> np.ndarray:
    inside = np.zeros(len(first) - 1, dtype=bool)
    inside[own] = True
    shells, shell = [own], own
    for _ in range(hops):
        counts = first[shell + 1] - first[shell]
        # All numbers from first[i] to first[i + 1], for every i of the shell.
        before = np.cumsum(counts) - counts
        where = np.repeat(first[shell] - before, counts) + np.arange(counts.sum())
        shell = np.unique(neighbors[where])
        shell = shell[~inside[shell]]
        inside[shell] = True
        shells.append(shell)
    return np.concatenate(shells)


def _part(system: System, lists: list[NeighborListOptions], atoms: torch.Tensor) -> System:
    place = torch.full((len(system),), -1, dtype=torch.int32, device=system.device)
    place[atoms] = torch.arange(len(atoms), dtype=torch.int32, device=system.device)
    part = System(system.types[atoms], system.positions[atoms], system.cell, system.pbc)
    for options in lists:
        block = system.get_neighbor_list(options)
        samples = block.samples.values
        first, second = place[samples[:, 0].long()], place[samples[:, 1].long()]
        keep = (first >= 0) & (second >= 0)
        values = torch.cat([first[keep, None], second[keep, None], samples[keep, 2:]], dim=1)
        labels = Labels(block.samples.names, values, assume_unique=True)
        part.add_neighbor_list(options, TensorBlock(block.values[keep], labels, block.components, block.properties))
    return part
