"""`coterie report` and `coterie compare`, and the contrast behind the latter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coterie.experiments.api import Run
from coterie.experiments.cli.main import main
from coterie.experiments.comparison.contrasts import contrast
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.run import RunRecord, read_record
from coterie.experiments.report.contrast_page import render_contrast
from coterie.experiments.report.contrast_terminal import print_contrast
from coterie.experiments.statistics.inference import holm
from coterie.journal import Journal
from coterie.text import clean


def read(folder: RunFolder) -> RunRecord:
    with Journal.read(folder.journal) as journal:
        return read_record(journal)


def compare(capsys: Any, *runs: Run) -> dict[str, Any]:
    assert main(["compare", *(str(run.path) for run in runs), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def between(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in found["comparisons"] if row["matched"] == "settings"]


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
    assert found["differences"] == []
    assert [(row["difference"], row["p"], row["detectable"]) for row in between(found)] == [(0, 1, None)]


def test_two_runs_are_paired_on_common_tasks(run: Run, partial: Run, capsys: Any) -> None:
    (row,) = between(compare(capsys, run, partial))
    assert (row["society"], row["against"]) == ("debate-reflect-debate", "debate-reflect-debate")
    assert 0 < row["tasks"] == row["pairs"] < 12
    assert row["difference"] == 0


def test_main_societies_of_unlike_names_are_compared_with_each_other(run: Run, make: Any, capsys: Any) -> None:
    other = make(protocol={"kind": "machinesom", "strategy": ["debate"]})
    found = compare(capsys, run, other)
    (row,) = between(found)
    assert (row["against"], row["society"]) == ("debate-reflect-debate", "debate")
    assert row["test"] == "mcnemar"
    mains = [r for r in found["rows"] if not r["is_baseline"]]
    assert [r["cost_per_task"]["calls"] for r in mains] == [12, 6]
    assert [s["label"] for s in found["settings"]] == ["strategy=debate-reflect-debate", "strategy=debate"]
    assert found["differences"] == [
        {"path": "config.protocol.strategy", "values": [["debate", "reflect", "debate"], ["debate"]]}
    ]


def test_every_society_is_compared_at_equal_tokens_in_one_family(run: Run, make: Any, capsys: Any) -> None:
    found = compare(capsys, run, make(seed=8), make(seed=9, protocol={"kind": "machinesom", "strategy": ["reflect"]}))
    rows = found["comparisons"]
    assert [row["matched"] for row in rows] == ["equal tokens", "equal tokens", "settings"]
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]))


def test_runs_that_differ_in_seed_alone_are_repeats_paired_by_task_and_seed(make: Any, capsys: Any) -> None:
    runs = [
        make(seed=seed, protocol={"kind": "machinesom", "strategy": strategy})
        for strategy in (["debate"], ["reflect"]) for seed in (1, 2)
    ]  # fmt: skip
    found = compare(capsys, *runs)
    assert [[run["seed"] for run in setting["runs"]] for setting in found["settings"]] == [[1, 2], [1, 2]]
    (row,) = between(found)
    assert (row["tasks"], row["pairs"], row["test"]) == (12, 24, "sign_flip")
    scores = [{r["task"]: r["is_correct"] for r in run.episodes() if not r["is_baseline"]} for run in runs]
    pairs = [(scores[i + 2][task], scores[i][task]) for i in (0, 1) for task in scores[0]]
    assert row["difference"] == pytest.approx(sum(a - b for a, b in pairs) / 24)
    assert (row["only_a"], row["only_b"]) == (sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
    mains = [r for r in found["rows"] if not r["is_baseline"]]
    assert [r["repeats"] for r in mains] == [2, 2]
    assert mains[0]["accuracy"] == pytest.approx(sum(mains[0]["by_repeat"]) / 2)
    (analysis,) = found["anova"]
    assert (analysis["factor"], analysis["groups"], analysis["values"]) == ("setting", 2, 4)


def test_repeats_that_are_alike_on_every_task_are_not_rounded(make: Any, capsys: Any) -> None:
    # Every answer changes with the seed: each task is right once in two.
    seats = [{"name": "calm", "policy": "base"}]
    runs = [
        make(engine={"accuracy": accuracy}, seed=seed, seats=seats, protocol="single", baselines=[])
        for accuracy, seed in ((1.0, 1), (0.0, 2))
    ]
    records = [read(run.folder) for run in runs]
    # They are repeats but for how their answers were made.
    records[1].facts["config"]["policies"] = records[0].facts["config"]["policies"]
    (row,) = contrast(records, pool=True)["rows"]
    assert (row["tasks"], row["repeats"], row["accuracy"]) == (12, 2, 0.5)
    records[0].episodes["single"].popitem()
    records[1].episodes["single"].popitem()
    (row,) = contrast(records, pool=True)["rows"]
    assert (row["tasks"], row["accuracy"]) == (11, 0.5)
    assert row["interval"] == [pytest.approx(1 - row["interval"][1]), row["interval"][1]]


def test_repeats_on_tasks_of_their_own_are_counted_as_tasks(make: Any, capsys: Any) -> None:
    def shown(**benchmark: Any) -> tuple[str, str]:
        params = {"min_terms": 2, "max_terms": 2, "min_digits": 3, "max_digits": 3}
        whole = {"kind": "reasoning_gym", "task": "chain_sum", "limit": 4, "params": params, **benchmark}
        runs = [make(seed=seed, benchmark=whole, baselines=[]) for seed in (1, 2, 3)]
        found = contrast([read(run.folder) for run in runs])
        print_contrast(found, Console())
        return next(x for x in capsys.readouterr().out.splitlines() if x.startswith("  1 ")), render_contrast(found)

    own, page = shown(seed=None)
    assert " 12 " in own and "12x" not in own
    assert '<td class="n">12</td>' in page
    same, page = shown()
    assert " 4x3 " in same
    assert '<td class="n">4 \u00d7 3</td>' in page


def test_runs_on_other_questions_are_refused(run: Run, make: Any, capsys: Any) -> None:
    benchmark = {"kind": "reasoning_gym", "task": "products", "limit": 4}
    assert main(["compare", str(run.path), str(make(benchmark=benchmark).path)]) == 2
    message = capsys.readouterr().err
    assert "different benchmarks" in message
    assert "benchmark.task: 'chain_sum' and 'products'" in message


def test_runs_on_unlike_benchmarks_are_refused_in_a_few_words(run: Run, make: Any, capsys: Any) -> None:
    other = make(benchmark={"kind": "sums", "limit": 4})
    assert main(["compare", str(run.path), str(other.path)]) == 2
    message = capsys.readouterr().err
    assert "where: benchmark.kind: 'reasoning_gym' and 'sums'\n" in message
    assert len(message.splitlines()) == 3


def test_of_parts_of_unlike_kinds_the_kind_alone_is_shown(run: Run, make: Any, capsys: Any, tmp_path: Path) -> None:
    # As where a model judged and could read nothing.
    other = read(make(benchmark={"kind": "sums", "limit": 4}, protocol="single", baselines=[]).folder)
    other.episodes["single"].clear()  # type: ignore[attr-defined]
    found = contrast([read(run.folder), read(make(protocol="debate").folder), other])
    print_contrast(found, Console(width=80))
    shown = capsys.readouterr().out
    assert "config.benchmark.kind: " in shown and "config.protocol.kind: " in shown
    assert "config.benchmark.params" not in shown and "more fields: --json" in shown
    assert render_contrast(found)


def test_one_run_has_nothing_to_be_compared_with(run: Run, capsys: Any) -> None:
    assert main(["compare", str(run.path)]) == 2
    assert "name at least two runs" in capsys.readouterr().err


def test_compare_prints_differences_of_config_and_writes_the_picture(
    run: Run, make: Any, capsys: Any, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", str(run.path), str(make(seed=8).path), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "config.seed: 7 -> 8" in shown
    text = page.read_text("utf-8")
    assert text.count("<svg") == 1
    assert "<script" not in text and "http://" not in text.replace("http://www.w3.org", "")


def test_long_labels_are_broken_at_their_joints(
    run: Run, make: Any, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    other = make(protocol={"kind": "machinesom", "strategy": ["debate"]})
    main(["compare", str(run.path), str(other.path), "--out", str(tmp_path / "page.html")])
    shown = capsys.readouterr().out
    assert "  1 strategy=debate-" in shown
    assert "    reflect-debate " in shown
    assert max(map(len, shown.splitlines()[:20])) <= 80


def test_a_comparison_of_hostile_runs_shows_clean_text(hostile: Run, run: Run, capsys: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["compare", str(hostile.path), str(run.path), "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    assert clean(shown) == shown
    text = page.read_text("utf-8")
    assert clean(text) == text
    assert "<b>hates" not in text


def test_a_run_without_self_consistency_is_measured_against_another_runs(run: Run, make: Any, capsys: Any) -> None:
    seats = [{"name": "solo", "policy": "base"}]
    sampled = make(seats=seats, protocol={"kind": "self_consistency", "samples": 8}, baselines=[])
    found = compare(capsys, make(baselines=[]), sampled)
    own = compare(capsys, run, sampled)
    at_cost = [[row for row in f["comparisons"] if row["matched"] == "equal tokens"] for f in (found, own)]
    assert [len(rows) for rows in at_cost] == [1, 1]
    assert {**at_cost[0][0], "p_holm": 0} == {**at_cost[1][0], "p_holm": 0}


def test_another_models_self_consistency_is_not_borrowed(make: Any, capsys: Any) -> None:
    seats = [{"name": "solo", "policy": "base"}]
    protocol = {"kind": "self_consistency", "samples": 8}
    sampled = make(seats=seats, protocol=protocol, baselines=[], engine={"accuracy": 0.9})
    found = compare(capsys, make(baselines=[]), sampled)
    assert [row for row in found["comparisons"] if row["matched"] == "equal tokens"] == []


@pytest.mark.parametrize("sampled", [{"policy": "other"}, {"policy": "base", "persona": "overconfident"}])
def test_self_consistency_of_another_seat_is_not_borrowed(make: Any, capsys: Any, sampled: dict[str, str]) -> None:
    """The policies are the same, but those of a baseline are drawn by the first seat's, without a persona."""
    one = {"engine": {"kind": "scripted"}, "model": "none"}
    two = {"engine": {"kind": "scripted", "accuracy": 0.9}, "model": "none"}
    shared = {"policies": {"base": one, "other": two}, "baselines": []}
    sampling = make(**shared, seats=[{"name": "solo", **sampled}], protocol={"kind": "self_consistency", "samples": 8})
    found = compare(capsys, make(**shared), sampling)
    assert [row for row in found["comparisons"] if row["matched"] == "equal tokens"] == []
