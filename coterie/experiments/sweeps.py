"""A sweep: one run for each combination of its values, in folders named by their settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.config.load import Loaded
from coterie.errors import ConfigError, CoterieError, EnvironmentMissing, Interrupted, ResumeError
from coterie.experiments.attempt import start
from coterie.experiments.comparison.settings import show_value
from coterie.experiments.comparison.trainings import kind_of
from coterie.experiments.continuation import save_resolved
from coterie.experiments.folder import RunFolder
from coterie.journal import Journal

_MOST = 80
"""Characters of a folder's name; a longer one ends in a hash."""
_WORD = re.compile(r"(?!(null|true|false)$)[A-Za-z][A-Za-z0-9_.]*")


@dataclass(frozen=True, slots=True)
class Worked:
    """One experiment of a sweep after its attempt: `finished`, `stopped` with its reason, `failed` with its error."""

    label: str
    folder: RunFolder
    status: str
    reason: str = ""

    @property
    def is_interrupted(self) -> bool:
        """A person stopped it, and with it the sweep."""
        return self.status == "stopped" and self.reason == "interrupted"


def sweep_folder(loaded: Loaded, runs: Path) -> Path:
    """Where the runs of a sweep lie. A second sweep of the same name goes on there."""
    return runs / f"{loaded.config.name}-sweep"


def work(loaded: Loaded, runs: Path, source: Path, display: str) -> Iterator[Worked]:
    """Work every experiment of a sweep in order; what is finished is only looked at, what is not is taken up.

    An experiment that fails, or that its budget stops, does not stop the others; an interrupted one does.

    Raises:
        ResumeError: an experiment was begun with something else.
        ConfigError: a part refused its config.
    """
    for point in loaded.points:
        mine = loaded.at(point)
        label = ", ".join(f"{path}={show_value(value)}" for path, value in point.settings.items())
        folder, is_new = _open(sweep_folder(loaded, runs) / name_of(point.settings), mine, source)
        try:
            ending = start(mine, folder, display, is_new=is_new)
            worked = Worked(label, folder, ending.status, ending.reason)
        except (Interrupted, KeyboardInterrupt):
            worked = Worked(label, folder, "stopped", "interrupted")
        # A wrong config, or a run begun with something else, is a mistake in the sweep itself.
        except ConfigError:
            raise
        except ResumeError as error:
            remedy = error.remedy.replace("start a new run", "begin a new sweep: another `name`, or another --runs")
            raise ResumeError(error.what, where=error.where, remedy=remedy) from error
        except CoterieError as error:
            worked = Worked(label, folder, "failed", str(error))
        yield worked
        if worked.is_interrupted:
            return


def has_begun(folder: RunFolder) -> bool:
    """Whether there is anything to compare: facts of a society, iterations of a training."""
    if not folder.journal.exists():
        return False
    with Journal.read(folder.journal) as journal:
        facts = journal.get("run") or {}
        kind = kind_of(facts)
        return bool(journal.count(kind.fact) if kind else facts)


def name_of(settings: Mapping[str, Any]) -> str:
    """A folder's name for these settings: the same for the same settings, another for others.

    Characters that a file's name should not have become a hyphen; where that, or cutting, loses something, a hash of
    the settings tells them apart.
    """
    full = ",".join(f"{path}={_spell(value)}" for path, value in settings.items())
    safe = re.sub(r"[^A-Za-z0-9_.=,+-]+", "-", full).strip("-.")
    if safe == full and len(safe) <= _MOST:
        return safe
    digest = hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:8]
    return f"{safe[:_MOST]}-{digest}"


def _spell(value: Any) -> str:
    """Words as they are, lists of words with a `+` before each, all else as JSON: no two values look the same."""
    words = value if isinstance(value, list) else [value]
    if not words or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
        return json.dumps(value)
    return words[0] if isinstance(value, str) else "".join(f"+{word}" for word in words)


def _open(path: Path, loaded: Loaded, source: Path) -> tuple[RunFolder, bool]:
    folder = RunFolder(path.resolve())
    if folder.resolved.is_file():
        return folder, False
    try:
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder.source.write_bytes(source.read_bytes())
        save_resolved(folder, loaded)
    except OSError as cause:
        raise EnvironmentMissing(
            f"cannot make a run folder: {cause.strerror}", where=str(path), remedy="name another place with --runs"
        ) from cause
    return folder, True
