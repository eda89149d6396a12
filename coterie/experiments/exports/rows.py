"""A run as flat rows, one dict each: for notebooks, DataFrames and trackers."""

from __future__ import annotations

from typing import Any

from coterie.experiments.measures.costs import cost_row, turn_costs
from coterie.experiments.records.run import read_record
from coterie.journal import Journal
from coterie.types import Turn

Row = dict[str, Any]
Rows = list[Row]


def turn_row(turn: Turn) -> Row:
    """A turn's place, what was said, and how long it was: what all tables of turns have."""
    place = turn.place
    return {
        "key": turn.key, "task": place.task, "round": place.round, "agent": place.seat, "repeat": place.repeat,
        "purpose": place.purpose, "policy": turn.policy, "policy_version": turn.policy_version, "text": turn.text,
        "answer": turn.answer, "finish": turn.finish, "prompt_tokens": turn.num_prompt_tokens,
        "generated_tokens": turn.num_tokens, "dropped_tokens": turn.num_dropped,
        "continues": turn.continues,
    }  # fmt: skip


def turn_rows(journal: Journal) -> Rows:
    """One row per turn, in logical order: its place, what was said, and how it was judged. `text` is untrusted."""
    record = read_record(journal)
    rows = []
    for turn in sorted(record.turns.values(), key=lambda t: (t.place, t.key)):
        verdict = record.verdicts.get(turn.key)
        judged = (None, None) if verdict is None else (verdict.correct, verdict.labels)
        rows.append(turn_row(turn) | dict(zip(("is_correct", "labels"), judged, strict=True)))
    return rows


def episode_rows(journal: Journal) -> Rows:
    """One row per society and task: its answer, right or wrong, how it was decided, and what it cost."""
    record = read_record(journal)
    rows = []
    for member in record.societies:
        for task, episode in sorted(record.episodes[member.label].items()):
            costs = turn_costs(record.turns_of(episode)).values()
            tokens = {name: sum(cost_row(cost)[name] for cost in costs) for name in _COST_NAMES}
            rows.append({
                "society": member.label, "is_baseline": member.is_baseline, "task": task,
                "answer": episode.outcome.answer, "is_correct": episode.is_correct,
                "decision": episode.outcome.decision, "rounds": len(episode.outcome.rounds), **tokens,
            })  # fmt: skip
    return rows


_COST_NAMES = ("calls", "prompt_tokens", "non_cached_prompt_tokens", "generated_tokens", "tokens")
_SELF_EVALUATION = ("last", "auroc", "ece", "unparsed_rate")
_PLAIN = (
    "no_answer", "oracle", "oracle_gap", "turns", "unparsed_turns", "cut_replies", "dropped_tokens",
    "timed_out_verdicts",
)  # fmt: skip


def metric_rows(summary: dict[str, Any]) -> Rows:
    """One row per society and metric: `society`, `metric`, `value`, `low` and `high` (its interval), `tasks`.

    Of a training: `metric`, `value` and `episodes`, over the last iterations; of a society's `metric`, `value` and
    `first`, means over the last and the first quarter of the iterations.
    """
    rows: Rows = []
    if "learning" in summary["facts"]:
        found = [*summary["facts"]["learning"]["curves"], *summary["telemetry"]["curves"]]
        return [{"metric": row["key"], "value": row["last"], "first": row["first"]} for row in found]
    if training := summary["facts"].get("training"):
        final = training["final"]
        return [{"metric": n, "value": value, "episodes": final["episodes"]} for n, value in final["metrics"].items()]
    for society in summary["facts"]["societies"]:
        label, tasks = society["label"], society["tasks"]
        rows.append(_row(label, "accuracy", society["accuracy"], tasks, society["interval"]))
        rows += [_row(label, name, society[name], tasks) for name in _PLAIN]
        for moment in society["rounds"]:
            for name in ("agent_accuracy", "distinct_answers", "unparsed_rate"):
                rows.append(_row(label, f"round_{moment['round']}/{name}", moment[name], moment["tasks"]))
        for name, value in (society["cost"]["per_task"] or {}).items():
            rows.append(_row(label, f"{name}_per_task", value, tasks))
        for name, measure in society["consistency"]["measures"].items():
            rows.append(_row(label, f"consistency/{name}", measure["last"], society["consistency"]["tasks"]))
        rows.append(_row(label, "self_update", society["self_update"]["share"], tasks))
        for name, measure in (society["self_evaluation"] or {"measures": {}})["measures"].items():
            rows += [_row(label, f"self_evaluation/{name}/{part}", measure[part], tasks) for part in _SELF_EVALUATION]
        for reward, means in society["rewards"].items():
            rows += [_row(label, f"reward/{reward}/{agent}", mean, tasks) for agent, mean in means.items()]
    for society in (summary["facts"]["deception"] or {"societies": ()})["societies"]:
        rows += _deception(society)
    for found in summary["facts"]["comparisons"]:
        metric = f"difference_to_{found['baseline']}" + ("_at_equal_tokens" if found["matched"] != "as asked" else "")
        rows.append(_row(found["society"], metric, found["difference"], found["tasks"], found["interval"]))
    return rows


def _deception(society: Row) -> Rows:
    """Rates of deception, of all replies and by each feature; `tasks` is how many replies could be judged."""
    groups = [("", society["overall"])]
    groups += [(f"/{name}={row['group']}", row) for name, group in society["by"].items() for row in group]
    return [
        _row(society["label"], f"deception/{part}{ending}", row[part]["rate"], row["valid"], row[part]["interval"])
        for ending, row in groups
        for part in ("thought", "response", "mismatch")
    ]


def _row(society: str, metric: str, value: float | None, tasks: int, interval: list[float] | None = None) -> Row:
    low, high = interval or (None, None)
    return {"society": society, "metric": metric, "value": value, "low": low, "high": high, "tasks": tasks}
