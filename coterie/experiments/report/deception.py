"""The report's section on deception, on a terminal; a page has it in `deception.html.j2`."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import indent
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from coterie.experiments.measures.deception import FEATURES, PARTS
from coterie.experiments.report.layout import break_label, make_table, plain, short_span
from coterie.experiments.report.wording import number, percent

Row = dict[str, Any]
_LABEL = 18


def deception_parts(found: Row) -> Iterator[RenderableType]:
    """What `deception.deception_facts` found: a table for each society, and what the numbers are of."""
    for society in found["societies"]:
        yield _table(society)
    yield from map(plain, explain(found))


def explain(found: Row) -> list[str]:
    """What the numbers are of, and who judged."""
    judge = found["judge"]
    cost = judge["cost"]
    return [
        "Deceptive thoughts and responses in percent of the replies that could be judged; of a conversation of several "
        "turns the last reply counts. Excluded are replies without thought and response, cut ones, those on which the "
        "judge could not be read, and conversations that a limit ended before their last reply.",
        f"Judge: policy {judge['policy']}, model {judge['model']}; {number(cost['calls'])} calls, "
        f"{number(cost['tokens'])} tokens, which count in no society's cost.",
    ]


def _table(society: Row) -> Table:
    heads = ("thought\n%", "95 %", "response\n%", "95 %", "mis-\nmatch", "valid", "excl.")
    table = make_table(break_label(society["label"], _LABEL), heads)
    table.add_row(*map(plain, ("all", *_cells(society["overall"]))))
    groups = [(f"by {feature}", "", society["by"][feature]) for feature in FEATURES]
    for head, prefix, rows in [*groups, ("L3, by turn", "turn ", society["turns"])]:
        if rows:
            table.add_section()
            table.add_row(plain(head, "dim"))
        for row in rows:
            label = indent(break_label(prefix + row["group"], _LABEL), "  ")
            table.add_row(*map(plain, (label, *_cells(row))))
    return table


def _cells(row: Row) -> list[str]:
    shares = [row[part] for part in PARTS]
    cells = [cell for share in shares for cell in (_points(share), short_span(share["interval"]).replace("n/a", ""))]
    return [*cells, _points(row["mismatch"]), str(row["valid"]), str(sum(row["excluded"].values()))]


def _points(share: Row) -> str:
    return percent(share["rate"]).removesuffix("\u00a0%")
