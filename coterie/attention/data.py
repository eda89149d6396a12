"""The tensors that a spec refers to, and checked access to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from coterie.attention.checks import (
    check_broadcast,
    check_device,
    check_dtype,
    check_finite,
    check_range,
    check_shape,
)
from coterie.attention.topology import Topology

Side = Literal["queries", "keys"]
Field = Literal["position", "segment", "role", "group", "time", "agent"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What masks read about the tokens of one side: integers [N], or [B, N] where they differ in the batch."""

    position: Tensor | None = None
    """Place in the sequence; 0, 1, 2, ... by default."""
    segment: Tensor | None = None
    """The document, team or episode; negative: padding."""
    role: Tensor | None = None
    """Row or column in the table of `Roles`, from 0."""
    group: Tensor | None = None
    """Bitset of the groups, int64."""
    time: Tensor | None = None
    """When the token was emitted."""
    agent: Tensor | None = None
    """Who emitted the token."""


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """The tensors of a call beside q, k and v. N queries, M keys, K neighbours, B may be left out or 1.

    A mask reads what it needs and passes over the rest, so that layers with different masks share one `Data`. What
    changes the logits or the output must be named by the spec.
    """

    queries: Tokens = Tokens()
    keys: Tokens | None = None
    """By default the keys are the queries."""
    hops: Tensor | None = None
    """[B, N, M] integers: distance in a graph; negative: no path."""
    neighbors: Tensor | Topology | None = None
    """[B, N, K] integers: the keys of each query, none twice; -1: an empty slot. Or [N, K] as a topology, which keeps
    what calls on one graph can share."""
    blocks: Tensor | None = None
    """[B or 1, H, N / rows, n] integers: the key blocks that each of these queries may attend to; -1: an empty slot. H
    divides Hq, and consecutive query heads share a list."""
    query_factors: Tensor | None = None
    """u of the low-rank bias, broadcastable to [B, Hq, N, R], float32 or float64."""
    key_factors: Tensor | None = None
    """w of the low-rank bias, broadcastable to [B, Hq, M, R], float32 or float64."""
    key_bias: Tensor | None = None
    """Broadcastable to [B, Hq, M]."""
    distance: Tensor | None = None
    """[B, N, M], or [B, N, K] by neighbour; what stands in empty slots is not read."""
    slope: Tensor | None = None
    """Of the edge bias, by head: broadcastable to [Hq]."""
    sink: Tensor | None = None
    """[Hq], the logit of a key without a value."""
    gate: Tensor | None = None
    """Factor of the output, broadcastable to [B, Hq, N, Dv]."""
    temperature: Tensor | None = None
    """Divides q.k, broadcastable to [B, Hq, N]."""


class Sizes(NamedTuple):
    """Of one call: batch, query heads, queries, keys."""

    batch: int
    heads: int
    queries: int
    keys: int


