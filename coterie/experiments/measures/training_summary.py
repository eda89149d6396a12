"""The summary of a training run: every number, recomputed from its journal; see `summary` for what it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from coterie.experiments.records.training import SCORES, Iteration, TrainingRecord, mean_metrics, read_training
from coterie.experiments.state import attempt_ends
from coterie.journal import Journal, Note

_FEWEST = 10
"""Final metrics are means over the last tenth of the iterations, and no fewer than these."""
_PARTS = ("simulator", "policy", "learner")


def summarise_training(journal: Journal) -> dict[str, Any]:
    """`facts` and `telemetry` of a run, finished or not."""
    record = read_training(journal)
    return {"facts": training_facts(record), "telemetry": training_telemetry(journal)}


def training_facts(record: TrainingRecord) -> dict[str, Any]:
    """The part of the summary that depends on facts alone."""
    config, ending = record.facts["config"], final_iterations(record)
    best = record.best
    return {
        "run": {"name": config["name"], "seed": config["seed"], "plugins": record.facts["plugins"], "config": config},
        "digest": record.digest,
        "training": {
            "iterations": len(record.iterations),
            "agent_steps": record.agent_steps,
            "planned": record.planned,
            "is_complete": record.is_complete,
            "episodes": sum(row["episodes"] for row in record.iterations),
            "weights": record.iterations[-1]["weights"] if record.iterations else None,
            "best": None if best is None else {"iteration": best[0].iteration, "score": best[1],
                                               "metric": _score(record)},
            "final": {"iterations": len(ending), "episodes": sum(row["episodes"] for row in ending),
                      "metrics": mean_metrics(ending)},
        },
    }  # fmt: skip


def _score(record: TrainingRecord) -> str:
    """What tells which checkpoint is best."""
    return next(name for name in SCORES if any(name in row["metrics"] for row in record.iterations))


def final_iterations(record: TrainingRecord) -> Sequence[Iteration]:
    """Those that tell how good the policy was in the end."""
    return record.iterations[-max(len(record.iterations) // 10, _FEWEST) :]


def training_telemetry(journal: Journal) -> dict[str, Any]:
    """How it went: attempts, times, where these went, and the size of checkpoints."""
    rows = attempt_rows(journal)
    iterations = [note.payload for note in journal.notes("iteration")]
    checkpoints = [note.payload for note in journal.notes("checkpoint")]
    return {
        "status": rows[-1]["status"] if rows else "not started",
        "reason": rows[-1]["reason"] if rows else "",
        "attempts": rows,
        "totals": {
            "attempts": len(rows),
            "iterations": len(iterations),
            "seconds": (seconds := sum(row["seconds"] for row in rows)),
            "start_seconds": max(seconds - sum(row["seconds"] for row in (*iterations, *checkpoints)), 0.0),
            "agent_steps_per_second": _rate(iterations),
            "parts": _parts(iterations, checkpoints),
            "checkpoint_bytes": max((row["bytes"] for row in checkpoints), default=None),
        },
    }


def attempt_rows(journal: Journal) -> list[dict[str, Any]]:
    """Each attempt: when it began, how it ended, under what circumstances.

    Of one that did not say its end, as it was killed or goes on, `seconds` are those to its last sign of life.
    """
    begun = list(journal.notes("attempt"))
    signs = [note.time for kind in ("attempt", "iteration", "checkpoint") for note in journal.notes(kind)]
    untils = [*(note.time for note in begun), math.inf][1:]
    return [
        {
            "number": note.payload["number"], "started": note.time, "status": end["status"], "reason": end["reason"],
            "seconds": end["seconds"] if "seconds" in end else _lived(note, until, signs),
            "circumstances": note.payload,
        }
        for note, until, end in zip(begun, untils, attempt_ends(journal), strict=True)
    ]  # fmt: skip


def _lived(attempt: Note, until: float, signs: Sequence[float]) -> float:
    last = max(time for time in signs if attempt.time <= time < until)
    return float(attempt.payload.get("start", 0.0)) + last - attempt.time


def _rate(iterations: Sequence[Iteration]) -> float | None:
    """Over all iterations that were done, also those that were done again."""
    seconds = sum(row["seconds"] for row in iterations)
    return sum(row["agent_steps"] / row["iteration"] for row in iterations) / seconds if seconds else None


def _parts(iterations: Sequence[Iteration], checkpoints: Sequence[Iteration]) -> dict[str, float]:
    """Seconds by what they were spent on."""
    parts = {name: sum(row[name] for row in iterations) for name in _PARTS}
    other = sum(row["seconds"] for row in iterations) - sum(parts.values())
    return {**parts, "other": max(other, 0.0), "checkpoints": sum(row["seconds"] for row in checkpoints)}
