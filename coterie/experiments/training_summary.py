"""The summary of a training run: every number, recomputed from its journal; see `metrics` for what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.experiments.progress import attempt_ends
from coterie.experiments.training_record import Iteration, TrainingRecord, mean_metrics, read_training
from coterie.journal import Journal

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
            "best": None if best is None else {"iteration": best[0].iteration, "score": best[1]},
            "final": {"iterations": len(ending), "episodes": sum(row["episodes"] for row in ending),
                      "metrics": mean_metrics(ending)},
        },
    }  # fmt: skip


def final_iterations(record: TrainingRecord) -> Sequence[Iteration]:
    """Those that tell how good the policy was in the end."""
    return record.iterations[-max(len(record.iterations) // 10, _FEWEST) :]


def training_telemetry(journal: Journal) -> dict[str, Any]:
    """How it went: attempts, times, where these went, and the size of checkpoints."""
    rows = [
        {
            "number": note.payload["number"], "started": note.time, "status": end["status"], "reason": end["reason"],
            "seconds": end.get("seconds"), "circumstances": note.payload,
        }
        for note, end in zip(journal.notes("attempt"), attempt_ends(journal), strict=True)
    ]  # fmt: skip
    iterations = [note.payload for note in journal.notes("iteration")]
    checkpoints = [note.payload for note in journal.notes("checkpoint")]
    return {
        "status": rows[-1]["status"] if rows else "not started",
        "reason": rows[-1]["reason"] if rows else "",
        "attempts": rows,
        "totals": {
            "attempts": len(rows),
            "iterations": len(iterations),
            "seconds": sum(row["seconds"] or 0.0 for row in rows),
            "agent_steps_per_second": _rate(iterations),
            "parts": _parts(iterations, checkpoints),
            "checkpoint_bytes": max((row["bytes"] for row in checkpoints), default=None),
        },
    }


def _rate(iterations: Sequence[Iteration]) -> float | None:
    """Over all iterations that were done, also those that were done again."""
    seconds = sum(row["seconds"] for row in iterations)
    return sum(row["agent_steps"] / row["iteration"] for row in iterations) / seconds if seconds else None


def _parts(iterations: Sequence[Iteration], checkpoints: Sequence[Iteration]) -> dict[str, float]:
    """Seconds by what they were spent on."""
    parts = {name: sum(row[name] for row in iterations) for name in _PARTS}
    other = sum(row["seconds"] for row in iterations) - sum(parts.values())
    return {**parts, "other": max(other, 0.0), "checkpoints": sum(row["seconds"] for row in checkpoints)}
