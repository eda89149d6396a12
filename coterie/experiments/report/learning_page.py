"""The report of a society's training: one page, its curves as a picture, and how its policies did in evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coterie.experiments.folder import RunFolder, write_atomically
from coterie.experiments.monitoring.display_updates import show, title
from coterie.experiments.records.run import read_part
from coterie.experiments.report import learning_figures
from coterie.experiments.report.held_out import read_evaluation
from coterie.experiments.report.learning_terminal import POLICY, direction, headline, lines_of, sentence
from coterie.experiments.report.page import make_environment, own
from coterie.experiments.report.transcripts import HOW_CHOSEN, choose_transcripts
from coterie.experiments.report.wording import percent
from coterie.journal import Journal
from coterie.orchestration.sittings import iteration_of

CURVES = "learning_curves.png"
_ALL = ("right/", "reward/", "truth/", "judge/", "learning/", "length/", "cut/", "speed/")
_HOW_CHOSEN = f"Of the last iteration. {HOW_CHOSEN}"


def write_learning_report(folder: RunFolder) -> Path:
    """Make `report/` of a society's training anew, also while the run goes on or after it was cut short.

    Beside the page there are `summary.json` and `learning_curves.png`. Returns the path of the page.

    Raises:
        JournalError: the journal cannot be read.
    """
    from coterie.experiments.measures.summary import summarize

    with Journal.read(folder.journal) as journal:
        summary = summarize(journal)
        last = summary["facts"]["learning"]["iterations"]
        record = read_part(journal, lambda task: iteration_of(task) == last)
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder.report / "summary.json", json.dumps(summary, indent=2) + "\n")
    panels = _panels(summary)
    if panels:
        (folder.report / CURVES).write_bytes(learning_figures.learning_picture(panels))
    page = folder.report / "index.html"
    view = _view(summary) | {"transcripts": choose_transcripts(record), "how_chosen": _HOW_CHOSEN}
    view |= {"evaluation": read_evaluation(folder.report)}
    write_atomically(page, make_environment().get_template("learning.html.j2").render(**view) + "\n")
    return page


def _panels(summary: dict[str, Any]) -> list[learning_figures.Panel]:
    learning = summary["facts"]["learning"]
    if not learning["iterations"]:
        return []
    return learning_figures.panels_of([*learning["curves"], *summary["telemetry"]["curves"]], learning["policies"])


def _view(summary: dict[str, Any]) -> dict[str, Any]:
    facts, telemetry = summary["facts"], summary["telemetry"]
    learning, panels = facts["learning"], _panels(summary)
    return {
        "facts": facts, "telemetry": telemetry, "learning": learning,
        "headline": headline(learning), "direction": direction(learning),
        "sentence": sentence(learning, telemetry["totals"]["seconds"]),
        "progress": _progress(learning, telemetry),
        "curves": own(learning_figures.learning_plot(panels)) if panels else None,
        "measures": _measures([*learning["curves"], *telemetry["curves"]]),
        "roles": [{**row, "cut": percent(row["cut"])} for row in learning["roles"]],
        "policy_heads": [_one_line(head) for name, head in POLICY.items() if _has(learning, name)],
        "policies": [
            (row["policy"], row["weights"][:12], row["learning"].get("tokens", 0.0),
             [show(row["learning"].get(name), "number") for name in POLICY if _has(learning, name)])
            for row in learning["policies"]
        ],
        "parts": _parts(telemetry["totals"]),
    }  # fmt: skip


def _one_line(head: str) -> str:
    return head.replace("-\n", "").replace("\n", " ")


def _has(learning: dict[str, Any], metric: str) -> bool:
    return any(metric in row["learning"] for row in learning["policies"])


def _measures(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Group, name, and the means over the first and the last quarter, as people write them."""
    lines = lines_of(rows, _ALL)
    return [
        (title(curve.group), curve.label, show(first, curve.form), show(last, curve.form))
        for curve, first, last in lines
    ]


def _progress(learning: dict[str, Any], telemetry: dict[str, Any]) -> str:
    if learning["is_complete"]:
        return ""
    done = f"{learning['iterations']} of {learning['planned']} iterations are done"
    why = (telemetry["reason"] or "").splitlines()
    return f"A partial report: {done}. The run is {telemetry['status']}" + (f" ({why[0]})." if why else ".")


def _parts(totals: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the time went: name, seconds, share."""
    whole = sum(totals["parts"].values())
    return [{"name": n, "seconds": s, "share": s / whole} for n, s in totals["parts"].items()] if whole else []
