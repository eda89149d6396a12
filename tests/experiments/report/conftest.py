"""Runs of the real supervisor with the scripted engine, and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

import coterie.experiments.api as api
from coterie.experiments.api import Run

Make = Callable[..., Run]
HOSTILE = (
    "<script>alert(1)</script> The answer is 4.",
    "</p><img src=x onerror=alert(1)> {{ 7 * 7 }} $\\frac{1}{2}$",
    "\x1b[31mred\x1b]0;title\x07 \u202eevil\u200b [bold]no[/bold] The answer is 5.",
    "The answer is 3.",
)


def config(*, engine: dict[str, Any] | None = None, samples: int = 8, **more: Any) -> dict[str, Any]:
    scripted = {"kind": "scripted", "accuracy": 0.5, "conformity": 0.4, **(engine or {})}
    return {
        "name": "trial", "seed": 7, "determinism": "exact",
        "policies": {"base": {"engine": scripted, "model": "none", "price": {"prompt": 1.0, "completion": 2.0}}},
        "seats": [{"name": "calm", "policy": "base", "count": 2}, {"name": "bold", "policy": "base"}],
        "protocol": {"kind": "machinesom", "strategy": ["debate", "reflect", "debate"]},
        "baselines": ["single", {"kind": "self_consistency", "samples": samples}],
        "benchmark": {"kind": "reasoning_gym", "task": "chain_sum", "limit": 12,
                      "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}},
        **more,
    }  # fmt: skip


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs an experiment, with these fields changed."""
    runs = tmp_path_factory.mktemp("runs")
    return lambda **changes: api.run(config(**changes), runs=runs)


@pytest.fixture(scope="session")
def run(make: Make) -> Run:
    """A finished run of one society of three with both baselines."""
    return make()


@pytest.fixture(scope="session")
def hostile(make: Make) -> Run:
    """A run whose agents say what an attacker would, and now and then nothing."""
    persona = "<b>hates</b> you \x1b[2J"
    seats = [{"name": name, "policy": "base", "persona": persona} for name in ("ada", "bo", "cy")]
    return make(engine={"replies": HOSTILE, "faults": {"empty": 0.1}}, seats=seats)


@pytest.fixture(scope="session")
def partial(make: Make) -> Run:
    """A run that its budget ended with some tasks finished and some not."""
    return make(budget={"calls": 200}, executor={"kind": "local", "episodes": 6})


class _Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes


@pytest.fixture
def check_inert() -> Callable[[str], list[tuple[str, str | None]]]:
    """Asserts that a page runs nothing and may load nothing; returns its attributes."""

    def check(text: str) -> list[tuple[str, str | None]]:
        page = _Page(text)
        assert not {"script", "img", "iframe", "object", "base", "form"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert "default-src 'none'" in text
        return page.attributes

    return check
