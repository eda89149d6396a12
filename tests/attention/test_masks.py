"""Masks against their definitions, pair by pair, and the algebra of combining them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.attention.data import Data, Fields, Pairs, Sizes, Tokens
from coterie.attention.masks import (
    Blocks,
    Causal,
    Emitted,
    Hops,
    Listed,
    Mask,
    Neighborhood,
    Neighbors,
    Roles,
    Segments,
    Window,
)

N = 7
TABLE = (("always", "never", "equal"), ("overlap", "disjoint", "never"), ("always", "equal", "overlap"))


def make_data(seed: int) -> Data:
    draw = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=draw)

    lists = torch.stack([torch.randperm(N, generator=draw)[:3] for _ in range(2 * N)]).view(2, N, 3)
    return Data(
        Tokens(
            position=integers(0, 9, N), segment=integers(-1, 3, 2, N), role=integers(0, 3, N),
            group=integers(0, 8, 2, N), time=integers(0, 4, 2, N), agent=integers(0, 2, N),
        ),
        hops=integers(-1, 5, N, N),
        neighbors=lists.masked_fill(integers(0, 4, 2, N, 3) == 0, -1),
        blocks=integers(-1, 3, 1, 2, 4, 2),
    )  # fmt: skip


def grid(mask: Mask, data: Data) -> torch.Tensor:
    fields = Fields(data, Sizes(2, 2, N, N), torch.device("cpu"))
    return mask.allows(Pairs.all(fields)).expand(2, 2, N, N)


def says(rule: str, mine: int, theirs: int) -> bool:
    shared = mine & theirs != 0
    return {"never": False, "always": True, "equal": mine == theirs, "overlap": shared, "disjoint": not shared}[rule]


def tokens(data: Data, b: int, i: int) -> dict[str, int]:
    fields = {name: getattr(data.queries, name) for name in ("position", "segment", "role", "group", "time", "agent")}
    return {name: int(x[b, i] if x.dim() == 2 else x[i]) for name, x in fields.items()}


def in_window(i: int, j: int, n: int, window: int, stride: int = 1, dilation: int = 1, causal: bool = False) -> bool:
    """One axis of generalized neighborhood attention, by moving a window of keys over the query's own axis."""
    axis = range(i % dilation, n, dilation)
    if j not in axis:
        return False
    group = i // dilation // stride * stride
    if causal:
        last = min(group + stride, len(axis)) - 1
        return j <= i and axis.index(j) > last - window
    first = min(group + stride // 2, len(axis) - 1) - window // 2
    first = min(max(first, 0), len(axis) - window)
    return j in axis[first : first + window]


def in_halo(i: int, j: int, size: int, halo: int, shift: int) -> bool:
    block = [p for p in range(-20, 20) if (p + shift) // size == (i + shift) // size]
    return min(block) - halo <= j <= max(block) + halo


Definition = Callable[[dict[str, int], dict[str, int], int], bool]

DEFINITIONS: dict[Mask, Definition] = {
    Causal(): lambda q, k, h: k["position"] <= q["position"],
    Window(2, 1): lambda q, k, h: -2 <= k["position"] - q["position"] <= 1,
    Window(None, 0): lambda q, k, h: k["position"] <= q["position"],
    Window((1, None), 3): lambda q, k, h: (-1 if h == 0 else -99) <= k["position"] - q["position"] <= 3,
    Segments(): lambda q, k, h: q["segment"] == k["segment"] >= 0,
    Roles(TABLE): lambda q, k, h: says(TABLE[q["role"]][k["role"]], q["group"], k["group"]),
    Neighborhood((9,), 4, 3): lambda q, k, h: in_window(q["position"], k["position"], 9, 4, 3),
    Neighborhood((3, 3), (3, 2), (1, 2), causal=(True, False)): lambda q, k, h: (
        in_window(q["position"] // 3, k["position"] // 3, 3, 3, causal=True)
        and in_window(q["position"] % 3, k["position"] % 3, 3, 2, 2)
    ),
    Neighborhood((1, 1, 9), (1, 1, 3), (1, 1, 2), (1, 1, 2), (False, False, True)): lambda q, k, h: in_window(
        q["position"], k["position"], 9, 3, 2, 2, True
    ),
    Neighborhood((9,), 2, 2, 4): lambda q, k, h: in_window(q["position"], k["position"], 9, 2, 2, 4),
    Blocks(3, 1, (0, 2)): lambda q, k, h: in_halo(q["position"], k["position"], 3, 1, 2 * h),
    Blocks((2, 1), (0, 1), 1, (3, 3)): lambda q, k, h: (
        in_halo(q["position"] // 3, k["position"] // 3, 2, 0, 1)
        and in_halo(q["position"] % 3, k["position"] % 3, 1, 1, 1)
    ),
    Emitted(): lambda q, k, h: k["time"] < q["time"] or (k["time"] == q["time"] and k["agent"] == q["agent"]),
}


@pytest.mark.parametrize("mask", DEFINITIONS, ids=repr)
def test_a_mask_of_tokens_allows_what_its_definition_says(mask: Mask) -> None:
    data = make_data(3)
    found = grid(mask, data)
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(size) for size in (2, 2, N, N))).tolist():
        assert bool(found[b, h, i, j]) == DEFINITIONS[mask](tokens(data, b, i), tokens(data, b, j), h)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("mask", [Window(None, 0), Window(1, 1), Window((1, None), 3), Roles(TABLE), Hops(1000)])
def test_narrow_integers_mean_what_wide_ones_mean(mask: Mask, dtype: torch.dtype) -> None:
    wide = make_data(3)
    tokens = Tokens(**{name: getattr(wide.queries, name).to(dtype) for name in ("position", "role", "group")})
    narrow = Data(tokens, hops=wide.hops.clamp(min=0).to(dtype))
    assert torch.equal(grid(mask, narrow), grid(mask, Data(wide.queries, hops=wide.hops.clamp(min=0))))


def test_hops_allow_what_a_short_path_reaches() -> None:
    data = make_data(4)
    assert grid(Hops(2), data)[1, 1].tolist() == [[0 <= hops <= 2 for hops in row] for row in data.hops.tolist()]


def test_neighbors_allow_what_is_listed() -> None:
    data = make_data(5)
    listed = [[j in row for j in range(N)] for row in data.neighbors[1].tolist()]
    assert grid(Neighbors(), data)[1, 0].tolist() == listed


def test_listed_allows_the_blocks_of_the_list() -> None:
    data = make_data(6)
    found, lists = grid(Listed(3, rows=2), data), data.blocks[0].tolist()
    for b, h, i, j in torch.cartesian_prod(*(torch.arange(size) for size in (2, 2, N, N))).tolist():
        assert bool(found[b, h, i, j]) == (j // 3 in lists[h][i // 2])


@pytest.mark.parametrize(("window", "stride", "dilation"), [(4, 1, 1), (5, 2, 1), (3, 3, 2), (2, 2, 3)])
def test_every_query_of_a_neighborhood_sees_as_many_keys(window: int, stride: int, dilation: int) -> None:
    """Windows shift inwards at the ends of an axis and never shrink."""
    mask = Neighborhood((10, 11), (window, 3), (stride, 1), (dilation, 2))
    fields = Fields(Data(), Sizes(1, 1, 110, 110), torch.device("cpu"))
    assert (mask.allows(Pairs.all(fields)).sum(-1) == 3 * window).all()


def test_a_neighborhood_that_strides_by_its_window_is_attention_in_blocks() -> None:
    fields = Fields(Data(), Sizes(1, 1, 48, 48), torch.device("cpu"))
    strided, blocks = Neighborhood((6, 8), (3, 2), (3, 2)), Blocks((3, 2), shape=(6, 8))
    assert torch.equal(strided.allows(Pairs.all(fields)), blocks.allows(Pairs.all(fields)))


leaves = st.sampled_from([*DEFINITIONS, Hops(1), Neighbors(), Listed(3, 2)])
masks = st.recursive(
    leaves, lambda m: st.builds(lambda a, b, both: a & b if both else a | b, m, m, st.booleans()), max_leaves=4
)


@settings(deadline=None, max_examples=30)
@given(masks, masks, masks)
def test_order_and_repetition_do_not_matter(a: Mask, b: Mask, c: Mask) -> None:
    assert a & b == b & a and a | b == b | a and hash(a & b) == hash(b & a)
    assert (a & b) & c == a & (b & c) and (a | b) | c == a | (b | c)
    assert a & a == a and a | a == a


@settings(deadline=None, max_examples=30)
@given(masks, masks, masks, st.integers(0, 5))
def test_combined_masks_follow_the_laws_of_sets(a: Mask, b: Mask, c: Mask, seed: int) -> None:
    data = make_data(seed)
    assert torch.equal(grid(a & b, data), grid(a, data) & grid(b, data))
    assert torch.equal(grid(a | b, data), grid(a, data) | grid(b, data))
    assert torch.equal(grid(a & (b | c), data), grid((a & b) | (a & c), data))
    assert torch.equal(grid(a | (a & b), data), grid(a, data))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((("always", "never"),), "not square"),
        ((), "not square"),
        ((("sometimes",),), "holds sometimes; rules are never"),
    ],
)
def test_a_wrong_table_is_refused(table: tuple[tuple[str, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Roles(table)  # type: ignore[arg-type]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Neighborhood((9,), (2, 2)), r"Neighborhood.window is \(2, 2\) on 1 axes, expected a number or"),
    (lambda: Neighborhood((2, 2, 2, 2), 1), "Neighborhood.window is 1 on 4 axes"),
    (lambda: Neighborhood((9,), 5, dilation=2), "window is 5 with dilation 2, wider than its axis of 9 places"),
    (lambda: Neighborhood((9,), 5, 0), r"Neighborhood.stride is \(0,\), expected 1 or more"),
    (lambda: Blocks(0), r"Blocks.size is \(0,\), expected 1 or more"),
    (lambda: Listed(4, 0), "Listed.rows is 0, expected 1 or more"),
])  # fmt: skip
def test_a_wrong_size_is_refused(make: Callable[[], Mask], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("blocks", "message"), [
    (None, "blocks is missing"),
    (torch.zeros(1, 1, 3, 1, dtype=torch.long), "blocks has shape .* with Q=4"),
    (torch.zeros(1, 3, 4, 1, dtype=torch.long), "expected .2 or 1, a divisor of 2"),
    (torch.full((1, 1, 4, 1), 3), "blocks holds 3, expected -1 <= value < 3"),
])  # fmt: skip
def test_wrong_lists_of_blocks_are_refused(blocks: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(Listed(3, rows=2), Data(blocks=blocks))
