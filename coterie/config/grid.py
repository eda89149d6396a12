"""`sweep:` as the trees of its experiments: every combination of its values, each with the place it stands at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from coterie.config.overrides import write
from coterie.config.problems import Problem
from coterie.config.schema import ExperimentConfig, WorldConfig
from coterie.config.tree import Node

SECTION = "sweep"
_FIXED = (SECTION, "imports", "extends")


@dataclass(frozen=True, slots=True)
class Point:
    """One experiment of a sweep: the value of each swept path, and the config they give."""

    settings: Mapping[str, Any]
    config: ExperimentConfig | WorldConfig
    root: Node


def check_grid(root: Node) -> list[Problem]:
    """Paths that cannot be swept, and values that stand twice; what is no list is left for validation to find."""
    problems = []
    for address, values in _axes(root):
        mark = values.key or values.mark
        if address.partition(".")[0] in _FIXED:
            problems.append(Problem(mark, (SECTION, address), "cannot be swept: it is read before the sweep is"))
        seen: list[Any] = []
        for index, value in values.children():
            if value.plain() in seen:
                problems.append(Problem(value.mark, (SECTION, address, index), "stands here twice"))
            seen.append(value.plain())
    return problems


def expand(root: Node) -> Iterator[tuple[dict[str, Any], Node, list[Problem]]]:
    """For each combination, the last path running fastest: its settings, its tree, and what could not be written."""
    axes = [(address, values.key or values.mark, [v for _, v in values.children()]) for address, values in _axes(root)]
    for combination in product(*(values for _, _, values in axes)) if axes else ():
        tree, problems = root.copy(), []
        if isinstance(tree.value, dict):
            del tree.value[SECTION]
        for (address, mark, _), value in zip(axes, combination, strict=True):
            placed = value.copy()
            placed.key = mark
            problems += write(tree, address, placed, mark)
        yield {axis[0]: value.plain() for axis, value in zip(axes, combination, strict=True)}, tree, problems


def _axes(root: Node) -> list[tuple[str, Node]]:
    section = dict(root.children()).get(SECTION)
    if section is None or not isinstance(section.value, dict):
        return []
    return [(str(address), values) for address, values in section.children() if isinstance(values.value, list)]
