"""Whether a run goes on, has ended, or was killed: what is written of it, checked against who holds its journal."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from coterie.experiments.folder import GOING, RunFolder
from coterie.journal import Journal


def read_state(folder: RunFolder) -> tuple[str, str]:
    """A run's status and its reason.

    `starting`, `running`, `finished`, `stopped` or `failed` as STATUS.json has it; `killed` if that says the run goes
    on but nobody holds its journal.
    """
    try:
        written = json.loads(folder.status.read_text("utf-8"))
        status, reason = str(written["status"]), str(written.get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError):
        status, reason = "starting", ""
    if _is_held(folder.journal):
        return (status if status in GOING else "running"), ""
    return ("killed", "") if status in GOING else (status, reason)


def _is_held(journal: Path) -> bool:
    """Whether a process writes the journal: the kernel drops its lock with it, however it dies."""
    try:
        lock = os.open(journal.with_suffix(".lock"), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def attempt_ends(journal: Journal) -> list[dict[str, Any]]:
    """Each attempt's note of its end: `status`, `reason`, `seconds`; without one it goes on, or was killed."""
    ends = {note.key: note.payload for note in journal.notes("attempt-end")}
    found = [ends.get(note.key, {"status": "killed", "reason": ""}) for note in journal.notes("attempt")]
    status, _ = read_state(RunFolder(journal.path.parent))
    if found and "seconds" not in found[-1] and status in GOING:
        found[-1] = {"status": status, "reason": ""}
    return found
