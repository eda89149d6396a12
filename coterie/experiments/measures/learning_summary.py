"""The summary of a society's training: every number, recomputed from its journal.

Its episodes are sittings of tasks with ever other policies, so that no rate over all of them means anything. What is
told is how each quantity went from iteration to iteration, and its means over the first and the last quarter of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from coterie.experiments.measures.training_summary import attempt_rows
from coterie.experiments.records.updates import (
    LEARNING,
    ROLES,
    Curve,
    Update,
    curves,
    place_of,
    read_updates,
    sum_seconds,
)
from coterie.experiments.statistics.inference import independent_shares, wilson
from coterie.journal import Journal
from coterie.orchestration.sittings import iteration_of, task_of

Row = dict[str, Any]
_TELEMETRY = ("speed/tokens_per_second", "time/")
"""Curves that are no facts."""


def summarise_learning(journal: Journal) -> Row:
    """`facts` and `telemetry` of a run, finished or not."""
    updates, run = read_updates(journal), journal.get("run") or {}
    found = [_curve_row(curve) for curve in curves(updates)]
    is_fact = [not row["key"].startswith(_TELEMETRY) for row in found]
    return {
        "facts": {
            "run": _run(run),
            "digest": journal.digest(),
            "learning": {
                **_progress(run["config"], journal, updates),
                "curves": [row for row, fact in zip(found, is_fact, strict=True) if fact],
                "change": _change(journal, updates),
                "roles": _roles(updates), "policies": _policies(updates), "scores": _scores(last_quarter(updates)),
            },
        },
        "telemetry": {
            **_telemetry(journal, updates),
            "curves": [row for row, fact in zip(found, is_fact, strict=True) if not fact],
        },
    }  # fmt: skip


def _run(run: Mapping[str, Any]) -> Row:
    config = run["config"]
    return {
        "name": config["name"], "seed": config["seed"], "determinism": config["determinism"],
        "benchmark": {**config["benchmark"], "fingerprint": run["benchmark"]},
        "societies": run["societies"], "templates": run["templates"], "plugins": run["plugins"], "config": config,
    }  # fmt: skip


def _progress(config: Mapping[str, Any], journal: Journal, updates: Sequence[Update]) -> Row:
    sittings = [fact.payload["task"] for fact in journal.facts("episode")]
    planned = config["learning"]["iterations"]
    rows = [update.facts for update in updates]
    return {
        "iterations": len(rows), "planned": planned, "is_complete": len(rows) == planned,
        "quarter": quarter(updates), "episodes": len(sittings), "tasks": len({task_of(one) for one in sittings}),
        "held_out": config["learning"]["held_out"],
        "turns": sum(row["turns"] for row in rows), "tokens": sum(row["tokens"] for row in rows),
        "prompt_tokens": sum(row["prompt_tokens"] for row in rows),
        "checkpoint": max((row["iteration"] for row in rows if "checkpoint" in row), default=None),
    }  # fmt: skip


def quarter(updates: Sequence[Update]) -> int:
    """How many iterations are one: at least one, if there is any."""
    return min(max(len(updates) // 4, 1), len(updates))


def last_quarter(updates: Sequence[Update]) -> Sequence[Update]:
    """The iterations that tell how things were in the end."""
    return updates[len(updates) - quarter(updates) :]


def _curve_row(curve: Curve) -> Row:
    """A curve with its means over the first and the last quarter."""
    size = min(max(len(curve.values) // 4, 1), len(curve.values))
    ends = {"first": _mean(curve.values[:size]), "last": _mean(curve.values[-size:])}
    return {**asdict(curve), "group": curve.group, "values": list(curve.values), **ends}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _change(journal: Journal, updates: Sequence[Update]) -> Row | None:
    """How much more often solvers are right in the last quarter than in the first; None where there is but one.

    Answers to one task are alike, and the shares are of different tasks: the interval is Newcombe's for as many items
    as there are tasks, too wide rather than too narrow.
    """
    size = quarter(updates)
    sides = {"first": updates[:size], "last": updates[len(updates) - size :]}
    rights = {side: _mean([update.facts["solver"]["accuracy"] for update in some]) for side, some in sides.items()}
    first, last = rights["first"], rights["last"]
    if len(updates) < 2 or first is None or last is None:
        return None
    tasks = {side: _tasks(journal, some) for side, some in sides.items()}
    found = independent_shares(*(wilson(share * len(tasks[side]), len(tasks[side]))
                                 for side, share in (("last", last), ("first", first))))  # fmt: skip
    return {
        "difference": found.value, "interval": [found.low, found.high],
        "tasks": {side: len(some) for side, some in tasks.items()}, "common": len(tasks["first"] & tasks["last"]),
        "answers": {side: sum(_answers(update) for update in some) for side, some in sides.items()},
    }  # fmt: skip


def _tasks(journal: Journal, updates: Sequence[Update]) -> set[str]:
    """Those that were worked in these iterations."""
    numbers = {update.iteration for update in updates}
    sittings = (fact.payload["task"] for fact in journal.facts("episode"))
    return {task_of(sitting) for sitting in sittings if iteration_of(sitting) in numbers}


def _answers(update: Update) -> int:
    return int(update.facts["roles"].get("answer", {}).get("turns", 0))


def _roles(updates: Sequence[Update]) -> list[Row]:
    """Of the last iteration."""
    found = updates[-1].facts["roles"] if updates else {}
    return [{"role": role, "label": ROLES.get(role, role), **found[role]} for role in sorted(found, key=place_of)]


def _policies(updates: Sequence[Update]) -> list[Row]:
    """Of the last iteration, and the curves of what is shown of each."""
    if not updates:
        return []
    rows = []
    for name, found in updates[-1].facts["policies"].items():
        history = [update.facts["policies"].get(name, {}).get("learning", {}) for update in updates]
        shown = {metric: [row.get(metric) for row in history] for metric in LEARNING}
        lines = {metric: values for metric, values in shown.items() if any(value is not None for value in values)}
        rows.append({"policy": name, **found, "curves": lines})
    return rows


def _scores(updates: Sequence[Update]) -> Row | None:
    """How many right and wrong solutions got each score; None where nobody judged."""
    judged = [judge for update in updates if (judge := update.facts.get("judge"))]
    if not judged:
        return None
    sums = {kind: [sum(column) for column in zip(*(j[kind] for j in judged), strict=True)] for kind in _TRUTHS}
    return {"rulings": sum(judge["rulings"] for judge in judged), **sums}


_TRUTHS = ("right", "wrong")


def _telemetry(journal: Journal, updates: Sequence[Update]) -> Row:
    """How it went: attempts, failures, and where the time went."""
    attempts = attempt_rows(journal)
    failures = Counter(note.payload["code"] for note in journal.notes("failure"))
    parts, seconds = sum_seconds(updates), sum(row["seconds"] or 0.0 for row in attempts)
    timed = [update for update in updates if update.tokens and update.seconds.get("rollout")]
    rolling = sum(update.seconds["rollout"] for update in timed)
    tokens = sum(update.tokens for update in timed)
    return {
        "status": attempts[-1]["status"] if attempts else "not started",
        "reason": attempts[-1]["reason"] if attempts else "",
        "attempts": attempts,
        "totals": {
            "attempts": len(attempts), "seconds": seconds,
            "parts": {**parts, "other": max(seconds - sum(parts.values()), 0.0)} if parts else {},
            "tokens_per_second": tokens / rolling if rolling else None,
            "tokens_per_second_overall": tokens / seconds if seconds else None,
        },
        "failures": {"count": failures.total(), "by_code": dict(sorted(failures.items()))},
    }  # fmt: skip
