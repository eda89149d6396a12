"""Two runs side by side: the same tasks, paired, and what was different in their configs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from coterie.errors import ConfigError
from coterie.experiments.comparisons import paired_row
from coterie.experiments.costs import Cost, episode_cost
from coterie.experiments.record import Episode, Member, RunRecord
from coterie.experiments.societies import cost_row
from coterie.experiments.statistics import wilson

Row = dict[str, Any]


def contrast(first: RunRecord, second: RunRecord) -> Row:
    """What `second` did differently from `first`, JSON-able; differences are second minus first.

    `pairs` holds societies of equal name, or the first societies of both runs where no name is common; `config` every
    field of the facts of the runs that differs.

    Raises:
        ConfigError: a run has not begun, or they are on different benchmarks.
    """
    _check_same_tasks(first, second)
    pairs = [_pair(first, a, second, b) for a, b in _matches(first, second)]
    skipped = ("benchmark", "tasks", "societies")
    sides = [{k: v for k, v in record.facts.items() if k not in skipped} for record in (first, second)]
    return {
        "first": {"name": first.facts["config"]["name"], "digest": first.digest},
        "second": {"name": second.facts["config"]["name"], "digest": second.digest},
        "same_digest": first.digest == second.digest,
        "pairs": pairs,
        "config": list(_differences("", *sides)),
    }


def _check_same_tasks(first: RunRecord, second: RunRecord) -> None:
    if not first.facts or not second.facts:
        raise ConfigError("a run has not begun: there is nothing to compare", remedy="start it with `coterie resume`")
    a, b = (record.facts["config"]["benchmark"] for record in (first, second))
    if first.facts["benchmark"] != second.facts["benchmark"]:
        changed = [f"{d['path']}: {d['first']!r} and {d['second']!r}" for d in _differences("benchmark", a, b)]
        raise ConfigError(
            "the runs are on different benchmarks: their questions or gold answers differ",
            where="; ".join(changed) or "the same settings gave other data",
            remedy="compare runs with the same `benchmark:` section and the same data",
        )


def _matches(first: RunRecord, second: RunRecord) -> list[tuple[Member, Member]]:
    others = {member.label: member for member in second.societies}
    same = [(member, others[member.label]) for member in first.societies if member.label in others]
    if any(not a.is_baseline for a, _ in same):
        return same
    mains = [next((m for m in record.societies if not m.is_baseline), None) for record in (first, second)]
    a, b = mains
    return ([(a, b)] if a is not None and b is not None else []) + same


def _pair(first: RunRecord, a: Member, second: RunRecord, b: Member) -> Row:
    mine, theirs = first.episodes[a.label], second.episodes[b.label]
    tasks = sorted(mine.keys() & theirs.keys())
    old, new = ([episodes[task] for task in tasks] for episodes in (mine, theirs))
    seed = first.facts["config"]["seed"]
    return {
        "first": _side(first, a, old),
        "second": _side(second, b, new),
        "is_baseline": a.is_baseline and b.is_baseline,
        **paired_row([e.is_correct for e in new], [e.is_correct for e in old], seed),
        "same_answer": sum(x.outcome.answer == y.outcome.answer for x, y in zip(old, new, strict=True)),
    }


def _side(record: RunRecord, member: Member, episodes: Sequence[Episode]) -> Row:
    share = wilson(sum(e.is_correct for e in episodes), len(episodes))
    cost = sum((episode_cost(record.turns_of(e)) for e in episodes), Cost())
    return {
        "society": member.label,
        "accuracy": share.value if episodes else None,
        "interval": [share.low, share.high],
        "cost_per_task": {k: v / len(episodes) for k, v in cost_row(cost).items()} if episodes else None,
    }


def _differences(path: str, first: Any, second: Any) -> Iterator[Row]:
    """Every leaf that differs; a field that one side lacks is None there."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() | second.keys()):
            yield from _differences(f"{path}.{key}" if path else str(key), first.get(key), second.get(key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for i, (a, b) in enumerate(zip(first, second, strict=True)):
            yield from _differences(f"{path}[{i}]", a, b)
    elif first != second:
        yield {"path": path, "first": first, "second": second}
