"""`coterie study`: how well measures of agents agree with what replays without them lose."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from coterie.experiments.cli.options import Executor, Overrides, Shown, settle


def study(
    path: Path = typer.Argument(
        ..., metavar="FILE|RUN", help="An experiment file with a section `study`; or a study's run, to go on with it "
        "and to see what it found."
    ),
    overrides: Overrides = None,
    executor: Executor = "",
    runs: Path = typer.Option(Path("runs"), "--runs", metavar="DIR", help="Where the run folder is made."),
    display: Shown = "auto",
    as_json: bool = typer.Option(False, "--json", help="Print report/study.json instead."),
) -> None:  # fmt: skip
    """Work a society's tasks, replay every episode without each agent, and say which measure of agents foretells it."""
    from coterie.config.load import load
    from coterie.experiments.attempt import find_run, load_resolved, prepare, start
    from coterie.experiments.monitoring.display import check_mode
    from coterie.experiments.report.layout import make_console
    from coterie.experiments.report.study_terminal import print_study
    from coterie.experiments.study.results import check_is_study, write_study

    check_mode(display)
    changes, is_new = settle(overrides, executor, unsafe=False), path.is_file()
    folder = None if is_new else find_run(path)
    loaded = load(path, changes) if folder is None else load_resolved(folder, changes)
    check_is_study(loaded.config, path)
    folder = folder or prepare(loaded, runs, source=path)
    ending = start(loaded, folder, display, is_new=is_new)
    if ending.status != "finished":
        _say(f"stopped: {ending.reason}\ngo on with: coterie study {folder.path}")
        raise typer.Exit(130 if ending.reason == "interrupted" else 1)
    found = write_study(folder)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print_study(found, make_console())
    print(f"numbers: {folder.report / 'study.json'}")


def _say(line: str) -> None:
    from coterie import text

    print("\n".join(map(text.for_terminal, line.splitlines())), file=sys.stderr)
