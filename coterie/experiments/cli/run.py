"""`coterie run`: from an experiment file to a report."""

from __future__ import annotations

from pathlib import Path

import typer

from coterie.experiments.cli.options import Executor, Overrides, Page, Shown, Unsafe, settle


def run(
    path: Path = typer.Argument(..., metavar="FILE", help="The experiment file."),
    overrides: Overrides = None,
    executor: Executor = "",
    runs: Path = typer.Option(Path("runs"), "--runs", metavar="DIR", help="Where the run folder is made."),
    display: Shown = "auto",
    report: Page = True,
    unsafe: Unsafe = False,
) -> None:
    """Run an experiment file, and report."""
    from coterie.config.load import load
    from coterie.experiments.attempt import prepare, start
    from coterie.experiments.cli.ending import finish
    from coterie.experiments.monitoring.display import check_mode

    loaded = load(path, settle(overrides, executor, unsafe))
    check_mode(display)
    folder = prepare(loaded, runs, source=path)
    ending = start(loaded, folder, display)
    raise typer.Exit(finish(folder, ending, report))
