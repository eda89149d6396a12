"""Groups: rows and columns of a grid, series of a batch."""

import pytest
import torch

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.groups import BatchGroup, GroupPose, HierarchicalGroup, _Hierarchy

HEADS = Heads(2, 2, 6, 12)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_within_and_across_are_the_rows_and_columns_and_reach_everything() -> None:
    grid, n = (3, 4), 12
    q, v, context = torch.zeros(1, 2, n, 6), torch.eye(n).expand(1, 2, n, n), Context(grid=grid)
    within, across = (GroupPose(among).module(HEADS)(q, q, v, context)[0, 0] for among in ("within", "across"))
    at = torch.arange(n)
    torch.testing.assert_close(within, (at[:, None] // 4 == at // 4) / 4)
    torch.testing.assert_close(across, (at[:, None] % 4 == at % 4) / 3)
    torch.testing.assert_close(across @ within, torch.full((n, n), 1 / n))


def test_the_two_layers_cost_less_than_one_over_all() -> None:
    # 100 instances of 17 joints and a whole, as in the paper.
    assert (GroupPose("within").pairs(1800), GroupPose("across").pairs(1800)) == (1800 * 18, 1800 * 100)


def test_instances_that_are_padding_are_seen_by_none() -> None:
    q, k, v = (draw(2, 2, 12, 6, seed=s) for s in range(3))
    segment = torch.zeros(2, 12, dtype=torch.long)
    segment[1, 8:] = -1
    context = Context(grid=(3, 4), data=Data(Tokens(segment=segment)))
    o = GroupPose("across").module(HEADS)(q, k, v, context)
    fewer = GroupPose("across").module(HEADS)(*(x[1:, :, :8] for x in (q, k, v)), Context(grid=(2, 4)))
    torch.testing.assert_close(o[1:, :, :8], fewer)
    assert not o[1, :, 8:].any()


def test_a_grid_is_needed() -> None:
    q = draw(1, 2, 12, 6)
    with pytest.raises(ValueError, match="group_pose needs a grid"):
        GroupPose().module(HEADS)(q, q, q, Context())


def test_a_permuted_batch_gives_the_permuted_output() -> None:
    q, k, v = (draw(5, 2, 7, 6, seed=s) for s in range(3))
    group, order = torch.tensor([0, 1, 0, 2, 1])[:, None].expand(5, 7), torch.tensor([3, 1, 4, 0, 2])
    module = BatchGroup().module(HEADS)
    o = module(q, k, v, Context(data=Data(Tokens(segment=group))))
    permuted = module(q[order], k[order], v[order], Context(data=Data(Tokens(segment=group[order]))))
    torch.testing.assert_close(permuted, o[order])


def test_a_series_alone_keeps_its_values_and_moments_do_not_mix() -> None:
    q, k, v = (draw(3, 2, 7, 6, seed=s) for s in range(3))
    context = Context(data=Data(Tokens(segment=torch.tensor([[0], [1], [1]]).expand(3, 7))))
    module = BatchGroup().module(HEADS)
    o = module(q, k, v, context)
    torch.testing.assert_close(o[0], v[0])
    later = v.clone()
    later[:, :, 4] = 9.0
    changed = module(q, k, later, context) != o
    assert changed[1:, :, 4].all() and not changed[:, :, [0, 1, 2, 3, 5, 6]].any()


def test_its_scale_is_one() -> None:
    q, k, v = (draw(2, 1, 1, 6, seed=s) for s in range(3))
    o = BatchGroup().module(HEADS)(q, k, v, Context())
    weights = (q[:, 0, 0] @ k[:, 0, 0].T).softmax(-1)
    torch.testing.assert_close(o[:, 0, 0], weights @ v[:, 0, 0])


def grouped(group: torch.Tensor) -> Context:
    return Context(data=Data(Tokens(group=group)))


def test_seven_of_ten_neighbours_are_of_the_own_group() -> None:
    mechanism, group = HierarchicalGroup(), torch.arange(60)[None] % 2
    assert mechanism.counts == (14, 6)
    unit = torch.nn.functional.normalize(draw(1, 60, 9), dim=-1)
    index, is_edge = _Hierarchy(mechanism)._nearest(unit, group, None)
    own = group[0][index[0]] == group[0][:, None]
    assert is_edge.all() and own[:, :14].all() and not own[:, 14:].any()
    assert not (index[0] == torch.arange(60)[:, None]).any()


def test_weights_go_both_ways_without_a_softmax() -> None:
    # Token 0 chooses 1, 1 chooses 2, and 2 chooses 1: with one neighbour each, and the weakest edge weighing nothing.
    x = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]], dtype=torch.float64)
    mechanism = HierarchicalGroup(neighbors=1, within=1.0, steepness=0.0)
    y = mechanism.module(HEADS)(x, grouped(torch.zeros(1, 3, dtype=torch.long)))
    taken = torch.stack([torch.zeros(2, dtype=torch.float64), x[0, 2], x[0, 1]])
    torch.testing.assert_close(y[0], torch.nn.functional.layer_norm((x[0] + taken) / 2, (2,)))


def test_who_hardly_changes_takes_up_little() -> None:
    x = draw(1, 8, 4) * 1e-3 + draw(1, 1, 4, seed=1)
    y = HierarchicalGroup(neighbors=3).module(HEADS)(x, grouped(torch.zeros(1, 8, dtype=torch.long)))
    # sigmoid(10 (0 - 0.2)) is 0.12.
    expected = torch.nn.functional.layer_norm(x, (4,))
    assert (y - expected).abs().max() < 0.2 * (expected - expected.mean(1)).abs().max()


def test_similarities_have_a_gradient() -> None:
    x = draw(2, 12, 5).requires_grad_()
    group = torch.arange(12).expand(2, 12) % 3
    module = HierarchicalGroup(neighbors=4).module(HEADS)
    assert torch.autograd.gradcheck(lambda x: module(x, grouped(group)), [x], fast_mode=True)


def test_groups_are_needed() -> None:
    with pytest.raises(ValueError, match="hierarchical_group needs the groups .* give it Context"):
        HierarchicalGroup().module(HEADS)(draw(1, 4, 3), Context())
