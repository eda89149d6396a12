"""What holds a run's attempts together: its journal, its config as it began, and how each attempt ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from coterie.config.load import Loaded
from coterie.config.references import redact
from coterie.config.schema import FileConfig
from coterie.errors import CoterieError, JournalError, ResumeError
from coterie.experiments.differences import differences
from coterie.experiments.folder import RunFolder, write_json
from coterie.journal import Journal

CIRCUMSTANCES = ("budget", "executor", "track", "device")
"""What changes when and where a run is done, but none of its facts; these may differ between attempts."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: `finished`, or `stopped` with the reason."""

    status: str
    reason: str
    digest: str
    seconds: float


def why_ended(error: BaseException) -> tuple[str, str]:
    """The status and the reason of an attempt that an error ended; secrets are hidden."""
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return "stopped", "interrupted"
    said = str(error) if isinstance(error, CoterieError) else f"{type(error).__name__}: {error}"
    return "failed", redact(said)


def open_journal(folder: RunFolder) -> Journal:
    """The journal of a run, made if this is the run's first attempt.

    Raises:
        ResumeError: it is in use, damaged or gone.
    """
    if folder.journal.exists():
        with resumable():
            return Journal.open(folder.journal)
    if folder.status.exists():
        raise ResumeError(
            "the run's journal is gone", where=str(folder.journal), remedy="put it back, or start a new run"
        )
    return Journal.create(folder.journal)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """A journal that cannot be used before an attempt begins is a run that cannot be taken up."""
    try:
        yield
    except JournalError as error:
        raise ResumeError(error.what, where=error.where, remedy=error.remedy) from error


def save_resolved(folder: RunFolder, loaded: Loaded) -> None:
    """Write every field of the config, and the folder that its relative paths start from."""
    config = json.loads(loaded.config.model_dump_json())
    write_json(folder.resolved, {"base": str(loaded.base), "config": config})


def is_marked_finished(folder: RunFolder) -> bool:
    """Whether STATUS.json says so; a run may have been killed between its last commit and its end."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(folder.status.read_text("utf-8"))["status"] == "finished")
    return False


def lasting(config: FileConfig) -> dict[str, Any]:
    """The part of a config that a run's facts follow from."""
    found: dict[str, Any] = json.loads(config.model_dump_json(exclude=set(CIRCUMSTANCES)))
    return found


def check_unchanged(journal: Journal, facts: dict[str, Any], config: FileConfig) -> None:
    """Refuse to go on with a run whose config, templates, plugins or data differ from what it began with.

    A field that came with a later version is unchanged where it has its default.

    Raises:
        ResumeError: with the differences, field by field.
    """
    before = journal.get("run")
    if before is None:
        return
    # Runs of earlier versions name all templates there were.
    used = {name: value for name, value in before.get("templates", {}).items() if name in facts.get("templates", ())}
    before |= {"config": _completed(before["config"], config)} | ({"templates": used} if "templates" in before else {})
    if changed := tell_changes("", before, facts):
        raise ResumeError(
            f"the run was started with something else:{changed}",
            where=str(journal.path.parent),
            remedy="undo the change, or start a new run",
        )


def _completed(before: dict[str, Any], config: FileConfig) -> dict[str, Any]:
    """A config as journalled, with the defaults of fields that it does not know; as it is, if it is valid no more."""
    kept = {name: before[name] for name in CIRCUMSTANCES if name in before}
    try:
        return lasting(type(config).model_validate(before)) | kept
    except ValidationError:
        return before


def tell_changes(path: str, before: Any, now: Any) -> str:
    """A line for each leaf that is not the same; empty if all are."""
    found = ((d["path"], *map(json.dumps, d["values"])) for d in differences(path, [before, now]))
    return "".join(f"\n    {place}: was {old}, is {new}" for place, old, new in found)
