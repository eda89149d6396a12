"""A society's training while it goes: its last iteration in a line, and all of them as curves in a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from coterie import text
from coterie.experiments.monitoring.sparklines import sparkline
from coterie.experiments.records.updates import Curve, Form, Update, curves, mean_learning, shares

_WIDTH = 24
"""Of a curve, in characters."""
LIVE = (
    "right/solver", "right/society", "reward/", "truth/", "judge/precision", "judge/recall", "judge/youden",
    "judge/unread", "judge/own_scores", "learning/entropy", "learning/kl", "learning/mismatch_kl", "speed/",
)  # fmt: skip
"""What is shown while a training goes; what ends in a stroke stands for all that begins so."""
_DIGITS = 10
"""What is smaller is rounding of floats, as of two that compute the same in another order."""
_TITLES = {
    "right": "right", "reward": "reward", "truth": "against truth", "judge": "as judges", "learning": "learning",
    "length": "tokens", "cut": "cut replies", "speed": "speed", "time": "time",
}  # fmt: skip


def show(value: float | None, form: Form) -> str:
    """A number as people write it; empty where there is none."""
    if value is None:
        return ""
    value = round(value, _DIGITS) + 0.0  # never -0
    if form == "share":
        return f"{value:.1%}"
    if form == "signed":
        return f"{value:+.2f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def title(group: str) -> str:
    """What a group of curves is called."""
    return _TITLES.get(group, group)


def chosen(found: Sequence[Curve], keys: Sequence[str]) -> list[Curve]:
    """Those of these keys, or of the groups that end in a stroke."""
    return [curve for curve in found if curve.key in keys or f"{curve.group}/" in keys]


def live_curves(updates: Sequence[Update]) -> Table:
    """What is shown of a training that goes: what each quantity was at first, and what it is now."""
    return make_curves([Line(c, next((v for v in c.values if v is not None), None), c.values[-1])
                        for c in chosen(curves(updates), LIVE)])  # fmt: skip


class Line(NamedTuple):
    """A curve, and what stands before and behind it."""

    curve: Curve
    first: float | None
    last: float | None


def make_curves(lines: Sequence[Line]) -> Table:
    """A row for each curve, under the names of their groups."""
    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for group, found in groupby(lines, lambda line: line.curve.group):
        for place, (curve, first, last) in enumerate(found):
            ends = [Text(show(value, curve.form), style) for value, style in ((first, "dim"), (last, "bold"))]
            head, bars = Text("" if place else title(group), "dim"), Text(sparkline(curve.values, _WIDTH), "cyan")
            table.add_row(head, Text(text.for_terminal(curve.label, 24)), ends[0], bars, ends[1])
    return table


def time_shares(updates: Sequence[Update]) -> str:
    """Where the time of all of them went, in a line; empty where nobody knows."""
    return ", ".join(f"{part} {share:.0%}" for part, share in shares(updates).items())


def describe_update(update: Update, total: int) -> str:
    """An iteration in a line: how often the solvers are right, what each role earned, how the policies moved."""
    row = update.facts
    parts = [f"iteration {update.iteration}/{total}", _rights(row["solver"]["accuracy"], row["accuracy"])]
    found = curves([update])
    earned = ", ".join(f"{c.label} {show(c.values[0], c.form)}" for c in chosen(found, ("reward/",)))
    parts.append(f"reward {earned or '-'}, with truth {show(row['solver']['correlation'], 'signed') or '-'}")
    if judge := row.get("judge"):
        measures = ("precision", "recall", "youden", "unread")
        shown = {name: show(judge[name], "signed" if name == "youden" else "share") for name in measures}
        parts.append("as judges " + ", ".join(f"{name} {value}" for name, value in shown.items() if value))
    learnt = mean_learning(row["policies"])
    parts.append(", ".join(
        f"{name.replace('_', ' ')} {show(learnt[name], 'number')}" for name in ("loss", "entropy", "kl", "mismatch_kl")
        if name in learnt
    ))  # fmt: skip
    rates = [f"{show(c.values[0], c.form)} tokens/s" for c in found if c.key == "speed/tokens_per_second"]
    parts.append(", ".join([*rates, f"lag {row.get('lag', 0)}", *filter(None, [time_shares([update])])]))
    return " | ".join(filter(None, parts))


def _rights(solvers: float | None, society: float | None) -> str:
    return f"solvers right {show(solvers, 'share') or '-'}, society {show(society, 'share') or '-'}"
