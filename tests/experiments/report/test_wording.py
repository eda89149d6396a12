from __future__ import annotations

from typing import Any

import pytest

from coterie.experiments.report.wording import duration, headline, number, signed, verdict


def make_comparison(low: float, high: float, *, tasks: int = 50, is_beyond: bool = False) -> dict[str, Any]:
    return {
        "society": "group", "baseline": "self_consistency", "matched": "equal tokens", "tasks": tasks,
        "difference": (low + high) / 2, "interval": [low, high], "is_beyond": is_beyond, "baseline_tokens": 50.0,
        "society_tokens": 100.0, "samples_journalled": 16,
    }  # fmt: skip


def make_summary(*comparisons: dict[str, Any]) -> dict[str, Any]:
    labels = dict.fromkeys(c["society"] for c in comparisons)
    societies = [{"label": label, "is_baseline": False, "tasks": 50, "accuracy": 0.5} for label in labels]
    return {"facts": {"societies": societies, "comparisons": list(comparisons)}}


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(0.01, 0.2, "yes"), (-0.2, -0.01, "no"), (-0.1, 0.1, "unclear"), (0, 0, "unclear")]
)
def test_the_interval_alone_decides(low: float, high: float, answer: str) -> None:
    assert verdict(make_comparison(low, high)) == answer


def test_a_gain_over_fewer_tokens_is_no_gain() -> None:
    comparison = make_comparison(0.1, 0.2, is_beyond=True)
    assert verdict(comparison) == "unclear"
    assert "spent more tokens" in headline(make_summary(comparison)).sentence


def test_a_loss_to_fewer_tokens_is_a_loss() -> None:
    assert verdict(make_comparison(-0.2, -0.1, is_beyond=True)) == "no"


def test_a_handful_of_tasks_tells_nothing() -> None:
    assert headline(make_summary(make_comparison(0.1, 0.2, tasks=5))).answer == "unclear"


def test_many_groups_are_counted_and_the_looking_is_admitted() -> None:
    rows = [make_comparison(0.1, 0.2) | {"society": "a"}, make_comparison(-0.1, 0.1) | {"society": "b"}]
    found = headline(make_summary(*rows))
    assert found.short == "1 of 2 groups beat one agent"
    assert "not corrected for looking at 2 groups" in found.sentence


def test_nothing_to_compare_is_said() -> None:
    assert headline({"facts": {"societies": [], "comparisons": []}}).answer == "open"


def test_numbers_are_written_as_people_read_them() -> None:
    assert number(1234567.8) == "1\u202f234\u202f568"
    assert signed(-0.051) == "\u22125.1"
    assert [duration(x) for x in (3.21, 65, 3700)] == ["3.2 s", "1 min 05 s", "1 h 01 min"]
