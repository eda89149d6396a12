"""Centres: who meets whom by them, and how they follow the tokens."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.auxiliary import auxiliary_losses
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.routing import Routing, TokenAggregation, _Routing, _TokenAggregation, kmeans
from coterie.attention.naive import naive_attention

HEADS, N = Heads(4, 2, 8, 6), 48


def inputs() -> tuple[Tensor, Tensor, Tensor, Context]:
    draw = torch.Generator().manual_seed(0)
    q, k, v, x = (torch.randn(*s, generator=draw, dtype=torch.float64)
                  for s in ((2, 4, N, 8), (2, 2, N, 8), (2, 2, N, 8), (2, N, 6)))  # fmt: skip
    return q, k, v, Context(features=x)


def route(mechanism: Routing) -> _Routing:
    torch.manual_seed(1)
    module = mechanism.module(HEADS).double()
    assert isinstance(module, _Routing)
    return module


def aggregate(mechanism: TokenAggregation) -> _TokenAggregation:
    torch.manual_seed(1)
    module = mechanism.module(HEADS).double()
    assert isinstance(module, _TokenAggregation)
    return module


def test_one_cluster_of_all_is_dense() -> None:
    q, k, v, context = inputs()
    dense, _ = naive_attention(q, k, v)
    torch.testing.assert_close(route(Routing(clusters=1))(q, k, v, context), dense)
    torch.testing.assert_close(route(Routing(clusters=3, size=N))(q, k, v, context), dense)


def test_clusters_are_balanced_and_tokens_that_none_takes_get_nothing() -> None:
    q, k, v, context = inputs()
    module = route(Routing(clusters=4, size=5))
    asking = module._nearest(functional.normalize(q, dim=-1), None)
    assert asking.shape == (2, 4, 4, 5)
    o = module(q, k, v, context)
    for b, h in torch.cartesian_prod(torch.arange(2), torch.arange(4)).tolist():
        taken = set(asking[b, h].flatten().tolist())
        assert {i for i in range(N) if o[b, h, i].any()} == taken and len(taken) < N


def test_the_cost_is_that_of_sqrt_n_clusters() -> None:
    n = 4096
    assert Routing(clusters=64).pairs(n) == n * math.isqrt(n)


def test_centres_follow_while_training_only() -> None:
    q, k, v, context = inputs()
    module = route(Routing(clusters=4)).eval()
    before = module.centres.means.clone()
    module(q, k, v, context)
    assert torch.equal(module.centres.means, before)
    module.train()(q, k, v, context)
    first = module.centres.means.clone()
    unit = torch.cat([functional.normalize(q, dim=-1).reshape(2, 2, -1, 8), functional.normalize(k, dim=-1)], 2)
    torch.testing.assert_close(first, kmeans(unit, before))
    module(q, k, v, context)
    torch.testing.assert_close(module.centres.means, 0.999 * first + 0.001 * kmeans(unit, first))


@pytest.mark.parametrize("make", [lambda: route(Routing(clusters=4)), lambda: aggregate(TokenAggregation(4, 8))])
def test_neither_centres_nor_losses_count_padding(make: Callable[[], _Routing | _TokenAggregation]) -> None:
    *qkv, context = inputs()
    x, segment = context.features, (torch.arange(N) >= 40).long().neg()
    assert x is not None
    padded, short = make().train(), make().train()
    with auxiliary_losses() as losses:
        padded(*qkv, Context(features=x, data=Data(Tokens(segment=segment))))
        short(*(y[:, :, :40] for y in qkv), Context(features=x[:, :40]))
    torch.testing.assert_close(padded.centres.means, short.centres.means)
    torch.testing.assert_close(losses[:1], losses[1:])


def test_the_commitment_loss_pulls_tokens_to_their_centre() -> None:
    q, k, v, context = inputs()
    module = route(Routing(clusters=4, commitment=1.0))
    q.requires_grad_()
    with auxiliary_losses() as losses:
        module(q, k, v, context)
        losses[0].backward()
        with torch.no_grad():
            q -= 10 * q.grad
        module(q, k, v, context)
    assert q.grad.any() and losses[1] < losses[0]


def test_routing_and_centres_get_no_gradient() -> None:
    q, k, v, context = inputs()
    k.requires_grad_()
    module = route(Routing(clusters=4, size=5))
    asked = module._nearest(functional.normalize(k.detach(), dim=-1), None)
    module(q, k, v, context).sum().backward()
    for b, g in ((0, 0), (1, 1)):
        assert set(k.grad[b, g].any(-1).nonzero().flatten().tolist()) <= set(asked[b, g].flatten().tolist())


def test_a_group_of_all_tokens_is_dense_and_centres_are_added() -> None:
    q, k, v, context = inputs()
    module = aggregate(TokenAggregation(centres=4, group=N)).eval()
    dense, _ = naive_attention(q, k, v)
    centres = module.centres.means[0]
    keys, values = (x(centres).unflatten(-1, (2, 8)).transpose(0, 1) for x in (module.key, module.value))
    torch.testing.assert_close(module(q, k, v, context), dense + naive_attention(q, keys, values)[0])


def test_permuted_tokens_give_the_permuted_output_where_groups_do_not_cut_ties() -> None:
    # 4 kinds of tokens, 12 of each, in groups of 12: what a token meets does not depend on where it stands.
    draw = torch.Generator().manual_seed(3)
    q, k, v, _ = inputs()
    module = aggregate(TokenAggregation(centres=4, group=12)).eval()
    kinds = torch.arange(4).repeat(2, 12)
    x = module.centres.means[0][kinds]
    o = module(q, k, v, Context(features=x))
    order = torch.randperm(N, generator=draw)
    permuted = module(q[:, :, order], k[:, :, order], v[:, :, order], Context(features=x[:, order]))
    torch.testing.assert_close(permuted, o[:, :, order])


def test_while_training_the_centres_are_those_of_the_batch() -> None:
    q, k, v, context = inputs()
    mechanism = TokenAggregation(centres=4, group=8)
    module = aggregate(mechanism)
    assert context.features is not None
    context.features.requires_grad_()
    expected = mechanism.naive(module, q, k, v, context)
    found = module(q, k, v, context)
    torch.testing.assert_close(found, expected)
    mine, theirs = (torch.autograd.grad(o.sum(), context.features)[0] for o in (found, expected))
    torch.testing.assert_close(mine, theirs)
    assert mine.any() and module.centres.started


def test_the_cost_grows_with_groups_and_centres_alone() -> None:
    assert TokenAggregation().pairs(8192) == 8192 * (2 * 256 + 16)
