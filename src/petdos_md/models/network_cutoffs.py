"""Cutoff functions and adaptive cutoffs of PET, on edges: what decides which neighbors an atom has, and how much each counts.

>>> bump(torch.tensor([3.0, 4.25, 4.6]), torch.tensor(4.5), 0.5).round(decimals=3).tolist()
[1.0, 0.5, 0.0]

The adaptive cutoff of an atom is the radius r at which the smoothed number of neighbors, plus n (r / r_max)^3 for the neighbors
that a dilute region lacks, is n. It is found as metatrain 2026.4 finds it, with the same number of steps (``solver``) or as the same
average over trial radii (``grid``), since a network is trained with the one or the other. All functions compile in TorchScript.
"""

from __future__ import annotations

import math

import torch


def bump(distances: torch.Tensor, cutoffs: torch.Tensor, width: float) -> torch.Tensor:
    """Smooth step from one to zero between ``cutoffs - width`` and ``cutoffs`` (angstrom), infinitely often differentiable."""
    x = ((distances - (cutoffs - width)) / width).clamp(1e-6, 1.0 - 1e-6)
    return 0.5 * (1.0 + torch.tanh(1.0 / torch.tan(math.pi * x)))


def cosine(distances: torch.Tensor, cutoffs: torch.Tensor, width: float) -> torch.Tensor:
    """Half a cosine from one to zero between ``cutoffs - width`` and ``cutoffs`` (angstrom)."""
    x = ((distances - (cutoffs - width)) / width).clamp(0.0, 1.0)
    return 0.5 * (1.0 + torch.cos(math.pi * x))


def solve_cutoffs(
    distances: torch.Tensor, centers: torch.Tensor, n_atoms: int, n_neighbors: float, max_cutoff: float, width: float
) -> torch.Tensor:
    """Adaptive cutoffs ``(n_atoms,)`` by ten steps of Newton's method, bisecting where a step leaves the bracket.

    The gradient is that of the implicit function: one more step, of which only the residual depends on the distances.

    :param distances: of edges, ``(n_edges,)`` (angstrom)
    :param centers: first atom of every edge, ``(n_edges,)``
    :param n_neighbors: wanted
    :param max_cutoff: of the neighbor list (angstrom)
    :param width: of the smooth count (angstrom)
    """
    fixed = distances.detach()
    low = torch.zeros(n_atoms, dtype=distances.dtype, device=distances.device)
    high = torch.full_like(low, max_cutoff)
    r = 0.5 * high
    for _ in range(10):
        excess, slope = _excess_and_slope(r, fixed, centers, n_neighbors, max_cutoff, width)
        below = excess <= 0
        low = torch.where(below, r, low)
        high = torch.where(below, high, r)
        step = r - excess / slope.clamp_min(1e-6)
        r = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
    slope = _excess_and_slope(r, fixed, centers, n_neighbors, max_cutoff, width)[1]
    count = torch.zeros_like(r).index_add(0, centers, bump(distances, r[centers], width))
    residual = count + n_neighbors * (r / max_cutoff).pow(3) - n_neighbors
    return (r - residual / slope.clamp_min(1e-6)).clamp(max_cutoff / 16.0, max_cutoff)


def average_cutoffs(
    distances: torch.Tensor, centers: torch.Tensor, n_atoms: int, n_neighbors: float, max_cutoff: float, width: float
) -> torch.Tensor:
    """Adaptive cutoffs ``(n_atoms,)`` as a Gaussian average over trial radii; arguments as of :func:`solve_cutoffs`."""
    radii = torch.arange(0.5, max_cutoff, width / 4.0, dtype=distances.dtype, device=distances.device)
    counts = torch.zeros((len(radii), n_atoms), dtype=distances.dtype, device=distances.device)
    counts = counts.index_add(1, centers, bump(distances.unsqueeze(0), radii.unsqueeze(1), width)).T
    if n_atoms == 0:
        return torch.zeros(0, dtype=distances.dtype, device=distances.device)
    x = torch.linspace(0, 1, len(radii), dtype=distances.dtype, device=distances.device)
    excess = counts - n_neighbors + n_neighbors * x**3
    spread = _slope_along_rows(excess)
    logarithms = -0.5 * (excess / spread) ** 2
    weights = torch.exp(logarithms - logarithms.max())
    return radii @ (weights / weights.sum(dim=1, keepdim=True)).T


def _slope_along_rows(values: torch.Tensor) -> torch.Tensor:
    if values.shape[1] == 1:
        return values.abs() * 0.5 + 1e-12
    inner = 0.5 * (values[:, 2:] - values[:, :-2])
    first, last = values[:, 1:2] - values[:, :1], values[:, -1:] - values[:, -2:-1]
    return torch.cat([first, inner, last], dim=1).abs().clamp_min(1e-12)


def _excess_and_slope(
    r: torch.Tensor,
    distances: torch.Tensor,
    centers: torch.Tensor,
    n_neighbors: float,
    max_cutoff: float,
    width: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smoothed number of neighbors within r minus the wanted one, and its derivative, ``(n_atoms,)`` each."""
    x = (distances - (r[centers] - width)) / width
    angle = math.pi * x.clamp(1e-6, 1.0 - 1e-6)
    sine = torch.sin(angle)
    tanh = torch.tanh(torch.cos(angle) / sine)
    inside = (x > 0.0) & (x < 1.0)
    counted = torch.where(inside, 0.5 * (1.0 + tanh), (x <= 0.0).to(x.dtype))
    slopes = (0.5 * math.pi / width) * (1.0 - tanh * tanh) / (sine * sine) * inside.to(x.dtype)
    count = torch.zeros_like(r).index_add(0, centers, counted)
    slope = torch.zeros_like(r).index_add(0, centers, slopes)
    y = r / max_cutoff
    return count + n_neighbors * y.pow(3) - n_neighbors, slope + 3.0 * n_neighbors * y.pow(2) / max_cutoff
