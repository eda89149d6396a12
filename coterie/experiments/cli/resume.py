"""`coterie resume`: go on with a run that was killed, interrupted or out of budget."""

from __future__ import annotations

from pathlib import Path

import typer

from coterie.experiments.cli.options import Executor, Overrides, Page, Shown, Unsafe, settle


def resume(
    run: Path = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    path: Path | None = typer.Argument(
        None, metavar="[FILE]", help="The experiment file, to check that it is the same."
    ),
    overrides: Overrides = None,
    executor: Executor = "",
    display: Shown = "auto",
    report: Page = True,
    unsafe: Unsafe = False,
) -> None:
    """Go on with a run where its journal ends."""
    from coterie.config.load import load
    from coterie.experiments.attempt import find_run, load_resolved, start
    from coterie.experiments.cli.ending import finish

    changes = settle(overrides, executor, unsafe)
    folder = find_run(run)
    loaded = load(path, changes) if path else load_resolved(folder, changes)
    ending = start(loaded, folder, display, is_new=False)
    raise typer.Exit(finish(folder, ending, report))
