"""How tables and lines are laid out on a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from coterie import text
from coterie.experiments.report.wording import span

_PIPED = 1000
"""Columns of an output that is no terminal."""


def make_console() -> Console:
    """Standard output: as wide as the terminal, or without a width that would break lines where it is none."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED)


class NumberTable(Table):
    """A table no number of which is cut: columns for which the terminal has no room follow below, with the first."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See rich."""
        for part in self._parts(console, options):
            yield from Table.__rich_console__(part, console, options)

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[NumberTable]:
        start, fits = 1, options.update(width=_PIPED)
        for end in range(2, len(self.columns)):
            if console.measure(self._part(start, end + 1), options=fits).maximum > options.max_width:
                yield self._part(start, end)
                start = end
        yield self._part(start, len(self.columns))

    def _part(self, start: int, end: int) -> NumberTable:
        first, *others = (self.columns[index] for index in (0, *range(start, end)))
        part = make_table(str(first.header), [str(column.header) for column in others])
        for cells, row in zip(zip(*(column.cells for column in (first, *others)), strict=True), self.rows, strict=True):
            part.add_row(*cells, style=row.style, end_section=row.end_section)
        return part


def make_table(first: str, heads: Iterable[str]) -> NumberTable:
    """A table whose first column is text and whose others are numbers; nothing wraps but where a line break stands."""
    table = NumberTable(box=box.SIMPLE, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def break_label(label: str, width: int = 22) -> str:
    """A long label on several lines of at most `width`, broken behind hyphens, commas, equals signs and spaces."""
    lines = [""]
    for piece in re.findall(r"[^-,:= ]+[-,:= ]*|[-,:= ]+", label):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line[i : i + width].rstrip() for line in lines for i in range(0, len(line.rstrip()), width))


def plain(line: str, style: str = "") -> Text:
    """A `Text` is never read as rich markup."""
    return Text(text.for_terminal(line), style=style)


def short_span(interval: list[float] | None) -> str:
    """An interval of shares, in percent, for a narrow column."""
    return span(interval).replace(" to ", "-")
