"""What `run` and `resume` say at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from coterie.journal import Journal

if TYPE_CHECKING:
    from coterie.experiments.continuation import Ending
    from coterie.experiments.folder import RunFolder

# An attempt that was interrupted ends the command like a program that Ctrl-C killed; one out of budget did its work.
_EXIT_CODES = {"interrupted": 130}


def finish(folder: RunFolder, ending: Ending, report: bool = True) -> int:
    """Print the summary, write the report, say how to go on; returns the exit code."""
    from coterie.experiments.measures.summary import summarize
    from coterie.experiments.report import print_report, write_report
    from coterie.experiments.report.layout import make_console

    with Journal.read(folder.journal) as journal:
        print_report(summarize(journal), make_console())
    print()
    if report:
        if ending.status != "finished":
            print("making the report, which --no-report leaves out", file=sys.stderr)
        print(f"report  {write_report(folder)}")
    print(f"run     {folder.path}")
    if ending.status != "finished":
        print(f"stopped: {ending.reason}\ngo on with: coterie resume {folder.path}", file=sys.stderr)
    return _EXIT_CODES.get(ending.reason, 0)
