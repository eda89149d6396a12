"""Around an attempt: the folder it needs, the config it goes on with, and the event loop it runs in."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from coterie.config.load import Loaded, loads
from coterie.config.overrides import Overrides
from coterie.config.problems import InvalidConfig
from coterie.config.schema import WorldConfig
from coterie.errors import ConfigError, EnvironmentMissing, ResumeError
from coterie.experiments.continuation import Ending, save_resolved
from coterie.experiments.folder import RunFolder
from coterie.experiments.monitoring.display import check_mode


def prepare(loaded: Loaded, runs: Path, source: Path | None = None) -> RunFolder:
    """A fresh run folder with the resolved config, and the experiment file as given.

    Raises:
        InvalidConfig: it is a sweep.
        EnvironmentMissing: it cannot be written; nothing of it stays.
    """
    loaded.check_single()
    folder = None
    try:
        folder = RunFolder.create(runs, loaded.config.name)
        if source is not None:
            folder.source.write_bytes(source.read_bytes())
        save_resolved(folder, loaded)
    except OSError as cause:
        if folder is not None:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise EnvironmentMissing(
            f"cannot make a run folder: {cause.strerror}",
            where=str(runs.absolute()),
            remedy="name a folder that can be written to with --runs",
        ) from cause
    return folder


def find_run(given: Path) -> RunFolder:
    """The run to be taken up; see `RunFolder.find`.

    Raises:
        ResumeError: no run there, or the prefix fits several.
    """
    try:
        return RunFolder.find(given)
    except ConfigError as error:
        raise ResumeError(error.what, where=error.where, remedy=error.remedy) from None


def load_resolved(folder: RunFolder, overrides: Overrides = ()) -> Loaded:
    """The config a run was started with.

    Raises:
        ResumeError: the file is missing or damaged, or what it names is there no more.
        InvalidConfig: an override is wrong.
    """
    try:
        saved = json.loads(folder.resolved.read_text("utf-8"))
        config, base = saved["config"], saved["base"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ResumeError(
            f"the run's resolved.json cannot be read: {cause}", where=str(folder.resolved), remedy="start a new run"
        ) from cause
    try:
        return loads(config, overrides, base)
    except InvalidConfig as error:
        if overrides:
            raise
        raise ResumeError(
            f"the run's config is not valid any more:\n{error.what}", where=str(folder.resolved),
            remedy="undo what has changed since, or start a new run",
        ) from None  # fmt: skip


def start(loaded: Loaded, folder: RunFolder, display: str = "none", *, is_new: bool = True) -> Ending:
    """One attempt, also where an event loop is running already (a notebook).

    A new run whose first attempt does not begin, for want of a tracker or a good config, leaves no folder.

    Args:
        loaded: The experiment.
        folder: Its run folder.
        display: `auto`, `rich`, `plain` or `none`.
        is_new: Whether this is the first attempt.
    """
    try:
        check_mode(display)
        return _start(loaded, folder, display)
    except BaseException:
        if is_new and not folder.status.exists():
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _start(loaded: Loaded, folder: RunFolder, display: str) -> Ending:
    work = _train if isinstance(loaded.config, WorldConfig) else _execute
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work(loaded, folder, display)
    return _in_thread(lambda: work(loaded, folder, display))


def _execute(loaded: Loaded, folder: RunFolder, display: str) -> Ending:
    from coterie.experiments.monitoring.display import make_display
    from coterie.experiments.run import execute

    with make_display(display) as shown:
        return execute(loaded, folder, shown)


def _train(loaded: Loaded, folder: RunFolder, display: str) -> Ending:
    from coterie.experiments.monitoring.display_training import make_training_display
    from coterie.experiments.training.world import train

    with make_training_display(display) as shown:
        return train(loaded, folder, shown)


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
