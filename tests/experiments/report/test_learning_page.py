"""The report of a society's training: numbers from the journal, one inert page, one screen of a terminal."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from coterie.experiments.api import Run
from coterie.experiments.cli.main import main
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.summary import summarize
from coterie.experiments.records.audit import audit
from coterie.experiments.records.run import read_part, read_record
from coterie.experiments.report import print_report, write_report
from coterie.experiments.report.learning_terminal import direction, headline
from coterie.journal import Journal


def summary_of(folder: RunFolder) -> dict[str, Any]:
    with Journal.read(folder.journal) as journal:
        return summarize(journal)


def printed(folder: RunFolder) -> str:
    return printed_of(summary_of(folder))


def printed_of(summary: dict[str, Any]) -> str:
    console = Console(record=True, width=80, file=io.StringIO())
    print_report(summary, console)
    return console.export_text()


def test_the_summary_tells_curves_and_the_first_and_the_last_quarter(make_school: Any) -> None:
    summary = summary_of(make_school())
    learning = summary["facts"]["learning"]
    curves = {curve["key"]: curve for curve in learning["curves"]}
    assert curves["reward/answer"]["values"] == [i / 8 for i in range(1, 9)]
    assert curves["reward/answer"]["first"] == 1.5 / 8 and curves["reward/answer"]["last"] == 7.5 / 8
    assert (learning["iterations"], learning["planned"], learning["episodes"], learning["tasks"]) == (8, 8, 16, 2)
    assert learning["is_complete"] and learning["quarter"] == 2 and learning["checkpoint"] == 8
    assert learning["scores"] == {"rulings": 16, "right": [2, 2, 4], "wrong": [4, 2, 0]}
    assert [role["label"] for role in learning["roles"]] == ["solver", "evaluator", "scorer"]


def test_the_headline_says_where_so_few_tasks_can_show_no_change(make_school: Any) -> None:
    summary = summary_of(make_school())
    change = summary["facts"]["learning"]["change"]
    assert (change["tasks"], change["answers"], change["common"]) == (
        {"first": 2, "last": 2},
        {"first": 16, "last": 16},
        2,
    )
    assert change["difference"] == 0.375 and change["interval"][0] < 0 < change["interval"][1]
    assert "no change that so few tasks can show" in headline(summary["facts"]["learning"])
    assert "16 answers to 2 tasks against 16 answers to 2, 2 of them in both" in " ".join(printed_of(summary).split())
    sure = summary["facts"]["learning"] | {"change": change | {"interval": [-0.5, -0.1], "difference": -0.3}}
    assert direction(sure) == "no" and "so few" not in headline(sure)


def test_speed_and_time_are_no_facts(make_school: Any) -> None:
    summary = summary_of(make_school())
    assert not [c for c in summary["facts"]["learning"]["curves"] if c["key"].startswith(("time", "speed/tokens"))]
    totals = summary["telemetry"]["totals"]
    assert totals["parts"] == {"rollout": 48.0, "learning": 24.0, "checkpoint": 2.0, "publication": 6.0, "other": 20.0}
    assert totals["tokens_per_second"] == 16.0 and totals["tokens_per_second_overall"] == 7.68


def test_no_society_table_mixes_the_versions_of_a_training(make_school: Any) -> None:
    summary = summary_of(make_school())
    assert "societies" not in summary["facts"] and "comparisons" not in summary["facts"]


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_training_that_has_just_begun_is_told_too(make_school: Any, done: int) -> None:
    folder = make_school(done, "killed")
    assert f"{done} of 8 iterations" in printed(folder)
    page = write_report(folder).read_text("utf-8")
    assert "A partial report" in page and ("nothing to draw" in page) == (done == 0)


def test_the_terminal_shows_a_training_within_eighty_columns(make_school: Any) -> None:
    shown = printed(make_school())
    for part in ("Solvers: from 9.4", "right to 46.9", "8 of 8 iterations with 16 episodes on 2 tasks", "scorer",
                 "Youden's J", "mis-", "ann", "rollout 48.0", "16 tokens/s", "Held out: 2 tasks"):  # fmt: skip
        assert part in shown, part
    assert "\u2026" not in shown and max(map(len, shown.splitlines())) <= 80


def test_the_page_is_the_same_each_time_and_loads_nothing(make_school: Any) -> None:
    folder = make_school()
    page = write_report(folder)
    first = page.read_text("utf-8")
    assert write_report(folder).read_text("utf-8") == first
    assert first.count("<svg") == 1 and "<script" not in first and "src=" not in first
    assert (folder.report / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder.report / "summary.json").read_text()) == summary_of(folder)


def test_what_agents_say_stays_text_on_the_page(make_school: Any) -> None:
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)

    page = write_report(make_school(text="<script>alert(1)</script><img src=x> {{ 7 * 7 }} The answer is 4."))
    text = page.read_text("utf-8")
    Tags().feed(text)
    assert not {"script", "img", "iframe"} & set(tags) and "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text


def test_conversations_are_those_of_the_last_iteration(make_school: Any) -> None:
    page = write_report(make_school()).read_text("utf-8")
    assert "@000008.0" in page and "@000001.0" not in page


def test_a_part_of_a_journal_is_read_as_the_whole_would_be(make_school: Any) -> None:
    with Journal.read(make_school(3).journal) as journal:
        part, whole = read_part(journal, lambda task: task.endswith("@000002.0")), read_record(journal)
    assert list(part.episodes["debate"]) == ["sum-0000@000002.0", "sum-0001@000002.0"]
    assert part.episodes["debate"].items() <= whole.episodes["debate"].items()
    assert part.turns.items() <= whole.turns.items() and len(part.turns) == 8


def test_an_evaluation_stands_on_the_page_and_a_damaged_one_does_not(make_school: Any) -> None:
    folder = make_school()
    folder.report.mkdir()
    side = {"accuracy": 0.5, "interval": [0.4, 0.6], "per_task": {"tokens": 1234.0}}
    row = {"protocol": "debate", "speaker": "", "policies": 1, "trained": side, "untrained": side, "difference": 0.1,
           "interval": [0.05, 0.15], "p_holm": 0.04}  # fmt: skip
    found = {"version": 1, "rows": [row], "tasks": 7, "command": "coterie eval <b>", "questions": {"temperature": None},
             "checkpoint": {"iteration": 8}}  # fmt: skip
    (folder.report / "evaluation.json").write_text(json.dumps(found))
    page = write_report(folder).read_text("utf-8")
    for part in ("<h2>Evaluation</h2>", "all together", "+5.0 to +15.0", "on 7 tasks", "coterie eval &lt;b&gt;"):
        assert part in page, part
    (folder.report / "evaluation.json").write_text('{"version": 1}')
    assert "<h2>Evaluation</h2>" not in write_report(folder).read_text("utf-8")


def test_status_shows_curves_and_the_list_iterations(make_school: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_school(3, "stopped")
    assert main(["status", str(folder.path)]) == 0
    shown = capsys.readouterr().out
    assert "3/8 iterations" in shown and "solver" in shown and "last checkpoint: after iteration 3" in shown
    assert main(["status", "--runs", str(folder.path.parent)]) == 0
    assert "3/8 iterations" in capsys.readouterr().out


def test_rows_of_iterations_and_of_metrics(make_school: Any) -> None:
    run = Run(make_school().path)
    rows = run.iterations()
    assert [row["roles.answer.reward"] for row in rows] == [i / 8 for i in range(1, 9)]
    assert rows[0]["policies.ann.learning.entropy"] == 1.875 and rows[0]["judge.youden"] == 1 / 16
    metrics = {row["metric"]: (row["first"], row["value"]) for row in run.metrics()}
    assert metrics["right/solver"] == (1.5 / 16, 7.5 / 16)


def test_the_log_knows_updates_and_misses_a_checkpoint(make_school: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_school(2)
    assert main(["log", "show", str(folder.path), "--kind", "update", "--limit", "1"]) == 0
    assert "update/000001" in capsys.readouterr().out
    _, faults = audit(folder)
    assert any("the checkpoint after iteration 2 cannot be read" in fault for fault in faults)


def test_tables_are_exported_with_one_of_iterations(make_school: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_school(2)
    assert main(["log", "export", str(folder.path)]) == 0
    assert "iterations.jsonl" in capsys.readouterr().out
    assert len((folder.path / "export" / "iterations.jsonl").read_text().splitlines()) == 2
