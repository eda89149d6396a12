"""What a person sees of a run while it goes: a live display on a terminal, lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Protocol, Self, cast, get_args

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from coterie import text
from coterie.errors import ConfigError, CoterieError
from coterie.experiments.monitoring.display_plain import (
    MAX_SOCIETIES,
    PlainDisplay,
    duration,
    failure_line,
    rounds,
    short,
    spending,
)
from coterie.experiments.monitoring.display_updates import live_curves, time_shares
from coterie.experiments.monitoring.tally import SocietyView, Standing, Tally, View, Watcher

Mode = Literal["rich", "plain", "none"]
_REFRESHES = 4
_BAR_WIDTH = 24


class Display(Watcher, Protocol):
    """A watcher that shows what it is told, between `with display:` and the end of that block."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, message: str) -> None:
        """Show a line on what happens now, such as an engine's start. The text may come from anywhere."""
        ...

    def begin(self, standing: Standing) -> None:
        """The run's work begins from this standing; until then there is no progress to show."""
        ...


def make_display(mode: str = "auto", console: Console | None = None) -> Display:
    """A display on stderr.

    Args:
        mode: `rich`, `plain`, `none`, or `auto`: rich on a terminal, plain where stdout or stderr is none and in CI.
        console: Where to show it instead.

    Raises:
        ConfigError: an unknown mode.
    """
    console = console or Console(stderr=True)
    settled = settle_mode(mode, console)
    if settled == "rich":
        return RichDisplay(console)
    return PlainDisplay(console.file) if settled == "plain" else NoDisplay()


def settle_mode(mode: str, console: Console) -> Mode:
    """What `auto` stands for there; see `make_display`."""
    check_mode(mode)
    if mode == "auto":
        return "rich" if console.is_terminal and sys.stdout.isatty() and not os.environ.get("CI") else "plain"
    return cast(Mode, mode)


def check_mode(mode: str) -> None:
    """Refuse a display that there is not.

    Raises:
        ConfigError: an unknown mode.
    """
    if mode not in ("auto", *get_args(Mode)):
        raise ConfigError(f"there is no display {mode!r}", where="--display", remedy="known: auto, rich, plain, none")


class Silent:
    """What displays have that show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def say(self, message: str) -> None:
        """Drop a line."""


class NoDisplay(Silent, Tally):
    """Shows nothing."""


class Picture(ABC):
    """One live picture at the bottom of the terminal, with what was said above it."""

    def __init__(self, console: Console) -> None:
        self._console, self._spinner = console, Spinner("dots")
        self._status, self._has_begun = "", False
        # It asks for a first picture at once.
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=_REFRESHES, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._status = ""
        self._live.stop()

    def say(self, message: str) -> None:
        """Show a line above the picture, and its first line beside the spinner until progress begins."""
        shown = text.for_terminal(message)
        self._status = shown.partition("\n")[0]
        self._console.print(Text(shown), highlight=False)

    @abstractmethod
    def render(self) -> RenderableType:
        """The picture now."""


class RichDisplay(Picture, Tally):
    """The picture of a society's run."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        Tally.__init__(self, clock)
        Picture.__init__(self, console)

    def begin(self, standing: Standing) -> None:
        """Show progress from here."""
        super().begin(standing)
        self._has_begun, self._status = True, ""

    def on_failure(self, error: CoterieError) -> None:
        """Count a failure, and show the first few."""
        super().on_failure(error)
        if line := failure_line(error, self.view().failures):
            self._console.print(Text(text.for_terminal(line), style="yellow"), highlight=False)

    def render(self) -> RenderableType:
        if not self._has_begun:
            self._spinner.update(text=Text(self._status))
            return self._spinner if self._status else Text("")
        view = self.view()
        if view.iterations:
            return Group(_iterations(view), live_curves(view.updates), _totals(view))
        return Group(_table(view), _totals(view))


def _table(view: View) -> Table:
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_row(*(Text(head, style="dim") for head in ("society", "", "done", view.success, "round")))
    for society in view.societies[:MAX_SOCIETIES]:
        table.add_row(*_row(society))
    if (more := len(view.societies) - MAX_SOCIETIES) > 0:
        table.add_row(Text(f"and {more} more", style="dim"))
    table.add_row(Text("all", style="bold"), _bar(view.done, view.total), f"{view.done}/{view.total}", "", "")
    return table


def _iterations(view: View) -> Table:
    """How far a training is. Episodes of all its versions together have no accuracy that means anything."""
    table = Table.grid(padding=(0, 2))
    done = f"{len(view.updates)}/{view.iterations} iterations"
    table.add_row(_bar(view.done, view.total), Text(done, style="bold"), f"{view.done}/{view.total} episodes")
    return table


def _row(society: SocietyView) -> tuple[RenderableType, ...]:
    accuracy = "" if society.accuracy is None else f"{society.accuracy:.0%} ({society.correct}/{society.judged})"
    return (
        Text(text.for_terminal(society.label, 40)),
        _bar(society.done, society.total),
        f"{society.done}/{society.total}",
        accuracy,
        rounds(society),
    )


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=done, width=_BAR_WIDTH)


def _totals(view: View) -> Text:
    left = f", {duration(view.left)} left" if view.left else ""
    speed = f"{view.episodes_per_second:.2g} episodes/s, " if view.episodes_per_second else ""
    parts = [
        f"{speed}{duration(view.elapsed)} gone{left}",
        f"{view.turns} turns",
        f"tokens {short(view.prompt_tokens)} in {short(view.tokens)} out",
        f"{view.rate:.0f} tokens/s",
        time_shares(view.updates),
        spending(view),
        f"{view.failures} failures" if view.failures else "",
    ]
    return Text(" | ".join(filter(None, parts)))
