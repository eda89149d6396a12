"""`coterie log`: check a run's journal, read it, and hand it to other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from coterie import text

if TYPE_CHECKING:
    from coterie.journal import Journal

log = typer.Typer(help="Check, read and export a run's journal.", no_args_is_help=True, rich_markup_mode=None)
_RUN: Any = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`.")
_SHOWN_FAULTS = 20
_AS_JSON: Any = typer.Option(False, "--json", help="Print it as JSON.")


class Format(StrEnum):
    """What `export` writes."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    LM_EVAL = "lm-eval"
    INSPECT = "inspect"


@log.command()
def verify(run: str = _RUN, as_json: bool = _AS_JSON) -> None:
    """Recompute every hash, and check that verdicts and episodes refer to turns that exist."""
    from coterie.experiments.folder import RunFolder
    from coterie.experiments.records.audit import audit

    folder = RunFolder.find(Path(run))
    digest, faults = audit(folder)
    if as_json:
        print(json.dumps({"run": folder.path.name, "digest": digest, "ok": not faults, "faults": faults}, indent=2))
    elif faults:
        for fault in faults[:_SHOWN_FAULTS]:
            print(text.for_terminal(fault), file=sys.stderr)
        if len(faults) > _SHOWN_FAULTS:
            print("... all of them: --json", file=sys.stderr)
        print(f"{folder.path.name}: {len(faults)} fault{'s' * (len(faults) > 1)}", file=sys.stderr)
    else:
        print(f"{folder.path.name}: ok, digest {digest}")
    raise typer.Exit(1 if faults else 0)


@log.command()
def show(
    run: str = _RUN,
    task: str = typer.Option("", "--task", help="Only this task."),
    society: str = typer.Option("", "--society", help="Only this society."),
    kind: str = typer.Option("", "--kind", help="episode, turn, verdict, run, attempt, failure, ...; of a training "
                             "iteration, checkpoint, run, attempt; default: the first of these."),
    limit: int = typer.Option(10, "--limit", min=1, help="At most so many records."),
    as_json: bool = _AS_JSON,
) -> None:  # fmt: skip
    """Print what was said, as transcripts of episodes or as records of one kind."""
    from coterie.experiments.exports import transcripts
    from coterie.experiments.folder import RunFolder
    from coterie.journal import Journal

    with Journal.read(RunFolder.find(Path(run)).journal) as journal:
        kind = kind or transcripts.main_kind(journal)
        selection = transcripts.Selection(kind, task, society)
        if as_json:
            print(json.dumps(list(islice(transcripts.select(journal, selection), limit)), indent=2))
            return
        count = 0
        for shown in transcripts.show(journal, selection, limit):
            print(text.for_terminal(shown), end="\n\n")
            count += 1
    if not count:
        fitting = " of this task or society" if task or society else ""
        print(f"the run has no records of the kind {kind}{fitting}", file=sys.stderr)


@log.command()
def export(
    run: str = _RUN,
    to: Format = typer.Option(Format.JSONL, "--to", help="The format."),
    out: Path | None = typer.Option(None, "--out", help="Where to write; default: `export` in the run folder."),
    as_json: bool = _AS_JSON,
) -> None:
    """Write the tables turns, verdicts and episodes, or each society's results as another program writes them.

    Of a training run: the table iterations.
    """
    from coterie.errors import ConfigError
    from coterie.experiments.folder import RunFolder
    from coterie.experiments.records.training import is_of_world
    from coterie.journal import Journal

    folder = RunFolder.find(Path(run))
    with Journal.read(folder.journal) as journal:
        if to in (Format.LM_EVAL, Format.INSPECT) and is_of_world(journal.get("run") or {}):
            raise ConfigError("a training run has no answers", where=f"--to {to}", remedy="take jsonl or parquet")
        files = _writer(to)(journal, out or folder.path / "export")
    print(json.dumps([str(file) for file in files], indent=2) if as_json else "\n".join(map(str, files)))


def _writer(to: Format) -> Callable[[Journal, Path], list[Path]]:
    if to is Format.LM_EVAL:
        from coterie.experiments.exports.lm_eval import write_lm_eval

        return write_lm_eval
    if to is Format.INSPECT:
        try:
            from coterie.experiments.exports.inspect_log import write_inspect
        except ModuleNotFoundError as missing:
            from coterie.errors import EnvironmentMissing

            raise EnvironmentMissing(
                f"a log of Inspect needs the package inspect-ai: {missing}", remedy="pip install 'coterie[inspect]'"
            ) from missing
        return write_inspect
    from coterie.experiments.exports.tables import export_tables

    return partial(export_tables, form="parquet" if to is Format.PARQUET else "jsonl")
