"""How tables and lines are laid out on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from coterie import text
from coterie.experiments.report.wording import span


def make_table(first: str, heads: Iterable[str]) -> Table:
    """A table whose first column is text and whose others are numbers; nothing wraps but where a line break stands."""
    table = Table(box=box.SIMPLE, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
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
