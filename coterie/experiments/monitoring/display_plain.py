"""Progress as plain lines: for log files, CI, and terminals that are none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO

from coterie import text
from coterie.errors import CoterieError
from coterie.experiments.monitoring.display_updates import describe_update
from coterie.experiments.monitoring.tally import SocietyView, Standing, Tally, View
from coterie.experiments.records.updates import Update

_EVERY = 5.0
# With nothing new, a line this often still says that the run is alive.
_SILENCE = 60.0
MAX_SOCIETIES = 12
MAX_FAILURES = 5


def short(count: float) -> str:
    """A count in at most five characters or so: 950, 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            scaled = count / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:.0f}{unit}"
    return f"{count:.0f}"


def duration(seconds: float) -> str:
    """Seconds as `0:42` or `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def rounds(society: SocietyView) -> str:
    """The rounds that a society's open tasks are in: `2`, or `1-3`."""
    if society.rounds is None:
        return ""
    first, last = society.rounds
    return str(first) if first == last else f"{first}-{last}"


def spending(view: View) -> str:
    """How much of the run's budget is used, empty if it has none."""
    parts = []
    for used, limit, unit in (
        (view.prompt_tokens + view.tokens, view.max_tokens, "tokens"),
        (view.turns, view.max_calls, "calls"),
    ):
        if limit is not None:
            parts.append(f"{short(used)} of {short(limit)} {unit} ({used / limit:.0%})")
    return f"budget {', '.join(parts)}" if parts else ""


def failure_line(error: CoterieError, number: int) -> str:
    """A failure as one line; empty after the first few, which are counted and journalled all the same."""
    if number > MAX_FAILURES:
        return ""
    where = f" ({error.where})" if error.where else ""
    more = "; further failures are only counted" if number == MAX_FAILURES else ""
    return f"{error.code}: {error.what}{where}, trying again{more}".replace("\n", " ")


def describe(view: View) -> str:
    """A view as one line."""
    speed = [f"{view.episodes_per_second:.2g}/s"] if view.episodes_per_second else []
    left = [f"{duration(view.left)} left"] if view.left else []
    share = f" ({view.done / view.total:.0%})" if view.total else ""
    parts = [", ".join([f"{view.done}/{view.total} episodes{share}", duration(view.elapsed), *speed, *left])]
    # Episodes of all versions of a training together have no accuracy that means anything.
    shown = [_society(society) for society in view.societies[: 0 if view.iterations else MAX_SOCIETIES]]
    parts += [", ".join(shown) + (" ..." if len(view.societies) > MAX_SOCIETIES else "")] if shown else []
    parts += [f"{len(view.updates)}/{view.iterations} iterations"] if view.iterations else []
    tokens = f"tokens {short(view.prompt_tokens)} in {short(view.tokens)} out"
    parts.append(f"{view.turns} turns, {tokens}, {view.rate:.0f}/s")
    parts += list(filter(None, [spending(view), f"{view.failures} failures" if view.failures else ""]))
    return " | ".join(parts)


def _society(society: SocietyView) -> str:
    accuracy = "-" if society.accuracy is None else f"{society.accuracy:.0%} ({society.correct}/{society.judged})"
    where = f" round {rounds(society)}" if society.rounds else ""
    return f"{society.label} {accuracy}{where}"


class PlainDisplay(Tally):
    """Writes a line when something was said, and one on progress every few seconds at most."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream, self._now = stream, clock
        self._writing = threading.RLock()
        self._shown_at, self._shown_work = clock(), (0, 0)
        self._has_begun, self._ended = False, threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> PlainDisplay:
        self._ticker = threading.Thread(target=self._tick, name="coterie-display", daemon=True)
        self._ticker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._has_begun:
            self._show(self.view())

    def say(self, message: str) -> None:
        """Write a line on what happens now."""
        with self._writing:
            self._stream.write(text.for_terminal(message) + "\n")
            self._stream.flush()

    def begin(self, standing: Standing) -> None:
        """Show progress from here."""
        super().begin(standing)
        self._has_begun = True
        self._show(self.view())

    def on_update(self, update: Update) -> None:
        """Keep an iteration of a training, and write what it was like."""
        super().on_update(update)
        self.say(describe_update(update, self.view().iterations))

    def on_failure(self, error: CoterieError) -> None:
        """Count a failure, and write the first few."""
        super().on_failure(error)
        if line := failure_line(error, self.view().failures):
            self.say(line)

    def tick(self) -> None:
        """Write the progress line if it is due."""
        if not self._has_begun:
            return
        view, since = self.view(), self._now() - self._shown_at
        is_new = (view.turns, view.done) != self._shown_work
        if since >= (_EVERY if is_new else _SILENCE):
            self._show(view)

    def _show(self, view: View) -> None:
        is_still = view.idle >= _SILENCE and view.done < view.total
        with self._writing:
            self._shown_at, self._shown_work = self._now(), (view.turns, view.done)
            self.say(describe(view) + (f" | nothing new for {duration(view.idle)}" if is_still else ""))

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            self.tick()
