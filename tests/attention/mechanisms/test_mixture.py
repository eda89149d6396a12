"""What the paper says of a mixture of heads, and what its code leaves out: that heads not picked are not computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.auxiliary import auxiliary_losses
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.mixture import MixtureOfHeads
from coterie.attention.naive import naive_attention

HEADS = Heads(8, 8, 64, 6)
TOKENS = 96


def balanced() -> tuple[nn.Module, Context]:
    """2 shared heads, and 4 of 6 routed ones for each token, every head as often as every other."""
    module, turns = MixtureOfHeads().module(HEADS), torch.arange(6)
    with torch.no_grad():
        away = (turns[:, None] - turns) % 6
        module.get_parameter("routed.weight").copy_((away < 4).float() - 0.01 * away)
    return module, Context(features=torch.eye(6)[torch.arange(TOKENS) % 6][None])


def multiplications(module: nn.Module, context: Context, backward: bool) -> int:
    inputs = [torch.randn(1, 8, TOKENS, 64, requires_grad=True) for _ in range(3)]
    # SDPA's fused kernels for the CPU are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        o = module(*inputs, context)
        if backward:
            o.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("backward", [False, True])
def test_heads_that_are_not_picked_cost_nothing(backward: bool) -> None:
    dense = 4 * 8 * TOKENS**2 * 64 * (3 if backward else 1)
    assert 0.75 * dense <= multiplications(*balanced(), backward) < 0.76 * dense


def test_load_loss_is_least_where_heads_are_picked_evenly() -> None:
    """Evenly: mean(1/E k/E) E^2 = k. Always the same k of E: their chances are larger, and so is the loss."""
    module, context = balanced()
    inputs = torch.zeros(3, 1, 8, TOKENS, 64)
    assert context.features is not None
    with auxiliary_losses() as losses:
        module(*inputs, context)
        module(*inputs, Context(features=context.features[:, :1].expand(1, TOKENS, 6)))
    even, uneven = losses
    assert even.item() == pytest.approx(0.01 * 4, rel=1e-5)
    assert uneven > 1.2 * even
    gradient, *others = torch.autograd.grad(uneven, list(module.parameters()), allow_unused=True)
    assert gradient.abs().max() > 0 and others == [None, None]


def test_load_loss_does_not_count_padding() -> None:
    module, context = balanced()
    inputs, segment = torch.zeros(3, 1, 8, TOKENS, 64), (torch.arange(TOKENS) >= 60).long().neg()
    assert context.features is not None
    mixed = torch.where(segment[:, None] < 0, context.features[:, :1], context.features)
    with auxiliary_losses() as losses:
        module(*inputs, Context(features=mixed, data=Data(Tokens(segment=segment))))
    assert losses[0].item() == pytest.approx(0.01 * 4, rel=1e-5)


def test_gates_of_each_token_add_up_to_its_heads() -> None:
    """Equal values in all heads: a token gets n_s b_1 + k b_2 times them, with b_1 + b_2 = 2."""
    module, context = balanced()
    value = torch.ones(1, 8, TOKENS, 64)
    o = module(torch.randn_like(value), torch.randn_like(value), value, context)
    torch.testing.assert_close(o.sum(1), torch.full((1, TOKENS, 64), 0.0) + _expected(module, context))


def _expected(module: nn.Module, context: Context) -> torch.Tensor:
    b = 2 * (context.features @ module.get_parameter("balance.weight").T).softmax(-1)
    return 2 * b[..., :1] + 4 * b[..., 1:]


def test_with_all_heads_picked_it_is_dense_attention_with_weights() -> None:
    module = MixtureOfHeads(shared=0.5, active=1.0).module(HEADS)
    q, k, v = torch.randn(3, 2, 8, 20, 64)
    x = torch.randn(2, 20, 6)
    gates, picked = module._route(x)
    assert picked.all()
    torch.testing.assert_close(module(q, k, v, Context(features=x)), naive_attention(q, k, v)[0] * gates[..., None])


@pytest.mark.parametrize("options", [{"shared": 0.0}, {"active": 0.25}])
def test_shares_without_heads_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="moh has 8 heads"):
        MixtureOfHeads(**options).module(HEADS)
