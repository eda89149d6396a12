"""YAML 1.2 to trees with positions: the core schema and nothing more, within hard limits.

ruamel.yaml's round-trip parser gives the events. What has no place in an experiment file is refused here, before any
value exists: tags, directives, merge keys, tabs, several documents, duplicate keys, keys that are no text, numbers that
are not finite, and anything too large, too deep or too often aliased.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from coterie.config.problems import Problem, got, unknown
from coterie.config.tree import Mark, Node, Path, Scalar

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 10_000
"""Values in one file, each alias counted as all that it stands for."""

# YAML 1.2.2, section 10.3.2 (core schema).
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse(text: str, source: str) -> tuple[Node, list[Problem]]:
    """Read one document.

    Args:
        text: The whole file.
        source: Its name, for marks.

    Returns:
        The tree (null if there is nothing usable), and every problem found. A problem of syntax ends the reading.
    """
    return _Reader(text, lambda line, column: Mark(source, line, column)).read()


def parse_inline(text: str, mark: Mark) -> tuple[Node, list[Problem]]:
    """Read a scalar or a flow collection that stands outside a file; all of it is at `mark`."""
    return _Reader(text, lambda line, column: mark, is_inline=True).read()


def resolve(text: str) -> Scalar:
    """What an unquoted scalar means under the core schema. Numbers of more than 100 digits stay text."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if len(text) <= _MAX_DIGITS and _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    if len(text) <= _MAX_DIGITS and _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(?=[iInN])", "", text))
    return text


_MarkAt = Callable[[int, int], Mark]


class _Stop(Exception):
    """Reading cannot go on."""


