"""Neighbors of all atoms in the order in which a network reads them: rows of atoms with equally many neighbors, in slices.

>>> graph = {"counts": torch.tensor([2, 1, 2]), "levels": torch.tensor([0, 0, 0])}
>>> plan_slices(*sort_atoms(graph["counts"], graph["levels"], 1)[1:], max_rows=100)  # one atom of width 2, two of width 3
[[0, 0, 0, 1, 2, 2, 3]]

A *row* is one token of a transformer: an atom has one row for itself, followed by one for each neighbor. Atoms are sorted by their
number of neighbors, so those of one number are a rectangle without padding; a *slice* is some rows of one or several rectangles. Its
description is a list of integers: level, first atom, first row, and for each rectangle its number of atoms and its width.

A graph is a dictionary of tensors: ``vectors`` (rows, 3) and ``weights`` (rows,), the cutoff function, both zero in rows of atoms;
``species`` (rows,) of neighbors; ``reverse`` (rows,), the row of the same edge seen from its other atom; ``atom_rows`` (atoms,);
``order`` (atoms,), numbers in the input of sorted atoms; ``atom_species``, ``systems`` and ``weight_sums`` (atoms,). :data:`SPARE_ROWS` rows at the
end belong to nobody.

The *level* of an atom is the number of steps from neighbor to neighbor to the nearest selected atom: the last layer of a network is
needed at level zero, the one before at level one, and so on.
"""

from __future__ import annotations

import torch

from .network_cutoffs import average_cutoffs, bump, cosine, solve_cutoffs

SPARE_ROWS = 16
"""Rows at the end of every array, so that slices can be longer than what is in them."""
MAX_ATOMS = 32768
"""Atoms of a rectangle: kernels of attention count them in 16 bits."""


