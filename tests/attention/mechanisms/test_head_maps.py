"""What the paper says of uneven groups, and what its code does wrong with ties and empty groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.head_maps import Dynamic, KeyDriven, Perturbed, allot
from coterie.attention.naive import naive_attention

HEADS = Heads(8, 4, 4, 4)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def counts(strengths: list[float], heads: int = 8) -> list[int]:
    return torch.bincount(allot(torch.tensor(strengths), heads), minlength=len(strengths)).tolist()


def test_query_heads_are_shared_out_in_proportion() -> None:
    assert counts([1.0, 2.0, 3.0, 2.0]) == [1, 2, 3, 2]
    assert counts([0.0, 5.0]) == [0, 8]


def test_the_weakest_key_head_gets_no_query_heads() -> None:
    """Norms 1, 2, 3 and 2, of keys whose lengths differ: one norm of all of them counts, not the mean of theirs."""
    k = torch.zeros(1, 4, 5, 4, dtype=torch.float64)
    for group, lengths in enumerate(([1, 0, 0, 0, 0], [2, 0, 0, 0, 0], [2, 2, 1, 0, 0], [1, 1, 1, 1, 0])):
        k[0, group, :, 0] = torch.tensor(lengths)
    q, v = torch.zeros(1, 8, 5, 4, dtype=torch.float64), torch.arange(4.0).double()[:, None, None].expand(1, 4, 5, 4)
    o = KeyDriven().module(HEADS)(q, k, v, Context())
    assert o[0, :, 0, 0].round().tolist() == [1, 1, 2, 2, 2, 2, 3, 3]


def test_each_sequence_has_groups_of_its_own() -> None:
    found = allot(torch.tensor([[0.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]]), 8)
    assert found.tolist() == [[1, 1, 2, 2, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3, 3]]
    q, k, v = normal(3, 8, 5, 4), normal(3, 4, 5, 4), normal(3, 4, 5, 4)
    together = KeyDriven().module(HEADS)(q, k, v, Context())
    torch.testing.assert_close(KeyDriven().module(HEADS)(q[1:2], k[1:2], v[1:2], Context()), together[1:2])


def test_rounding_neither_loses_nor_invents_heads() -> None:
    draw = torch.Generator().manual_seed(0)
    for groups in (1, 2, 3, 5, 7):
        for _ in range(20):
            found = allot(torch.rand(groups, generator=draw), 8)
            assert found.shape == (8,) and found.min() >= 0 and found.max() < groups
            assert torch.equal(found, found.sort().values)


def test_keys_of_equal_length_share_evenly() -> None:
    """Min-max of equal norms is 0 / 0."""
    q, v = normal(1, 8, 5, 4), normal(1, 4, 5, 4)
    o = KeyDriven().module(HEADS)(q, torch.ones_like(v), v, Context())
    torch.testing.assert_close(o, v.mean(2, keepdim=True).repeat_interleave(2, 1).expand_as(o))


def test_an_empty_group_is_read_by_nobody_and_has_no_gradient() -> None:
    q, v = normal(2, 8, 5, 4), normal(2, 4, 5, 4).requires_grad_()
    k = (normal(2, 4, 5, 4) * torch.tensor([0.1, 3.0, 1.0, 2.0])[:, None, None]).requires_grad_()
    o = KeyDriven().module(HEADS)(q, k, v, Context())
    o.sum().backward()
    assert k.grad is not None and v.grad is not None
    assert not v.grad[:, 0].any() and not k.grad[:, 0].any()
    assert v.grad[:, 1:].abs().sum((0, 2, 3)).min() > 0 and k.grad.isfinite().all()


def test_equal_groups_are_grouped_query_attention() -> None:
    q, k, v = normal(1, 8, 5, 4), normal(1, 4, 5, 4), normal(1, 4, 5, 4)
    expected, _ = naive_attention(q, k, v)
    torch.testing.assert_close(Dynamic().module(HEADS)(q, k, v, Context()), expected)
    torch.testing.assert_close(Perturbed(amount=0).module(HEADS)(q, k, v, Context()), expected)


def head_map_after(options: Dynamic, lengths: list[list[float]], *, interrupted: bool = False) -> list[int]:
    """The key head of each query head, after steps of training with keys of these lengths in each group."""
    module = options.module(HEADS).train()
    for by_group in lengths:
        if interrupted:
            module, stopped = options.module(HEADS).train(), module
            module.load_state_dict(stopped.state_dict())
        k = torch.ones(1, 4, 5, 4) * torch.tensor(by_group)[:, None, None] / 2
        module(torch.zeros(1, 8, 5, 4), k, k, Context())
    found: list[int] = module.get_buffer("head_map").tolist()
    return found


def test_groups_follow_what_changed_since_the_last_allotment() -> None:
    first, even = [1.0, 2.0, 3.0, 2.0], [0, 0, 1, 1, 2, 2, 3, 3]
    assert head_map_after(Dynamic(every=2), [first]) == even
    assert head_map_after(Dynamic(every=2), [first, first]) == [0, 1, 1, 2, 2, 2, 3, 3]
    changed = [1.0, 2.0, 3.0, 6.0]
    assert head_map_after(Dynamic(every=2), [first, first, changed, changed]) == [3] * 8


def test_groups_follow_a_moving_average() -> None:
    first, second = [1.0, 2.0, 3.0, 2.0], [2.0, 1.0, 1.0, 1.0]
    assert head_map_after(Dynamic(every=1, decay=1.0), [first, second]) == [0, 1, 1, 2, 2, 2, 3, 3]
    assert head_map_after(Dynamic(every=1, decay=0.0), [first, second]) == [0, 0, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("decay", [None, 0.5])
def test_a_training_that_is_taken_up_again_has_the_groups_of_one_that_was_not_stopped(decay: float | None) -> None:
    options, lengths = Dynamic(every=2, decay=decay), [[1.0, 2.0, 3.0, 2.0], [1.0, 2.0, 9.0, 8.0], [9.0, 1.0, 1.0, 1.0]]
    assert head_map_after(options, lengths[:2]) != head_map_after(options, [*lengths, lengths[0]])
    for steps in (lengths[:2], lengths, [*lengths, lengths[0]]):
        assert head_map_after(options, steps, interrupted=True) == head_map_after(options, steps)


def test_after_training_groups_stay() -> None:
    module = Dynamic(every=1).module(HEADS).eval()
    module(normal(1, 8, 5, 4).float(), *normal(2, 1, 4, 5, 4).float(), Context())
    assert module.get_buffer("head_map").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_noise_has_the_mean_and_spread_of_its_row() -> None:
    q, k, v = normal(1, 4, 64, 256), normal(1, 4, 64, 256), 5 + normal(1, 4, 64, 256)
    heads = Heads(4, 4, 256, 4)
    noise = naive_attention(q, k, v)[0] - Perturbed().module(heads)(q, k, v, Context())
    o, _ = naive_attention(q, k, v)
    torch.testing.assert_close(noise.mean(-1), o.mean(-1), rtol=0.05, atol=0)
    torch.testing.assert_close(noise.std(-1).mean(), o.std(-1).mean(), rtol=0.02, atol=0)


def test_noise_is_new_in_each_step_of_training_and_fixed_after_it() -> None:
    inputs = normal(3, 1, 4, 6, 8)
    module = Perturbed().module(Heads(4, 4, 8, 4)).train()
    assert not torch.equal(module(*inputs, Context()), module(*inputs, Context()))
    module.eval()
    assert torch.equal(module(*inputs, Context()), module(*inputs, Context()))


def test_kdgqa_takes_one_sequence_in_a_row() -> None:
    q, k = normal(1, 8, 5, 4), normal(1, 4, 5, 4)
    with pytest.raises(ValueError, match="kdgqa mixes tokens of all segments"):
        KeyDriven().module(HEADS)(q, k, k, Context(data=Data(Tokens(segment=torch.tensor([0, 0, 1, 1, -1])))))
