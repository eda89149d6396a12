from __future__ import annotations

import io

from rich.console import Console

from coterie.experiments.api import Run
from coterie.experiments.report.terminal import print_summary
from coterie.text import clean


def show(run: Run, *, width: int = 80, is_terminal: bool = False) -> str:
    file = io.StringIO()
    print_summary(run.summary(), Console(file=file, width=width, force_terminal=is_terminal))
    return file.getvalue()


def test_it_fits_one_screen(run: Run) -> None:
    lines = show(run).splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_it_names_societies_baselines_cost_and_digest(run: Run) -> None:
    shown = show(run, width=120)
    for part in ("debate-reflect-debate", "single", "self_consistency", "equal tokens", "Who convinced whom", "calls"):
        assert part in shown
    assert run.summary()["facts"]["digest"] in shown


def test_it_is_plain_where_there_is_no_terminal(run: Run) -> None:
    assert "\x1b" not in show(run)
    assert "\x1b" in show(run, is_terminal=True)


def test_hostile_text_reaches_no_terminal(hostile: Run) -> None:
    shown = show(hostile)
    assert clean(shown) == shown


def test_a_partial_run_says_so(partial: Run) -> None:
    assert "partial report" in show(partial)
