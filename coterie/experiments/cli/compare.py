"""`coterie compare`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def compare(
    first: str = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    second: str = typer.Argument(..., metavar="RUN", help="Another run on the same benchmark."),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Compare two runs on the tasks both have finished: accuracy (paired), cost, and what differs in their configs."""
    from coterie.experiments.contrasts import contrast
    from coterie.experiments.folder import RunFolder
    from coterie.experiments.metrics import tidy
    from coterie.experiments.record import RunRecord, read_record
    from coterie.journal import Journal

    def record(run: str) -> RunRecord:
        with Journal.read(RunFolder.find(Path(run)).journal) as journal:
            return read_record(journal)

    found = tidy(contrast(record(first), record(second)))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from coterie.experiments.report.contrast_terminal import print_contrast

    print_contrast(found, Console())
