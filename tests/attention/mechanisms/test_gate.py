"""What the paper says of gated attention."""

from __future__ import annotations

import pytest
import torch

from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.gate import Gated
from coterie.attention.naive import naive_attention


@pytest.mark.parametrize(("by_head", "columns"), [(False, 4 * 8), (True, 4)])
def test_the_gate_adds_one_column_for_each_number_or_for_each_head(by_head: bool, columns: int) -> None:
    parameters = list(Gated(by_head=by_head).module(Heads(4, 2, 8, 10)).parameters())
    assert sum(p.numel() for p in parameters) == 10 * columns


def test_a_closed_gate_gives_nothing_where_softmax_must_give_something() -> None:
    """The query's own hidden state decides, so that no first token is needed to park attention on."""
    module = Gated(by_head=True).module(Heads(2, 2, 4, 3)).double()
    q, k, v = torch.randn(3, 1, 2, 6, 4, dtype=torch.float64)
    features = torch.ones(1, 6, 3, dtype=torch.float64)
    features[:, 3] = -1
    with torch.no_grad():
        module.get_parameter("gate.weight").fill_(50.0)
    o, dense = module(q, k, v, Context(features=features)), naive_attention(q, k, v)[0]
    torch.testing.assert_close(o[:, :, :3], dense[:, :, :3])
    assert o[:, :, 3].abs().max() < 1e-60
    torch.testing.assert_close(o[:, :, 4:], dense[:, :, 4:])


def test_without_hidden_states_it_asks_for_them() -> None:
    with pytest.raises(ValueError, match="gated reads the hidden states"):
        Gated().module(Heads(2, 2, 4, 3))(*torch.zeros(3, 1, 2, 6, 4), Context())
