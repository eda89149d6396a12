"""Runs side by side, on a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from textwrap import indent
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from coterie.experiments.differences import within_kinds
from coterie.experiments.monitoring.tally import success_word
from coterie.experiments.report.contrast_page import (
    ANOVA_WARNING,
    base_name,
    compared,
    distinct_baselines,
    row_label,
    task_count,
    tested,
)
from coterie.experiments.report.layout import break_label, make_table, plain, short_span
from coterie.experiments.report.terminal import FINDS, difference_cells
from coterie.experiments.report.wording import count, count_tests, number, p_value, percent

_MOST_DIFFERENCES = 30


def print_contrast(found: dict[str, Any], console: Console) -> None:
    """Show what `contrasts.contrast` found: one table of all societies, the tests, and what differs in the configs."""
    for part in _parts(found):
        console.print(part)


def _parts(found: dict[str, Any]) -> Iterator[RenderableType]:
    for index, setting in enumerate(found["settings"], 1):
        runs = ", ".join(f"seed {run['seed']} ({run['digest'][:8]})" for run in setting["runs"])
        yield plain(f"setting {index}: {setting['label']}; {runs}")
    if found["same_digest"]:
        yield plain("The digests are equal: every fact is the same.")
        return
    yield _table(found)
    between = [row for row in found["comparisons"] if row["matched"] == "settings"]
    if between:
        yield _between(found, between)
    yield from map(plain, _closing(found))


def _table(found: dict[str, Any]) -> Table:
    mains = compared(found)
    is_equal = any(row["matched"] == "equal tokens" for row in mains.values())
    rival = "equal\ntokens" if is_equal else "vs base-\nline"
    table = make_table("", ["tasks", f"{_success(found)}\n%", "95 %", rival, "p", "Holm", "finds", "tokens"])
    for position, row in enumerate(tested(found), 1):
        label = indent(break_label(row_label(found, row), 18), "   ").replace("  ", str(position).rjust(2), 1)
        table.add_row(*map(plain, (label, *_cells(row, mains.get((row["setting"], row["society"]))))))
    if baselines := distinct_baselines(found):
        table.add_section()
    for row in baselines:
        label = indent(break_label(row["label"], 18), "   ")
        table.add_row(*map(plain, (label, *_cells(row, None))), style="dim")
    return table


def _success(found: dict[str, Any]) -> str:
    words = {success_word(setting["benchmark"]) for setting in found["settings"]}
    return words.pop() if len(words) == 1 else "right"


def _cells(row: dict[str, Any], comparison: dict[str, Any] | None) -> tuple[str, ...]:
    cost = row["cost_per_task"]
    return (
        task_count(row), percent(row["accuracy"]).removesuffix("\u00a0%"),
        short_span(row["interval"] if row["tasks"] else None), *difference_cells(comparison),
        number(cost["tokens"] if cost else None),
    )  # fmt: skip


def _between(found: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Table:
    table = make_table("society against setting", ["pairs", "diff.", "p", "Holm", "finds"])
    for row in rows:
        label = f"{row_label(found, row)} against {base_name(found, row)}"
        table.add_row(*map(plain, (break_label(label, 36), str(row["pairs"]), *difference_cells(row))))
    return table


def _closing(found: dict[str, Any]) -> Iterator[str]:
    tests = count_tests(found["comparisons"])
    yield f"Differences are paired by task (and seed), in points. Holm: p corrected for {count(tests, 'test')}; {FINDS}"
    if any(row.get("is_beyond") for row in found["comparisons"]):
        yield "* all samples of self_consistency cost less than this society; raise its `samples` for an equal budget"
    for row in found["anova"]:
        p = "- (by Levene's test their variances differ)" if row["p"] is None else p_value(row["p"])
        at = f" at {row['at']}" if row["at"] else ""
        yield f"ANOVA over repeats of {count(row['groups'], row['factor'])}{at}: F = {number(row['f'], 2)}, p = {p}"
    if found["anova"]:
        yield ANOVA_WARNING
    if found["differences"]:
        yield "What differs in the runs:"
    shown = within_kinds(found["differences"])[:_MOST_DIFFERENCES]
    for field in shown:
        yield f"  {field['path']}: {' -> '.join(map(json.dumps, field['values']))}"
    if (more := len(found["differences"]) - len(shown)) > 0:
        yield f"  ... and {count(more, 'more field')}: --json"
