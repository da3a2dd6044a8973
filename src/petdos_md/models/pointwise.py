"""Linear layers that oneDNN computes: the same function, on processors that are not Intel's in half the time.

torch multiplies float32 matrices with MKL, which uses the widest instructions of Intel's own processors only. Convolutions go to
oneDNN, which uses those of any maker. A linear layer is a convolution over one point, with the rows as the points of an image whose
channels lie side by side in memory, so that nothing is copied.

>>> import torch
>>> layer = torch.nn.Sequential(torch.nn.Linear(64, 512))
>>> x = torch.randn(40, 17, 64)
>>> expected = layer(x)
>>> replace_linear_layers(layer)
1
>>> torch.testing.assert_close(layer(x), expected)
"""

from __future__ import annotations

import torch

MIN_PRODUCTS = 10_000_000
"""Multiplications below which a linear layer stays one: preparing a convolution costs more than it saves."""
MIN_ROWS = 128
MIN_SAMPLES = 16
"""Images from which on torch gives a convolution over one point to oneDNN when there is only one thread."""


class PointwiseLinear(torch.nn.Module):
    """A linear layer with the parameters, and their names, of another.

    :param layer: with weights ``(n_out, n_in)`` and perhaps a bias
    """

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.min_products, self.min_rows, self.min_samples = MIN_PRODUCTS, MIN_ROWS, MIN_SAMPLES

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., n_in)`` to ``(..., n_out)``."""
        rows = x.numel() // self.in_features
        small = rows < self.min_rows or rows * self.in_features * self.out_features < self.min_products
        if small or x.dtype != torch.float32 or x.device.type != "cpu":
            return torch.nn.functional.linear(x, self.weight, self.bias)
        samples = x.shape[0] if x.dim() == 3 and x.shape[0] >= self.min_samples else 1
        image = x.reshape(samples, -1, 1, self.in_features).permute(0, 3, 1, 2)
        result = torch.nn.functional.conv2d(image, self.weight[:, :, None, None], self.bias)
        return result.permute(0, 2, 3, 1).reshape(x.shape[:-1] + (self.out_features,))  # noqa: RUF005 TorchScript


def replace_linear_layers(module: torch.nn.Module) -> int:
    """Replace every :class:`torch.nn.Linear` inside a module; returns how many. Names of parameters stay as they are."""
    replaced = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear:
                setattr(parent, name, PointwiseLinear(child))
                replaced += 1
    return replaced
