"""`coterie sweep`: every experiment of a grid, then one table and one picture."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from coterie.experiments.cli.options import Executor, Overrides, Shown, Unsafe, settle


def sweep(
    context: typer.Context,
    path: Path = typer.Argument(..., metavar="FILE", help="An experiment file with a section `sweep`."),
    overrides: Overrides = None,
    executor: Executor = "",
    runs: Path = typer.Option(Path("runs"), "--runs", metavar="DIR", help="Where the sweep's folder is made."),
    display: Shown = "auto",
    unsafe: Unsafe = False,
    as_json: bool = typer.Option(False, "--json", help="Print the comparison as JSON."),
) -> None:
    """Run every combination of the values in `sweep:`, and compare them. A second time: go on with what is missing."""
    from coterie.config.load import load
    from coterie.errors import ConfigError
    from coterie.experiments.cli.compare import command_of, show
    from coterie.experiments.monitoring.display import check_mode
    from coterie.experiments.sweeps import has_begun, sweep_folder, work

    loaded = load(path, settle(overrides, executor, unsafe))
    if not loaded.points:
        raise ConfigError(
            "there is no section `sweep`", where=str(path), remedy="add one, such as `sweep: {seed: [1, 2, 3]}`"
        )
    check_mode(display)
    done = []
    for worked in work(loaded, runs, path, display):
        done.append(worked)
        _say(f"{len(done)}/{len(loaded.points)}  {worked.label}: {worked.status} {worked.reason}".rstrip())
    begun = [worked.folder for worked in done if has_begun(worked.folder)]
    if begun:
        page = sweep_folder(loaded, runs) / "comparison.html"
        show(begun, as_json, page, command=command_of(context), pool=True)
    if any(worked.status != "finished" for worked in done) or len(done) < len(loaded.points):
        _say(f"go on with: coterie sweep {path}")
    if any(worked.is_interrupted for worked in done):
        raise typer.Exit(130)
    raise typer.Exit(int(any(worked.status == "failed" for worked in done)))


def _say(line: str) -> None:
    from coterie import text

    print(text.for_terminal(line), file=sys.stderr)