class EdgeRules(torch.nn.Module):
    """Which pairs of a neighbor list are edges, and their weights.

    :param cutoff: of the neighbor list (angstrom)
    :param cutoff_function: ``bump`` or ``cosine``
    :param width: of the cutoff function (angstrom)
    :param n_neighbors: wanted number of neighbors, for adaptive cutoffs; zero for a fixed cutoff
    :param method: of adaptive cutoffs, ``solver`` or ``grid``
    :param adaptive_width: of the smooth count of neighbors (angstrom)
    """

    def __init__(
        self, cutoff: float, cutoff_function: str, width: float, n_neighbors: float, method: str, adaptive_width: float
    ) -> None:
        super().__init__()
        self.cutoff, self.width, self.n_neighbors, self.adaptive_width = cutoff, width, n_neighbors, adaptive_width
        self.is_bump, self.is_solver = cutoff_function == "bump", method == "solver"

    def forward(
        self, distances: torch.Tensor, centers: torch.Tensor, neighbors: torch.Tensor, n_atoms: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers of the pairs that are edges, and their weights, from distances ``(n_pairs,)`` (angstrom)."""
        if self.n_neighbors > 0:
            solve = (distances, centers, n_atoms, self.n_neighbors, self.cutoff, self.adaptive_width)
            of_atoms = solve_cutoffs(*solve) if self.is_solver else average_cutoffs(*solve)
            cutoffs = (of_atoms[centers] + of_atoms[neighbors]) / 2.0
        else:
            cutoffs = torch.full_like(distances, self.cutoff)
        keep = torch.nonzero(distances <= cutoffs).squeeze(-1)
        distances, cutoffs = distances[keep], cutoffs[keep]
        if self.is_bump:
            return keep, bump(distances, cutoffs, self.width)
        return keep, cosine(distances, cutoffs, self.width)


def pair_vectors(
    positions: torch.Tensor, cells: torch.Tensor, pairs: torch.Tensor, systems: torch.Tensor
) -> torch.Tensor:
    """Vectors of pairs ``(n_pairs, 3)`` (angstrom).

    Every operation is on single numbers, so that the two directions of a pair are the same to the last digit.

    :param positions: ``(n_atoms, 3)`` (angstrom)
    :param cells: rows are cell vectors, ``(n_systems, 3, 3)`` (angstrom)
    :param pairs: two atoms and three cell shifts, ``(n_pairs, 5)``
    :param systems: of atoms, ``(n_atoms,)``
    """
    shifts = pairs[:, 2:].to(positions.dtype)
    if len(cells) == 1:
        a, b, c = cells[0, 0], cells[0, 1], cells[0, 2]
    else:
        of_pairs = cells[systems[pairs[:, 0]]]
        a, b, c = of_pairs[:, 0], of_pairs[:, 1], of_pairs[:, 2]
    images = shifts[:, 0:1] * a + shifts[:, 1:2] * b + shifts[:, 2:3] * c
    return positions[pairs[:, 1]] - positions[pairs[:, 0]] + images


def lengths(vectors: torch.Tensor) -> torch.Tensor:
    """``(n,)`` of ``(n, 3)``."""
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return torch.sqrt(x * x + y * y + z * z) + 1e-15


def find_levels(selected: torch.Tensor, centers: torch.Tensor, neighbors: torch.Tensor, max_level: int) -> torch.Tensor:
    """Steps to the nearest selected atom, ``(n_atoms,)``; those farther than the largest level have one more.

    :param selected: whether an atom is, ``(n_atoms,)``
    """
    levels = torch.where(selected, 0, max_level + 1)
    for _ in range(max_level):
        levels = levels.scatter_reduce(0, centers, levels[neighbors] + 1, reduce="amin")
    return levels


def sort_atoms(
    counts: torch.Tensor, levels: torch.Tensor, multiple: int
) -> tuple[torch.Tensor, list[int], list[int], list[int]]:
    """Atoms by level, then by width; with the numbers of atoms, widths and levels of the rectangles.

    :param counts: numbers of neighbors, ``(n_atoms,)``
    :param levels: ``(n_atoms,)``
    :param multiple: widths are rounded up to it
    """
    widths = torch.div(counts + multiple, multiple, rounding_mode="floor") * multiple
    keys, order = torch.sort(levels * 1_000_000 + widths, stable=True)
    found, numbers = torch.unique_consecutive(keys.cpu(), return_counts=True)
    sizes: list[int] = numbers.tolist()
    kinds: list[int] = found.tolist()
    return order, sizes, [kind % 1_000_000 for kind in kinds], [kind // 1_000_000 for kind in kinds]


def plan_slices(
    sizes: list[int], widths: list[int], levels: list[int], max_rows: int, max_atoms: int = MAX_ATOMS
) -> list[list[int]]:
    """Cut rectangles into slices of so many rows, each of one level.

    :param sizes: numbers of atoms of the rectangles
    :param widths: their rows per atom
    :param levels: their levels, in ascending order
    """
    slices: list[list[int]] = []
    room = 0
    atom = 0
    row = 0
    for i in range(len(sizes)):
        left = sizes[i]
        if len(slices) > 0 and slices[-1][0] != levels[i]:
            room = 0
        while left > 0:
            n = min(left, room // widths[i], max_atoms)
            if n == 0:
                slices.append([levels[i], atom, row])
                room = max(max_rows, widths[i])
                continue
            slices[-1].append(n)
            slices[-1].append(widths[i])
            left -= n
            room -= n * widths[i]
            atom += n
            row += n * widths[i]
    return slices


def match_reverse(
    first: torch.Tensor, second: torch.Tensor, shifts: torch.Tensor, n_atoms: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """An order of edges, by first atom, and for each edge in that order the place of the same edge in the other direction.

    :param first: atoms in the order of rows, ``(n_edges,)``
    :param second: the other atoms, ``(n_edges,)``
    :param shifts: ``(n_edges, 3)``
    :raises RuntimeError: if an edge has no other direction
    """
    if len(first) == 0:
        return first, first
    largest = shifts.abs().max()
    base = 2 * largest + 1
    image = ((shifts[:, 0] + largest) * base + shifts[:, 1] + largest) * base + shifts[:, 2] + largest
    n_images = base * base * base
    keys, order = torch.sort((first * n_atoms + second) * n_images + image)
    reverse_keys, reverse = torch.sort((((second * n_atoms + first) + 1) * n_images - 1 - image)[order])
    if not torch.equal(keys, reverse_keys):
        raise RuntimeError("the neighbor list is not full: expected every pair in both directions")
    return order, reverse


def lay_out(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    pairs: torch.Tensor,
    species: torch.Tensor,
    levels: torch.Tensor,
    max_level: int,
    multiple: int,
    max_rows: int,
) -> tuple[dict[str, torch.Tensor], list[list[int]]]:
    """Arrange edges in rows; returns the graph, without ``systems``, and its slices.

    :param vectors: of edges, ``(n_edges, 3)``
    :param weights: ``(n_edges,)``
    :param pairs: atoms and shifts of edges, ``(n_edges, 5)``
    :param species: of atoms, ``(n_atoms,)``
    :param levels: of atoms, ``(n_atoms,)``; those above ``max_level`` get no rows
    """
    n_atoms = len(species)
    counts = torch.bincount(pairs[:, 0], minlength=n_atoms)
    order, sizes, widths, ranks = sort_atoms(counts, levels, multiple)
    used, n_used, n_rows = 0, 0, 0
    for i in range(len(sizes)):
        if ranks[i] <= max_level:
            n_used += sizes[i]
            n_rows += sizes[i] * widths[i]
            used += 1
    slices = plan_slices(sizes[:used], widths[:used], ranks[:used], max_rows)

    place = torch.empty_like(order)
    place[order] = torch.arange(n_atoms, device=order.device)
    edges, reverse = match_reverse(place[pairs[:, 0]], place[pairs[:, 1]], pairs[:, 2:], n_atoms)
    counts = counts[order]
    width = torch.div(counts + multiple, multiple, rounding_mode="floor") * multiple
    first_row = torch.cumsum(width, 0) - width
    first_edge = torch.cumsum(counts, 0) - counts
    center = place[pairs[:, 0]][edges]
    row = first_row[center] + 1 + torch.arange(len(edges), device=order.device) - first_edge[center]
    reverse_row = row[reverse]
    if used < len(sizes):
        # Atoms that nobody needs come last. Nothing reads what their edges would send.
        inside = torch.nonzero(row < n_rows).squeeze(-1)
        edges, row, reverse_row = edges[inside], row[inside], reverse_row[inside].clamp(max=n_rows - 1)
        center = center[inside]

    own = torch.arange(with_spare_rows(n_rows), device=order.device)
    graph = {
        "vectors": vectors.new_zeros((len(own), 3)).index_copy(0, row, vectors[edges]),
        "weights": weights.new_zeros(len(own)).index_copy(0, row, weights[edges]),
        "species": torch.zeros_like(own).index_copy(0, row, species[pairs[:, 1]][edges]),
        "reverse": own.index_copy(0, row, reverse_row),
        "atom_rows": first_row[:n_used],
        "order": order[:n_used],
        "atom_species": species[order[:n_used]],
        "weight_sums": weights.new_zeros(n_used).index_add(0, center, weights[edges]),
    }
    return graph, slices


def with_spare_rows(n_rows: int, spare_rows: int = SPARE_ROWS) -> int:
    """Length of arrays of so many rows."""
    return n_rows + spare_rows
