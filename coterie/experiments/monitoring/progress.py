"""How far runs are, read from their folders at any moment, also while they go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError
from coterie.experiments.folder import RunFolder
from coterie.experiments.monitoring.tally import Standing
from coterie.experiments.monitoring.training_progress import (
    learning_row,
    read_learning_progress,
    read_training_progress,
    training_row,
)
from coterie.experiments.records.training import is_of_world
from coterie.experiments.records.updates import is_training
from coterie.experiments.state import attempt_ends, read_state
from coterie.journal import Journal


def list_runs(parent: Path) -> Iterator[dict[str, Any]]:
    """One row per run below `parent`, last begun first; a run that cannot be read has the status `unreadable`."""
    for name, folder in RunFolder.all(parent).items():
        try:
            yield _row(name, folder)
        except CoterieError as error:
            yield {"run": name, "path": str(folder.path), "status": "unreadable", "reason": error.what}


def _row(name: str, folder: RunFolder) -> dict[str, Any]:
    status, reason = read_state(folder)
    with Journal.read(folder.journal) as journal:
        run = journal.get("run") or {}
        started = [note.time for note in journal.notes("attempt")]
        episodes = {"done": journal.count("episode"), "total": run.get("tasks", 0) * len(run.get("societies", ()))}
        return {
            "run": name, "path": str(folder.path), "status": status, "reason": reason,
            **(training_row(journal) if is_of_world(run) else episodes | {"turns": journal.count("turn")}),
            **(learning_row(journal) if is_training(run) else {}),
            "attempts": len(started), "started": _moment(started[0]) if started else None,
        }  # fmt: skip


def read_progress(folder: RunFolder) -> dict[str, Any]:
    """All that `coterie status RUN` shows, JSON-able; times are ISO 8601 in UTC.

    Raises:
        JournalError: there is no journal, or one of another version.
    """
    status, reason = read_state(folder)
    with Journal.read(folder.journal) as journal:
        if is_of_world(journal.get("run") or {}):
            head = {"run": folder.path.name, "path": str(folder.path), "status": status, "reason": reason}
            return {**head, **read_training_progress(folder, journal), "attempts": _attempts(journal)}
        standing, run = Standing.read(journal), journal.get("run") or {}
        baselines = {s["label"] for s in run.get("societies", ()) if s["is_baseline"]}
        failures = Counter(note.payload["code"] for note in journal.notes("failure"))
        attempts = _attempts(journal)
        limits = next((n.payload.get("budget") or {} for n in reversed(list(journal.notes("attempt")))), {})
        learning = read_learning_progress(journal) if is_training(run) else {}
    return {
        "run": folder.path.name, "path": str(folder.path), "status": status, "reason": reason,
        "societies": [_society(standing, label, label in baselines) for label in standing.agents],
        "success": standing.success, **learning,
        "turns": standing.turns, "prompt_tokens": standing.prompt_tokens, "generated_tokens": standing.tokens,
        "unparsed_rate": standing.unparsed / standing.answers if standing.answers else None,
        "budget": {
            "tokens": {"used": standing.prompt_tokens + standing.tokens, "limit": limits.get("tokens")},
            "calls": {"used": standing.turns, "limit": limits.get("calls")},
        },
        "attempts": attempts,
        "failures": {"count": failures.total(), "by_code": dict(sorted(failures.items()))},
    }  # fmt: skip


def _society(standing: Standing, label: str, is_baseline: bool) -> dict[str, Any]:
    done = standing.done.get(label, {})
    judged = [is_right for is_right in done.values() if is_right is not None]
    return {
        "society": label, "is_baseline": is_baseline, "done": len(done), "total": standing.num_tasks,
        "judged": len(judged),
        "correct": sum(judged), "accuracy": sum(judged) / len(judged) if judged else None,
    }  # fmt: skip


def _attempts(journal: Journal) -> list[dict[str, Any]]:
    return [
        {
            "number": int(note.key), "started": _moment(note.time), "status": end["status"], "reason": end["reason"],
            "seconds": end.get("seconds"), "executor": note.payload.get("executor", {}).get("kind"),
        }
        for note, end in zip(journal.notes("attempt"), attempt_ends(journal), strict=True)
    ]  # fmt: skip


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
