"""Several runs sorted by what they were asked to do: settings, each with its repeats under other seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coterie.errors import ConfigError
from coterie.experiments.differences import differences, tells, within_kinds
from coterie.experiments.records.run import RunRecord

Row = dict[str, Any]
Repeat = tuple[int, int]
"""A seed, and the how-manieth run of the setting under it."""
_MOST_NAMED = 3
_SHOWN_HASH = 8
_LEADERS = ("kind", "mode", "preset")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of running an experiment, with the runs that were done so."""

    label: str
    runs: dict[Repeat, RunRecord]

    @property
    def first(self) -> RunRecord:
        """Any run tells what all of them were asked to do."""
        return next(iter(self.runs.values()))


def sort_runs(records: Sequence[RunRecord], *, pool: bool) -> tuple[list[Setting], list[Row]]:
    """The settings of several runs in the order given, and every field in which they differ.

    Args:
        records: Of runs that have begun.
        pool: Runs that differ in nothing but their seed are repeats of one setting; otherwise each stands for itself.

    Returns:
        The settings, and rows of `path` and `values` (one for each setting; None where it lacks the field).

    Raises:
        ConfigError: a run has not begun.
    """
    if not all(record.facts for record in records):
        raise ConfigError("a run has not begun: there is nothing to compare", remedy="start it with `coterie resume`")
    groups, differing = sort_facts([record.facts for record in records], pool=pool)
    return [Setting(label, _by_repeat([records[i] for i in found])) for label, found in groups], differing


def sort_facts(facts: Sequence[Mapping[str, Any]], *, pool: bool) -> tuple[list[tuple[str, list[int]]], list[Row]]:
    """`sort_runs` for the facts `run` of any runs: labels with the indices of their runs, and the differences."""
    groups: dict[str, list[int]] = {}
    for index, found in enumerate(facts):
        key = json.dumps(_asked(found, pool=True), sort_keys=True) if pool else str(index)
        groups.setdefault(key, []).append(index)
    asked = [_asked(facts[found[0]], pool=pool) for found in groups.values()]
    names = [facts[found[0]]["config"]["name"] for found in groups.values()]
    labels = _labels(names, [_close_lists(value) for value in asked])
    return list(zip(labels, groups.values(), strict=True)), _differences(asked)


def pair_repeats(a: Setting, b: Setting) -> list[tuple[RunRecord, RunRecord]]:
    """Runs under equal seeds; where the two have no seed in common, runs in the order of their seeds."""
    common = [repeat for repeat in a.runs if repeat in b.runs]
    if common:
        return [(a.runs[repeat], b.runs[repeat]) for repeat in common]
    return list(zip(a.runs.values(), b.runs.values(), strict=False))


def has_same_tasks(a: RunRecord, b: RunRecord) -> bool:
    """The same questions with the same gold answers."""
    return bool(a.facts["benchmark"] == b.facts["benchmark"])


def check_same_tasks(records: Sequence[RunRecord]) -> None:
    """Refuse runs of which no two can be paired.

    Raises:
        ConfigError: no two runs are on the same tasks.
    """
    first, second = records[0], records[-1]
    if any(has_same_tasks(a, b) for i, a in enumerate(records) for b in records[i + 1 :]):
        return
    found = differences("benchmark", [record.facts["config"]["benchmark"] for record in (first, second)])
    rows = sorted(within_kinds(list(found)), key=lambda row: str(row["path"]).count("."))
    changed = [f"{row['path']}: {row['values'][0]!r} and {row['values'][1]!r}" for row in rows]
    if (more := len(changed) - _MOST_NAMED) > 0:
        changed = [*changed[:_MOST_NAMED], f"and {more} more"]
    raise ConfigError(
        "the runs are on different benchmarks: their questions or gold answers differ",
        where="; ".join(changed) or "the same settings gave other data",
        remedy="compare runs with the same `benchmark:` section and the same data",
    )


def _asked(found: Mapping[str, Any], *, pool: bool) -> Row:
    """All that the facts of a run follow from; without what only names it, or counts its repeats."""
    facts = {name: found.get(name) for name in ("config", "templates", "plugins")}
    dropped = ("name", "seed") if pool else ("name",)
    return {**facts, "config": {k: v for k, v in found["config"].items() if k not in dropped}}


def _differences(asked: Sequence[Row]) -> list[Row]:
    """All of them, but for templates that only some of the settings fill in: their protocols are not the same."""
    rows = differences("", asked)
    return [r for r in rows if not r["path"].startswith("templates.") or len({*r["values"]} - {None}) > 1]


def _close_lists(value: Any) -> Any:
    """Lists of scalars as tuples: a label says all of such a list, not which of its items differ."""
    if isinstance(value, dict):
        return {name: _close_lists(inner) for name, inner in value.items()}
    if isinstance(value, list):
        is_flat = not any(isinstance(item, dict | list) for item in value)
        return tuple(value) if is_flat else [_close_lists(item) for item in value]
    return value


def _by_repeat(records: Sequence[RunRecord]) -> dict[Repeat, RunRecord]:
    found: dict[Repeat, RunRecord] = {}
    for record in sorted(records, key=lambda r: int(r.facts["config"]["seed"])):
        seed = record.facts["config"]["seed"]
        found[seed, sum(s == seed for s, _ in found)] = record
    return found


def _labels(names: Sequence[str], asked: Sequence[Row]) -> list[str]:
    """Settings by the names of their experiments; those of one name by what tells them from each other."""
    labels = list(names)
    for name in set(names):
        mine = [index for index, other in enumerate(names) if other == name]
        telling = _differences([asked[index] for index in mine])
        for position, index in enumerate(mine if len(mine) > 1 else ()):
            label = _label(position, telling)
            labels[index] = label if len(mine) == len(names) else f"{name}, {label}"
    return labels


def _label(index: int, differing: Sequence[Row]) -> str:
    """A setting by the fields that tell it from the others; by its number where these are none, or too many."""
    leaders = {_section(row["path"]): row for row in reversed(differing) if _leads(row["path"])}
    telling = [row for row in differing if not any(_follows(row, leader) for leader in leaders.values())]
    if not 0 < len(telling) <= _MOST_NAMED:
        return f"run {index + 1}"
    paths = [row["path"] for row in telling]
    return ", ".join(f"{_short(row['path'], paths)}={show_value(row['values'][index])}" for row in telling)


def _follows(row: Row, leader: Row) -> bool:
    """Whether a field is as it is because another of its section is as that is."""
    is_below = row["path"].startswith(f"{_section(leader['path'])}.") and row["path"] != leader["path"]
    return is_below and not tells(row["values"], leader["values"])


def _leads(path: str) -> bool:
    """Whether other fields of the same section may follow from this one."""
    return path.rpartition(".")[2] in _LEADERS


def _section(path: str) -> str:
    return path.rpartition(".")[0]


def _short(path: str, paths: Sequence[str]) -> str:
    """The shortest end of a path that no other has; `kind` alone says nothing."""
    steps = path.split(".")
    start = 2 if steps[-1] == "kind" else 1
    for size in range(start, len(steps)):
        end = ".".join(steps[-size:])
        if sum(other == end or other.endswith(f".{end}") for other in paths) == 1:
            return end.removesuffix(".kind")
    return path


def show_value(value: Any) -> str:
    """A config's value as a label has it: words, and lists of words, as they are."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return "-".join(value)
    if isinstance(value, str):
        is_hash = len(value) == 64 and all(c in "0123456789abcdef" for c in value)
        return value[:_SHOWN_HASH] if is_hash else value
    return json.dumps(value)
