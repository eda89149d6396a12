"""Pooled tokens against loops over windows and segments."""

from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.attention.pool import generalised_mean, pool_segments, pool_windows


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(rows: Tensor, scores: Tensor, how: str) -> Tensor:
    """[n, D] and [n]."""
    if not len(rows):
        return torch.zeros(rows.shape[-1], dtype=rows.dtype)
    if how == "top":
        return rows[int(scores.argmax())]
    weights = scores if how == "weighted" else torch.ones_like(scores)
    return sum(w * row for w, row in zip(weights, rows, strict=True)) / weights.sum()


@pytest.mark.parametrize("how", ["mean", "weighted", "top"])
@pytest.mark.parametrize(("size", "stride"), [(4, None), (5, 2), (3, 7), (1, 1), (17, 4)])
def test_windows(size: int, stride: int | None, how: Any) -> None:
    x, scores, step = drawn(2, 3, 17, 4), drawn(2, 1, 17, seed=1).abs(), stride or size
    found = pool_windows(x, size, stride, how=how, scores=None if how == "mean" else scores)
    assert found.shape == (2, 3, (17 - size) // step + 1, 4)
    for b in range(2):
        for h in range(3):
            for i, row in enumerate(found[b, h]):
                at = slice(i * step, i * step + size)
                torch.testing.assert_close(row, by_hand(x[b, h, at], scores[b, 0, at], how))


@pytest.mark.parametrize("how", ["mean", "weighted", "top"])
@pytest.mark.parametrize("is_batched", [False, True])
def test_segments_in_any_order_with_padding_that_is_not_read(is_batched: bool, how: Any) -> None:
    x, scores = drawn(2, 3, 19, 4), drawn(2, 3, 19, seed=1).abs()
    segment = torch.randint(-1, 4, (2, 19) if is_batched else (19,), generator=torch.Generator().manual_seed(2))
    segment[segment == 2] = -1
    padding = (segment < 0).view(-1, 1, 19).expand(2, 3, 19)
    x, scores = (y.masked_fill(p, torch.nan) for y, p in ((x, padding[..., None]), (scores, padding)))
    x.requires_grad_()
    found = pool_segments(x, segment, 5, how=how, scores=None if how == "mean" else scores)
    for b in range(2):
        for h in range(3):
            for s in range(5):
                at = (segment[b] if is_batched else segment) == s
                torch.testing.assert_close(found[b, h, s], by_hand(x[b, h, at], scores[b, h, at], how))
    assert not found[:, :, [2, 4]].any()
    (grad,) = torch.autograd.grad(found.sum(), x)
    assert grad.isfinite().all() and not grad[padding].any()


def test_gradients() -> None:
    x, scores = drawn(2, 7, 3).requires_grad_(), (drawn(2, 7, seed=1).abs() + 0.1).requires_grad_()
    segment = torch.tensor([0, 0, 2, -1, 2, 0, 2])
    assert torch.autograd.gradcheck(lambda x, s: pool_windows(x, 3, 2, how="weighted", scores=s), (x, scores))
    assert torch.autograd.gradcheck(lambda x, s: pool_segments(x, segment, 4, how="weighted", scores=s), (x, scores))
    assert torch.autograd.gradcheck(lambda x: pool_windows(x, 3, 2, how="top", scores=scores.detach()), (x,))
    power = torch.tensor([0.5, 2.0, -3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, p: generalised_mean(x, p), (x.detach().exp().requires_grad_(), power))


def test_the_highest_of_equals_is_the_first() -> None:
    x, scores = torch.arange(6.0)[:, None], torch.tensor([0.0, 1, 1, 0, 0, 0])
    assert pool_windows(x, 3, how="top", scores=scores).flatten().tolist() == [1, 3]
    assert pool_segments(x[None], torch.tensor([1, 0, 0, 1, 1, 1]), 2, how="top", scores=scores).flatten().tolist() == [
        1,
        0,
    ]


def test_fewer_tokens_than_a_window_are_no_window() -> None:
    assert pool_windows(drawn(2, 3, 4), 5).shape == (2, 0, 4)


def test_halves_are_summed_in_float32() -> None:
    x = torch.full((4096, 1), 0.1).bfloat16()
    for found in (pool_windows(x, 4096), pool_segments(x[None], torch.zeros(4096, dtype=torch.long), 1)[0]):
        assert found.dtype == torch.bfloat16 and torch.equal(found, x[:1])


def test_generalised_means_are_the_mean_the_harmonic_mean_and_nearly_the_maximum() -> None:
    x = drawn(2, 9, 3).exp()
    torch.testing.assert_close(generalised_mean(x, torch.tensor(1.0).double()), x.mean(-2))
    torch.testing.assert_close(generalised_mean(x, torch.tensor(-1.0).double()), 1 / (1 / x).mean(-2))
    near = generalised_mean(x, torch.full((3,), 5000.0))
    torch.testing.assert_close(near, x.amax(-2), rtol=1e-3, atol=0)
    assert generalised_mean(torch.full((4, 1), 1e30), torch.tensor([3.0])).isfinite().all()


def test_generalised_means_leave_tokens_out_and_are_zero_without_any() -> None:
    kept = torch.tensor([[True, False, True, True], [False] * 4])
    x = drawn(2, 4, 3).exp().masked_fill(~kept[..., None], torch.nan).requires_grad_()
    power = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64, requires_grad=True)
    found = generalised_mean(x, power, kept=kept)
    torch.testing.assert_close(found[0], generalised_mean(x[0, [0, 2, 3]], power))
    assert not found[1].any()
    gradients = torch.autograd.grad(found.sum(), (x, power))
    assert all(g.isfinite().all() for g in gradients) and not gradients[0][~kept].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pool_windows(x, 0), "size 0"),
        (lambda x: pool_windows(x, 2, how="top"), "scores are missing"),
        (lambda x: pool_windows(x, 2, scores=x[..., 0]), "scores are given, but how is 'mean'"),
        (lambda x: pool_windows(x, 2, how="most", scores=x[..., 0]), "how is 'most'"),
        (lambda x: pool_windows(x, 2, how="top", scores=x[:, :2, 0]), "scores has shape"),
        (lambda x: pool_segments(x, torch.tensor([0, 1, 2, 0, 5]), 5), "segment holds 5"),
        (lambda x: pool_segments(x, torch.zeros(4, dtype=torch.long), 5), "segment has shape"),
    ],
)
def test_a_wrong_call_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(drawn(2, 5, 3))
