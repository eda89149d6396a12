"""Trackers: where metrics are sent besides the journal. The journal stays the truth; a tracker never stops a run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.references import redact
from coterie.errors import CoterieError, EnvironmentMissing
from coterie.experiments.monitoring.tally import Tally, View
from coterie.experiments.records.updates import LEARNING, Update, measure
from coterie.orchestration.jobs import Job
from coterie.types import Outcome, Turn, Verdict

Metrics = Mapping[str, float]
# Seconds between two points, and how long a tracker may take to send what is left at the end.
_EVERY = 1.0
_PATIENCE = 30.0
_QUEUED = 64


class Tracker(Protocol):
    """Built as `impl(config)`. Any exception is a failure; calls come one after the other, not all from one thread."""

    def start(self, run_name: str, config: Mapping[str, Any], folder: Path) -> None:
        """Open it. A run that is resumed starts with the same name and folder, and continues what it has there."""
        ...

    def log(self, metrics: Metrics, step: int) -> None:
        """Send one point of each metric; steps rise."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Send the last values, with `status` (`finished`, `stopped` or `failed`), and close."""
        ...


def metrics_of(view: View) -> dict[str, float]:
    """What is tracked: accuracy of each society, progress, tokens, and how many answers could not be parsed."""
    # Episodes of all versions of a training together have no accuracy that means anything.
    societies = () if view.iterations else view.societies
    accuracies = {f"accuracy/{s.label}": s.accuracy for s in societies if s.accuracy is not None}
    return accuracies | {
        "progress/turns": float(view.turns),
        "progress/episodes": float(view.done),
        "progress/failures": float(view.failures),
        "tokens/prompt": float(view.prompt_tokens),
        "tokens/generated": float(view.tokens),
        "tokens/generated_per_second": view.rate,
        "unparsed_rate": view.unparsed_rate,
    }


def metrics_of_update(update: Update) -> dict[str, float]:
    """What is tracked of an iteration of a training: all that is measured, and each policy's learning by itself."""
    policies = update.facts["policies"]
    own = {
        f"policy/{name}/{metric}": float(policy["learning"][metric])
        for name, policy in policies.items()
        for metric in LEARNING
        if policy["learning"].get(metric) is not None
    }
    return {**measure(update), **own, "progress/iterations": float(update.iteration)}


class Feed:
    """All trackers of a run as one, behind queues of their own.

    Args:
        configs: The section `track`.
        folder: The run folder; its name is the run's name.
        config: The experiment's config without secrets, for trackers that show it.
        say: Told once of a tracker that failed later.
    """

    def __init__(
        self, configs: Sequence[KindConfig], folder: Path, config: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        self._configs, self._folder, self._config, self._say = configs, folder, config, say
        self._lines: list[_Line] = []

    @property
    def is_open(self) -> bool:
        """Whether anybody listens."""
        return bool(self._lines)

    def open(self) -> None:
        """Start every tracker.

        Raises:
            EnvironmentMissing: one cannot start; those before it are closed again.
        """
        try:
            for config in self._configs:
                tracker = _start(config, self._folder, self._config)
                self._lines.append(_Line(config.kind, tracker, self._say))
        except BaseException:
            self.close({"status": "failed"})
            raise

    def send(self, metrics: Metrics, step: int) -> None:
        """One point of each metric; steps rise."""
        for line in self._lines:
            line.send(metrics, step)

    def close(self, summary: Mapping[str, Any]) -> None:
        """The last values, with `status`; trackers are closed."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.finish(summary)


class Trackers(Tally):
    """A feed as an observer of a run. The step of a point is the number of turns in the journal.

    Use as a context: entering starts every tracker, leaving closes them. Say how the run ended with `status` before.
    For the arguments see `Feed`.
    """

    def __init__(
        self,
        configs: Sequence[KindConfig],
        folder: Path,
        config: Mapping[str, Any],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        self._feed = Feed(configs, folder, config, say)
        self._now, self._sent_at = clock, clock()
        self.status = "stopped"
        """How the run ended; `failed` if the context is left by an exception."""

    def __enter__(self) -> Trackers:
        """Start every tracker.

        Raises:
            EnvironmentMissing: one cannot start; those before it are closed again.
        """
        self._feed.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._finish(self.status if kind is None else "failed")

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        """Count a turn, and send a point if one is due."""
        super().on_turn(turn, verdict)
        self._send_if_due()

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Count an episode, and send a point if one is due."""
        super().on_episode(job, outcome, verdict)
        self._send_if_due()

    def on_update(self, update: Update) -> None:
        """Send all of an iteration, at once."""
        super().on_update(update)
        view = self.view()
        self._sent_at = self._now()
        self._feed.send(metrics_of(view) | metrics_of_update(update), view.turns)

    def _send_if_due(self) -> None:
        if self._feed.is_open and self._now() - self._sent_at >= _EVERY:
            self._sent_at = self._now()
            self._send(self.view())

    def _send(self, view: View) -> None:
        self._feed.send(metrics_of(view), view.turns)

    def _finish(self, status: str) -> None:
        view = self.view()
        if view.turns:
            self._send(view)
        last = metrics_of_update(view.updates[-1]) if view.updates else {}
        self._feed.close({**metrics_of(view), **last, "status": status})


def _start(config: KindConfig, folder: Path, experiment: Mapping[str, Any]) -> Tracker:
    tracker: Tracker = registry.impl("tracker", config.kind)(config)
    try:
        tracker.start(folder.name, experiment, folder)
    except CoterieError:
        raise
    except ImportError as missing:
        raise EnvironmentMissing(
            f"the tracker {config.kind} is not installed: {missing}",
            where="track",
            remedy=f'pip install "coterie[{config.kind}]", or take it out of `track`',
        ) from missing
    except Exception as cause:
        raise EnvironmentMissing(
            f"the tracker {config.kind} cannot start: {type(cause).__name__}: {_first_line(cause)}",
            where="track",
            remedy="mend the cause, or take it out of `track`",
        ) from None  # its own text may show a secret
    return tracker


def _first_line(error: Exception) -> str:
    return redact((str(error).strip().splitlines() or [""])[0])[:300]


class _Line:
    """One tracker behind a queue of its own, so that a slow, hanging or failing one holds nothing up."""

    def __init__(self, name: str, tracker: Tracker, say: Callable[[str], None]) -> None:
        self._name, self._tracker, self._say = name, tracker, say
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(_QUEUED)
        self._has_failed = False
        self._thread = threading.Thread(target=self._work, name=f"coterie-{name}", daemon=True)
        self._thread.start()

    def send(self, metrics: Metrics, step: int) -> None:
        try:
            self._queue.put_nowait(lambda: self._tracker.log(metrics, step))
        except queue.Full:
            self._report("is too slow, points are left out")

    def finish(self, summary: Mapping[str, Any]) -> None:
        deadline = time.monotonic() + _PATIENCE
        try:
            self._queue.put(lambda: self._tracker.finish(summary), timeout=_PATIENCE)
            self._queue.put(None, timeout=max(0.0, deadline - time.monotonic()))
        except queue.Full:
            self._report(f"did not take the last points within {_PATIENCE:g} s")
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._report(f"did not finish within {_PATIENCE:g} s")

    def _work(self) -> None:
        while (step := self._queue.get()) is not None:
            try:
                step()
            except Exception as error:  # whatever it is, the run goes on
                self._report(f"failed: {type(error).__name__}: {_first_line(error)}")

    def _report(self, what: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._say(f"tracker {self._name} {what} (the run goes on; the journal has everything)")
