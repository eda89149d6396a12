"""An answer that could not be graded in time counts as wrong, and everybody can see why."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import coterie
from coterie.errors import GradingTimeout
from coterie.experiments.report.terminal import print_summary
from coterie.journal import Journal
from coterie.testing.sums import Sums

YAML: dict[str, Any] = {
    "name": "late", "policy": {"engine": {"kind": "scripted", "accuracy": 1.0}, "model": "none"},
    "seats": [{"name": "a"}], "protocol": "single", "baselines": [], "benchmark": {"kind": "sums", "limit": 3},
}  # fmt: skip


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> coterie.Run:
    """A run in which the first task cannot be graded."""
    judge = Sums.judge

    def never(self: Sums, item: Any, answer: str) -> bool:
        if item is next(iter(self._items.values())):
            raise GradingTimeout("it died")
        return judge(self, item, answer)

    monkeypatch.setattr(Sums, "judge", never)
    return coterie.run(YAML, runs=tmp_path)


def test_the_verdict_of_a_timeout_is_told_from_a_wrong_answer_by_the_journal(late: coterie.Run) -> None:
    with Journal.read(late.folder.journal) as journal:
        verdicts = [fact.payload for fact in journal.facts("verdict")]
    assert [(v["correct"], v.get("timed_out")) for v in verdicts] == [(False, True), (True, None), (True, None)]
    assert "timed_out" not in verdicts[1]


def test_timeouts_are_counted_in_the_summary_and_shown_in_every_report(late: coterie.Run) -> None:
    facts = late.summary()["facts"]
    assert facts["totals"]["timed_out_verdicts"] == facts["societies"][0]["timed_out_verdicts"] == 1
    console = Console(record=True, width=100, file=open("/dev/null", "w"))
    print_summary(late.summary(), console)
    words = "1 answer could not be graded in time: counted as wrong"
    assert f"Grading: {words}" in console.export_text()
    assert words in late.report().read_text("utf-8")
