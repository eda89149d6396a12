"""What every page shares: one file, no script, nothing loaded from anywhere, all text of runs cleaned and escaped."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coterie.experiments.report import wording
from coterie.text import clean

_FILTERS = {
    "percent": wording.percent, "signed": wording.signed, "span": wording.span, "p_value": wording.p_value,
    "number": wording.number, "bill": wording.bill, "moment": wording.moment, "duration": wording.duration,
}  # fmt: skip


@cache
def make_environment() -> Environment:
    """Templates of `report/templates`, compiled once; what they print is cleaned of control characters and escaped."""
    environment = Environment(
        loader=PackageLoader("coterie.experiments.report"), autoescape=True, undefined=StrictUndefined,
        finalize=_finalize, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(_FILTERS | {"pretty": _pretty})
    return environment


def own(svg: str) -> Markup:
    """A figure of ours, in which every text was escaped."""
    return Markup(svg)  # noqa: S704


def _finalize(value: Any) -> Any:
    """What stands between {{ }}: own markup as it is, all other text cleaned (and then escaped by Jinja)."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
