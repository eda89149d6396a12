"""What a society's training taught, as its last `coterie eval` found: for reports that show it beside the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coterie.experiments.evaluation import society
from coterie.experiments.report.society_evaluation_terminal import describe, is_part, who

Row = dict[str, Any]


def read_evaluation(report: Path) -> Row | None:
    """The table of the last `coterie eval`, its rows with `who` and `is_part`; None where none can be read.

    Args:
        report: The folder of a run's reports.
    """
    try:
        found = json.loads((report / society.FILE).read_text("utf-8"))
        if found["version"] != society.VERSION:
            return None
        rows = [{**row, "who": who(row), "is_part": is_part(row, found["rows"])} for row in found["rows"]]
        return {**found, "rows": rows, "sentence": describe(found)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def held_out(report: Path) -> list[Row]:
    """For each protocol of it, what the policies do together, or alone in the mean, trained and untrained."""
    found = read_evaluation(report) or {"rows": ()}
    return [
        {
            "protocol": row["protocol"], "iteration": found["checkpoint"]["iteration"], "tasks": found["tasks"],
            **{side: row[side]["accuracy"] for side in ("trained", "untrained")},
            **{name: row[name] for name in ("difference", "interval", "p_holm")},
        }
        for row in found["rows"] if not row["is_part"]
    ]  # fmt: skip