class _Reader:
    def __init__(self, text: str, mark: _MarkAt, is_inline: bool = False) -> None:
        self.text, self.mark_at, self.is_inline = text, mark, is_inline
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.num_nodes = self.depth = 0

    def read(self) -> tuple[Node, list[Problem]]:
        root = Node(None, self.mark_at(1, 1))
        try:
            self.refuse_tabs()
            self.events: Iterator[Event] = iter(YAML(typ="rt", pure=True).parse(self.text))
            root = self.document() or root
        except _Stop:
            pass
        except ReaderError as error:
            self.add(self.mark_of(error.position), (), "this character is not allowed in YAML")
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            mark = self.mark_at(at.line + 1, at.column + 1) if at else root.mark
            self.add(mark, (), f"not valid YAML: {_reason(error)}")
        except (YAMLError, ValueError) as error:
            self.add(root.mark, (), f"not valid YAML: {error}")
        return root, self.problems

    def document(self) -> Node | None:
        root = None
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    self.stop(self.mark(event), (), "a second document begins here; a file holds one experiment")
                if event.version is not None or event.tags:
                    self.stop(self.mark(event), (), "directives are refused; leave out the line that begins with %")
            elif isinstance(event, NodeEvent):
                root = self.node(event, ())
        return root

    def node(self, event: NodeEvent, path: Path) -> Node:
        start = self.num_nodes
        self.count(event, 1, path)
        if isinstance(event, AliasEvent):
            return self.alias(event, path)
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        if event.ctag is not None:
            name = str(event.ctag).replace("tag:yaml.org,2002:", "!!")
            self.add(self.mark(event), path, f"tags are refused; leave out {name}")
        if isinstance(event, ScalarEvent):
            node = self.scalar(event, path)
        else:
            node = Node(self.collection(event, path), self.mark(event))
        if event.anchor is not None:
            self.anchors[event.anchor] = node, self.num_nodes - start
        return node

    def alias(self, event: AliasEvent, path: Path) -> Node:
        if event.anchor not in self.anchors:
            message = f"there is no finished anchor &{event.anchor}"
            self.problems.append(unknown(self.mark(event), path, message, event.anchor, self.anchors))
            return Node(None, self.mark(event))
        node, size = self.anchors[event.anchor]
        self.count(event, size, path)
        return node.copy()

    def scalar(self, event: ScalarEvent, path: Path) -> Node:
        # `implicit[0]` is true for unquoted scalars only; a tagged one was reported, its text will do.
        is_plain = bool(event.implicit[0])
        value = resolve(event.value) if is_plain else event.value
        if isinstance(value, str) and _SURROGATE.search(value):
            value = self.join_surrogates(value, event, path)
        if isinstance(value, float) and not math.isfinite(value):
            self.add(self.mark(event), path, f"numbers must be finite, got {event.value}")
            value = 0.0
        return Node(value, self.mark(event), is_plain=is_plain)

    def join_surrogates(self, value: str, event: ScalarEvent, path: Path) -> str:
        r"""JSON writes one character as two escapes (`\ud83d\ude00`), and YAML is to read JSON."""
        joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined:
            self.add(self.mark(event), path, "an escape in this text is half a character")
        return joined

    def collection(self, event: CollectionStartEvent, path: Path) -> dict[str, Node] | list[Node]:
        if self.depth >= MAX_DEPTH:
            self.stop(self.mark(event), (), f"nested deeper than {MAX_DEPTH} levels")
        if self.is_inline and not event.flow_style:
            message = "write mappings as {a: b}, lists as [a, b], and quote text that holds a colon"
            self.stop(self.mark(event), (), message)
        self.depth += 1
        value = self.mapping(path) if isinstance(event, MappingStartEvent) else self.sequence(path)
        self.depth -= 1
        return value

    def sequence(self, path: Path) -> list[Node]:
        return [self.node(event, (*path, index)) for index, event in enumerate(self.until_end())]

    def mapping(self, path: Path) -> dict[str, Node]:
        children: dict[str, Node] = {}
        for event in self.until_end():
            key = self.node(event, path)
            name = self.key_name(key, path)
            follows = next(self.events)
            assert isinstance(follows, NodeEvent)
            child = self.node(follows, (*path, name))
            child.key = key.mark
            if child.value is None:
                child.mark = key.mark  # an empty value would stand wherever the next token begins
            if name in children:
                first = children[name].key
                self.add(key.mark, (*path, name), f"duplicate key, first written in line {first.line if first else 0}")
            children.setdefault(name, child)
        return children

    def key_name(self, key: Node, path: Path) -> str:
        name = key.value if isinstance(key.value, str) else str(key.plain())
        if name == "<<" and key.is_plain:
            self.add(key.mark, (*path, name), "merge keys are not YAML 1.2; use `extends`, or write the fields out")
        elif not isinstance(key.value, str):
            self.add(key.mark, (*path, name), f"keys must be text, got {got(key.plain())}; quote it if it is a name")
        return name

    def until_end(self) -> Iterator[NodeEvent]:
        """Events of this collection's items; the caller consumes what belongs to each."""
        for event in self.events:
            if not isinstance(event, NodeEvent):
                return
            yield event

    def count(self, event: Event, number: int, path: Path) -> None:
        self.num_nodes += number
        if self.num_nodes > MAX_NODES:
            self.stop(self.mark(event), path, f"more than {MAX_NODES} values (aliases count as what they stand for)")

    def refuse_tabs(self) -> None:
        if (position := self.text.find("\t")) >= 0:
            self.stop(self.mark_of(position), (), "tabs are refused; use spaces (in quoted text write \\t)")

    def mark(self, event: Event) -> Mark:
        return self.mark_at(event.start_mark.line + 1, event.start_mark.column + 1)

    def mark_of(self, position: int) -> Mark:
        before = self.text[:position]
        return self.mark_at(before.count("\n") + 1, position - before.rfind("\n"))

    def add(self, mark: Mark, path: Path, message: str) -> None:
        self.problems.append(Problem(mark, path, message))

    def stop(self, mark: Mark, path: Path, message: str) -> None:
        self.add(mark, path, message)
        raise _Stop


def _reason(error: MarkedYAMLError) -> str:
    """The parser's complaint in one line."""
    parts = [part for part in (error.context, error.problem) if part]
    return ", ".join(parts) or "cannot be read"
