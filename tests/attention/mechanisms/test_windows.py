"""What the papers say of local windows, and of heads that see different keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.attention.data import Data, Tokens
from coterie.attention.mechanisms.base import Context, Declaration, Heads, Mechanism
from coterie.attention.mechanisms.head_windows import HiLo, LongShort, ShiftedSparse
from coterie.attention.mechanisms.windows import GeneralizedNeighborhood, Halo, InwardWindow, _boxes
from coterie.attention.naive import naive_attention

GRID = (9, 12)
N = 108


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def seen(mechanism: Declaration, context: Context, tokens: int = N, heads: int = 4) -> Tensor:
    """[Hq, N, N], which key each query sees."""
    q = normal(1, heads, tokens, 2)
    spec, data = mechanism.declare(q, q, context)
    allowed = spec.allowed(spec.read(q, q, data))
    assert allowed is not None
    return allowed.expand(1, heads, tokens, tokens)[0]


def compute(mechanism: Mechanism, context: Context, heads: int = 4) -> tuple[list[Tensor], Tensor]:
    q, k, v = normal(3, 1, heads, N, 8)
    return [q, k, v], mechanism.module(Heads(heads, heads, 8, 8))(q, k, v, context)


def test_every_window_is_full_whatever_the_border() -> None:
    allowed = seen(GeneralizedNeighborhood((3, 5)), Context(grid=GRID))
    assert (allowed.sum(-1) == 15).all()


def test_stride_of_a_window_is_attention_in_blocks() -> None:
    found = seen(GeneralizedNeighborhood((3, 3), stride=3), Context(grid=GRID))[0]
    at = torch.cartesian_prod(torch.arange(9) // 3, torch.arange(12) // 3)
    assert torch.equal(found, (at[:, None] == at).all(-1))


@pytest.mark.parametrize("causal", [False, True])
def test_each_axis_may_have_its_own_stride_and_dilation(causal: bool) -> None:
    mechanism, context = GeneralizedNeighborhood((3, 4), stride=(3, 1), dilation=(1, 2)), Context(causal, GRID)
    inputs, o = compute(mechanism, context)
    torch.testing.assert_close(o, mechanism.naive(mechanism.module(Heads(4, 4, 8, 8)), *inputs, context))
    rows = seen(mechanism, context)[0].view(9, 12, 9, 12)[:, 6].any(-1)
    assert torch.equal(rows, seen(GeneralizedNeighborhood((3,), stride=3), Context(causal), tokens=9)[0])


def test_a_stride_for_each_axis_is_one_for_each() -> None:
    with pytest.raises(ValueError, match=r"gna: stride is \(2, 2, 2\), expected a number for each of \(7, 7\)"):
        GeneralizedNeighborhood(stride=(2, 2, 2))


def test_dilation_is_attention_in_interleaved_sequences() -> None:
    dilated = seen(GeneralizedNeighborhood((5,), dilation=3), Context(), tokens=30)[0]
    plain = seen(GeneralizedNeighborhood((5,)), Context(), tokens=10)[0]
    assert torch.equal(dilated[1::3, 1::3], plain) and not dilated[1::3, 0::3].any()


def test_an_inward_window_is_a_neighborhood_of_twice_its_half_and_one() -> None:
    context = Context(grid=GRID)
    _, inward = compute(InwardWindow((1, 2)), context)
    _, neighborhood = compute(GeneralizedNeighborhood((3, 5)), context)
    assert torch.equal(inward, neighborhood)


def test_an_inward_window_holds_in_every_frame() -> None:
    allowed = seen(InwardWindow((1, 1)), Context(grid=(3, 4, 9))).view(4, 3, 36, 3, 36)
    assert (allowed.sum((-1, -2)) == 27).all()
    assert torch.equal(allowed[:, 0, :, 0], allowed[:, 2, :, 1])


def test_the_inside_of_a_halo_is_dense_attention_to_the_window() -> None:
    """A port with inverted masks sees everything but the window; here nothing outside matters, and all inside does."""
    (q, k, v), o = compute(Halo(block=3, halo=2), Context(grid=GRID))
    rows, columns = torch.meshgrid(torch.arange(1, 8), torch.arange(1, 8), indexing="ij")
    window = (rows * 12 + columns).flatten()
    block = torch.tensor([r * 12 + c for r in (3, 4, 5) for c in (3, 4, 5)])
    dense, _ = naive_attention(q[:, :, block], k[:, :, window], v[:, :, window])
    torch.testing.assert_close(o[:, :, block], dense)


@pytest.mark.parametrize("grid", [(9, 20), (3, 5, 6)])
def test_tokens_in_boxes_are_near_on_all_axes_and_come_back(grid: tuple[int, ...]) -> None:
    order, back = _boxes(grid, torch.device("cpu"))
    n = order.numel()
    assert torch.equal(order[back], torch.arange(n)) and torch.equal(order.sort().values, torch.arange(n))
    first = torch.stack(torch.unravel_index(order[: 64 if len(grid) == 2 else 48], grid))
    assert (first.amax(1) <= (7 if len(grid) == 2 else 3)).all()


def test_what_was_kept_from_inference_serves_training() -> None:
    q, context = normal(1, 4, 77, 8).requires_grad_(), Context(grid=(7, 11))
    module = Halo(block=2, halo=1).module(Heads(4, 4, 8, 8))
    with torch.inference_mode():
        module(q, q, q, context)
    module(q, q, q, context).sum().backward()
    assert q.grad is not None and q.grad.isfinite().all()


def test_roles_and_padding_keep_their_tokens_in_boxes() -> None:
    (q, k, v), context = normal(3, 1, 4, N, 8), Context(grid=GRID)
    segment = (torch.arange(N) % 7 == 3).long().neg()
    padded = Context(grid=GRID, data=Data(Tokens(segment=segment)))
    o = Halo(block=3, halo=2).module(Heads(4, 4, 8, 8))(q, k, v, padded)
    allowed = seen(Halo(block=3, halo=2), context) & (segment == 0) & (segment == 0)[:, None]
    torch.testing.assert_close(o, naive_attention(q, k, v, allowed=allowed)[0])


def test_hilo_with_no_low_heads_is_windows_and_with_windows_of_one_is_dense() -> None:
    context = Context(grid=GRID)
    _, windows = compute(HiLo(window=3, low=0.0), context)
    _, blocks = compute(Halo(block=3, halo=0), context)
    torch.testing.assert_close(windows, blocks)
    (q, k, v), dense = compute(HiLo(window=1, low=1.0), context)
    torch.testing.assert_close(dense, naive_attention(q, k, v)[0])


def test_hilo_takes_a_padded_plane_as_a_smaller_one() -> None:
    (q, k, v), module = normal(3, 1, 4, N, 8), HiLo(window=3, low=0.5).module(Heads(4, 4, 8, 8))
    segment = (torch.arange(N) >= 5 * 12).long().neg()  # windows cut in the middle, and windows of padding alone
    nan = (x.masked_fill(segment[:, None] < 0, torch.nan) for x in (q, k, v))
    o = module(*nan, Context(grid=GRID, data=Data(Tokens(segment=segment))))
    smaller = module(*(x[:, :, : 5 * 12] for x in (q, k, v)), Context(grid=(5, 12)))
    torch.testing.assert_close(o[:, :, : 5 * 12], smaller)


def test_hilo_of_the_paper_has_a_quarter_of_the_pairs() -> None:
    """Windows of 2 x 2: low heads see N / 4 means, and the few high heads 4 tokens."""
    assert HiLo().pairs(4096) / 4096**2 == pytest.approx(0.9 / 4, rel=1e-3)


def test_groups_of_half_of_the_heads_are_shifted_and_all_see_the_sinks() -> None:
    allowed = seen(ShiftedSparse(groups=4, sinks=2), Context(), tokens=32)
    assert allowed[..., :2].all()
    plain, shifted = allowed[0], allowed[3]
    assert plain[9].nonzero().flatten().tolist() == [0, 1, *range(8, 16)]
    assert shifted[13].nonzero().flatten().tolist() == [0, 1, *range(12, 20)]
    assert torch.equal(allowed[0], allowed[1]) and torch.equal(allowed[2], allowed[3])


def test_shifted_groups_join_what_groups_separate() -> None:
    """After two layers every token reaches its neighbouring group, which groups alone never do."""
    allowed = seen(ShiftedSparse(groups=4, sinks=0), Context(), tokens=32).double()
    alone, both = allowed[0] @ allowed[0] > 0, allowed.sum(0) @ allowed.sum(0) > 0
    assert not alone[9, 17] and both[9, 17]


def test_short_heads_have_the_rank_that_low_rank_scores_lack() -> None:
    """Queries of two numbers make scores of rank 2; a band of the same scores has full rank."""
    (q, k, _), identity = normal(3, 1, 2, 40, 2), torch.eye(40, dtype=torch.float64).expand(1, 2, 40, 40)
    spec, data = LongShort(window=4).declare(q, k, Context())
    allowed = spec.allowed(spec.read(q, k, data))
    short, long = naive_attention(0.1 * q, 0.1 * k, identity, allowed=allowed)[0][0]
    assert (torch.linalg.svdvals(short) > 1e-3).sum() == 40
    assert (torch.linalg.svdvals(short).log() - torch.linalg.svdvals(long).log()).mean() > 0.5


def test_long_heads_see_all_before_them_and_short_heads_a_band() -> None:
    allowed = seen(LongShort(window=5, short=0.75), Context(), tokens=20)
    assert allowed.sum(-1)[:, -1].tolist() == [5, 5, 5, 20]
    assert not allowed.triu(1).any()


@pytest.mark.parametrize("mechanism", [GeneralizedNeighborhood(), Halo(), InwardWindow(), HiLo()])
def test_without_its_grid_a_mechanism_asks_for_it(mechanism: Mechanism) -> None:
    with pytest.raises(ValueError, match=f"{mechanism.about.name} needs a grid of 2"):
        compute(mechanism, Context())
