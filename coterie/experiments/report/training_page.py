"""Trainings side by side, as one page: learning curves, where they ended, and which is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.experiments.comparison.learning_curves import SHARES, Group
from coterie.experiments.report.learning import has_anything, learning_plot
from coterie.experiments.report.page import make_environment, own
from coterie.experiments.report.training_terminal import head, noun, show_estimate, show_metric
from coterie.experiments.report.wording import count, number, p_value
from coterie.experiments.statistics.inference import ALPHA

Row = dict[str, Any]


def render_trainings(
    found: Row, groups: Sequence[Group], stem: str, command: str = "", pages: Mapping[str, str] | None = None
) -> str:
    """The page of what `training_contrasts.contrast_trainings` found. All text of the runs is cleaned and escaped.

    Args:
        found: It, tidied.
        groups: Its curves.
        stem: What the files beside it are called, without their suffixes.
        command: What it was made by.
        pages: The reports of runs that have one, by the run's name: their addresses from this page.
    """
    names = list(dict.fromkeys(name for row in found["rows"] for name in row["metrics"]))
    view = {
        "found": found, "stem": stem, "command": command, "pages": pages or {},
        "used": f"{number(found['amount'])} {found['unit']}",
        "headline": _headline(found), "sentence": _sentence(found),
        "curves": own(learning_plot(groups)) if has_anything(groups) else None,
        "heads": [_head(name) for name in names],
        "rows": [{**row, "cells": [_cell(name, row) for name in names]} for row in found["rows"]],
        "runs": [{**run, "cells": [_shown(name, run) for name in names]} for run in found["runs"]],
        "pairs": [{**pair, "answer": _answer(pair)} for pair in found["pairs"]],
        "score": noun(found["pairs"][0]["metric"]) if found["pairs"] else "",
        "held_out": [{**row, "label": run["label"], "seed": run["seed"]}
                     for run in found["runs"] for row in run["held_out"]],
    }  # fmt: skip
    return make_environment().get_template("trainings.html.j2").render(**view) + "\n"


def _head(name: str) -> str:
    """A column's name and unit on one line."""
    *words, unit = head(name).split("\n")
    return ", ".join(filter(None, (" ".join(words), unit)))


def _cell(name: str, row: Row) -> list[str]:
    """A number, and its interval where it has one."""
    return show_estimate(name, row["metrics"].get(name)).split("\n")


def _shown(name: str, run: Row) -> str:
    return show_metric(name, run["metrics"].get(name))


def _answer(pair: Row) -> str:
    return "better" if pair["p_holm"] < ALPHA else "not told apart"


def _sentence(found: Row) -> str:
    """Whether the best setting can be told from the others."""
    pairs = found["pairs"]
    if not pairs:
        return ""
    better = sum(pair["p_holm"] < ALPHA for pair in pairs)
    if better == len(pairs):
        return f"All {len(pairs)} pairs of settings can be told apart." if better > 1 else "The two can be told apart."
    said = f"{better or 'None'} of the {len(pairs)} pairs of settings can be told apart."
    said = said if len(pairs) > 1 else "The two cannot be told apart."
    least = min(pair["least_p"] for pair in pairs)
    if least * len(pairs) >= ALPHA:
        tests = f" in each of {len(pairs)} tests" if len(pairs) > 1 else ""
        said += " It takes more seeds: if every one of a setting were above all of another, p would still be"
        said += f" {p_value(least)}{tests}."
    return said


def _headline(found: Row) -> str:
    """Which setting did best, and whether that can be told from the next."""
    rows = [row for row in found["rows"] if "seeds" in row]
    name = found["pairs"][0]["metric"] if found["pairs"] else None
    if name is None:
        return f"{count(len(found['runs']), 'training')} side by side"
    best, second = sorted(rows, key=lambda row: row["metrics"][name]["value"], reverse=True)[:2]
    value, next_value = (show_metric(name, row["metrics"][name]["value"]) for row in (best, second))
    shown = f"{value} {noun(name)}" if name in SHARES else f"a {noun(name)} of {value}"
    if value == next_value:
        return f"No setting is ahead: {shown}"
    return f"{best['label']} ends highest, with {shown}"
