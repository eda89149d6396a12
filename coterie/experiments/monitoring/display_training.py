"""What a person sees of a training while it goes, on stderr: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coterie import text
from coterie.experiments.monitoring.display import Picture, Silent, settle_mode
from coterie.experiments.monitoring.display_plain import duration, short
from coterie.experiments.monitoring.training_tally import Step, TrainingTally, TrainingView
from coterie.experiments.records.training import TrainingRecord

_EVERY = 5.0
_PATIENCE = 15.0
"""Seconds after which somebody who waits for the first iteration is told that it is still on its way."""
_FIRST = "the first iteration"
_BAR_WIDTH = 40
_SHOWN = (
    ("success", "success", "{:.1%}"), ("collision", "collision", "{:.1%}"), ("distance_1s", "distance", "{:.2f} m"),
    ("reward", "reward", "{:.4g}"),
)  # fmt: skip


class TrainingDisplay(Protocol):
    """Shows what it is told, between `with display:` and the end of that block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, message: str) -> None:
        """Show a line on what happens now, such as compilation. The text may come from anywhere."""
        ...

    def begin(self, record: TrainingRecord, limit: float | None = None) -> None:
        """The training goes on from this record; from now on the attempt may take so many seconds."""
        ...

    def on_iteration(self, step: Step) -> None:
        """An iteration is done."""
        ...


def make_training_display(mode: str = "auto", console: Console | None = None) -> TrainingDisplay:
    """A display on stderr; see `display.make_display`."""
    console = console or Console(stderr=True)
    settled = settle_mode(mode, console)
    if settled == "rich":
        return RichTraining(console)
    return PlainTraining(console.file) if settled == "plain" else NoTraining()


def describe(view: TrainingView) -> str:
    """A view as one line."""
    speed = [f"{short(view.rate)} steps/s"] if view.rate else []
    left = [f"{duration(view.left)} left"] if view.left is not None else []
    done = f"{short(view.agent_steps)}/{short(view.planned)} steps ({view.share:.0%})"
    parts = [", ".join([done, duration(view.elapsed), *speed, *left])]
    return " | ".join(filter(None, [*parts, ", ".join(f"{name} {value}" for name, value in _numbers(view))]))


def _numbers(view: TrainingView) -> list[tuple[str, str]]:
    """What is shown of the last iterations: of their episodes or, before any has ended, of their steps."""
    if not view.metrics:
        return [] if view.reward is None else [("reward per step", f"{view.reward:.3g}")]
    return [(label, form.format(view.metrics[name])) for name, label, form in _SHOWN if name in view.metrics]


class NoTraining(Silent, TrainingTally):
    """Shows nothing."""


class PlainTraining(TrainingTally):
    """Writes a line when something was said, one on progress every few seconds at most, and one while nothing comes.

    Args:
        stream: Where to.
        clock: Seconds.
        patience: After so many without an iteration a line says for how long there was none; only before the first.
    """

    def __init__(
        self, stream: IO[str], clock: Callable[[], float] = time.monotonic, patience: float = _PATIENCE
    ) -> None:
        super().__init__(clock)
        self._stream, self._now, self._shown_at = stream, clock, clock()
        self._is_due, self._status, self._patience = False, "", patience
        self._has_come, self._writes = threading.Event(), threading.Lock()

    def __enter__(self) -> PlainTraining:
        threading.Thread(target=self._wait, name="coterie-display", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._has_come.set()
        if self._is_due:
            self._show()

    def _wait(self) -> None:
        """Say, until the first iteration is done, what is waited for."""
        begun = self._now()
        while not self._has_come.wait(self._patience):
            self._write(f"{duration(self._now() - begun)} gone, still at: {self._status or 'the start'}")

    def say(self, message: str) -> None:
        """Write a line on what happens now."""
        self._status = message.partition("\n")[0]
        self._write(message)

    def _write(self, message: str) -> None:
        with self._writes:
            self._stream.write(text.for_terminal(message) + "\n")
            self._stream.flush()

    def begin(self, record: TrainingRecord, limit: float | None = None) -> None:
        """Show progress from here."""
        super().begin(record, limit)
        self._show()
        self._status = _FIRST

    def on_iteration(self, step: Step) -> None:
        """Count an iteration, and write a line if one is due."""
        super().on_iteration(step)
        self._has_come.set()
        self._is_due = True
        if self._now() - self._shown_at >= _EVERY:
            self._show()

    def _show(self) -> None:
        self._shown_at, self._is_due = self._now(), False
        self._write(describe(self.view()))


class RichTraining(Picture, TrainingTally):
    """The picture of a training."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        TrainingTally.__init__(self, clock)
        self._now, self._waits_since = clock, clock()
        Picture.__init__(self, console)

    def say(self, message: str) -> None:
        super().say(message)
        self._waits_since = self._now()

    def begin(self, record: TrainingRecord, limit: float | None = None) -> None:
        """Show progress from here."""
        super().begin(record, limit)
        self._has_begun, self._status, self._waits_since = True, _FIRST, self._now()

    def on_iteration(self, step: Step) -> None:
        """Count an iteration."""
        super().on_iteration(step)
        self._status = ""

    def render(self) -> RenderableType:
        self._spinner.update(text=Text(f"{self._status} ({duration(self._now() - self._waits_since)})"))
        waiting = [self._spinner] if self._status else []
        if not self._has_begun:
            return Group(*waiting)
        view = self.view()
        return Group(_bar(view), _table(view), _totals(view), *waiting)


def _bar(view: TrainingView) -> Table:
    table = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(view.planned, 1), completed=min(view.agent_steps, view.planned), width=_BAR_WIDTH)
    table.add_row(bar, f"{short(view.agent_steps)}/{short(view.planned)} agent-steps", f"{view.share:.0%}")
    return table


def _table(view: TrainingView) -> Table:
    """The numbers of the last iterations, under their names."""
    table, numbers = Table.grid(padding=(0, 3)), [("steps/s", short(view.rate) if view.rate else "-"), *_numbers(view)]
    for _ in numbers:
        table.add_column(justify="right", no_wrap=True)
    table.add_row(*(Text(name, style="dim") for name, _ in numbers))
    table.add_row(*(Text(value, style="bold") for _, value in numbers))
    return table


def _totals(view: TrainingView) -> Text:
    left = f", {duration(view.left)} left" if view.left is not None else ""
    limit = f" of {duration(view.limit)}" if view.limit is not None else ""
    time_spent = ", ".join(f"{name} {share:.0%}" for name, share in view.parts.items())
    parts = [f"iteration {view.iteration}", f"{duration(view.elapsed)}{limit} gone{left}", time_spent]
    return Text(" | ".join(filter(None, parts)))
