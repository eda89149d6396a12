"""Partial attentions, merged: the whole, in any order, with gradients through outputs and denominators."""

import math

import pytest
import torch
from torch import Tensor

from coterie.attention.merge import merge
from coterie.attention.naive import naive_attention


def parts(cuts: list[int], queries: int = 5, keys: int = 7) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Attention to the keys between the cuts, and to all."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 4, generator=draw, dtype=torch.float64) for n in (queries, keys, keys))
    bounds = list(zip([0, *cuts], [*cuts, keys], strict=True))
    found = [naive_attention(q, k[:, :, a:b], v[:, :, a:b]) for a, b in bounds]
    return [o for o, _ in found], [lse for _, lse in found], *naive_attention(q, k, v)


@pytest.mark.parametrize("cuts", [[], [3], [0, 2, 2, 6], [1, 7]])
def test_parts_of_the_keys_make_the_whole(cuts: list[int]) -> None:
    outputs, lses, o, lse = parts(cuts)
    merged = merge(outputs, lses)
    torch.testing.assert_close(merged, (o, lse), rtol=1e-12, atol=1e-12)
    nested = merge(*zip(merge(outputs[:1], lses[:1]), merge(outputs[1:] or outputs, lses[1:] or lses), strict=True))
    if cuts:
        torch.testing.assert_close(nested, (o, lse), rtol=1e-12, atol=1e-12)


def test_weights_edit_the_map_before_or_after_its_rows_are_summed() -> None:
    outputs, lses, _, lse = parts([3])
    masses = [(part - lse).exp()[..., None] for part in lses]
    edited = 2 * masses[0] * outputs[0] - 0.5 * masses[1] * outputs[1]
    found, same = merge(outputs, lses, [2, -0.5], renormalise=False)
    torch.testing.assert_close((found, same), (edited, lse))
    total = 2 * masses[0] + 0.5 * masses[1]
    found, changed = merge(outputs, lses, [2, torch.tensor(0.5)])
    torch.testing.assert_close(found, (2 * masses[0] * outputs[0] + 0.5 * masses[1] * outputs[1]) / total)
    torch.testing.assert_close(changed, lse + total.squeeze(-1).log())


def test_large_logits_do_not_overflow() -> None:
    outputs, lses, o, _ = parts([3])
    found, lse = merge([x.float() for x in outputs], [x.float() + 1e4 for x in lses])
    torch.testing.assert_close(found.double(), o, rtol=1e-2, atol=1e-2)
    assert lse.isfinite().all()


def test_what_weighs_nothing_does_not_drown_the_rest() -> None:
    outputs = [torch.ones(2, 3), torch.full((2, 3), 5.0)]
    lses = [torch.tensor([500.0, 0.0], requires_grad=True), torch.tensor([0.0, 0.0], requires_grad=True)]
    weight = torch.tensor([0.0, 0.5], requires_grad=True)
    o, lse = merge(outputs, lses, [weight, 1.0])
    torch.testing.assert_close(o[:, 0], torch.tensor([5.0, 5.5 / 1.5]))
    torch.testing.assert_close(lse, torch.tensor([0.0, math.log(1.5)]))
    gradients = torch.autograd.grad(o.sum() + lse.sum(), (*lses, weight))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("renormalise", [True, False])
def test_rows_that_see_nothing_give_zeros_and_no_nan(renormalise: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = [torch.randn(4, 3, generator=draw, dtype=torch.float64).requires_grad_() for _ in range(2)]
    lses = [torch.tensor([0.3, -math.inf, -math.inf, 1.0], dtype=torch.float64, requires_grad=True),
            torch.tensor([-math.inf, -0.5, -math.inf, 2.0], dtype=torch.float64, requires_grad=True)]  # fmt: skip
    weights = [torch.tensor(0.5, requires_grad=True), torch.ones(4, requires_grad=True)]
    with torch.autograd.detect_anomaly(check_nan=True):
        o, lse = merge(outputs, lses, weights, renormalise=renormalise)
        (o.sum() + lse[[0, 1, 3]].sum()).backward()
    assert not o[2].any() and lse[2] == -math.inf
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (*outputs, *lses, *weights))
    assert not any(x.grad[2].any() for x in (*outputs, *lses))


@pytest.mark.parametrize("renormalise", [True, False])
def test_every_argument_has_its_gradient(renormalise: bool) -> None:
    draw = torch.Generator().manual_seed(2)
    shapes = ((2, 3, 4), (2, 3, 4), (2, 3), (2, 3), (3,), ())
    given = [torch.rand(shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in shapes]

    def merged(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        return merge([a, b], [c, d], [e, f], renormalise=renormalise)

    assert torch.autograd.gradcheck(merged, given)


def test_halves_are_merged_in_float32() -> None:
    outputs, lses, o, _ = parts([2, 4])
    found, lse = merge([x.bfloat16() for x in outputs], [x.float() for x in lses])
    assert found.dtype == torch.bfloat16 and lse.dtype == torch.float32
    assert (found.double() - o).norm() <= 1e-2 * o.norm()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], []), "0 outputs, 0 lses"),
        (([torch.ones(2, 3)], []), "1 outputs, 0 lses and 1 weights"),
        (([torch.ones(2, 3)], [torch.ones(3)]), r"lses\[0\] has shape \[3\], expected \[N\] with N=2"),
        (([torch.ones(2, 3)] * 2, [torch.ones(2)] * 2, [1, -1]), r"weights\[1\] holds values below 0"),
        (([torch.ones(2, 3)], [torch.ones(2)], [torch.ones(3)]), r"weights\[0\] has shape \[3\]"),
    ],
)
def test_a_wrong_call_is_named(given: tuple[list[Tensor], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge(*given)
