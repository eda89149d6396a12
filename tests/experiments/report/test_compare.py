"""`coterie report` and `coterie compare`, and the contrast behind the latter."""

from __future__ import annotations

import json
from typing import Any

from coterie.experiments.api import Run
from coterie.experiments.cli.main import main


def compare(capsys: Any, first: Run, second: Run) -> dict[str, Any]:
    assert main(["compare", str(first.path), str(second.path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_report_prints_the_summary_and_the_path(run: Run, capsys: Any) -> None:
    assert main(["report", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "debate-reflect-debate" in shown
    assert str(run.path / "report" / "index.html") in shown.replace("\n", "")


def test_report_in_json_is_the_summary(run: Run, capsys: Any) -> None:
    assert main(["report", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == run.summary()


def test_a_run_differs_from_itself_in_nothing(run: Run, capsys: Any) -> None:
    found = compare(capsys, run, run)
    assert found["same_digest"]
    assert found["config"] == []
    assert all(pair["difference"] == 0 and pair["p"] == 1 for pair in found["pairs"])


def test_two_runs_are_paired_by_society_on_common_tasks(run: Run, partial: Run, capsys: Any) -> None:
    found = compare(capsys, run, partial)
    assert [pair["first"]["society"] for pair in found["pairs"]] == [
        "debate-reflect-debate",
        "single",
        "self_consistency",
    ]
    assert all(0 < pair["tasks"] < 12 for pair in found["pairs"])
    assert all(pair["difference"] == 0 for pair in found["pairs"])


def test_main_societies_of_unlike_names_are_compared_with_each_other(run: Run, make: Any, capsys: Any) -> None:
    found = compare(capsys, run, make(protocol={"kind": "machinesom", "strategy": ["debate"]}))
    first = found["pairs"][0]
    assert (first["first"]["society"], first["second"]["society"]) == ("debate-reflect-debate", "debate")
    assert first["first"]["cost_per_task"]["calls"] == 12
    assert first["second"]["cost_per_task"]["calls"] == 6
    assert {
        "path": "config.protocol.strategy",
        "first": ["debate", "reflect", "debate"],
        "second": ["debate"],
    } in found["config"]


def test_runs_on_other_questions_are_refused(run: Run, make: Any, capsys: Any) -> None:
    benchmark = {"kind": "reasoning_gym", "task": "products", "limit": 4}
    assert main(["compare", str(run.path), str(make(benchmark=benchmark).path)]) == 2
    message = capsys.readouterr().err
    assert "different benchmarks" in message
    assert "benchmark.task: 'chain_sum' and 'products'" in message


def test_compare_prints_differences_of_config(run: Run, partial: Run, make: Any, capsys: Any) -> None:
    assert main(["compare", str(run.path), str(make(seed=8).path)]) == 0
    assert "config.seed: 7 -> 8" in capsys.readouterr().out