class Fields:
    """The tensors of one call, each checked when it is first read: a ValueError names the one that is wrong."""

    def __init__(self, data: Data, sizes: Sizes, device: torch.device) -> None:
        self.data, self.sizes, self.device = data, sizes, device
        self._known: dict[object, Tensor] = {}
        self.read: set[tuple[Side, Field] | str] = set()
        """Names of what was asked for: a field of one side, or a field of `Data`."""

    def source(self, name: tuple[Side, Field] | str) -> Tensor | None:
        """The tensor that was given under a name of `read`."""
        if isinstance(name, tuple):
            is_keys = name[0] == "keys" and self.data.keys is not None
            return getattr(self.data.keys if is_keys else self.data.queries, name[1])  # type: ignore[no-any-return]
        given = getattr(self.data, name)
        return given.index if isinstance(given, Topology) else given

    def token(self, side: Side, field: Field, below: int | None = None) -> Tensor | None:
        """A field of the tokens of one side, int64 [N] or [B, N]; None for positions that count from 0.

        Differences of narrow integers would wrap, and so would bounds beside them.
        """
        tensor = self._source((side, field))
        if tensor is None and field == "position":
            return None
        name = f"{side if self.data.keys is not None else 'queries'}.{field}"
        return self._once((side, field), lambda: self._token(name, tensor, "N" if side == "queries" else "M", below))

    def _token(self, name: str, tensor: Tensor | None, pattern: str, below: int | None) -> Tensor:
        tensor = self._checked(name, tensor, _INTEGERS, pattern)
        if below is not None:
            check_range(name, tensor, 0, below)
        return tensor.long()

    def hops(self) -> Tensor:
        """[N, M] or [B, N, M], int64."""
        return self._once("hops", lambda: self._checked("hops", self._source("hops"), _INTEGERS, "N M").long())

    def neighbors(self) -> Tensor:
        """[N, K] or [B, N, K], int64; no key twice in a row, but where a topology has it."""
        return self._once("neighbors", self._neighbors)

    def _neighbors(self) -> Tensor:
        index = self._checked("neighbors", self._source("neighbors"), _INTEGERS, "N K").long()
        check_range("neighbors", index, -1, self.sizes.keys)
        if not isinstance(self.data.neighbors, Topology):
            _check_unrepeated(index)
        return index

    def listed(self) -> Tensor:
        """Which key is in which query's list: bool [N, M] or [B, N, M]."""
        return self._once("listed", lambda: self.spread(torch.ones_like(self.neighbors(), dtype=torch.bool)))

    def spread(self, values: Tensor) -> Tensor:
        """Values by neighbour [.., N, K] as values by key [.., N, M], zero where a key is no neighbour."""
        index = self.neighbors()
        _check_unrepeated(index)
        index, values = (index.expand_as(values), values) if values.dim() == 3 else (index, values.expand_as(index))
        # One column more takes what stands in empty slots.
        room = values.new_zeros(*values.shape[:-1], self.sizes.keys + 1)
        return room.scatter(-1, index.masked_fill(index < 0, self.sizes.keys), values)[..., : self.sizes.keys]

    def in_blocks(self, block: int, rows: int) -> Tensor:
        """Which blocks of keys each query's list names: bool [B or 1, H, N / rows, M / block]."""
        return self._once(("blocks", block, rows), lambda: self._in_blocks(block, rows))

    def _in_blocks(self, block: int, rows: int) -> Tensor:
        given = self._given("blocks", self._source("blocks"), _INTEGERS)
        batch, heads, queries, keys = self.sizes
        sizes = check_shape("blocks", given, "B H Q n", {"Q": -(-queries // rows)})
        if sizes["B"] not in (1, batch) or not sizes["H"] or heads % sizes["H"]:
            raise ValueError(f"blocks has shape {list(given.shape)}, expected [{batch} or 1, a divisor of {heads}, ..]")
        count = -(-keys // block)
        check_range("blocks", given, -1, count)
        index = given.long()
        # One column more takes empty slots.
        table = torch.zeros(*given.shape[:3], count + 1, dtype=torch.bool, device=self.device)
        return table.scatter(-1, index.masked_fill(index < 0, count), True)[..., :count]

    def distance(self, by_neighbor: bool) -> Tensor:
        """[N, M] or [B, N, M]; by neighbour [.., N, K], with zeros in empty slots."""
        pattern, more = ("N K", {"K": self.neighbors().shape[-1]}) if by_neighbor else ("N M", {})
        distance = self._checked("distance", self.data.distance, _FLOATS, pattern, more)
        return distance.masked_fill(self.neighbors() < 0, 0) if by_neighbor else distance

    def term(self, name: str, *shape: int, dtypes: tuple[torch.dtype, ...] = _FLOATS) -> Tensor:
        """A tensor of the formula: finite, and broadcastable to `shape`."""
        tensor = self._given(name, getattr(self.data, name), dtypes)
        check_broadcast(name, tensor, *shape)
        check_finite(name, tensor)
        return tensor

    def constant(self, values: tuple[object, ...]) -> Tensor:
        """Numbers of a spec as a tensor."""
        return self._once(values, lambda: torch.tensor(values, device=self.device))

    def _checked(
        self,
        name: str,
        tensor: Tensor | None,
        dtypes: tuple[torch.dtype, ...],
        pattern: str,
        more: Mapping[str, int] | None = None,
    ) -> Tensor:
        given = self._given(name, tensor, dtypes)
        sizes = {"B": self.sizes.batch, "N": self.sizes.queries, "M": self.sizes.keys, **(more or {})}
        batched = given.dim() > len(pattern.split())
        if batched and given.shape[0] == 1:
            given = given.expand(self.sizes.batch, *given.shape[1:])
        check_shape(name, given, f"B {pattern}" if batched else pattern, sizes)
        return given

    def _given(self, name: str, tensor: Tensor | None, dtypes: tuple[torch.dtype, ...]) -> Tensor:
        if tensor is None:
            raise ValueError(f"{name} is missing: the spec reads it")
        check_dtype(name, tensor, *dtypes)
        check_device(q=torch.empty(0, device=self.device), **{name: tensor})
        return tensor

    def _source(self, name: tuple[Side, Field] | str) -> Tensor | None:
        if name not in self.read:  # FlexAttention refuses a function that changes anything, even to what it was.
            self.read.add(name)
        return self.source(name)

    def _once(self, key: object, read: Callable[[], Tensor]) -> Tensor:
        if key not in self._known:
            self._known[key] = read()
        return self._known[key]


class Pairs:
    """Pairs of query and key, as masks see them: index tensors, of whatever shapes broadcast against each other.

    A dense mask is all pairs at once; FlexAttention asks for one pair at a time.
    """

    def __init__(self, fields: Fields, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> None:
        self._fields, self._b, self._h, self._i, self._j = fields, b, h, i, j

    @classmethod
    def all(cls, fields: Fields) -> Pairs:
        """Every pair: what is read broadcasts to [B, Hq, N, M]."""
        b, h, i, j = (torch.arange(size, device=fields.device) for size in fields.sizes)
        return cls(fields, b[:, None, None, None], h[:, None, None], i[:, None], j)

    def query(self, field: Field, below: int | None = None) -> Tensor:
        """A field of the query token; `below` is the number of values it may have."""
        tensor = self._fields.token("queries", field, below)
        return self._i if tensor is None else self._at(tensor, self._i)

    def key(self, field: Field, below: int | None = None) -> Tensor:
        """A field of the key token."""
        tensor = self._fields.token("keys", field, below)
        return self._j if tensor is None else self._at(tensor, self._j)

    def hops(self) -> Tensor:
        """Hops between the two."""
        return self._at(self._fields.hops(), self._i, self._j)

    def listed(self) -> Tensor:
        """Whether the key is in the query's list."""
        return self._at(self._fields.listed(), self._i, self._j)

    def in_blocks(self, block: int, rows: int) -> Tensor:
        """Whether the key lies in one of the blocks of the query's list."""
        table = self._fields.in_blocks(block, rows)
        sharing = self._fields.sizes.heads // table.shape[1]
        return table[self._b % table.shape[0], self._h // sharing, self._i // rows, self._j // block]

    def by_head(self, name: str, values: tuple[int, ...]) -> Tensor:
        """The value of the query head."""
        if len(values) != self._fields.sizes.heads:
            raise ValueError(f"{name} has {len(values)} values, but q has {self._fields.sizes.heads} heads")
        return self._fields.constant(values)[self._h]

    def look_up(self, table: tuple[tuple[int, ...], ...], row: Tensor, column: Tensor) -> Tensor:
        """An entry of a table."""
        return self._fields.constant(table)[row, column]

    def _at(self, tensor: Tensor, *index: Tensor) -> Tensor:
        return tensor[(self._b, *index) if tensor.dim() > len(index) else index]


def _check_unrepeated(index: Tensor) -> None:
    ordered = index.sort(-1).values
    if bool(((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any()):
        raise ValueError("neighbors holds a key twice in one row")
