"""Masks as data: which query may attend to which key, said by what is known about the two tokens.

Masks combine with `&` and `|`. They are frozen and hashable, and equal if they hold the same parts in any order.
"""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from torch import Tensor

from coterie.attention.data import Pairs

Rule = Literal["never", "always", "equal", "overlap", "disjoint"]
"""What goes between two roles: nothing, everything, or what has equal bitsets, a common group, or none in common."""

_UNBOUNDED = 2**62


class Mask(ABC):
    """A statement about pairs of tokens."""

    @abstractmethod
    def allows(self, pairs: Pairs) -> Tensor:
        """Bool, broadcastable to the pairs: may the query attend to the key?"""

    def __and__(self, other: Mask) -> Mask:
        return _combined(And, self, other)

    def __or__(self, other: Mask) -> Mask:
        return _combined(Or, self, other)


@dataclass(frozen=True, slots=True)
class And(Mask):
    """What all of the masks allow. Written `a & b`."""

    masks: tuple[Mask, ...]

    def allows(self, pairs: Pairs) -> Tensor:
        return functools.reduce(operator.and_, [mask.allows(pairs) for mask in self.masks])


@dataclass(frozen=True, slots=True)
class Or(Mask):
    """What one of the masks allows. Written `a | b`."""

    masks: tuple[Mask, ...]

    def allows(self, pairs: Pairs) -> Tensor:
        return functools.reduce(operator.or_, [mask.allows(pairs) for mask in self.masks])


def _combined(kind: type[And] | type[Or], *masks: Mask) -> Mask:
    parts = {part for mask in masks for part in (mask.masks if isinstance(mask, kind) else (mask,))}
    return kind(tuple(sorted(parts, key=repr))) if len(parts) > 1 else parts.pop()


@dataclass(frozen=True, slots=True)
class Causal(Mask):
    """The key stands at or before the query. Reads `position`."""

    def allows(self, pairs: Pairs) -> Tensor:
        return pairs.key("position") <= pairs.query("position")


@dataclass(frozen=True, slots=True)
class Window(Mask):
    """The key stands at most `left` places before and `right` places after the query. Reads `position`.

    None is no bound, a tuple has one bound for each query head.
    """

    left: int | tuple[int | None, ...] | None = None
    right: int | tuple[int | None, ...] | None = None

    def allows(self, pairs: Pairs) -> Tensor:
        ahead = pairs.key("position") - pairs.query("position")
        return (-ahead <= _bound("left", self.left, pairs)) & (ahead <= _bound("right", self.right, pairs))


def _bound(name: str, bound: int | tuple[int | None, ...] | None, pairs: Pairs) -> Tensor | int:
    if isinstance(bound, tuple):
        return pairs.by_head(f"Window.{name}", tuple(_UNBOUNDED if b is None else b for b in bound))
    return _UNBOUNDED if bound is None else bound


@dataclass(frozen=True, slots=True)
class Segments(Mask):
    """Both are of one segment, and no padding. Reads `segment`."""

    def allows(self, pairs: Pairs) -> Tensor:
        segment = pairs.key("segment")
        return (pairs.query("segment") == segment) & (segment >= 0)


@dataclass(frozen=True, slots=True)
class Roles(Mask):
    """What the table says for the query's role (row) and the key's role (column).

    Reads `role`, and `group` if a rule asks for it.

    Raises:
        ValueError: The table is not square, or holds an unknown rule.
    """

    table: tuple[tuple[Rule, ...], ...]

    def __post_init__(self) -> None:
        rules = [rule for row in self.table for rule in row]
        if any(len(row) != len(self.table) for row in self.table) or not rules:
            raise ValueError(f"Roles.table is not square: its rows have {[len(row) for row in self.table]} rules")
        if unknown := set(rules) - set(get_args(Rule)):
            raise ValueError(f"Roles.table holds {', '.join(sorted(unknown))}; rules are {', '.join(get_args(Rule))}")

    def allows(self, pairs: Pairs) -> Tensor:
        rules, roles = get_args(Rule), len(self.table)
        table = tuple(tuple(rules.index(rule) for rule in row) for row in self.table)
        said = pairs.look_up(table, pairs.query("role", roles), pairs.key("role", roles))
        allowed = said == rules.index("always")
        if all(rule in ("never", "always") for row in self.table for rule in row):
            return allowed
        mine, theirs = pairs.query("group"), pairs.key("group")
        shared = (mine & theirs) != 0
        for rule, holds in (("equal", mine == theirs), ("overlap", shared), ("disjoint", ~shared)):
            allowed = allowed | ((said == rules.index(rule)) & holds)
        return allowed


@dataclass(frozen=True, slots=True)
class Emitted(Mask):
    """The key was emitted earlier, or at the same time by the same agent. Reads `time` and `agent`.

    Source: the attention of Group Think (arXiv 2505.11107), where agents write side by side into one cache.
    """

    def allows(self, pairs: Pairs) -> Tensor:
        mine, theirs = pairs.query("time"), pairs.key("time")
        return (theirs < mine) | ((theirs == mine) & (pairs.query("agent") == pairs.key("agent")))


@dataclass(frozen=True, slots=True)
class Hops(Mask):
    """A path of at most `limit` hops leads to the key. Reads `hops`."""

    limit: int

    def allows(self, pairs: Pairs) -> Tensor:
        hops = pairs.hops()
        return (hops >= 0) & (hops <= self.limit)


@dataclass(frozen=True, slots=True)
class Neighbors(Mask):
    """The key is in the query's list. Reads `neighbors`."""

    def allows(self, pairs: Pairs) -> Tensor:
        return pairs.listed()


