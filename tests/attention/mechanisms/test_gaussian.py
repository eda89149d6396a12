"""A product of Gaussians as one Gaussian."""

import math

import pytest
import torch

from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.gaussian import GaussianAdaptive

HEADS = Heads(4, 4, 16, 64)


def test_the_collapsed_form_is_the_product_of_densities() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 64, generator=draw, dtype=torch.float64)
    module = GaussianAdaptive(4, 5).module(HEADS).double()
    shifts, widths = (torch.rand(4, 5, generator=draw, dtype=torch.float64) + 0.5 for _ in range(2))
    with torch.no_grad():
        module.get_parameter("shifts").copy_(shifts)
        module.get_parameter("widths").copy_(widths)
    for head, (part, y) in enumerate(zip(x.chunk(4, -1), module(x, Context()).chunk(4, -1), strict=True)):
        mean, variance = part.mean(-1, keepdim=True), part.var(-1, keepdim=True) + 1e-8
        product = torch.ones_like(part)
        for shift, width in zip(shifts[head], widths[head], strict=True):
            spread = variance * width**2
            product *= (-((part - mean - shift) ** 2) / (2 * spread)).exp() / (2 * math.pi * spread).sqrt()
        torch.testing.assert_close(y, part * product / product.sum(-1, keepdim=True), rtol=1e-12, atol=1e-12)


def test_many_narrow_gaussians_do_not_underflow() -> None:
    module, x = GaussianAdaptive(4, 50).module(HEADS), torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        module.get_parameter("widths").fill_(1e-2)
    y = module(x, Context())
    assert y.isfinite().all() and y.any(-1).all()
    # What is left is the channel of each head that is nearest to the mean.
    parts = x.unflatten(-1, (4, -1))
    nearest = (parts - parts.mean(-1, keepdim=True)).abs().argmin(-1)
    assert torch.equal(y.unflatten(-1, (4, -1)).abs().argmax(-1), nearest)


def test_parameters_are_two_for_each_gaussian_of_a_head() -> None:
    assert sum(p.numel() for p in GaussianAdaptive().module(HEADS).parameters()) == 2 * 5 * 4


def test_heads_must_share_the_features() -> None:
    with pytest.raises(ValueError, match="heads=5, which do not share 64 features"):
        GaussianAdaptive(heads=5).module(HEADS)
