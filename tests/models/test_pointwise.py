"""Linear layers as convolutions, against torch's own: values, gradients, every path, and the backbones that have them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch

from petdos_md.models.files import MODELS
from petdos_md.models.pointwise import MIN_PRODUCTS, MIN_ROWS, PointwiseLinear, replace_linear_layers

SHAPES = [(5, 96), (700, 96), (3, 400, 96), (40, 30, 96), (2, 5, 90, 96), (0, 96), (0, 7, 96)]


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_linear(shape: tuple[int, ...], threads: int, scripted: bool) -> None:
    torch.manual_seed(0)
    old = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for bias, dtype in itertools.product((True, False), (torch.float32, torch.float64)):
            layer = torch.nn.Linear(96, 320, bias=bias, dtype=dtype)
            new: torch.nn.Module = PointwiseLinear(layer)
            if scripted:
                new = torch.jit.script(new)
            x = torch.randn(shape, dtype=dtype, requires_grad=True)
            expected, found = layer(x), new(x)
            close = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 1e-13}
            torch.testing.assert_close(found, expected, **close)
            weight = torch.randn(expected.shape, dtype=dtype)
            (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), x)
            (gradient,) = torch.autograd.grad((found * weight).sum(), x)
            torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=20 * close["atol"])
    finally:
        torch.set_num_threads(old)


def test_both_ways_were_taken() -> None:
    """The shapes above are on both sides of the limits."""
    rows = [torch.empty(shape).numel() // 96 for shape in SHAPES]
    large = [n for n in rows if n >= MIN_ROWS and n * 96 * 320 >= MIN_PRODUCTS]
    assert large and len(large) < len(rows)


def test_replaces_all_and_keeps_names() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.SiLU(), torch.nn.Linear(3, 2, bias=False))
    model = torch.nn.ModuleDict({"a": inner, "b": torch.nn.Linear(2, 1)})
    names = list(copy.deepcopy(model).state_dict())
    assert replace_linear_layers(model) == 3 and list(model.state_dict()) == names
    assert replace_linear_layers(model) == 0


def test_the_shipped_backbone_has_them() -> None:
    backbone = torch.jit.load(str(Path(MODELS) / "almgsi-lda.pt"))
    kinds = {m.original_name for m in backbone.modules()}
    assert "PointwiseLinear" in kinds and "Linear" not in kinds
