"""The networks of :mod:`petdos_md.networks`, evaluated twice as fast as layer by layer, with the same result.

The first two convolutions cost nearly everything. The first is computed for the four points of each pooling window at once, as
one product of matrices, so that pooling takes the largest of four contiguous arrays. The second, of 16 points, is done in blocks of 64
points as a discrete Fourier transform (overlap-save), all of whose steps are products of matrices: a third of the operations.

>>> fast = Inference(module)                       # doctest: +SKIP
>>> fast(dos_per_atom)                             # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from .networks import DOSNetwork

BATCH = 16
"""DOS at a time, so that work arrays fit into the cache."""

_POSITIONS = 128  # of the first layer at a time, for the same reason
_BLOCK = 64  # of the Fourier transform
_VALID = 48  # of its outputs are used: at most 64 - 16 + 1, and a multiple of the pooling width


class Inference:
    """Prepared weights of one network.

    :param module: in float32 or float64, on the CPU
    """

    def __init__(self, module: DOSNetwork) -> None:
        self._module = module
        first, second = module.conv1, module.conv2
        self._dtype = first.weight.dtype
        kernel = first.weight.detach()[:, 0]
        phases = torch.zeros(4, *kernel.shape[:1], kernel.shape[1] + 3, dtype=self._dtype)
        for j in range(4):
            phases[j, :, j : j + kernel.shape[1]] = kernel
        self._first = phases.flatten(0, 1)
        biases = [module.get_parameter(f"{name}.bias").detach()[:, None, None] for name in ("conv1", "conv2")]
        self._bias_1, self._bias_2 = biases
        angle = 2 * np.pi * np.outer(np.arange(_BLOCK // 2 + 1), np.arange(_BLOCK)) / _BLOCK
        forward = np.stack([np.cos(angle), -np.sin(angle)], axis=1).reshape(-1, _BLOCK)
        twice = np.where(np.isin(np.arange(_BLOCK // 2 + 1), (0, _BLOCK // 2)), 1.0, 2.0)[:, None, None] / _BLOCK
        backward = (np.stack([np.cos(angle), -np.sin(angle)], axis=1) * twice).reshape(-1, _BLOCK)[:, :_VALID].T
        self._forward, self._backward = (torch.tensor(a.copy(), dtype=self._dtype) for a in (forward, backward))
        # Cross-correlation: the spectrum of the input times the conjugate of that of the kernel, in real and imaginary parts.
        spectrum = torch.fft.rfft(second.weight.detach().double(), _BLOCK).permute(2, 0, 1)
        c, d = spectrum.real, spectrum.imag
        mix = torch.cat([torch.cat([c, d], dim=2), torch.cat([-d, c], dim=2)], dim=1)
        self._mix = mix.to(self._dtype).contiguous()

    def __call__(self, dos_per_atom: torch.Tensor) -> torch.Tensor:
        """``(m, n_channels)`` to ``(m, 1)``; ``m`` up to :data:`BATCH` is best."""
        with torch.inference_mode():
            return self._module.tail(self._second_layer(self._first_layer(self._module.padded(dos_per_atom))))

    def _first_layer(self, x: torch.Tensor) -> torch.Tensor:
        """``(m, n)`` to ``(64, positions, m)``, with the zeros that the second layer needs around it."""
        m, n = x.shape
        rows = torch.zeros(n + 2, m, dtype=self._dtype)
        rows[1:-1] = x.T
        width = self._first.shape[1]
        positions = (n + 2 - (width - 3) + 1) // 4
        blocks = -(-(positions + 2 - 15) // _VALID)
        result = torch.zeros(64, (blocks - 1) * _VALID + _BLOCK, m, dtype=self._dtype)
        for start in range(0, positions, _POSITIONS):
            count = min(_POSITIONS, positions - start)
            windows = rows.as_strided((width, count, m), (m, 4 * m, 1), 4 * start * m)
            outputs = (self._first @ windows.reshape(width, -1)).view(4, 64, count, m)
            result[:, 1 + start : 1 + start + count] = _pooled(outputs, self._bias_1)
        self._positions = positions
        return result

    def _second_layer(self, x: torch.Tensor) -> torch.Tensor:
        """``(64, padded positions, m)`` to ``(m, 64, positions)``."""
        channels, length, m = x.shape
        blocks = (length - _BLOCK) // _VALID + 1
        windows = x.as_strided((_BLOCK, channels, blocks, m), (m, length * m, _VALID * m, 1))
        spectra = (self._forward @ windows.reshape(_BLOCK, -1)).view(_BLOCK // 2 + 1, 2 * channels, blocks * m)
        mixed = torch.bmm(self._mix, spectra).view(_BLOCK + 2, -1)
        outputs = (self._backward @ mixed).view(_VALID // 4, 4, channels, blocks, m)
        pooled = _pooled(outputs.transpose(0, 1), self._bias_2[None])
        n_pooled = (self._positions + 2 - 16 + 1) // 4
        return pooled.permute(3, 1, 2, 0).reshape(m, channels, -1)[:, :, :n_pooled]


def _pooled(phases: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The largest SiLU of the four phases along the first dimension: SiLU falls and then rises, so that the extremes are enough."""
    a, b, c, d = phases
    top = torch.maximum(torch.maximum(a, b), torch.maximum(c, d)) + bias
    bottom = torch.minimum(torch.minimum(a, b), torch.minimum(c, d)) + bias
    return torch.maximum(torch.nn.functional.silu(top), torch.nn.functional.silu(bottom))
