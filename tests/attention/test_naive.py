"""The oracle against loops over numbers, and what it promises about rows with nothing to attend to."""

import math

import pytest
import torch
from torch import Tensor

from coterie.attention.naive import naive_attention

LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def inputs(queries: int, keys: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(queries * 100 + keys)
    shapes = ((2, 4, queries, 8), (2, 2, keys, 8), (2, 2, keys, 5))
    q, k, v = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes)
    return q, k, v


def by_loops(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, bias: Tensor, head_map: list[int], sink: list[float]
) -> tuple[Tensor, Tensor]:
    """The formula, one number after the other."""
    batch, heads, queries, size = q.shape
    o, lse = torch.zeros(batch, heads, queries, v.shape[-1]), torch.full((batch, heads, queries), -math.inf)
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                keys, values = k[b, head_map[h]], v[b, head_map[h]]
                seen = [j for j in range(k.shape[2]) if allowed[b, h, i, j]]
                scores = [float(q[b, h, i] @ keys[j]) / math.sqrt(size) + float(bias[b, h, i, j]) for j in seen]
                total = sum(math.exp(s) for s in scores) + math.exp(sink[h])
                for s, j in zip(scores, seen, strict=True):
                    o[b, h, i] += (math.exp(s) / total * values[j]).float()
                lse[b, h, i] = math.log(total) if total else -math.inf
    return o, lse


@pytest.mark.parametrize("sink", [[-math.inf] * 4, [0.5, -1.0, 2.0, 0.0]])
@pytest.mark.parametrize("head_map", [[0, 0, 1, 1], [1, 0, 0, 0]])
def test_it_computes_the_formula(head_map: list[int], sink: list[float]) -> None:
    q, k, v = inputs(4, 3)
    draw = torch.Generator().manual_seed(1)
    allowed, bias = torch.rand(2, 4, 4, 3, generator=draw) < 0.6, torch.randn(2, 4, 4, 3, generator=draw).double()
    allowed[:, :, 1] = False
    given = None if sink[0] == -math.inf else torch.tensor(sink, dtype=torch.float64)
    o, lse = naive_attention(
        q, k, v, allowed=allowed, bias=bias, head_map=None if head_map[0] == 0 else head_map, sink=given
    )
    expected, expected_lse = by_loops(q, k, v, allowed, bias, head_map, sink)
    assert torch.allclose(o.float(), expected, atol=1e-6)
    assert torch.allclose(lse.float(), expected_lse, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_rows_with_nothing_allowed_give_zeros_and_no_nan_anywhere() -> None:
    q, k, v = (x.requires_grad_() for x in inputs(3, 3))
    allowed = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    with torch.autograd.detect_anomaly(check_nan=True):
        o, lse = naive_attention(q, k, v, allowed=allowed)
        (o.sum() + lse[..., [0, 2]].sum()).backward()
    assert not o[:, :, 1].any() and torch.isneginf(lse[:, :, 1]).all() and not q.grad[:, :, 1].any()


def test_no_keys_at_all_give_zeros() -> None:
    q, k, v = inputs(3, 0)
    o, lse = naive_attention(q, k, v)
    assert not o.any() and torch.isneginf(lse).all()


def test_a_row_with_nothing_allowed_has_its_sink_as_lse() -> None:
    q, k, v = inputs(2, 3)
    sink = torch.arange(4.0, dtype=torch.float64)
    o, lse = naive_attention(q, k, v, allowed=torch.zeros(2, 3, dtype=torch.bool), sink=sink)
    assert not o.any() and torch.equal(lse[0, :, 0], sink)


def test_one_key_is_copied() -> None:
    q, k, v = inputs(3, 1)
    assert torch.allclose(naive_attention(q, k, v)[0], v.repeat_interleave(2, 1).expand(-1, -1, 3, -1))


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 3, 63])
def test_low_precision_stays_within_limits_of_float64(tokens: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(tokens, tokens, dtype)
    expected, _ = naive_attention(q.double(), k.double(), v.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o, _ = naive_attention(q, k, v)
    assert o.dtype == dtype
    assert (o.double() - expected).norm() <= LIMITS[dtype] * expected.norm()


def test_every_argument_has_its_gradient() -> None:
    q, k, v = inputs(3, 4)
    draw = torch.Generator().manual_seed(2)
    shapes = ((4, 3, 4), (3, 1), (4,), (2, 4, 3, 1))
    terms = [torch.rand(shape, generator=draw, dtype=torch.float64) + 0.1 for shape in shapes]
    allowed = torch.rand(2, 1, 3, 4, generator=draw) < 0.6

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: Tensor, sink: Tensor, gate: Tensor) -> Tensor:
        o, lse = naive_attention(q, k, v, allowed=allowed, bias=bias, scale=scale, sink=sink, gate=gate)
        return torch.cat([o.flatten(), lse.flatten()])

    assert torch.autograd.gradcheck(attend, [x.requires_grad_() for x in (q, k, v, *terms)], fast_mode=True)
