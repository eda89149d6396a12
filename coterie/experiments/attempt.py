"""Around an attempt: the folder it needs, the config it goes on with, and the event loop it runs in."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from coterie.config.load import Loaded, loads
from coterie.errors import EnvironmentMissing, ResumeError
from coterie.experiments.display import Display
from coterie.experiments.folder import RunFolder
from coterie.experiments.run import Ending, execute, save_resolved


def prepare(loaded: Loaded, runs: Path, source: Path | None = None) -> RunFolder:
    """A fresh run folder with the resolved config, and the experiment file as given."""
    try:
        folder = RunFolder.create(runs, loaded.config.name)
        if source is not None:
            folder.source.write_bytes(source.read_bytes())
        save_resolved(folder, loaded)
    except OSError as cause:
        raise EnvironmentMissing(
            f"cannot make a run folder: {cause.strerror}", where=str(runs), remedy="name another place with --runs"
        ) from cause
    return folder


def load_resolved(folder: RunFolder, overrides: Sequence[str] = ()) -> Loaded:
    """The config a run was started with.

    Raises:
        ResumeError: the file is missing or damaged.
    """
    try:
        saved = json.loads(folder.resolved.read_text("utf-8"))
        config, base = saved["config"], saved["base"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ResumeError(
            f"the run's resolved.json cannot be read: {cause}", where=str(folder.resolved), remedy="start a new run"
        ) from cause
    return loads(config, overrides, base)


def start(loaded: Loaded, folder: RunFolder, display: Display) -> Ending:
    """One attempt, also where an event loop is running already (a notebook)."""
    with display:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return execute(loaded, folder, display)
        return _in_thread(lambda: execute(loaded, folder, display))


def _in_thread(work: Callable[[], Ending]) -> Ending:
    box: list[Ending | BaseException] = []

    def target() -> None:
        try:
            box.append(work())
        except BaseException as error:  # carried to the caller's thread
            box.append(error)

    thread = threading.Thread(target=target, name="coterie-run")
    thread.start()
    thread.join()
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]
