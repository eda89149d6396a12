"""Dynamic Mask Attention: which keys are kept."""

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.dynamic import DynamicMask
from coterie.attention.naive import naive_attention

HEADS, N = Heads(4, 2, 8, 6), 100


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, h, N, 8, generator=draw, dtype=torch.float64) for h in (4, 2, 2))
    return q, k, v


def test_a_new_layer_is_a_sliding_window() -> None:
    q, k, v = inputs()
    at = torch.arange(N)
    window, _ = naive_attention(q, k, v, allowed=(at <= at[:, None]) & (at > at[:, None] - 7))
    o = DynamicMask(window=7).module(HEADS).double()(q, k, v, Context(causal=True))
    torch.testing.assert_close(o, window)


def test_no_query_sees_more_than_the_window_and_none_is_left_without() -> None:
    module = DynamicMask(window=7).module(Heads(1, 1, N, 6)).double()
    with torch.no_grad():
        module.scale.fill_(1.0)
    q, v = torch.zeros(1, 1, N, N, dtype=torch.float64), torch.eye(N, dtype=torch.float64)[None, None]
    seen = module(q, q, v, Context(causal=True))[0, 0] > 0
    assert seen.sum(-1).tolist() == [min(i + 1, 7) for i in range(N)]
    # Once a larger key pushed a key out, it never comes back.
    assert all((column.int().diff() == 1).sum() <= 1 for column in seen.T)


def test_with_a_window_of_all_keys_it_is_dense_with_the_bias() -> None:
    q, k, v = inputs()
    module = DynamicMask(window=N).module(HEADS).double()
    with torch.no_grad():
        module.scale.copy_(torch.tensor([1.0, -2.0]))
    bias = module.scale[:, None] * torch.nn.functional.softplus(module.weight @ v.transpose(1, 2).flatten(2).mT)
    for causal in (False, True):
        allowed = torch.ones(N, N, dtype=torch.bool).tril() if causal else None
        dense, _ = naive_attention(q, k, v, bias=bias.repeat_interleave(2, 1)[:, :, None], allowed=allowed)
        torch.testing.assert_close(module(q, k, v, Context(causal=causal)), dense)


@pytest.mark.parametrize("causal", [False, True])
def test_padding_takes_no_place_in_the_window(causal: bool) -> None:
    q, k, v = inputs()
    module, there = DynamicMask(window=7).module(HEADS).double(), slice(13, 90)
    with torch.no_grad():
        module.scale.copy_(torch.tensor([1.0, -2.0]))
    segment = torch.full((N,), -1)
    segment[there] = 0
    inputs_and_weights = [x.requires_grad_() for x in (q, k, v)] + [*module.parameters()]
    o = module(q, k, v, Context(causal=causal, data=Data(Tokens(segment=segment))))[:, :, there]
    alone = module(*(x[:, :, there] for x in (q, k, v)), Context(causal=causal))
    torch.testing.assert_close(o, alone)
    ours, theirs = (torch.autograd.grad(x.square().sum(), inputs_and_weights) for x in (o, alone))
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(ValueError, match="dynamic_mask mixes tokens of all segments"):
        module(q, k, v, Context(data=Data(Tokens(segment=torch.arange(N) // 50))))


def test_what_is_kept_has_no_gradient_and_the_bias_has() -> None:
    q, k, v = inputs()
    module = DynamicMask(window=7).module(HEADS).double()
    with torch.no_grad():
        module.scale.fill_(1.0)
    k.requires_grad_()
    module(q, k, v, Context()).sum().backward()
    assert ((k.grad != 0).any(-1).sum(-1) == 7).all()
    assert module.scale.grad.abs().min() > 0 and module.weight.grad.abs().sum() > 0
