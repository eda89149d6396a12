"""Pyramid Sparse Attention: levels, pooled keys, quotas."""

import pytest
import torch
from torch import Tensor

from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.pyramid import PyramidSparse, _PyramidSparse
from coterie.attention.naive import naive_attention

HEADS, CONTEXT = Heads(4, 2, 6, 8), Context()


def draw(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, h, n, 6, generator=made, dtype=torch.float64) for h in (4, 2, 2))
    return q, k, v


def levels(mechanism: PyramidSparse, q: Tensor, k: Tensor) -> Tensor:
    return _PyramidSparse(mechanism)._levels(q, k, torch.tensor([k.shape[2]]))


def attend(mechanism: PyramidSparse, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    o = mechanism.module(HEADS)(q, k, v, CONTEXT)
    assert isinstance(o, Tensor)
    return o


@pytest.mark.parametrize("n", [1, 24, 50])
def test_with_all_blocks_at_level_1_it_is_dense(n: int) -> None:
    q, k, v = draw(n)
    torch.testing.assert_close(attend(PyramidSparse(8, 8, (1, 1, 1, 1)), q, k, v), naive_attention(q, k, v)[0])


@pytest.mark.parametrize("level", [2, 4, 8])
def test_a_pooled_key_weighs_as_much_as_equal_keys(level: int) -> None:
    q, k, v = draw(48)
    k, v = (x[:, :, ::level].repeat_interleave(level, 2) for x in (k, v))
    bounds = tuple(float(p >= level) for p in (1, 2, 4, 8))
    mechanism = PyramidSparse(8, 8, bounds)
    assert (levels(mechanism, q, k) == level).all()
    torch.testing.assert_close(attend(mechanism, q, k, v), naive_attention(q, k, v)[0])


def test_the_published_quotas() -> None:
    q, k, _ = draw(40 * 64)
    found = levels(PyramidSparse(), q, k)
    # Of 40 blocks 5 % in full, 10 % by 2, 10 % by 4, 25 % by 8, and half of them skipped.
    for level, count in ((1, 2), (2, 4), (4, 4), (8, 10), (0, 20)):
        assert ((found == level).sum(-1) == count).all()
    assert PyramidSparse().pairs(1000) == int(1e6 * (0.05 + 0.1 / 2 + 0.1 / 4 + 0.25 / 8 + 1 / 16))


def test_more_important_blocks_are_seen_better() -> None:
    q = torch.ones(1, 1, 8, 6)
    k = torch.arange(5.0)[:, None].expand(5, 6).repeat_interleave(8, 0)[None, None]
    assert levels(PyramidSparse.small(), q, k).tolist() == [[[[0, 8, 4, 2, 1]]]]


def test_thresholds_are_shares_of_importance() -> None:
    q, shares = torch.ones(1, 1, 8, 1), torch.tensor([0.5, 0.25, 0.15, 0.06, 0.04])
    k = shares.log()[None, None, :, None].repeat_interleave(8, 2)
    # What comes before each block: 0, 0.5, 0.75, 0.9 and 0.96.
    mechanism = PyramidSparse(8, 8, (0.3, 0.7, 0.8, 0.95), "importance")
    assert levels(mechanism, q, k).tolist() == [[[[1, 2, 4, 8, 0]]]]


def test_keys_that_are_not_alike_are_not_pooled() -> None:
    q, k, v = draw(48)
    alike = k[:, :, ::8].repeat_interleave(8, 2)
    mechanism = PyramidSparse(8, 8, (0.0, 0.0, 0.0, 1.0), alike=(0.97, 0.97, 0.97))
    assert (levels(mechanism, q, k) == 1).all() and (levels(mechanism, q, alike) == 8).all()
    torch.testing.assert_close(attend(mechanism, q, k, v), mechanism.naive(mechanism.module(HEADS), q, k, v, CONTEXT))


def test_levels_have_no_gradient() -> None:
    q, k, v = draw(40)
    k.requires_grad_()
    mechanism = PyramidSparse(40, 8, (0.2, 0.4, 0.6, 0.8))
    attend(mechanism, q, k, v).sum().backward()
    skipped = (levels(mechanism, q, k)[:, :, 0] == 0).unflatten(1, (2, 2)).all(2)
    assert skipped.any()
    assert not k.grad.unflatten(2, (5, 8))[skipped].any() and k.grad.unflatten(2, (5, 8))[~skipped].all()


@pytest.mark.parametrize(
    ("options", "named"), [({"block": 12}, "multiple of 8"), ({"bounds": (0.5, 0.1, 1, 1)}, "rising")]
)
def test_options_that_do_not_fit_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        PyramidSparse(**options)  # type: ignore[arg-type]
