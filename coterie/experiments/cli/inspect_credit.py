"""`coterie inspect-credit`: replies of a training, their tokens shaded by what credit saw in them."""

from __future__ import annotations

from pathlib import Path

import typer


def inspect_credit(
    run: str = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    iteration: int | None = typer.Option(None, "--iteration", min=1, help="Default: the last one that was kept."),
    turns: int = typer.Option(8, "--turns", min=1, help="At most so many replies."),
) -> None:
    """Write a page on which every token is shaded by its signals and by its factor."""
    from coterie.agents.engines import process
    from coterie.experiments.folder import RunFolder

    folder = RunFolder.find(Path(run))
    process.prepare()
    from coterie.experiments.report.credit_page import write_credit_page

    print(f"wrote {write_credit_page(folder, iteration, turns)}")
