"""How far a training run is, read from its folder at any moment, also while it goes; see `progress`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie.experiments.folder import RunFolder
from coterie.experiments.records.training import last_checkpoint, mean_metrics, read_checkpoints
from coterie.experiments.records.updates import curves, read_updates
from coterie.journal import Journal

_RECENT = 10


def training_row(journal: Journal) -> dict[str, Any]:
    """What the list of all runs shows of a training: agent-steps, and how many there are to be."""
    last = next(reversed(list(journal.notes("iteration"))), None)
    return {
        "agent_steps": last.payload["agent_steps"] if last else 0,
        "planned": journal.get("run")["config"]["learning"]["agent_steps"],  # type: ignore[index]
    }


def read_training_progress(folder: RunFolder, journal: Journal) -> dict[str, Any]:
    """What `coterie status RUN` shows of a training besides its state and attempts, JSON-able."""
    notes = [note.payload for note in journal.notes("iteration")]
    checkpoints = [note.payload for note in journal.notes("checkpoint")]
    recent = notes[-_RECENT:]
    seconds, steps = sum(row["seconds"] for row in recent), sum(r["agent_steps"] / r["iteration"] for r in recent)
    limits = next((n.payload.get("budget") or {} for n in reversed(list(journal.notes("attempt")))), {})
    return {
        "training": {
            **training_row(journal),
            "iterations": notes[-1]["iteration"] if notes else 0,
            "agent_steps_per_second": steps / seconds if seconds else None,
            "metrics": mean_metrics(recent),
            "checkpoint": checkpoints[-1]["iteration"] if checkpoints else None,
            "checkpoints": str(folder.checkpoints),
        },
        "budget": {"seconds": {"limit": limits.get("seconds")}},
    }  # fmt: skip


def learning_row(journal: Journal) -> dict[str, Any]:
    """What the list of all runs shows of a society's training: iterations, and how many there are to be."""
    return {
        "iterations": journal.count("update"),
        "planned": journal.get("run")["config"]["learning"]["iterations"],  # type: ignore[index]
    }


def read_learning_progress(journal: Journal) -> dict[str, Any]:
    """What `coterie status RUN` shows of a society's training besides what it shows of any society, JSON-able."""
    updates, last = read_updates(journal), last_checkpoint(read_checkpoints(journal))
    found = [
        {"key": c.key, "label": c.label, "form": c.form, "first": _first(c.values), "last": c.values[-1],
         "values": list(c.values)}
        for c in curves(updates)
    ]  # fmt: skip
    return {"learning": {**learning_row(journal), "checkpoint": last.iteration if last else None, "curves": found}}


def _first(values: Sequence[float | None]) -> float | None:
    return next((value for value in values if value is not None), None)
