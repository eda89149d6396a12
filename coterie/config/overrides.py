"""`-o a.b=c`, or `a.b` and a value from Python: fields set in the tree before it is validated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from coterie.config.problems import Problem, got, unknown
from coterie.config.schema import FileConfig
from coterie.config.shape import default_kind, file_model, may_be_kind, takes_any_name
from coterie.config.tree import Mark, Node, Path, expand_kind, from_python
from coterie.config.yaml import parse_inline

Overrides = Sequence[str] | Mapping[str, Any]
"""`path=value` texts as they stand behind `-o`, or values by path."""
OPTIONS = {"--executor": "executor.kind"}
"""Options of commands that may stand for a path, so that messages name them as they were given."""


def apply(root: Node, overrides: Overrides) -> list[Problem]:
    """Write each value at its path into `root`, in order.

    A path is made of keys and list positions joined by dots (`seats.0.count` or `seats[0].count`); in a text the value
    is a YAML scalar or flow collection. Sections that the file leaves out are made; names that a person gives
    (policies) are not.

    Returns:
        One problem for each override that cannot be written. Unknown fields are left for validation to find.
    """
    if isinstance(overrides, Mapping):
        return [problem for path, value in overrides.items() for problem in _set_value(root, path, value)]
    return [problem for override in overrides for problem in _set_text(root, override)]


def _set_text(root: Node, override: str) -> list[Problem]:
    address, equals, text = override.partition("=")
    is_option = address in OPTIONS
    mark = Mark(f"{address} {text}" if is_option else f"-o {override}")
    address = OPTIONS.get(address, address)
    if not equals:
        return [_no_path(mark)]
    value, problems = parse_inline(text, mark)
    value.key = mark
    return problems or write(root, address, value, mark)


def _set_value(root: Node, address: str, value: Any) -> list[Problem]:
    mark = Mark(f"override {address}")
    return write(root, address, from_python(value, mark), mark)


def _no_path(mark: Mark) -> Problem:
    return Problem(mark, (), "expected path=value, for example seats.0.count=3")


def write(node: Node, address: str, value: Node, mark: Mark) -> list[Problem]:
    """Put a node at the path `address` below `node`; see `apply`. Problems with the path stand at `mark`."""
    steps = tuple(re.sub(r"\[(\d+)\]", r".\1", address.strip()).split("."))
    if not all(steps):
        return [_no_path(mark)]
    path: Path = ()
    model = file_model(node)
    while True:
        step, steps = _take(node, steps)
        if may_be_kind(model, path):
            expand_kind(node)
        if node.value is None:
            node.value = {}
        if problem := _blocked(node, model, path, step, mark, is_last=not steps):
            return [problem]
        path = (*path, step)
        if not steps:
            _set(node, step, value)
            return []
        node = dict(node.children()).get(step) or _set(node, step, Node(default_kind(model, path), mark, mark))


def _take(node: Node, steps: tuple[str, ...]) -> tuple[str | int, tuple[str, ...]]:
    """The next step and what is left. Names may hold dots, so the longest key that exists wins."""
    if isinstance(node.value, list) and steps[0].isdecimal():
        return int(steps[0]), steps[1:]
    if isinstance(node.value, dict):
        for length in range(len(steps), 1, -1):
            if (name := ".".join(steps[:length])) in node.value:
                return name, steps[length:]
    return steps[0], steps[1:]


def _blocked(
    node: Node, model: type[FileConfig], path: Path, step: str | int, mark: Mark, is_last: bool
) -> Problem | None:
    """Why there is no way from `node` to `step`, if there is none."""
    if isinstance(node.value, list):
        if isinstance(step, int) and step < len(node.value):
            return None
        message = f"there is no such item; the list has {len(node.value)} items, counted from 0"
        return Problem(mark, (*path, step), message)
    if not isinstance(node.value, dict):
        return Problem(mark, path, f"is {got(node.plain())}, which has no fields to set")
    if not path and not is_last and step not in node.value:
        if step == "policies" and "policy" in node.value:
            return Problem(mark, (step,), "the file has a single `policy`: write policy.engine and so on")
        if step == "policy" and isinstance(named := dict(node.children()).get("policies", Node({}, mark)).value, dict):
            for name in list(named)[:1]:
                return Problem(mark, (step,), f"the file has `policies`: write policies.{name}.engine and so on")
    if not is_last and step not in node.value and takes_any_name(model, path):
        return unknown(mark, (*path, step), "unknown name", str(step), node.value)
    return None


def _set(node: Node, step: str | int, value: Node) -> Node:
    if isinstance(node.value, list) and isinstance(step, int):
        node.value[step] = value
    elif isinstance(node.value, dict):
        node.value[str(step)] = value
    return value
