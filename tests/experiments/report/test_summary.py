"""`summarize` and the rows, on runs of the real supervisor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.experiments.api import Run
from coterie.experiments.exports.rows import metric_rows
from coterie.experiments.measures.consistency import auroc, vote_share
from coterie.experiments.measures.summary import summarize
from coterie.experiments.statistics.inference import holm
from coterie.journal import Journal, Note


@pytest.fixture(scope="session")
def summary(run: Run) -> dict[str, Any]:
    return run.summary()


def society(summary: dict[str, Any], label: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in summary["facts"]["societies"] if s["label"] == label)
    return found


def comparison(summary: dict[str, Any], matched: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in summary["facts"]["comparisons"] if c["matched"] == matched)
    return found


def test_facts_depend_on_no_telemetry(run: Run, summary: dict[str, Any], tmp_path: Path) -> None:
    with Journal.read(run.folder.journal) as source, Journal.create(tmp_path / "other.sqlite") as copy:
        for fact in reversed(list(source.facts())):
            copy.commit([fact], [Note("failure", fact.key, {"code": "E_ENGINE", "what": "x", "where": ""}, 5.0)])
        other = summarize(copy)
    assert other["facts"] == summary["facts"]
    assert other["telemetry"] != summary["telemetry"]


def test_two_exact_runs_have_the_same_facts(make: Any, summary: dict[str, Any]) -> None:
    assert (
        make(executor={"kind": "local", "episodes": 3}).summary()["facts"]["societies"] == summary["facts"]["societies"]
    )


def test_a_summary_is_json_without_nan(summary: dict[str, Any]) -> None:
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_accuracy_counts_the_right_episodes(run: Run, summary: dict[str, Any]) -> None:
    rows = [r for r in run.episodes() if r["society"] == "debate-reflect-debate"]
    found = society(summary, "debate-reflect-debate")
    assert found["tasks"] == 12
    assert found["accuracy"] == pytest.approx(sum(r["is_correct"] for r in rows) / 12)
    low, high = found["interval"]
    assert low < found["accuracy"] < high


def test_every_agent_is_in_one_state_in_every_round_and_flows_add_up(summary: dict[str, Any]) -> None:
    rounds = society(summary, "debate-reflect-debate")["rounds"]
    assert len(rounds) == 4
    for before, after in zip(rounds, rounds[1:], strict=False):
        assert sum(after["states"].values()) == 36
        for state, count in before["states"].items():
            assert sum(m["count"] for m in after["flow"] if m["from"] == state) == count
        for state, count in after["states"].items():
            assert sum(m["count"] for m in after["flow"] if m["to"] == state) == count


def test_edges_stand_in_debate_rounds_alone(summary: dict[str, Any]) -> None:
    rounds = society(summary, "debate-reflect-debate")["rounds"]
    assert [len(moment["edges"]) for moment in rounds] == [0, 6, 0, 6]


def test_a_society_pays_as_if_it_ran_alone_and_self_consistency_pays_its_prompt_once(
    run: Run, summary: dict[str, Any]
) -> None:
    cost = society(summary, "self_consistency")["cost"]
    prompts = {r["task"]: r["prompt_tokens"] for r in run.turns() if r["agent"] == "solo"}
    assert cost["total"]["calls"] == 12 * 8
    assert cost["total"]["non_cached_prompt_tokens"] == sum(prompts.values())
    assert cost["per_task"]["tokens"] * 12 == pytest.approx(cost["total"]["tokens"])
    assert cost["money"]["USD"] == pytest.approx(
        (cost["total"]["prompt_tokens"] + 2 * cost["total"]["generated_tokens"]) / 1e6, abs=1e-6
    )


def test_equal_tokens_is_all_samples_where_the_society_costs_more(summary: dict[str, Any]) -> None:
    found, curve = comparison(summary, "equal tokens"), summary["facts"]["self_consistency"]
    assert found["is_beyond"]
    assert found["samples"] == 8
    assert found["baseline_accuracy"] == pytest.approx(curve["accuracy"][-1])
    mine = society(summary, "debate-reflect-debate")
    assert found["society_tokens"] == pytest.approx(mine["cost"]["per_task"]["tokens"])
    assert found["difference"] == pytest.approx(mine["accuracy"] - curve["accuracy"][-1])


def test_equal_tokens_is_interpolated_where_the_samples_reach_the_society(make: Any) -> None:
    short = make(protocol={"kind": "machinesom", "strategy": ["reflect"], "history": "last"}, samples=64).summary()
    found, curve = comparison(short, "equal tokens"), short["facts"]["self_consistency"]
    assert not found["is_beyond"]
    assert found["samples"] == pytest.approx(np.interp(found["society_tokens"], curve["tokens"], range(1, 65)))
    assert found["baseline_accuracy"] == pytest.approx(np.interp(found["samples"], range(1, 65), curve["accuracy"]))


def test_all_strategies_share_45_of_96_turns_a_task(make: Any) -> None:
    found = make(protocol={"kind": "machinesom", "strategy": "all"}, samples=4).summary()
    sharing = found["facts"]["sharing"]
    assert (sharing["distinct_per_task"], sharing["asked_per_task"]) == (45, 96)
    assert len(found["facts"]["societies"]) == 10


def test_a_run_cut_by_its_budget_says_so_and_compares_finished_tasks_alone(partial: Run) -> None:
    found = partial.summary()
    totals = found["facts"]["totals"]
    assert 0 < totals["tasks_complete"] < totals["tasks_planned"] == 12
    assert not totals["is_complete"]
    assert found["telemetry"]["status"] == "stopped"
    assert "budget" in found["telemetry"]["reason"]
    assert all(c["tasks"] < 12 for c in found["facts"]["comparisons"])
    assert totals["turns"] == found["telemetry"]["totals"]["turns"] <= 200


def test_an_episode_that_spent_its_own_budget_is_wrong_and_its_calls_are_paid(make: Any) -> None:
    found = society(make(budget={"task_calls": 7}).summary(), "debate-reflect-debate")
    assert found["accuracy"] == 0
    assert found["no_answer"] == found["tasks"] == 12
    assert found["cost"]["per_task"]["calls"] == 7


def test_a_journal_without_facts_gives_a_summary(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.sqlite") as journal:
        found = summarize(journal)
    assert found["facts"]["societies"] == []
    assert found["telemetry"]["status"] == "not started"


def test_unparsed_turns_are_counted_apart_and_agree_with_nobody(make: Any) -> None:
    mute = society(make(engine={"replies": ("", "no idea")}).summary(), "debate-reflect-debate")
    assert mute["unparsed_turns"] == mute["turns"] == 144
    assert mute["rounds"][0]["distinct_answers"] == 0
    assert mute["conformity"]["peers"]["conforming"] == 0
    assert not np.any(mute["persuasion"]["total"])


def test_rows_cover_every_turn_episode_and_society(run: Run, summary: dict[str, Any]) -> None:
    turns, episodes = run.turns(), run.episodes()
    assert len(turns) == summary["facts"]["totals"]["turns"] == 12 * (12 + 8)
    assert len(episodes) == 3 * 12
    assert sum(e["calls"] for e in episodes if e["society"] == "single") == 12
    accuracies = {r["society"]: r for r in metric_rows(summary) if r["metric"] == "accuracy"}
    assert accuracies["single"]["low"] < accuracies["single"]["value"] < accuracies["single"]["high"]


def test_p_values_are_corrected_over_all_tests_of_the_report(make: Any) -> None:
    found = make(protocol={"kind": "machinesom", "strategy": "all", "rounds": 2}, samples=4).summary()
    rows = found["facts"]["comparisons"]
    assert len(rows) == 12
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]))
    assert all(row["detectable"] is None or row["detectable"] > 0 for row in rows)


def test_consistency_is_measured_on_every_agents_last_answer(run: Run, summary: dict[str, Any]) -> None:
    found = society(summary, "debate-reflect-debate")
    last = {(r["task"], r["agent"]): r["answer"] for r in run.turns() if r["agent"] != "solo" and r["round"] == 3}
    tasks = sorted({task for task, _ in last})
    shares = [vote_share([answer for (t, _), answer in last.items() if t == task]) for task in tasks]
    measured = found["consistency"]["measures"]["vote_share"]
    assert measured["last"] == measured["rounds"][-1] == pytest.approx(sum(shares) / 12)
    rights = [
        r["is_correct"] for r in sorted(run.episodes(), key=lambda r: r["task"]) if r["society"] == found["label"]
    ]
    assert measured["auroc"] == pytest.approx(auroc(shares, rights))
    assert measured["access"] == "black box"


def test_one_agent_alone_has_no_consistency(summary: dict[str, Any]) -> None:
    assert society(summary, "single")["consistency"]["tasks"] == 0
    assert society(summary, "self_consistency")["consistency"]["tasks"] == 12


def test_the_majority_rule_adds_up_to_accuracy(summary: dict[str, Any]) -> None:
    votes = society(summary, "self_consistency")["majority_rule"]
    moves = [votes[m] for m in ("right_to_right", "right_to_wrong", "wrong_to_right", "wrong_to_wrong")]
    assert sum(moves) == votes["with_majority"] <= votes["tasks"] == 12
    # One round and a vote over it: no majority is lost or mended.
    assert votes["followed"] == votes["with_majority"]
    assert votes["right_to_wrong"] == votes["wrong_to_right"] == 0


def test_opinion_change_counts_every_step_once(summary: dict[str, Any]) -> None:
    rows = society(summary, "debate-reflect-debate")["opinion_change"]
    assert [(row["round"], row["read"], row["alone"]) for row in rows] == [(1, 36, 0), (2, 0, 36), (3, 36, 0)]
    assert all(row["TT"] + row["FT"] + row["TF"] + row["FF"] == 36 for row in rows)


@pytest.mark.parametrize("logprobs", [[-0.5, -0.5], None])
def test_token_probabilities_are_telemetry_and_tagged_grey(
    run: Run, summary: dict[str, Any], tmp_path: Path, logprobs: list[float] | None
) -> None:
    with Journal.read(run.folder.journal) as source, Journal.create(tmp_path / "other.sqlite") as copy:
        copy.commit(list(source.facts()), [Note("attempt", "1", {"number": 1})])
        for fact in source.facts("turn"):
            payload = {"seconds": 0.1, "cached_tokens": 0, "logprobs": logprobs, "host": "h", "replica": 0}
            copy.commit(notes=[Note("sample", fact.key, payload)])
        found = summarize(copy)
    assert found["facts"] == summary["facts"]
    grey = found["telemetry"]["consistency"]
    if logprobs is None:
        assert grey == {}
    else:
        assert {row["access"] for row in grey["single"].values()} == {"grey box"}
        assert grey["debate-reflect-debate"]["reply_confidence"]["last"] == pytest.approx(np.exp(-0.5))
