"""The report of a run: terminal, `report/index.html` and `report/summary.json`, all derived from the journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.experiments.folder import RunFolder, write_atomically
from coterie.journal import Journal

if TYPE_CHECKING:
    from rich.console import Console


def write_report(folder: RunFolder) -> Path:
    """Make `report/` anew from the journal, also while the run goes on or after it was cut short.

    Made twice from one journal it is the same to the byte. Returns the path of the page.

    Raises:
        JournalError: the journal cannot be read.
    """
    from coterie.experiments.measures.summary import summarize
    from coterie.experiments.records.run import read_record
    from coterie.experiments.records.training import is_of_world
    from coterie.experiments.records.updates import is_training
    from coterie.experiments.report.html import render

    with Journal.read(folder.journal) as journal:
        if is_of_world(journal.get("run") or {}):
            from coterie.experiments.report.world import write_world_report

            return write_world_report(folder)
        if is_training(journal.get("run") or {}):
            from coterie.experiments.report.learning_page import write_learning_report

            return write_learning_report(folder)
        summary, record = summarize(journal), read_record(journal)
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder.report / "summary.json", json.dumps(summary, indent=2) + "\n")
    page = folder.report / "index.html"
    write_atomically(page, render(summary, record))
    return page


def print_report(summary: dict[str, Any], console: Console) -> None:
    """Show a summary on one screen."""
    from coterie.experiments.report.learning_terminal import print_learning
    from coterie.experiments.report.terminal import print_summary
    from coterie.experiments.report.training_terminal import print_training

    printers = {"training": print_training, "learning": print_learning}
    printer = next((found for part, found in printers.items() if part in summary["facts"]), print_summary)
    printer(summary, console)
