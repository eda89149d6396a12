"""What the papers say of biases as factors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.bias import Alibi, Factored, SquaredDistance, SvdBias
from coterie.attention.mechanisms.head_windows import ShiftedSparse
from coterie.attention.naive import naive_attention


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bias_of(module: torch.nn.Module, q: Tensor, context: Context) -> Tensor:
    assert isinstance(module, Factored)
    u, w = module.factors(q, context)
    return u @ w.mT


def test_slopes_of_eight_heads_are_those_of_the_paper() -> None:
    q = torch.zeros(1, 8, 3, 4)
    _, data = Alibi().declare(q, q, Context())
    assert data.query_factors is not None and data.key_factors is not None
    bias = (data.query_factors @ data.key_factors.mT)[:, 2, 1]
    assert bias.tolist() == [-(2.0**-h) for h in range(1, 9)]


def test_alibi_is_exact_at_65536_positions() -> None:
    """In half precision the factors would be off by tens; in float32 they are exact, as slopes are powers of two."""
    q = torch.zeros(1, 8, 65536, 1, dtype=torch.bfloat16)
    _, data = Alibi().declare(q, q, Context())
    assert data.query_factors is not None and data.key_factors is not None
    last = (data.query_factors[:, -1] * data.key_factors[-2]).sum(-1)
    assert last.tolist() == [-(2.0**-h) for h in range(1, 9)]


def test_all_layers_have_the_same_tensors_made_for_gradients() -> None:
    q = torch.zeros(1, 6, 21, 4)
    with torch.inference_mode():
        _, first = Alibi().declare(q, q, Context())
        _, shifted = ShiftedSparse().declare(q, q, Context())
    _, second = Alibi().declare(q, q, Context())
    assert second.query_factors is first.query_factors and second.key_factors is first.key_factors
    assert ShiftedSparse().declare(q, q, Context())[1].queries.role is shifted.queries.role
    for x in (second.query_factors, second.key_factors, shifted.queries.role):
        assert x is not None and not x.is_inference()


def test_rank_of_squared_distance_is_axes_and_two() -> None:
    q = normal(1, 2, 24, 4)
    module = SquaredDistance().module(Heads(2, 2, 4, 4)).double()
    for grid in [(24,), (4, 6), (2, 3, 4)]:
        bias = bias_of(module, q, Context(grid=grid))[0]
        assert torch.linalg.matrix_rank(bias) == min(len(grid) + 2, 24)
        assert bias.max() < 1e-12 and torch.allclose(bias, bias.mT)


def test_squared_distance_of_65536_places_keeps_half_a_logit_in_float32() -> None:
    """Positions around 0: the largest squares, and with them what float32 rounds, are a quarter."""
    q = torch.zeros(1, 1, 65536, 1)
    module = SquaredDistance().module(Heads(1, 1, 1, 1))
    with torch.no_grad():
        module.get_parameter("log_strength").fill_(-8.0)
        assert isinstance(module, Factored)
        u, w = module.factors(q, Context(grid=(256, 256)))
    far = ((u[0, :, None] * w[[0, 255, -1]]).sum(-1)).double()
    at = torch.cartesian_prod(torch.arange(256), torch.arange(256)).double()
    expected = -torch.exp(torch.tensor(-8.0).double()) * (at[:, None] - at[[0, 255, -1]]).square().sum(-1)
    assert (far - expected).abs().max() < 1e-4 * 128


@pytest.mark.parametrize("rank", [2, 4, 8])
def test_what_svd_leaves_out_is_the_energy_of_the_small_singular_values(rank: int) -> None:
    module = SvdBias(rank=rank, reach=4).module(Heads(3, 3, 4, 4)).double()
    table = normal(3, 9, 9)
    with torch.no_grad():
        module.get_parameter("table").copy_(table.flatten(1))
    context, at = Context(grid=(5, 5)), torch.cartesian_prod(torch.arange(5), torch.arange(5))
    away = at[:, None] - at + 4
    dense = table[:, away[..., 1], away[..., 0]]
    lost = (dense - bias_of(module, normal(1, 3, 25, 4), context)).square().sum((1, 2))
    torch.testing.assert_close(lost, torch.linalg.svdvals(dense)[:, rank:].square().sum(-1))


def test_at_full_rank_svd_is_attention_with_the_dense_table() -> None:
    module = SvdBias(rank=25, reach=4).module(Heads(2, 2, 4, 4)).double()
    with torch.no_grad():
        module.get_parameter("table").copy_(normal(2, 81))
    (q, k, v), context = normal(3, 1, 2, 25, 4), Context(grid=(5, 5))
    away = (at := torch.cartesian_prod(torch.arange(5), torch.arange(5)))[:, None] - at + 4
    dense = module.get_parameter("table")[:, away[..., 0] + 9 * away[..., 1]]
    torch.testing.assert_close(module(q, k, v, context), naive_attention(q, k, v, bias=dense)[0])


def test_a_changed_table_is_decomposed_again() -> None:
    module, context = SvdBias(rank=4, reach=2).module(Heads(2, 2, 4, 4)).double(), Context(grid=(3, 3))
    q = normal(1, 2, 9, 4)
    assert not bias_of(module, q, context).any()
    with torch.no_grad():
        module.get_parameter("table").copy_(normal(2, 25))
    assert bias_of(module, q, context).any()


def test_a_table_for_a_plane_refuses_a_line() -> None:
    module = SvdBias().module(Heads(2, 2, 4, 4))
    with pytest.raises(ValueError, match="svd_bias needs a grid of 2 axes, not None"):
        module(*torch.zeros(3, 1, 2, 9, 4), Context())
