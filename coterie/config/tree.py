"""Experiment files as trees that remember where every value came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place: a file with line and column (both from 1), or, with line 0, the text of an override."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(slots=True)
class Node:
    """A value, the place where it begins, and, if it stands in a mapping, the place of its key."""

    value: Scalar | dict[str, Node] | list[Node]
    mark: Mark
    key: Mark | None = None
    is_plain: bool = False
    """An unquoted scalar: what it becomes after substitution is read as YAML once more."""

    def copy(self) -> Node:
        """A copy that shares no node with this one."""
        value = self.value
        if isinstance(value, dict):
            value = {name: child.copy() for name, child in value.items()}
        elif isinstance(value, list):
            value = [child.copy() for child in value]
        return Node(value, self.mark, self.key, self.is_plain)

    def children(self) -> Iterator[tuple[str | int, Node]]:
        """Steps and nodes one level down."""
        if isinstance(self.value, dict):
            yield from self.value.items()
        elif isinstance(self.value, list):
            yield from enumerate(self.value)

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """This node and all below it, with their paths."""
        yield path, self
        for step, child in self.children():
            yield from child.walk((*path, step))

    def nearest(self, path: Path) -> tuple[Path, Node]:
        """The node at `path`, or the deepest one above it that exists, with its own path."""
        node, taken = self, 0
        for step in path:
            child = dict(node.children()).get(step)
            if child is None:
                break
            node, taken = child, taken + 1
        return path[:taken], node

    @property
    def culprit(self) -> Mark:
        """Where a mapping is wrong as a whole: at the overrides inside it if there are any, else where it begins."""
        inside = [node.mark.source for _, node in self.walk() if not node.mark.line]
        found = dict.fromkeys(source for source in inside if source != self.mark.source)
        return Mark(", ".join(found)) if found else self.mark

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {name: child.plain() for name, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def from_python(value: Any, mark: Mark) -> Node:
    """A tree of a Python value, all of it at one place. Objects that YAML cannot say are kept for the validator."""
    if isinstance(value, Mapping):
        return Node({str(name): from_python(child, mark) for name, child in value.items()}, mark, mark)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return Node([from_python(child, mark) for child in value], mark, mark)
    return Node(value, mark, mark)


def expand_kind(node: Node) -> None:
    """Write the short form `name` of a part as `{kind: name}`, so that fields can be set beside it."""
    if isinstance(node.value, str):
        node.value = {"kind": Node(node.value, node.mark, node.mark)}


def merge(base: Node, over: Node) -> Node:
    """`over` laid on `base`: mappings merge, all else replaces. A mapping of another `kind` replaces too."""
    if not isinstance(over.value, dict):
        return over
    if isinstance(base.value, str) and "kind" not in over.value:
        expand_kind(base)
    if not isinstance(base.value, dict) or _differs_in_kind(base.value, over.value):
        return over
    merged = dict(base.value)
    for name, child in over.value.items():
        merged[name] = merge(merged[name], child) if name in merged else child
    return Node(merged, over.mark, over.key)


def _differs_in_kind(base: dict[str, Node], over: dict[str, Node]) -> bool:
    return "kind" in over and "kind" in base and over["kind"].value != base["kind"].value


def show(path: Path) -> str:
    """`("seats", 0, "count")` as `seats[0].count`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
