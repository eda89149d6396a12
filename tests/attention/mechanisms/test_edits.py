"""Edits after the softmax: what each paper says becomes of the map."""

import pytest
import torch
from torch import Tensor

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.edits import (
    AttentiveEraser,
    Edit,
    Emphasis,
    Replacement,
    SinkRedistribution,
    Suppression,
)

HEADS = Heads(4, 2, 12, 10)
ROLE = torch.tensor([0, 1, 1, 2, 0, 1, 2, 1, 0, 1, 1, 0])


def drawn() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(2, heads, 12, 12, generator=draw, dtype=torch.float64) for heads in (4, 2, 2)]


def context(role: Tensor, causal: bool = False) -> Context:
    return Context(causal=causal, data=Data(Tokens(role=role)))


def map_of(mechanism: Edit, q: Tensor, k: Tensor, given: Context) -> Tensor:
    """The edited map: values are unit vectors."""
    unit = torch.eye(12, dtype=torch.float64).expand(2, 2, -1, -1)
    return mechanism.module(HEADS)(q, k, unit, given)


def plain(q: Tensor, k: Tensor) -> Tensor:
    return attend(q, k, torch.eye(12, dtype=torch.float64).expand(2, 2, -1, -1))


def test_var_moves_mass_from_sinks_to_the_image_in_proportion_and_keeps_rows_whole() -> None:
    q, k, _ = drawn()
    before, after = plain(q, k), map_of(SinkRedistribution(most_sink=1, least_image=0), q, k, context(ROLE))
    torch.testing.assert_close(after.sum(-1), torch.ones_like(after[..., 0]))
    torch.testing.assert_close(after[..., ROLE == 2], 0.6 * before[..., ROLE == 2])
    torch.testing.assert_close(after[..., ROLE == 0], before[..., ROLE == 0])
    grown = after[..., ROLE == 1] / before[..., ROLE == 1]
    torch.testing.assert_close(grown, grown[..., :1].expand_as(grown))
    assert (grown > 1).all()


def test_var_leaves_rows_alone_that_do_not_look_at_the_image() -> None:
    q, k, _ = drawn()
    before, after = plain(q, k), map_of(SinkRedistribution(), q, k, context(ROLE))
    image, sink = before[..., ROLE > 0].sum(-1), before[..., ROLE == 2].sum(-1)
    edited = (sink / image <= 0.5) & (image >= 0.2)
    assert edited.any() and not edited.all()
    torch.testing.assert_close(after[~edited], before[~edited])
    assert not torch.isclose(after[edited], before[edited]).all(-1).any()


def test_emphasis_adds_to_columns_and_nothing_is_renormalised() -> None:
    q, k, _ = drawn()
    before, chosen = plain(q, k), (ROLE == 1).double()
    after = map_of(Emphasis(factor=1.0, added=0.25), q, k, context(chosen.long()))
    torch.testing.assert_close(after, before + 0.25 * chosen)
    torch.testing.assert_close(map_of(Emphasis(2.0, 0.0), q, k, context(chosen.long())), before * (1 + chosen))


def test_replacement_takes_the_map_of_one_sequence() -> None:
    q, k, v = drawn()
    o = Replacement(1).module(HEADS)(q, k, v, Context())
    torch.testing.assert_close(o[1], attend(q, k, v)[1])
    torch.testing.assert_close(o[0], (plain(q, k)[1] @ v[0].repeat_interleave(2, 0)))
    with pytest.raises(ValueError, match="sequence=2, but the batch has 2"):
        Replacement(2).module(HEADS)(q, k, v, Context())


def test_suppression_leads_to_what_its_loss_wants() -> None:
    q, k, v = drawn()
    inside, mechanism = (ROLE == 1).long(), Suppression()
    before = plain(q, k)
    q.requires_grad_()
    outside = mechanism.mass_outside(q, k, context(inside))
    torch.testing.assert_close(outside, before[..., ROLE != 1].sum(-1))
    (gradient,) = torch.autograd.grad(outside.sum(), q)
    step = mechanism.mass_outside(q - 0.1 * gradient, k, context(inside))
    assert step.sum() < outside.sum()
    assert not map_of(mechanism, q.detach(), k, context(inside))[..., ROLE != 1].any()
    torch.testing.assert_close(Suppression(1.0).module(HEADS)(q, k, v, context(inside)), attend(q, k, v))


def test_an_erased_object_is_made_of_background_and_the_rest_stays_as_it_was() -> None:
    q, k, _ = drawn()
    is_object = ROLE == 1
    before, after = plain(q, k), map_of(AttentiveEraser(), q, k, context(is_object.long()))
    torch.testing.assert_close(after[:, :, ~is_object], before[:, :, ~is_object])
    assert not after[:, :, is_object][..., is_object].any()
    even = map_of(AttentiveEraser(similarity=0.0), q, k, context(is_object.long()))[:, :, is_object]
    torch.testing.assert_close(even, (~is_object).double().div((~is_object).sum()).expand_as(even))


@pytest.mark.parametrize(
    "mechanism", [SinkRedistribution(0.5, 1.0, 0.0), Emphasis(2.0, 0.5), Suppression(), AttentiveEraser(0.5)]
)
def test_rows_that_see_nothing_of_a_role_are_finite(mechanism: Edit) -> None:
    q, k, v = (x.requires_grad_() for x in drawn())
    role = torch.tensor([0] * 4 + [1] * 8)
    for given in (role, 1 - role, torch.zeros_like(role), torch.ones_like(role)):
        o = mechanism.module(HEADS)(q, k, v, context(given, causal=True))
        assert all(g.isfinite().all() for g in (o, *torch.autograd.grad(o.sum(), (q, k, v))))


def test_roles_are_needed() -> None:
    with pytest.raises(ValueError, match="v2p_suppression reads roles .0 outside, 1 target"):
        Suppression().module(HEADS)(*drawn(), Context())