@dataclass(frozen=True, slots=True)
class Neighborhood(Mask):
    """The key lies in the query's window on each of one to three axes: generalized neighborhood attention.

    `position` counts the places of a grid of `shape` row by row. Of an axis with n places, the query at i sees the w
    places around c, which is i or, for `stride` t, a place shared by t neighbours; at the ends the window moves
    inwards and keeps its size:

        c = clamp(min(t (i // t) + t // 2, n - 1), w // 2, n - 1 - (w - 1) // 2),    c - w // 2 <= j <= c + (w - 1) // 2

    With `causal` it sees j <= i alone, of the w places that end with the last of its t neighbours. `dilation` d splits
    an axis into d interleaved ones. Numbers stand for all axes, tuples have one for each. Reads `position`.

    Source: GNA (arXiv 2504.16922). Stride 1 is neighborhood attention, stride = window is attention in blocks.

    Raises:
        ValueError: There are no axes, or a tuple does not have one value for each, or a window is wider than its axis.
    """

    shape: tuple[int, ...]
    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    dilation: int | tuple[int, ...] = 1
    causal: bool | tuple[bool, ...] = False

    def __post_init__(self) -> None:
        for name in ("window", "stride", "dilation", "causal"):
            object.__setattr__(self, name, _by_axis(f"Neighborhood.{name}", getattr(self, name), self.shape))
        _check_positive("Neighborhood", self, "shape", "window", "stride", "dilation")
        for n, w, d in zip(self.shape, _tuple(self.window), _tuple(self.dilation), strict=True):
            if w * d > n:
                raise ValueError(f"Neighborhood.window is {w} with dilation {d}, wider than its axis of {n} places")

    def allows(self, pairs: Pairs) -> Tensor:
        axes = zip(*(_tuple(x) for x in (self.window, self.stride, self.dilation, self.causal)), strict=True)
        places = zip(self.shape, _places(pairs.query("position"), self.shape),
                     _places(pairs.key("position"), self.shape), strict=True)  # fmt: skip
        return functools.reduce(
            operator.and_, [_in_window(*place, *axis) for place, axis in zip(places, axes, strict=True)]
        )


def _in_window(n: int, query: Tensor, key: Tensor, window: int, stride: int, dilation: int, causal: bool) -> Tensor:
    group = query % dilation
    own = (key % dilation) == group
    query, key, last = query // dilation, key // dilation, (-group + (n - 1)) // dilation
    leader = query // stride * stride
    if causal:
        leader = (leader + stride - 1).clamp(max=last)
        return own & (key <= query) & (key > leader - window)
    before, after = window // 2, (window - 1) // 2
    centre = (leader + stride // 2).clamp(max=last).clamp(min=before).clamp(max=last - after)
    return own & (key >= centre - before) & (key <= centre + after)


@dataclass(frozen=True, slots=True)
class Blocks(Mask):
    """The key lies in the query's block of `size` places, or in the `halo` places around it. Reads `position`.

    By default tokens lie on one axis; with `shape` they fill a grid of one to three, row by row, and `size` and `halo`
    may be tuples with a value for each. Blocks begin `shift` places earlier on every axis, and what is cut off at its
    ends is a block for itself; a tuple of shifts has one for each query head.

    Source: HaloNet (arXiv 2103.12731) for halos, Swin Transformer (arXiv 2103.14030) and LongLoRA (arXiv 2309.12307)
    for shifts.

    Raises:
        ValueError: A tuple does not have one value for each axis, or a size is below 1.
    """

    size: int | tuple[int, ...]
    halo: int | tuple[int, ...] = 0
    shift: int | tuple[int, ...] = 0
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("size", "halo"):
            object.__setattr__(self, name, _by_axis(f"Blocks.{name}", getattr(self, name), self.shape or (1,)))
        _check_positive("Blocks", self, "size")

    def allows(self, pairs: Pairs) -> Tensor:
        shift = pairs.by_head("Blocks.shift", self.shift) if isinstance(self.shift, tuple) else self.shift
        places = (_places(pairs.query("position"), self.shape), _places(pairs.key("position"), self.shape))
        allowed = []
        for query, key, size, halo in zip(*places, _tuple(self.size), _tuple(self.halo), strict=True):
            start = (query + shift) // size * size - shift
            allowed += [key >= start - halo, key < start + (size + halo)]
        return functools.reduce(operator.and_, allowed)


@dataclass(frozen=True, slots=True)
class Listed(Mask):
    """The key lies in a block that the query's list names: block n holds the keys n * `block` to (n + 1) * `block` - 1.

    Each `rows` consecutive queries have one list, by default each query its own. Reads `blocks`. Blocks are counted in
    the order of the tensors, whatever `position` says.

    Raises:
        ValueError: A size is below 1.
    """

    block: int
    rows: int = 1

    def __post_init__(self) -> None:
        _check_positive("Listed", self, "block", "rows")

    def allows(self, pairs: Pairs) -> Tensor:
        return pairs.in_blocks(self.block, self.rows)


def _tuple(value: object) -> tuple[int, ...]:
    assert isinstance(value, tuple)
    return value


def _by_axis(name: str, value: int | tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = len(shape)
    values = value if isinstance(value, tuple) else (value,) * axes
    if len(values) != axes or not 1 <= axes <= 3:
        raise ValueError(f"{name} is {value} on {axes} axes, expected a number or a tuple of one for each of 1 to 3")
    return values


def _check_positive(kind: str, mask: Mask, *names: str) -> None:
    for name in names:
        value = getattr(mask, name)
        if any(size < 1 for size in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{kind}.{name} is {value}, expected 1 or more")


def _places(position: Tensor, shape: tuple[int, ...] | None) -> list[Tensor]:
    """The coordinate on each axis."""
    if shape is None:
        return [position]
    return [position // prod(shape[axis + 1 :]) % n for axis, n in enumerate(shape)]
