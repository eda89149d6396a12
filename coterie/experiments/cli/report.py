"""`coterie report`: make a run's report anew and show it."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def report(
    run: str = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    as_json: bool = typer.Option(False, "--json", help="Print report/summary.json instead."),
) -> None:
    """Make the report anew from the journal, also while the run goes, and print its summary."""
    from coterie.experiments.folder import RunFolder
    from coterie.experiments.report import print_report, write_report
    from coterie.experiments.report.layout import make_console

    folder = RunFolder.find(Path(run))
    page = write_report(folder)
    found = (page.parent / "summary.json").read_text("utf-8")
    if as_json:
        print(found, end="")
        return
    print_report(json.loads(found), make_console())
    print(f"Report: {page}")
