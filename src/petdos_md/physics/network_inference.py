"""The networks of :mod:`petdos_md.physics.networks`, evaluated three times as fast as layer by layer, with the same result.

The first two convolutions cost nearly everything. The first is computed for the four points of each pooling window at once, as
one product of matrices, so that pooling takes the largest of four contiguous arrays. The second, of 16 points, is done in blocks of 64
points as a discrete Fourier transform (overlap-save), all of whose steps are products of matrices: a quarter of the operations.
Work arrays are small enough for the cache and used again: memory that is new to a process costs more than the arithmetic.

>>> fast = Inference(module)                       # doctest: +SKIP
>>> fast(dos_per_atom)                             # doctest: +SKIP
"""

from __future__ import annotations

import numpy as np
import torch

from .dos_network import DOSNetwork

_BATCH = 16  # DOS at a time in the first two layers
_DEEP = 128  # and in the others, whose weights take longer to read
_POSITIONS = 128  # of the first layer at a time
_BLOCK = 64  # points of the Fourier transform
_VALID = 48  # of its outputs are used: at most 64 - 16 + 1, and a multiple of the pooling width
_BLOCKS = 9  # of the Fourier transform at a time


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
        # Real and imaginary part of 32 frequencies, the even ones first: these need the sum of the two halves of a block only, the
        # odd ones the difference. Frequencies 0 and 32 are real and share the first place.
        half = _BLOCK // 2
        frequencies = np.concatenate([np.arange(0, half, 2), np.arange(1, half, 2)])
        points = np.arange(_BLOCK)
        angle = 2 * np.pi * np.outer(frequencies, points) / _BLOCK
        waves = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
        waves[0, 1] = np.cos(np.pi * points)
        forward = waves.reshape(-1, _BLOCK)[:, :half]
        twice = np.where(frequencies == 0, 1.0, 2.0)[:, None, None] / _BLOCK
        backward = (waves * twice).reshape(-1, _BLOCK)[:, :_VALID].T
        self._forward, self._backward = (torch.tensor(a.copy(), dtype=self._dtype) for a in (forward, backward))
        # Cross-correlation: the spectrum of the input times the conjugate of that of the kernel, in real and imaginary parts.
        spectrum = torch.fft.rfft(second.weight.detach().double(), _BLOCK).permute(2, 0, 1)
        c, d = spectrum.real, spectrum.imag
        mix = torch.cat([torch.cat([c, d], dim=2), torch.cat([-d, c], dim=2)], dim=1)[torch.from_numpy(frequencies)]
        mix[0] = torch.block_diag(c[0], c[half])
        self._mix = mix.to(self._dtype).flatten(0, 1)

    def __call__(self, dos_per_atom: torch.Tensor) -> torch.Tensor:
        """``(m, n_channels)`` to ``(m, 1)``."""
        with torch.inference_mode():
            work = _Work(self._module, dos_per_atom.shape[1], self._dtype)
            results = [torch.empty(0, 1, dtype=self._dtype)]
            for part in dos_per_atom.split(_DEEP) if len(dos_per_atom) else ():
                rows = self._module.padded(part).split(_BATCH)
                second = [self._second_layer(self._first_layer(r, work), work) for r in rows]
                results.append(self._module.tail(torch.cat(second)))
            return torch.cat(results)

    def _first_layer(self, x: torch.Tensor, work: _Work) -> torch.Tensor:
        """``(m, n)`` to ``(64, positions, m)``, with the zeros that the second layer needs around it."""
        m, n = x.shape
        rows = work.array("rows", n + 2, m)
        rows[0] = rows[-1] = 0.0
        rows[1:-1] = x.T
        width = self._first.shape[1]
        result = work.array("first", 64, (work.blocks - 1) * _VALID + _BLOCK, m)
        result[:, 0] = 0.0
        result[:, work.positions + 1 :] = 0.0
        for start in range(0, work.positions, _POSITIONS):
            count = min(_POSITIONS, work.positions - start)
            windows = work.array("windows", width, count, m)
            windows.copy_(rows.as_strided((width, count, m), (m, 4 * m, 1), 4 * start * m))
            outputs = torch.mm(self._first, windows.view(width, -1), out=work.array("outputs", 256, count * m))
            _pool(outputs.view(4, 64, count, m), self._bias_1, work, result[:, 1 + start : 1 + start + count])
        return result

    def _second_layer(self, x: torch.Tensor, work: _Work) -> torch.Tensor:
        """``(64, padded positions, m)`` to ``(m, 64, positions)``."""
        channels, length, m = x.shape
        pooled = work.array("pooled", _VALID // 4, channels, work.blocks, m)
        half = _BLOCK // 2
        for start in range(0, work.blocks, _BLOCKS):
            count = min(_BLOCKS, work.blocks - start)
            size = (_BLOCK, channels, count, m)
            windows = x.as_strided(size, (m, length * m, _VALID * m, 1), start * _VALID * m)
            folded = work.array("folded", *size)
            torch.add(windows[:half], windows[half:], out=folded[:half])
            torch.sub(windows[:half], windows[half:], out=folded[half:])
            spectra = _products(self._forward, folded.view(_BLOCK, -1), 2)
            mixed = _products(self._mix, spectra.view(half * 2 * channels, -1), half)
            outputs = _products(self._backward, mixed.view(_BLOCK, -1), 1).view(_VALID // 4, 4, channels, count, m)
            _pool(outputs.transpose(0, 1), self._bias_2[None], work, pooled[:, :, start : start + count])
        n_pooled = (work.positions + 2 - 16 + 1) // 4
        return pooled.permute(3, 1, 2, 0).reshape(m, channels, -1)[:, :, :n_pooled]


class _Work:
    """Sizes, and work arrays by name; they last for one call, so that threads do not share them."""

    def __init__(self, module: DOSNetwork, n_channels: int, dtype: torch.dtype) -> None:
        n = module.padded(torch.empty(1, n_channels)).shape[1]
        self.positions = (n + 2 - 32 + 1) // 4
        self.blocks = -(-(self.positions + 2 - 15) // _VALID)
        self._dtype = dtype
        self._arrays: dict[str, torch.Tensor] = {}

    def array(self, name: str, *shape: int) -> torch.Tensor:
        """An array; what is in it is undefined."""
        size = int(np.prod(shape))
        if name not in self._arrays or len(self._arrays[name]) < size:
            self._arrays[name] = torch.empty(size, dtype=self._dtype)
        return self._arrays[name][:size].view(shape)


def _products(a: torch.Tensor, b: torch.Tensor, groups: int) -> torch.Tensor:
    """Each of ``groups`` blocks of rows of ``a`` times the same block of rows of ``b``.

    As a convolution over one point, which oneDNN computes fast on Intel and AMD CPUs.
    """
    return torch.nn.functional.conv1d(b[None], a[:, :, None], groups=groups)[0]


def _pool(phases: torch.Tensor, bias: torch.Tensor, work: _Work, out: torch.Tensor) -> None:
    """The largest SiLU of the four phases along the first dimension: SiLU falls and then rises, so that the extremes are enough."""
    a, b, c, d = phases
    top, bottom = work.array("top", *a.shape), work.array("bottom", *a.shape)
    for extreme, found in ((torch.maximum, top), (torch.minimum, bottom)):
        extreme(a, b, out=found)
        extreme(found, c, out=found)
        extreme(found, d, out=found)
        found += bias
        torch.nn.functional.silu(found, inplace=True)
    torch.maximum(top, bottom, out=out)
