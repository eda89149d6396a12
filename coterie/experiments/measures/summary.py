"""The summary of a run: every number, recomputed from its journal.

`facts` follow from what was said and judged: a run that was killed and resumed has the same as an undisturbed one.
`telemetry` is how it went this time.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from coterie.experiments.measures.comparisons import comparison_facts
from coterie.experiments.measures.costs import Cost, cost_row, episode_cost, money
from coterie.experiments.measures.deception import deception_facts
from coterie.experiments.measures.learning_summary import summarise_learning
from coterie.experiments.measures.societies import society_facts
from coterie.experiments.measures.telemetry import read_telemetry
from coterie.experiments.measures.training_summary import summarise_training
from coterie.experiments.records.run import RunRecord, read_record, whole_replies
from coterie.experiments.records.training import is_of_world
from coterie.experiments.records.updates import is_training
from coterie.journal import Journal
from coterie.types import Turn

SUMMARY_VERSION = 1
_DIGITS = 10


def summarize(journal: Journal) -> dict[str, Any]:
    """Everything the report shows, JSON-able, from an open journal (reading is enough); deterministic.

    A run that is not finished gives a summary of what is there: `facts.totals` says how much of it.
    """
    tidied: dict[str, Any] = tidy({"version": SUMMARY_VERSION, **_summarize(journal)})
    return tidied


def _summarize(journal: Journal) -> dict[str, Any]:
    if is_of_world(journal.get("run") or {}):
        return summarise_training(journal)
    if is_training(journal.get("run") or {}):
        return summarise_learning(journal)
    record = read_record(journal)
    return {"facts": summarize_facts(record), "telemetry": read_telemetry(journal, record)}


def summarize_facts(record: RunRecord) -> dict[str, Any]:
    """The part of the summary that depends on facts alone."""
    if not record.facts:
        return {"run": None, "digest": record.digest, "totals": None, "societies": [], "comparisons": [],
                "self_consistency": None, "sharing": None, "deception": None}  # fmt: skip
    seed = record.facts["config"]["seed"]
    comparisons, curve = comparison_facts(record, seed)
    return {
        "run": _run(record),
        "digest": record.digest,
        "totals": _totals(record),
        "sharing": _sharing(record),
        "societies": [society_facts(record, member) for member in record.societies],
        "comparisons": comparisons,
        "self_consistency": curve,
        "deception": deception_facts(record),
    }


def _run(record: RunRecord) -> dict[str, Any]:
    config = record.facts["config"]
    return {
        "name": config["name"],
        "seed": config["seed"],
        "determinism": config["determinism"],
        "benchmark": {**config["benchmark"], "fingerprint": record.facts["benchmark"]},
        "templates": record.facts["templates"],
        "plugins": record.facts["plugins"],
        "config": config,
    }


def _totals(record: RunRecord) -> dict[str, Any]:
    planned, complete = record.facts["tasks"], len(record.complete_tasks)
    turns = list(record.turns.values())
    return {
        "tasks_planned": planned,
        "tasks_complete": complete,
        "is_complete": complete == planned,
        "episodes": sum(map(len, record.episodes.values())),
        "turns": len(turns),
        "unparsed_turns": sum(t.answer is None and t.place.purpose == "answer" for t in whole_replies(turns)),
        "timed_out_verdicts": sum(verdict.timed_out for verdict in record.verdicts.values()),
        "cost": cost_row(sum(map(episode_cost, _by_task(turns)), Cost())),
        "money": money(turns, record.facts["config"]["policies"]),
    }


def _by_task(turns: list[Turn]) -> list[list[Turn]]:
    groups: dict[str, list[Turn]] = {}
    for turn in turns:
        groups.setdefault(turn.place.task, []).append(turn)
    return list(groups.values())


def _sharing(record: RunRecord) -> dict[str, Any]:
    """How many agent turns the societies (without baselines) asked for, and how many of these were one and the same."""
    asked: Counter[str] = Counter()
    tasks = set()
    for member in record.societies:
        if not member.is_baseline:
            for episode in record.episodes[member.label].values():
                asked.update(episode.outcome.turns)
                tasks.add(episode.task)
    return {
        "asked": asked.total(),
        "distinct": len(asked),
        "shared": sum(count > 1 for count in asked.values()),
        "asked_per_task": asked.total() / len(tasks) if tasks else None,
        "distinct_per_task": len(asked) / len(tasks) if tasks else None,
    }


def tidy(value: Any) -> Any:
    """The same without NaN, which JSON lacks, and without the digits in which machines differ."""
    if isinstance(value, dict):
        return {key: tidy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(inner) for inner in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    return value
