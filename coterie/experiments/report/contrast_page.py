"""Runs side by side, as one page with a table and a picture: accuracy against tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coterie.experiments.report import figures
from coterie.experiments.report.page import make_environment, own

Row = dict[str, Any]
ANOVA_WARNING = (
    "The analysis of variance is MachineSoM's: over the accuracies of repeats. Strategies that share their first "
    "turns, and repeats on the same tasks, are not independent, as it assumes; the paired test decides."
)


def render_contrast(found: Row) -> str:
    """The page of what `contrasts.contrast` found. All text of the runs is cleaned and escaped."""
    mains = compared(found)
    rows = [
        {**row, "label": row_label(found, row), "test": mains.get((row["setting"], row["society"]))}
        for row in tested(found)
    ]
    between = [
        {**row, "label": row_label(found, row), "base": base_name(found, row)}
        for row in found["comparisons"]
        if row["matched"] == "settings"
    ]
    view = {
        "found": found, "rows": rows, "between": between, "pictures": _pictures(found), "warning": ANOVA_WARNING,
        "baselines": distinct_baselines(found), "task_count": task_count,
        "num_tests": sum(row["p"] is not None for row in found["comparisons"]),
        "is_equal": any(row["matched"] == "equal tokens" for row in mains.values()),
        "is_repeated": any(row["repeats"] > 1 for row in rows),
    }  # fmt: skip
    return make_environment().get_template("comparison.html.j2").render(**view) + "\n"


def tested(found: Row) -> list[Row]:
    """The rows of societies that are no baselines; their place is their number in table and picture."""
    return [row for row in found["rows"] if not row["is_baseline"]]


def distinct_baselines(found: Row) -> list[Row]:
    """Baselines, each with its `label`; those that did the very same in several settings stand once."""
    rows: dict[str, Row] = {}
    for row in found["rows"]:
        if row["is_baseline"]:
            rows.setdefault(json.dumps([row["society"], row["by_repeat"], row["cost_per_task"]]), row)
    names = [row["society"] for row in rows.values()]
    return [
        {**row, "label": row["society"] if names.count(row["society"]) == 1 else row_label(found, row)}
        for row in rows.values()
    ]


def compared(found: Row) -> dict[tuple[int, str], Row]:
    """Each society's comparison with its baseline, by setting and society."""
    return {(c["setting"], c["society"]): c for c in found["comparisons"] if c["matched"] != "settings"}


def row_label(found: Row, row: Row) -> str:
    """Setting and society; one of them where it says all."""
    setting = found["settings"][row["setting"]]["label"]
    if len(found["settings"]) == 1:
        return str(row["society"])
    alone = sum(other["setting"] == row["setting"] for other in tested(found)) == 1
    is_baseline = row.get("is_baseline", False)
    return setting if alone and not is_baseline else f"{setting}: {row['society']}"


def task_count(row: Row, times: str = "x") -> str:
    """How many tasks a society worked, and how often each of them (a mean) where that is not once."""
    often = row["episodes"] / row["tasks"] if row["tasks"] else 1
    return str(row["tasks"]) if often == 1 else f"{row['tasks']}{times}{often:.3g}"


def base_name(found: Row, row: Row) -> str:
    """What a row is compared with, for comparisons between settings."""
    return row_label(found, {"setting": row["against_setting"], "society": row["against"]})


def _pictures(found: Row) -> list[Row]:
    """One picture for each benchmark: points of different questions do not belong into one."""
    groups: dict[str, list[int]] = {}
    for index, setting in enumerate(found["settings"]):
        groups.setdefault(_benchmark(setting["benchmark"]), []).append(index)
    return [
        {"benchmark": name if len(groups) > 1 else "", "svg": own(_picture(f"tokens-{i}", found, indices))}
        for i, (name, indices) in enumerate(groups.items())
        if _points(found, indices)
    ]


def _benchmark(config: Row) -> str:
    named = [f"{name} {value}" for name, value in config.items() if name != "kind" and isinstance(value, str | int)]
    return ", ".join([config["kind"], *named])


def _points(found: Row, settings: Sequence[int]) -> list[figures.Point]:
    return [
        figures.Point(row_label(found, row), i, row["cost_per_task"]["tokens"], row["accuracy"], row["interval"])
        for i, row in enumerate(tested(found), 1)
        if row["setting"] in settings and row["cost_per_task"] and row["accuracy"] is not None
    ]


def _picture(name: str, found: Row, settings: Sequence[int]) -> str:
    # Settings that share their baseline have one curve.
    curves = {json.dumps([c["tokens"], c["accuracy"]]): c for c in found["curves"] if c["setting"] in settings}
    title = "Accuracy against tokens per task, with 95 % intervals"
    return figures.cost_plot(name, title, _points(found, settings), list(curves.values()), most_named=1)
