"""The convolutional network that reads a number off a DOS, as a torch module; :mod:`petdos_md.physics.networks` uses it.

Section 4.5 of the PET-MAD-DOS article (DOI 10.1039/D5DD00557D): four blocks of a convolution (kernels 32, 16, 8, 8; 64
channels), SiLU and max pooling over 4 points, then two dense layers of 1024.

>>> DOSNetwork(4806)(torch.zeros(2, 4806)).shape
torch.Size([2, 1])
"""

from __future__ import annotations

import torch

KERNELS = (32, 16, 8, 8)
CHANNELS, HIDDEN, POOL = 64, 1024, 4
SHORTEST = 737
"""Energies that four pooled convolutions need; a shorter DOS is continued with zeros."""


class DOSNetwork(torch.nn.Module):
    """The network itself; parameters are named as in the published state dicts.

    :param n_channels: energies of the DOS
    :param inputs: of the first dense layer; by default what the grid gives
    """

    def __init__(self, n_channels: int, inputs: int | None = None) -> None:
        super().__init__()
        inputs = flattened(n_channels) if inputs is None else inputs
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            torch.nn.Conv1d(CHANNELS if i else 1, CHANNELS, kernel, padding=1) for i, kernel in enumerate(KERNELS)
        )
        self.fc1 = torch.nn.Linear(inputs, HIDDEN)
        self.fc2 = torch.nn.Linear(HIDDEN, 1)

    def forward(self, dos_per_atom: torch.Tensor) -> torch.Tensor:
        """``(m, n_channels)`` states/eV/atom to ``(m, 1)``."""
        x = self.padded(dos_per_atom)[:, None]
        return self.tail(pooled_silu(self.conv2(pooled_silu(self.conv1(x)))))

    def tail(self, x: torch.Tensor) -> torch.Tensor:
        """All but the first two convolutions."""
        x = pooled_silu(self.conv4(pooled_silu(self.conv3(x))))
        return self.fc2(torch.nn.functional.silu(self.fc1(x.flatten(1))))

    @staticmethod
    def padded(dos_per_atom: torch.Tensor) -> torch.Tensor:
        """A DOS on a short grid, continued with zeros."""
        return torch.nn.functional.pad(dos_per_atom, (0, max(0, SHORTEST - dos_per_atom.shape[-1])))


def pooled_silu(x: torch.Tensor) -> torch.Tensor:
    """Max pooling of SiLU, ``(m, c, n)`` to ``(m, c, n // 4)``.

    SiLU falls and then rises, so that its largest value over some points is at the lowest or the highest of them: half the
    exponentials are enough.
    """
    top = torch.nn.functional.max_pool1d(x, POOL)
    bottom = -torch.nn.functional.max_pool1d(-x, POOL)
    return torch.maximum(torch.nn.functional.silu(top), torch.nn.functional.silu(bottom))


def flattened(n_channels: int) -> int:
    """Numbers that the convolutions make of a DOS of ``n_channels``: 1024 for 4806."""
    n = max(n_channels, SHORTEST)
    for kernel in KERNELS:
        n = (n + 2 - kernel + 1) // POOL
    return n * CHANNELS
