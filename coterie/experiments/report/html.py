"""The page `report/index.html`: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from typing import Any

from coterie.experiments.measures import comparisons
from coterie.experiments.records.run import RunRecord
from coterie.experiments.report import figures, pictures, wording
from coterie.experiments.report.deception import explain
from coterie.experiments.report.page import make_environment, own
from coterie.experiments.report.transcripts import HOW_CHOSEN, choose_transcripts

_MOST_DRAWN = 12
"""Agents; a picture or matrix of more says nothing."""


def render(summary: dict[str, Any], record: RunRecord) -> str:
    """The page of a summary. All text of the run is cleaned of control characters and escaped."""
    return make_environment().get_template("report.html.j2").render(**_view(summary, record)) + "\n"


def _view(summary: dict[str, Any], record: RunRecord) -> dict[str, Any]:
    facts, chosen = summary["facts"], wording.focus(summary)
    deception = facts["deception"]
    has_tasks = not deception and any(s["tasks"] for s in facts["societies"])
    return {
        "facts": facts,
        "telemetry": summary["telemetry"],
        "ungraded": wording.grading_timeouts(facts["totals"]) if facts["totals"] else "",
        "headline": wording.headline(summary),
        "progress": wording.progress(summary),
        "focus": chosen,
        "groups": [s for s in facts["societies"] if not s["is_baseline"]],
        "as_asked": [c for c in facts["comparisons"] if c["matched"] == comparisons.AS_ASKED],
        "equal_tokens": [c for c in facts["comparisons"] if c["matched"] == comparisons.EQUAL_TOKENS],
        "num_tests": wording.count_tests(facts["comparisons"]),
        "accuracy_plot": own(figures.accuracy_plot(summary)) if has_tasks else None,
        "curve_plot": own(figures.curve_plot(summary)) if facts["self_consistency"] else None,
        "is_numbered": sum(not s["is_baseline"] for s in facts["societies"]) > figures.MANY,
        "pictures": [_pictures(i, s) for i, s in enumerate(facts["societies"]) if _is_drawn(s) and not deception],
        "deception_notes": explain(deception) if deception else [],
        "transcripts": choose_transcripts(record),
        "how_chosen": HOW_CHOSEN,
        "personas": _personas(chosen),
    }


def _is_drawn(society: dict[str, Any]) -> bool:
    return not society["is_baseline"] and 0 < len(society["rounds"]) and len(society["agents"]) <= _MOST_DRAWN


def _pictures(index: int, society: dict[str, Any]) -> dict[str, Any]:
    several = len(society["rounds"]) > 1
    return {
        "society": society,
        "graphs": [(m, own(pictures.graph_plot(str(index), society, m))) for m in society["rounds"]],
        "reading": [_reading(m, len(society["agents"])) for m in society["rounds"]],
        "flow": own(pictures.flow_plot(str(index), society)) if several else None,
        "most": max((cell for row in society["persuasion"]["total"] for cell in row), default=0),
    }


def _reading(moment: dict[str, Any], agents: int) -> str:
    edges = len(moment["edges"])
    if not edges:
        return "nobody reads a peer"
    return "everybody reads everybody" if edges == agents * (agents - 1) else wording.count(edges, "edge")


def _personas(society: dict[str, Any] | None) -> list[dict[str, Any]]:
    return society["agents"] if society else []
