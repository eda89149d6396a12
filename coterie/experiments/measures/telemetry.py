"""How a run went: attempts, times, throughput, failures, hosts. Two runs with equal facts may differ in all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.experiments.measures.behaviour import grey_measures
from coterie.experiments.measures.self_evaluation import grey_self_evaluation
from coterie.experiments.records.run import RunRecord
from coterie.experiments.state import attempt_ends
from coterie.journal import Journal, Note

_SHOWN_FAILURES = 50


@dataclass(slots=True)
class _Attempt:
    """The notes between one attempt's start and the next."""

    opening: Note
    ending: dict[str, Any]
    executor: dict[str, Any] = field(default_factory=dict)
    samples: list[Note] = field(default_factory=list)
    failures: list[Note] = field(default_factory=list)
    last: float = 0.0


def read_telemetry(journal: Journal, record: RunRecord) -> dict[str, Any]:
    """JSON-able telemetry: how it went, and, as `consistency` and `self_evaluation`, the grey-box measures."""
    attempts = _split(list(journal.notes()), attempt_ends(journal))
    rows = [_attempt_row(attempt, record) for attempt in attempts]
    failures = [note for attempt in attempts for note in attempt.failures]
    logprobs = _logprobs(attempts)
    status, reason = (rows[-1]["status"], rows[-1]["reason"]) if rows else ("not started", "")
    return {
        "status": status,
        "reason": reason,
        "attempts": rows,
        "totals": _totals(rows),
        "consistency": grey_measures(record, logprobs),
        "self_evaluation": grey_self_evaluation(record, logprobs),
        "failures": {
            "count": len(failures),
            "by_code": dict(sorted(Counter(note.payload["code"] for note in failures).items())),
            "list": [{"key": note.key, "time": note.time, **note.payload} for note in failures[:_SHOWN_FAILURES]],
        },
    }


def _logprobs(attempts: Sequence[_Attempt]) -> dict[str, list[float]]:
    """Of each turn's sampled tokens, in nats, where the engine gives them."""
    notes = (note for attempt in attempts for note in attempt.samples)
    return {note.key: note.payload["logprobs"] for note in notes if note.payload["logprobs"]}


def _split(notes: Sequence[Note], ends: Sequence[dict[str, Any]]) -> list[_Attempt]:
    attempts: list[_Attempt] = []
    for note in notes:
        if note.kind == "attempt":
            attempts.append(_Attempt(note, ends[len(attempts)]))
        if not attempts:
            continue
        current = attempts[-1]
        current.last = max(current.last, note.time)
        if note.kind == "executor":
            current.executor = note.payload
        elif note.kind == "sample":
            current.samples.append(note)
        elif note.kind == "failure":
            current.failures.append(note)
    return attempts


def _attempt_row(attempt: _Attempt, record: RunRecord) -> dict[str, Any]:
    start, ending = attempt.opening.time, attempt.ending
    turns = [record.turns[note.key] for note in attempt.samples if note.key in record.turns]
    generated, prompt = sum(t.num_tokens for t in turns), sum(t.num_prompt_tokens for t in turns)
    busy = _busy_seconds(attempt.samples)
    return {
        "number": attempt.opening.payload["number"],
        "status": ending["status"],
        "reason": ending["reason"],
        "started": start,
        "seconds": round(ending.get("seconds", attempt.last - start), 3),
        "generating_seconds": round(busy, 3),
        "turns": len(turns),
        "prompt_tokens": prompt,
        "cached_tokens": sum(note.payload["cached_tokens"] for note in attempt.samples),
        "generated_tokens": generated,
        "tokens_per_second": round(generated / busy, 1) if busy > 0 else None,
        "failures": len(attempt.failures),
        "hosts": dict(sorted(Counter(note.payload["host"] for note in attempt.samples).items())),
        "executor": attempt.executor,
        "circumstances": attempt.opening.payload,
    }


def _busy_seconds(samples: Sequence[Note]) -> float:
    """Seconds from the first call's start to the last commit; start-up of engines is not in it."""
    if not samples:
        return 0.0
    start: float = min(note.time - note.payload["seconds"] for note in samples)
    return max(note.time for note in samples) - start


def _totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = ("seconds", "generating_seconds", "turns", "prompt_tokens", "cached_tokens", "generated_tokens", "failures")
    totals: dict[str, Any] = {name: round(sum(row[name] for row in rows), 3) for name in names}
    busy = totals["generating_seconds"]
    totals["attempts"] = len(rows)
    totals["tokens_per_second"] = round(totals["generated_tokens"] / busy, 1) if busy > 0 else None
    return totals
