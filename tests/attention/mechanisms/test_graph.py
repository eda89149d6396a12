"""Hop-wise attention on a skeleton."""

import pytest
import torch

from coterie.attention.data import Data
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.graph import HopWise

HEADS = Heads(4, 2, 8, 10)
CHAIN = (torch.arange(5)[:, None] - torch.arange(5)).abs()


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_keys_are_means_over_nodes_equally_far() -> None:
    # With queries of zero all hops weigh the same: node 1 of a chain has one node 0 hops away, two 1 hop, one 2 and 3.
    q, v = torch.zeros(1, 4, 5, 8).double(), torch.eye(5, 8).double().expand(1, 2, 5, 8)
    o = HopWise(hops=2).module(HEADS).double()(q, q[:, :2], v, Context(data=Data(hops=CHAIN)))
    torch.testing.assert_close(o[0, 0, 1], torch.tensor([1 / 6, 1 / 3, 1 / 6, 1 / 3, 0, 0, 0, 0]).double())


def test_a_node_cut_off_attends_to_itself_alone() -> None:
    hops = CHAIN.clone()
    hops[4, :4] = hops[:4, 4] = -1
    q, k, v = draw(2, 4, 5, 8), draw(2, 2, 5, 8), draw(2, 2, 5, 8)
    o = HopWise().module(HEADS).double()(q, k, v, Context(data=Data(hops=hops)))
    torch.testing.assert_close(o[:, :, 4], v[:, :, 4].repeat_interleave(2, 1))


def test_graphs_may_differ_in_the_batch() -> None:
    other = CHAIN.roll(2, 0).roll(2, 1)
    q, k, v, module = draw(2, 4, 5, 8), draw(2, 2, 5, 8), draw(2, 2, 5, 8), HopWise(hops=1).module(HEADS).double()
    both = module(q, k, v, Context(data=Data(hops=torch.stack([CHAIN, other]))))
    for b, hops in enumerate((CHAIN, other)):
        one = module(*(x[b : b + 1] for x in (q, k, v)), Context(data=Data(hops=hops)))
        torch.testing.assert_close(both[b : b + 1], one)


def test_hops_beyond_the_last_do_not_matter() -> None:
    q, k, v = draw(1, 4, 5, 8), draw(1, 2, 5, 8), draw(1, 2, 5, 8)
    near, cut = Context(data=Data(hops=CHAIN)), Context(data=Data(hops=CHAIN.masked_fill(CHAIN > 1, -1)))
    module = HopWise(hops=1).module(HEADS).double()
    assert torch.equal(module(q, k, v, near), module(q, k, v, cut))
    assert HopWise(hops=1).pairs(17) == 34


def test_a_graph_is_needed() -> None:
    q = draw(1, 4, 5, 8)
    with pytest.raises(ValueError, match="hop_wise needs the hops .* give it Context"):
        HopWise().module(HEADS)(q, q[:, :2], q[:, :2], Context())
