"""Queries of one item and of several."""

import torch
from torch import Tensor

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Causal
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.mqsa import MultiQuery
from coterie.attention.spec import Spec

HEADS = Heads(4, 2, 8, 10)


def drawn(tokens: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, heads, tokens, 8, generator=draw, dtype=torch.float64) for heads in (4, 2, 2)]


def test_a_window_of_one_or_a_share_of_one_is_plain_attention() -> None:
    q, k, v = drawn(9)
    expected = attend(q, k, v, Spec(Causal()))
    for mechanism in (MultiQuery(window=1), MultiQuery(share=1.0)):
        torch.testing.assert_close(mechanism.module(HEADS)(q, k, v, Context(causal=True)), expected)


def test_queries_of_padding_are_left_out_of_means() -> None:
    q, k, v = drawn(12)
    segment = torch.tensor([-1] * 3 + [0] * 9)
    packed = [x.masked_fill((segment < 0)[:, None], torch.nan) for x in (q, k, v)]
    module = MultiQuery(share=0.0).module(HEADS)
    found = module(*packed, Context(causal=True, data=Data(Tokens(segment=segment))))
    alone = module(*(x[:, :, 3:] for x in (q, k, v)), Context(causal=True))
    torch.testing.assert_close(found[:, :, 3:], alone)
    both = module(*packed, Context(causal=True, data=Data(Tokens(segment=segment.expand(2, -1)))))
    torch.testing.assert_close(both[:, :, 3:], alone)
