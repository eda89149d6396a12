"""The evaluation of a society's training on one screen of a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from coterie.experiments.report.layout import make_table, plain
from coterie.experiments.report.wording import count, number, p_value, signed


def print_society_evaluation(found: dict[str, Any], console: Console) -> None:
    """Show what `evaluation.society.evaluate_society` found: a row for each protocol and who works it."""
    console.print(plain(describe(found)))
    console.print(_table(found["rows"]))
    console.print(plain("Difference: trained less untrained, in points, on the same tasks, with its 95 % interval."))
    console.print(plain("Holm: p corrected for all tests here. Tokens per task: generated + non-cached prompt."))


def describe(found: dict[str, Any]) -> str:
    """What was asked, in a sentence."""
    questions = found["questions"]
    drawn = "" if questions["temperature"] is None else f" at temperature {questions['temperature']:g}"
    iteration = found["checkpoint"]["iteration"]
    return (
        f"Policies after iteration {iteration} and as they were before training{drawn}, on "
        f"{count(found['tasks'], 'task')} that they were not trained on."
    )


def who(row: dict[str, Any]) -> str:
    """Who works a protocol."""
    if row["policies"] > 1:
        return f"{row['policies']} policies, mean"
    return row["speaker"] or "all together"


def _table(rows: list[dict[str, Any]]) -> Table:
    heads = ["trained\n%", "un-\ntrained", "differ-\nence", "\n95 %", "p\nHolm", "tokens/task\ntr. : untr."]
    table = make_table("protocol", heads)
    for row in rows:
        sides = (row["trained"], row["untrained"])
        shares = [f"{100 * side['accuracy']:.1f}" for side in sides]
        tokens = " : ".join(number(side["per_task"]["tokens"]) for side in sides)
        difference = signed(row["difference"])
        cells = (_label(row, rows), *shares, difference, show_interval(row), p_value(row["p_holm"]), tokens)
        table.add_row(*map(plain, cells), style="dim" if is_part(row, rows) else "")
    return table


def is_part(row: dict[str, Any], rows: list[dict[str, Any]]) -> bool:
    """One policy of several whose mean stands above it."""
    return row["policies"] == 1 and any(r["policies"] > 1 and r["protocol"] == row["protocol"] for r in rows)


def _label(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    return f"  {who(row)}" if is_part(row, rows) else f"{row['protocol']}\n  {who(row)}"


def show_interval(row: dict[str, Any]) -> str:
    """Of a difference, in points."""
    return "n/a" if row["interval"] is None else " to ".join(signed(end, 0) for end in row["interval"])
