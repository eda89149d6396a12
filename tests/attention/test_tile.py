"""Lists of tiles against dense masks, and what is kept of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.attention.attend import attend
from coterie.attention.blocks import KEYS, STRIP, TileLists, tile_lists
from coterie.attention.data import Data, Fields, Pairs, Sizes, Tokens
from coterie.attention.dispatch import VARIABLE
from coterie.attention.masks import Blocks, Causal, Hops, Listed, Mask, Neighborhood, Roles, Segments, Window
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec
from coterie.attention.tile import tile_attention

MakeCase = Callable[..., Any]


def spread(lists: TileLists, fields: Fields) -> Tensor:
    """The mask that lists of tiles stand for."""
    batch, heads, queries, keys = fields.sizes
    mask = torch.zeros(lists.batch, lists.heads, *lists.counts, lists.rows, KEYS, dtype=torch.bool)
    full, some = lists.tiles
    mask[tuple(full.T)] = True
    mask[tuple(some.T)] = (lists.bits[..., None] >> torch.arange(KEYS)) % 2 == 1
    mask = mask.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :queries, :keys]
    return mask.repeat_interleave(heads // lists.heads, 1).expand(batch, heads, queries, keys)


@pytest.mark.parametrize("tokens", [1, 63, 300])
def test_lists_hold_the_pairs_of_the_mask(make_case: MakeCase, feature: str, tokens: int) -> None:
    case = make_case(feature, tokens)
    fields = case.spec.read(case.q, case.k, case.data)
    lists, allowed = tile_lists(case.spec.mask, fields), case.spec.allowed(fields)
    allowed = torch.ones(2, 4, tokens, tokens, dtype=torch.bool) if allowed is None else allowed
    allowed = allowed.expand(2, 4, tokens, tokens)
    assert torch.equal(spread(lists, fields), allowed)
    for told, said in ((lists.unread, allowed.any(2)), (lists.idle, allowed.any(3))):
        found = torch.zeros(1, tokens, dtype=torch.bool) if told is None else told
        assert torch.equal(found.expand(2, tokens), ~said.any(1))


@pytest.mark.parametrize("mask", [
    None, Causal(), Window(1600, None), Segments(), Roles((("always", "always"), ("never", "always")))
])  # fmt: skip
def test_strips_and_rows_hold_each_tile_once(mask: Mask | None) -> None:
    n = 2000
    data = Data(Tokens(segment=torch.arange(n) // 900, role=torch.arange(n) // 128 % 2))
    lists = tile_lists(mask, Fields(data, Sizes(1, 2, n, n), torch.device("cpu")))
    # By tile the place of its bits and 2 more, so that of a full one it is 1.
    found = torch.zeros(lists.counts, dtype=torch.long)
    for entries, height in zip(lists.by_strip, (STRIP, 1), strict=True):
        lines = torch.arange(len(entries.starts) - 1).repeat_interleave(entries.starts.diff())
        for line, column, place in zip(lines.tolist(), entries.other.tolist(), entries.place.tolist(), strict=True):
            found[line * height : (line + 1) * height, column] += place + 2
    full, some = lists.tiles
    expected = torch.zeros_like(found)
    expected[tuple(full[:, 2:].T)] = 1
    expected[tuple(some[:, 2:].T)] = torch.arange(len(some)) + 2
    assert torch.equal(found, expected)
    assert len(lists.by_strip[0].other) > 0


@pytest.mark.parametrize(("mask", "share", "mixed"), [
    (Window(255, 0), 0.13, 8),
    (Window((63, None), 0), 0.31, 5),
    (Blocks(256), 0.07, 0),
    (Neighborhood((4096,), 256, 256), 0.07, 0),
    (Neighborhood((64, 64), (8, 16)), 0.17, 11),
    (Roles((("always", "never"), ("never", "always"))), 0.5, 0),
    (Segments(), 0.13, 0),
    (Hops(3), 0.1, 6),
    (Listed(64, 128) & Causal(), 0.02, 1),
])  # fmt: skip
def test_few_tiles_are_listed_and_few_of_them_are_mixed(mask: Mask, share: float, mixed: int) -> None:
    """At most this share of tiles, and this number of mixed ones for each row of tiles."""
    n = 4096
    at = torch.arange(n)
    data = Data(
        Tokens(segment=at // 512, role=at // 2048),
        hops=(at[:, None] - at).abs() // 16,
        blocks=torch.randint(0, 64, (1, 1, 32, 2), generator=torch.Generator().manual_seed(0)),
    )
    lists = tile_lists(mask, Fields(data, Sizes(1, 2, n, n), torch.device("cpu")))
    assert lists.share <= share
    assert len(lists.tiles[1]) <= mixed * lists.counts[0] * lists.heads


def test_lists_of_blocks_cost_what_they_name() -> None:
    """A list for each query, and no memory for what it does not name."""
    n = 20_000
    draw = torch.Generator().manual_seed(0)
    blocks = torch.stack([torch.randperm(n // 64, generator=draw)[:4] for _ in range(n)])[None, None]
    lists = tile_lists(Listed(64) & Causal(), Fields(Data(blocks=blocks), Sizes(1, 8, n, n), torch.device("cpu")))
    assert lists.rows == 1 and lists.heads == 1
    assert sum(map(len, lists.tiles)) <= 4 * n and len(lists.bits) < n


def test_lists_are_kept_until_what_they_read_changes() -> None:
    n, mask = 1200, Segments() & Causal()
    segment = torch.arange(n) // 300
    data = Data(Tokens(segment=segment))

    def lists(data: Data, heads: int = 2) -> TileLists:
        return tile_lists(mask, Fields(data, Sizes(1, heads, n, n), torch.device("cpu")))

    first = lists(data)
    assert lists(Data(Tokens(segment=segment, role=segment), key_bias=torch.zeros(n))) is first
    assert lists(data, heads=4) is not first
    assert lists(Data(Tokens(segment=segment, position=torch.arange(n)))) is not first
    assert lists(Data(Tokens(segment=segment.clone()))) is not first
    segment[:600] = 1
    changed = lists(data)
    assert changed is not first and changed.share > first.share
    with torch.inference_mode():
        passing = Data(Tokens(segment=segment.clone()))
        assert lists(passing) is not lists(passing)


@pytest.mark.parametrize("heads", [(6, 3, 2), (12, 3, 2), (12, 4, 6), (4, 2, 4), (4, 4, 1)])
def test_lists_of_heads_need_not_agree_with_key_heads(heads: tuple[int, int, int]) -> None:
    query_heads, key_heads, lists = heads
    draw = torch.Generator().manual_seed(0)
    blocks = torch.randint(-1, 3, (1, lists, 70, 2), generator=draw)
    q, k, v = (torch.randn(2, h, 140, 8, generator=draw) for h in (query_heads, key_heads, key_heads))
    spec, data = Spec(Listed(64, 2)), Data(blocks=blocks)
    fields = spec.read(q, k, data)
    o, lse = tile_attention(q, k, v, tile_lists(spec.mask, fields), scale=0.3)
    expected = naive_attention(q, k, v, allowed=spec.allowed(fields), scale=0.3)
    torch.testing.assert_close((o, lse), expected)


@pytest.mark.parametrize("lists", [1, 2])
def test_lists_of_heads_and_windows_of_more_heads(lists: int) -> None:
    blocks = torch.randint(-1, 10, (2, lists, 640, 2), generator=torch.Generator().manual_seed(0))
    fields = Fields(Data(blocks=blocks), Sizes(2, 4, 640, 640), torch.device("cpu"))
    mask = Listed(64) & Window((30, None, 300, 5), 0)
    assert torch.equal(spread(tile_lists(mask, fields), fields), mask.allows(Pairs.all(fields)))


def test_padding_and_idle_queries_may_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    n, draw = 200, torch.Generator().manual_seed(0)
    segment = torch.where(torch.arange(n) < 130, torch.arange(n) // 70, -1)
    q, k, v = (torch.randn(1, 2, n, 8, generator=draw) for _ in range(3))
    poisoned = [x.clone().index_fill(2, torch.arange(130, n), torch.nan).requires_grad_() for x in (q, k, v)]
    spec, data = Spec(Segments() & Window(20, 5)), Data(Tokens(segment=segment))
    o, lse = attend(*poisoned, spec, data, return_lse=True)
    short = Data(Tokens(segment=segment[:130]))
    torch.testing.assert_close(o[:, :, :130], attend(*(x[:, :, :130] for x in (q, k, v)), spec, short))
    assert not o[:, :, 130:].any() and (lse[:, :, 130:] == -torch.inf).all()
    (o.sum() + lse.exp().sum()).backward()
    assert all(x.grad.isfinite().all() and not x.grad[:, :, 130:].any() for x in poisoned)


def test_strided_inputs_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    dense = [torch.randn(1, 2, 150, 8) for _ in range(4)]
    apart = [torch.stack([x, x], -1)[..., 0] for x in dense]

    def passes(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> list[Tensor]:
        floats = [x.requires_grad_() for x in (q, k, v)]
        o = attend(*floats, Spec(Window(70, 0)))
        return [o, *torch.autograd.grad(o, floats, grad)]

    torch.testing.assert_close(passes(*apart), passes(*dense))


def test_the_same_inputs_give_the_same_bits(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    case = make_case("listed", 300, torch.float32)
    q = case.q.requires_grad_()
    found = [torch.autograd.grad(attend(q, case.k, case.v, case.spec, case.data).sum(), q)[0] for _ in range(2)]
    assert torch.equal(*found)


def test_pairs_of_one_tile_are_those_of_the_mask() -> None:
    """Windows that end inside of a tile, queries and keys of other numbers."""
    fields = Fields(Data(), Sizes(1, 1, 200, 130), torch.device("cpu"))
    mask = Window(70, 3)
    assert torch.equal(spread(tile_lists(mask, fields), fields)[0, 0], mask.allows(Pairs.all(fields)))


@pytest.mark.parametrize("fixed", [("query_factors", "key_factors"), ("key_factors",)])
def test_factors_may_be_constants(fixed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"q": (1, 2, 900, 8), "k": (1, 1, 900, 8), "v": (1, 1, 900, 8)}
    shapes |= {"query_factors": (2, 900, 3), "key_factors": (1, 900, 3)}
    found = []
    for dtype, backend in ((torch.float64, "naive"), (torch.float32, "cpu")):
        monkeypatch.setenv(VARIABLE, backend)
        draw.manual_seed(0)
        given = {name: torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}
        given = {name: x.to(dtype).requires_grad_(name not in fixed) for name, x in given.items()}
        data = Data(query_factors=given["query_factors"], key_factors=given["key_factors"])
        o = attend(given["q"], given["k"], given["v"], Spec(Causal(), rank=3), data)
        o.square().sum().backward()
        found.append([o.detach(), *(x.grad for x in given.values() if x.grad is not None)])
    assert len(found[1]) == 1 + len(shapes) - len(fixed)
    for expected, x in zip(*found, strict=True):
        assert (x.double() - expected).norm() <= 1e-5 * expected.norm()


def test_factors_are_checked_again_when_they_change() -> None:
    q, u = torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 1)
    spec, data = Spec(rank=1), Data(query_factors=u, key_factors=u.clone())
    for _ in range(2):
        attend(q, q, q, spec, data)
    u[0, 0, 2] = torch.nan
    with pytest.raises(ValueError, match="query_factors holds values that are not finite"):
        attend(q, q, q, spec, data)
