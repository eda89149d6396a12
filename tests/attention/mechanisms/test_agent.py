"""Agents between tokens."""

import pytest
import torch
from torch import Tensor

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.agent import Agent
from coterie.attention.mechanisms.base import Context, Heads

HEADS = Heads(4, 2, 8, 10)


def drawn(tokens: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, heads, tokens, 8, generator=draw, dtype=torch.float64) for heads in (4, 2, 2)]


def test_parameters_are_biases_by_place_and_a_small_convolution() -> None:
    # 2 H a (49 + 2 * 7) for planes of 7 x 7, and 3 x 3 weights and a bias for each channel of the values.
    module = Agent().module(Heads(3, 3, 8, 24))
    assert sum(p.numel() for p in module.parameters()) == 2 * 3 * 49 * (49 + 2 * 7) + 24 * 10


def test_it_is_linear_attention_with_softmaxes_for_features() -> None:
    q, k, v = drawn(36)
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    o = Agent(2, on_plane=False).module(HEADS)(q, k, v, Context())
    agents = q.unflatten(2, (4, 9)).mean(3)
    rows, columns = (q @ agents.mT / 8**0.5).softmax(-1), (agents @ k.mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(o, (rows @ columns) @ v)


def test_without_biases_and_convolution_one_agent_gives_every_token_the_same() -> None:
    q, k, v = drawn(30)
    module = Agent(1).module(HEADS).double()
    for parameter in module.parameters():
        torch.nn.init.zeros_(parameter)
    o = module(q, k, v, Context(grid=(5, 6)))
    torch.testing.assert_close(o, attend(q.mean(2, keepdim=True), k, v).expand_as(o))


def test_a_run_of_padding_is_no_agent_and_padding_is_in_no_mean() -> None:
    q, k, v = drawn(12)  # runs of 3
    is_padding = torch.tensor([0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1], dtype=torch.bool)
    padded = (x.masked_fill(is_padding[:, None], torch.nan) for x in (q, k, v))
    o = Agent(2, on_plane=False).module(HEADS)(*padded, Context(data=Data(Tokens(segment=-is_padding.long()))))
    agents = torch.stack([q[:, :, run].mean(2) for run in ([0, 1, 2], [3, 5], [6, 7, 8])], 2)
    q, k, v = (x[:, :, ~is_padding] for x in (q, k, v))
    torch.testing.assert_close(o[:, :, ~is_padding], attend(q, agents, attend(agents, k, v)))


@pytest.mark.parametrize("tokens", [1, 3, 4, 50])
def test_on_a_line_it_is_the_formula(tokens: int) -> None:
    q, k, v = drawn(tokens)
    mechanism = Agent(2, on_plane=False)
    module = mechanism.module(HEADS)
    torch.testing.assert_close(module(q, k, v, Context()), mechanism.naive(module, q, k, v, Context()))


def test_biases_of_a_plane_like_the_table_are_the_table() -> None:
    table = Agent(2).module(HEADS).get_submodule("reading")
    fields, rows, columns = (table.get_parameter(name) for name in ("fields", "rows", "columns"))
    torch.testing.assert_close(table((7, 7)), (fields + rows + columns).flatten(2))


def test_a_plane_is_needed() -> None:
    with pytest.raises(ValueError, match="agent needs tokens on a plane"):
        Agent().module(HEADS).double()(*drawn(4), Context())
