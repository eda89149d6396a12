"""The page `report/index.html`: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coterie.experiments.record import Member, RunRecord
from coterie.experiments.report import figures, pictures, wording
from coterie.experiments.report.transcripts import choose_transcripts
from coterie.text import clean

_MOST_DRAWN = 12
"""Agents; a picture or matrix of more says nothing."""
_FILTERS = {
    "percent": wording.percent, "signed": wording.signed, "span": wording.span, "p_value": wording.p_value,
    "number": wording.number, "bill": wording.bill, "moment": wording.moment, "duration": wording.duration,
}  # fmt: skip


def render(summary: dict[str, Any], record: RunRecord) -> str:
    """The page of a summary. All text of the run is cleaned of control characters and escaped."""
    environment = Environment(
        loader=PackageLoader("coterie.experiments.report"), autoescape=True, undefined=StrictUndefined,
        finalize=_finalize, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(_FILTERS | {"pretty": _pretty, "verdict": wording.verdict})
    return environment.get_template("report.html.j2").render(**_view(summary, record)) + "\n"


def _own(svg: str) -> Markup:
    """A figure of ours, in which every text was escaped."""
    return Markup(svg)  # noqa: S704


def _finalize(value: Any) -> Any:
    """What stands between {{ }}: own markup as it is, all other text cleaned (and then escaped by Jinja)."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _view(summary: dict[str, Any], record: RunRecord) -> dict[str, Any]:
    facts, chosen = summary["facts"], wording.focus(summary)
    member = next((m for m in record.societies if chosen and m.label == chosen["label"]), None)
    has_tasks = any(s["tasks"] for s in facts["societies"])
    return {
        "facts": facts,
        "telemetry": summary["telemetry"],
        "headline": wording.headline(summary),
        "progress": wording.progress(summary),
        "focus": chosen,
        "groups": [s for s in facts["societies"] if not s["is_baseline"]],
        "comparisons": {(c["society"], c["baseline"], c["matched"]): c for c in facts["comparisons"]},
        "accuracy_plot": _own(figures.accuracy_plot(summary)) if has_tasks else None,
        "curve_plot": _own(figures.curve_plot(summary)) if facts["self_consistency"] else None,
        "is_numbered": sum(not s["is_baseline"] for s in facts["societies"]) > figures.MANY,
        "pictures": [_pictures(i, s) for i, s in enumerate(facts["societies"]) if _is_drawn(s)],
        "transcripts": choose_transcripts(record, member) if isinstance(member, Member) else [],
        "personas": _personas(chosen),
    }


def _is_drawn(society: dict[str, Any]) -> bool:
    return not society["is_baseline"] and 0 < len(society["rounds"]) and len(society["agents"]) <= _MOST_DRAWN


def _pictures(index: int, society: dict[str, Any]) -> dict[str, Any]:
    several = len(society["rounds"]) > 1
    return {
        "society": society,
        "graphs": [(m, _own(pictures.graph_plot(str(index), society, m))) for m in society["rounds"]],
        "reading": [_reading(m) for m in society["rounds"]],
        "flow": _own(pictures.flow_plot(str(index), society)) if several else None,
        "most": max((cell for row in society["persuasion"]["total"] for cell in row), default=0),
    }


def _reading(moment: dict[str, Any]) -> str:
    agents, edges = len(moment["agents"]), len(moment["edges"])
    if not edges:
        return "nobody reads a peer"
    return "everybody reads everybody" if edges == agents * (agents - 1) else f"{edges} ways to read a peer"


def _personas(society: dict[str, Any] | None) -> list[dict[str, Any]]:
    return society["agents"] if society else []
