"""Tables on terminals of every width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coterie.experiments.report.evaluation_terminal import tell_difference
from coterie.experiments.report.layout import make_table

HEADS = ("succ.\n%", "coll.\n%", "dist.\nm")
CELLS = ("27.9\n15.0-18.5", "0.5\n0.1-0.9", "1.24\n1.1-1.4")


@pytest.mark.parametrize(("width", "tables"), ((20, 3), (24, 3), (31, 2), (200, 1)))
def test_no_number_is_cut(width: int, tables: int) -> None:
    table = make_table("", HEADS)
    table.add_row("o_random\n8 agents", *CELLS)
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    shown = file.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert all(shown.count(number) == 1 for cell in CELLS for number in cell.split("\n"))
    assert shown.count(" \u2500") == tables


def test_an_evaluation_tells_that_the_training_showed_something_else() -> None:
    place = {"scenario": "mix", "density": None, "agents": 1}
    found = {
        "trained": place, "conditions": {"is_deterministic": True},
        "training": {"iterations": 10, "metrics": {"success": 0.28}},
        "cells": [{**place, "metrics": {"success": {"value": 0.04, "low": 0.01, "high": 0.08}}}],
    }  # fmt: skip
    said = tell_difference(found)
    assert "4.0" in said and "28.0" in said and "--stochastic" in said
    assert not tell_difference({**found, "conditions": {"is_deterministic": False}})
    assert not tell_difference({**found, "trained": {**place, "agents": 2}})
    assert not tell_difference({**found, "training": {"iterations": 10, "metrics": {"success": 0.07}}})
