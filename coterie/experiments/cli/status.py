"""`coterie status`: which runs there are, and how far one is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

from coterie import text

_CURVE = 24
_NEXT = {
    "finished": "coterie report {run}",
    "stopped": "coterie resume {run}",
    "failed": "mend the cause, then: coterie resume {run}",
    "killed": "coterie resume {run}",
}


def status(
    run: str = typer.Argument("", metavar="[RUN]", help="A run folder, the start of its name, or `latest`; else all."),
    runs: Path = typer.Option(Path("runs"), "--runs", help="Where the runs are, for the list of all."),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Show how far runs are; also while they go."""
    from coterie.experiments.folder import RunFolder
    from coterie.experiments.monitoring.progress import list_runs, read_progress

    if run:
        progress = read_progress(RunFolder.find(Path(run)))
        print(json.dumps(progress, indent=2) if as_json else text.for_terminal("\n".join(_lines(progress))))
        return
    rows = list(list_runs(runs))
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print(text.for_terminal(_table(("run", "status", "episodes", "turns", "attempts", "started"), map(_row, rows))))
    else:
        print(f"there are no runs under {runs}; start one with: coterie run FILE")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    if row["status"] == "unreadable":
        return row["run"], row["status"], row["reason"]
    done = f"{row['done']}/{row['total']}" if "done" in row else _steps(row)
    done = f"{row['iterations']}/{row['planned']} iterations" if "iterations" in row else done
    return row["run"], row["status"], done, str(row.get("turns", "")), str(row["attempts"]), row["started"] or ""


def _steps(training: dict[str, Any]) -> str:
    from coterie.experiments.monitoring.display_plain import short

    return f"{short(training['agent_steps'])}/{short(training['planned'])} steps"


def _lines(progress: dict[str, Any]) -> Iterable[str]:
    reason = f": {progress['reason']}" if progress["reason"] else ""
    yield f"{progress['run']}  {progress['status']}{reason}"
    yield ""
    yield from _training(progress["training"]) if "training" in progress else _society(progress)
    yield from map(_attempt, progress["attempts"])
    yield f"folder: {progress['path']}"
    if progress["status"] in _NEXT:
        yield f"next: {_NEXT[progress['status']].format(run=progress['run'])}"


def _training(training: dict[str, Any]) -> Iterable[str]:
    from coterie.experiments.report.training_terminal import show_metric

    rate = training["agent_steps_per_second"]
    speed = f", {rate:.0f} agent-steps/s" if rate else ""
    yield f"{_steps(training)} after iteration {training['iterations']}{speed}"
    if training["metrics"]:
        yield ""
        yield _table(("metric", "recent"), [(n, show_metric(n, value)) for n, value in training["metrics"].items()])
        yield ""
    if training["checkpoint"] is not None:
        yield f"last checkpoint: after iteration {training['checkpoint']}"


def _learning(learning: dict[str, Any]) -> Iterable[str]:
    """The curves of a society's training so far."""
    from coterie.experiments.monitoring.display_updates import show, title
    from coterie.experiments.monitoring.sparklines import sparkline

    yield f"{learning['iterations']}/{learning['planned']} iterations"
    rows = [
        (title(c["key"].partition("/")[0]), c["label"], show(c["first"], c["form"]), sparkline(c["values"], _CURVE),
         show(c["last"], c["form"]))
        for c in learning["curves"]
    ]  # fmt: skip
    if rows:
        yield ""
        yield _table(("", "measure", "first", "", "last"), rows)
        yield ""
    if learning["checkpoint"] is not None:
        yield f"last checkpoint: after iteration {learning['checkpoint']}"


def _society(progress: dict[str, Any]) -> Iterable[str]:
    if "learning" in progress:
        yield from _learning(progress["learning"])
    else:
        yield _table(("society", "done", progress["success"]), map(_society_row, progress["societies"]))
    yield ""
    unparsed = progress["unparsed_rate"]
    yield (
        f"{progress['turns']} turns, {progress['prompt_tokens']} tokens in, {progress['generated_tokens']} out"
        + ("" if unparsed is None else f", {unparsed:.0%} of the answers unparsed")
    )
    yield from _budget(progress["budget"])
    failures = progress["failures"]
    if failures["count"]:
        yield f"failures: {', '.join(f'{code} {count}' for code, count in failures['by_code'].items())}"


def _society_row(society: dict[str, Any]) -> tuple[str, ...]:
    label = society["society"] + (" (baseline)" if society["is_baseline"] else "")
    count = f"({society['correct']}/{society['judged']})"
    right = "" if society["accuracy"] is None else f"{society['accuracy']:.0%} {count}"
    return label, f"{society['done']}/{society['total']}", right


def _budget(budget: dict[str, Any]) -> Iterable[str]:
    for unit, spent in budget.items():
        if spent["limit"] is not None:
            yield f"budget: {spent['used']} of {spent['limit']} {unit} used ({spent['used'] / spent['limit']:.0%})"


def _attempt(attempt: dict[str, Any]) -> str:
    seconds = "" if attempt["seconds"] is None else f" after {attempt['seconds']:.0f} s"
    executor = attempt["executor"] or "?"
    return f"attempt {attempt['number']}: {attempt['started']}, {executor}, {attempt['status']}{seconds}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, *rows]
    # What a row shorter than the head says last stands across the other columns, and widens none.
    widths = [max(len(r[i]) for r in lines if i < len(r) - (len(r) < len(head))) for i in range(len(head))]
    padded = ([f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)
