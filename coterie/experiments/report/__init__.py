"""The report of a run: terminal, `report/index.html` and `report/summary.json`, all derived from the journal."""

from __future__ import annotations

import json
from pathlib import Path

from coterie.experiments.folder import RunFolder, write_atomically
from coterie.journal import Journal


def write_report(folder: RunFolder) -> Path:
    """Make `report/` anew from the journal, also while the run goes on or after it was cut short.

    Made twice from one journal it is the same to the byte. Returns the path of the page.

    Raises:
        JournalError: the journal cannot be read.
    """
    from coterie.experiments.metrics import summarize
    from coterie.experiments.record import read_record
    from coterie.experiments.report.html import render

    with Journal.read(folder.journal) as journal:
        summary, record = summarize(journal), read_record(journal)
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder.report / "summary.json", json.dumps(summary, indent=2) + "\n")
    page = folder.report / "index.html"
    write_atomically(page, render(summary, record))
    return page
