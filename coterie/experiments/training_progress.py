"""How far a training run is, read from its folder at any moment, also while it goes; see `progress`."""

from __future__ import annotations

from typing import Any

from coterie.experiments.folder import RunFolder
from coterie.experiments.training_record import mean_metrics
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
