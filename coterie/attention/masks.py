"""Masks as data: which query may attend to which key, said by what is known about the two tokens.

Masks combine with `&` and `|`. They are frozen and hashable, and equal if they hold the same parts in any order.
"""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
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
