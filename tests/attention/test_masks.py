"""Masks against their definitions, pair by pair, and the algebra of combining them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.attention.data import Data, Fields, Pairs, Sizes, Tokens
from coterie.attention.masks import Causal, Emitted, Hops, Mask, Neighbors, Roles, Segments, Window

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


Definition = Callable[[dict[str, int], dict[str, int], int], bool]

DEFINITIONS: dict[Mask, Definition] = {
    Causal(): lambda q, k, h: k["position"] <= q["position"],
    Window(2, 1): lambda q, k, h: -2 <= k["position"] - q["position"] <= 1,
    Window(None, 0): lambda q, k, h: k["position"] <= q["position"],
    Window((1, None), 3): lambda q, k, h: (-1 if h == 0 else -99) <= k["position"] - q["position"] <= 3,
    Segments(): lambda q, k, h: q["segment"] == k["segment"] >= 0,
    Roles(TABLE): lambda q, k, h: says(TABLE[q["role"]][k["role"]], q["group"], k["group"]),
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


leaves = st.sampled_from([*DEFINITIONS, Hops(1), Neighbors()])
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
