"""Self-evaluation and self-update of societies, as the summary has them."""

import math
from dataclasses import replace

import pytest

import coterie
from coterie.experiments.measures import opinions
from coterie.experiments.measures.self_evaluation import grey_self_evaluation, self_evaluation_facts
from coterie.experiments.records.audit import audit
from coterie.experiments.records.run import Reading, RunRecord, read_record
from coterie.experiments.report.terminal import _parts
from coterie.journal import Journal

EXPERIMENT = {
    "name": "sure", "seed": 3, "policy": {"engine": {"kind": "scripted"}, "model": "none"},
    "seats": [{"name": "a", "count": 3}], "protocol": {"kind": "machinesom", "strategy": ["debate", "reflect"]},
    "benchmark": {"kind": "sums", "limit": 8}, "baselines": ["single"],
}  # fmt: skip
RIGHT = {"1", "2"}.__contains__


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[coterie.Run, coterie.Run]:
    folder = tmp_path_factory.mktemp("runs")
    plain = coterie.run(EXPERIMENT, runs=folder / "plain")
    asked = {**EXPERIMENT, "probes": ["p_true", "verbal_confidence"]}
    return plain, coterie.run(asked, runs=folder / "asked")


def test_without_probes_there_is_no_self_evaluation(runs):
    summary = runs[0].summary()
    assert [society["self_evaluation"] for society in summary["facts"]["societies"]] == [None, None]
    assert summary["telemetry"]["self_evaluation"] == {}


def test_asking_is_none_of_a_society_s_cost(runs):
    plain, asked = (run.summary()["facts"] for run in runs)
    for before, after in zip(plain["societies"], asked["societies"], strict=True):
        own = after["self_evaluation"]["cost"]
        assert before | {"self_evaluation": 0} == after | {"self_evaluation": 0}
        assert own["calls"] == 2 * before["tasks"] * len(before["agents"])
        assert 0 < own["non_cached_prompt_tokens"] < own["prompt_tokens"]
    assert asked["totals"]["cost"]["calls"] == sum(
        society["cost"]["total"]["calls"] + society["self_evaluation"]["cost"]["calls"]
        for society in asked["societies"]
    )


def test_the_terminal_says_how_sure_agents_were_where_they_were_asked(runs):
    shown = [[str(part) for part in _parts(run.summary())] for run in runs]
    assert not any("How sure" in part for part in shown[0])
    assert any(part.startswith("  p_true: ") and "AUROC" in part for part in shown[1])


def test_every_measure_says_what_it_needs(runs):
    summary = runs[1].summary()
    society = summary["facts"]["societies"][0]
    assert {m["access"] for m in society["self_evaluation"]["measures"].values()} == {"black box"}
    assert summary["telemetry"]["self_evaluation"][society["label"]]["p_true"]["access"] == "grey box"
    assert society["self_update"]["access"] == "black box"


def test_what_is_unparsed_is_counted_and_is_no_confidence(runs):
    measure = runs[1].summary()["facts"]["societies"][0]["self_evaluation"]["measures"]["verbal_confidence"]
    assert (measure["replies"], measure["unparsed_rate"]) == (24, 1.0)
    assert measure["last"] is measure["auroc"] is measure["ece"] is None


def test_the_report_and_the_rows_hold_it(runs):
    page = runs[1].report().read_text("utf-8")
    assert "Self-evaluation: every agent was asked" in page
    assert "Self-update: in " in page
    metrics = {row["metric"] for row in runs[1].metrics()}
    assert {"self_update", "self_evaluation/p_true/auroc", "self_evaluation/verbal_confidence/ece"} <= metrics


def test_the_report_holds_that_of_a_single_agent(tmp_path):
    alone = {**EXPERIMENT, "seats": [{"name": "a"}], "protocol": "single", "baselines": [], "probes": ["p_true"]}
    page = coterie.run(alone, runs=tmp_path).report().read_text("utf-8")
    assert "Self-evaluation: every agent was asked" in page
    assert "p true" in page and "vote share" not in page


def test_a_run_with_probes_audits_clean(runs):
    assert audit(runs[1].folder)[1] == []


def knowing(run: coterie.Run) -> RunRecord:
    """The record of a run whose agents knew right from wrong."""
    with Journal.read(run.folder.journal) as journal:
        record = read_record(journal)
    p_true = {
        label: {
            task: {a: replace(r, values=(float(record.verdict(r.about).correct),)) for a, r in agents.items()}
            for task, agents in tasks.items()
        }
        for label, tasks in record.probes["p_true"].items()
    }
    return replace(record, probes={"p_true": p_true})


def test_agents_that_know_right_from_wrong_are_perfectly_calibrated(runs):
    record = knowing(runs[1])
    member = record.societies[0]
    row = self_evaluation_facts(record, member, list(record.episodes[member.label].values()))
    measure = row["measures"]["p_true"]
    assert (measure["auroc"], measure["ece"]) == (1.0, 0.0)


def test_the_probability_of_false_speaks_for_its_rest(runs):
    record = knowing(runs[1])
    logprobs = {key: [math.log(0.8), 0.0] for key in record.turns}
    label = record.societies[0].label
    row = grey_self_evaluation(record, logprobs)[label]["p_true"]
    readings = [r for agents in record.probes["p_true"][label].values() for r in agents.values()]
    share = sum(reading.values[0] for reading in readings) / len(readings)
    assert row["last"] == pytest.approx(0.8 * share + 0.2 * (1 - share))
    assert row["auroc"] == 1.0
    assert row["ece"] == pytest.approx(0.2)


def test_probabilities_of_replies_that_were_free_tell_nothing(runs):
    record = knowing(runs[1])
    free = {
        label: {t: {a: replace(r, is_constrained=False) for a, r in agents.items()} for t, agents in tasks.items()}
        for label, tasks in record.probes["p_true"].items()
    }
    assert grey_self_evaluation(replace(record, probes={"p_true": free}), {key: [0.0] for key in record.turns}) == {}


@pytest.mark.parametrize(("values", "confidence"), [((1.0, 0.0, None), 0.5), ((None,), None)])
def test_a_confidence_is_the_mean_of_what_was_parsed(values, confidence):
    assert Reading("turn", ("x",) * len(values), values, False).confidence == confidence


def test_a_change_of_mind_without_reading_is_a_self_update():
    said = [{"a": "1", "b": "3", "c": "1"}, {"a": "4", "b": "2", "c": "4"}, {"a": "4", "b": "2", "c": "5"}]
    read = [{}, {"c": {"a": "1"}}, {}]
    found = opinions.count_self_updates(said, read, RIGHT)
    assert found == {"TT": 0, "FT": 1, "TF": 1, "FF": 1}
