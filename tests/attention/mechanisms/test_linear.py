"""Attention without softmax: what the papers say of it."""

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads, Mechanism
from coterie.attention.mechanisms.linear import Flow, Lightning, Linear

HEADS = Heads(4, 2, 8, 10)


def drawn(tokens: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, heads, tokens, 8, generator=draw, dtype=torch.float64) for heads in (4, 2, 2)]


@pytest.mark.parametrize("feature_map", ["elu", "exp", "sigmoid"])
def test_rows_of_linear_attention_sum_to_one(feature_map: str) -> None:
    q, k, v = drawn(9)
    mechanism = Linear(feature_map)  # type: ignore[arg-type]
    for causal in (False, True):
        given = Context(causal=causal)
        torch.testing.assert_close(mechanism.module(HEADS)(q, k, torch.ones_like(v), given), torch.ones_like(q))
        torch.testing.assert_close(mechanism.module(HEADS)(q, k, v, given), mechanism.naive(None, q, k, v, given))  # type: ignore[arg-type]


def test_lightning_decays_as_alibi_does_and_less_in_later_layers() -> None:
    one = torch.ones(1, 4, 65, 1, dtype=torch.float64)
    v = torch.zeros_like(one)
    v[:, :, 0] = 1
    for depth, share in ((0.0, 1.00001), (0.5, 0.50001), (1.0, 0.00001)):
        o = Lightning(depth).module(Heads(4, 4, 1, 1))(one, one, v, Context(causal=True))[0, :, :, 0]
        slopes = share * torch.tensor([2**-2, 2**-4, 2**-6, 2**-8], dtype=torch.float64)
        torch.testing.assert_close(-o[:, 64].log(), 64 * slopes)


def test_flow_is_conserved() -> None:
    # Equal keys do not compete, so that with values of 1 an output is the sigmoid of what flows into the query. Each
    # key lets out 1, and all of it arrives.
    q, k, v = drawn(12)
    o = Flow().module(HEADS)(q, k[:, :, :1].expand_as(k), torch.ones_like(v), Context())
    torch.testing.assert_close(o.logit().sum(2), torch.full_like(o[:, :, 0], 12.0))


def test_flow_competition_is_a_softmax_over_sources() -> None:
    # One feature that all share: no key beats another, and each query gets the mean, by its sigmoid(1).
    one, v = torch.zeros(2, 4, 7, 1, dtype=torch.float64), drawn(7)[2].repeat_interleave(2, 1)
    o = Flow().module(HEADS)(one, one, v, Context())
    torch.testing.assert_close(o, torch.tensor(1.0).double().sigmoid() * v.mean(2, keepdim=True).expand_as(o))


@pytest.mark.parametrize("mechanism", [Linear(), Lightning(), Flow()])
@pytest.mark.parametrize("causal", [True, False])
def test_packed_sequences_do_not_see_each_other(mechanism: Mechanism, causal: bool) -> None:
    q, k, v = drawn(20)
    segment = torch.tensor([3] * 8 + [-1] * 2 + [5] * 10)
    module = mechanism.module(HEADS)
    packed = module(q, k, v, Context(causal=causal, data=Data(Tokens(segment=segment))))
    for at in (slice(0, 8), slice(10, 20)):
        apart = module(*(x[:, :, at] for x in (q, k, v)), Context(causal=causal))
        torch.testing.assert_close(packed[:, :, at], apart)


@pytest.mark.parametrize("mechanism", [Linear(), Lightning(), Flow()])
def test_padding_has_no_gradient(mechanism: Mechanism) -> None:
    segment = torch.tensor([0] * 8 + [-1] * 3)
    given = [x.masked_fill((segment < 0)[:, None], torch.nan).requires_grad_() for x in drawn(11)]
    o = mechanism.module(HEADS)(*given, Context(causal=True, data=Data(Tokens(segment=segment))))
    for grad in torch.autograd.grad(o.sum(), given):
        assert grad.isfinite().all() and not grad[:, :, 8:].any()
