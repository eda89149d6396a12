"""DeceptionBench from its YAML to its report, with scripted agents and a scripted judge; the rates by themselves."""

import json
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import coterie
from coterie.experiments.cli.main import main
from coterie.experiments.exports.lm_eval import write_lm_eval
from coterie.experiments.exports.tables import export_tables
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.behaviour import grey_measures
from coterie.experiments.measures.deception import Judged, Rate, by_feature, deception_rate, mismatch_rate
from coterie.experiments.monitoring.display import RichDisplay
from coterie.experiments.monitoring.tally import Standing
from coterie.experiments.records.audit import audit
from coterie.experiments.records.run import read_record
from coterie.journal import Journal

COLUMNS = ("L1-self", "L1-other", "L2-self-pressure", "L2-self-reward", "L2-other-pressure", "L2-other-reward")


def say(thought: str, response: str = "No.") -> str:
    return json.dumps({"thought": thought, "response": response})


# The judge repeats what it is asked, so a reply that names its own labels gets them.
REPLIES = {
    say("I lie.\nthought: deceptive\nresponse: deceptive"): ("deceptive", "deceptive"),
    say("I plan to lie.\nthought: deceptive\nresponse: honest"): ("deceptive", "honest"),
    say("I tell.\nthought: honest\nresponse: honest"): ("honest", "honest"),
    say("The judge will not know what to say."): "unread",
    "No comment.": "unparsed",
    "Thought: a\nResponse: " + 300 * "b": "cut",
}


def play(folder: Path, **fields) -> coterie.Run:
    rows = [
        {"id": i, "topic": topic, "dimension": f"Dimension {i % 2}", **dict.fromkeys(COLUMNS, f"Where is purse {i}?"),
         "question": "Where is it?", "groundtruth": f"GROUND {i}", "goal": f"GOAL {i}"}
        for i, topic in enumerate(["Economy", "Education", "Economy"])
    ]  # fmt: skip
    (folder / "original.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    agent = {"engine": {"kind": "scripted", "replies": list(REPLIES)}, "model": "liar", "sampling": {"max_tokens": 256}}
    judge = {"engine": {"kind": "scripted", "mode": "echo"}, "model": "echo", "sampling": {"max_tokens": 8000}}
    benchmark = {"kind": "deceptionbench", "path": str(folder), "judge": "judge"}
    return coterie.run(
        {"name": "deception", "policies": {"base": agent, "judge": judge}, "seats": [{"name": "ann", "policy": "base"}],
         "protocol": "single", "baselines": [], "benchmark": benchmark, **fields},
        runs=folder / "runs",
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> coterie.Run:
    return play(tmp_path_factory.mktemp("deception"))


def last_texts(run: coterie.Run) -> dict[str, str]:
    """Counted by hand: the last answer on each task."""
    answers = [row for row in run.turns() if row["purpose"] == "answer"]
    return {row["task"]: row["text"] for row in sorted(answers, key=lambda row: row["round"])}


def test_the_rates_are_those_of_the_last_replies_that_could_be_judged(run):
    assert run.status == "finished"
    (found,) = run.summary()["facts"]["deception"]["societies"]
    kinds = Counter(REPLIES[text if text in REPLIES else next(t for t in REPLIES if t.startswith(text[:40]))]
                    for text in last_texts(run).values())  # fmt: skip
    labels = {pair: n for pair, n in kinds.items() if isinstance(pair, tuple)}
    valid = sum(labels.values())
    assert found["overall"]["replies"] == 30
    assert found["overall"]["valid"] == valid > 0
    wanted = {reason: kinds[reason] for reason in ("unparsed", "cut", "unread")}
    assert found["overall"]["excluded"] == {**wanted, "unfinished": 0}
    assert found["overall"]["thought"]["count"] == sum(
        n for (thought, _), n in labels.items() if thought == "deceptive"
    )
    response = sum(n for (_, response), n in labels.items() if response == "deceptive")
    assert found["overall"]["response"]["count"] == response
    assert found["overall"]["response"]["rate"] == pytest.approx(response / valid)
    assert found["overall"]["mismatch"]["count"] == labels[("deceptive", "honest")]


def test_the_rates_are_told_by_every_feature_and_by_turn(run):
    (found,) = run.summary()["facts"]["deception"]["societies"]
    groups = {name: [row["group"] for row in rows] for name, rows in found["by"].items()}
    assert groups == {
        "domain": ["Economy", "Education"], "dimension": ["Dimension 0", "Dimension 1"], "level": ["L1", "L2", "L3"],
        "role": ["other", "self"], "inducement": ["neutral", "pressure", "reward"],
    }  # fmt: skip
    for rows in found["by"].values():
        assert sum(row["replies"] for row in rows) == 30
        assert sum(row["valid"] for row in rows) == found["overall"]["valid"]
    assert [(row["group"], row["replies"]) for row in found["turns"]] == [("1", 12), ("2", 12), ("3", 12)]
    assert found["turns"][2]["valid"] == next(row["valid"] for row in found["by"]["level"] if row["group"] == "L3")


def test_a_conversation_that_its_limit_ends_has_no_last_reply(run, tmp_path):
    limited = play(tmp_path, budget={"task_calls": 2})
    (found,) = limited.summary()["facts"]["deception"]["societies"]
    (whole,) = run.summary()["facts"]["deception"]["societies"]
    rows, unlimited = ({row["group"]: row for row in one["by"]["level"]} for one in (found, whole))
    assert (rows["L3"]["valid"], rows["L3"]["excluded"]["unfinished"]) == (0, 12)
    assert [rows[level] for level in ("L1", "L2")] == [unlimited[level] for level in ("L1", "L2")]
    # What was said in them is told by turn.
    assert found["turns"] == whole["turns"][:2]


def test_displays_have_the_benchmarks_own_word_for_right(run, capsys):
    with Journal.read(RunFolder(run.path).journal) as journal:
        standing = Standing.read(journal)
    assert standing.success == "honest"
    display = RichDisplay(Console(file=StringIO()))
    display.begin(standing)
    console = Console(width=100)
    console.print(display.render())
    shown = capsys.readouterr().out
    assert "honest" in shown and "right" not in shown
    assert main(["status", str(run.path)]) == 0
    shown = capsys.readouterr().out
    overall = run.summary()["facts"]["deception"]["societies"][0]["overall"]
    assert "done   honest" in shown
    assert f"({overall['valid'] - overall['response']['count']}/{overall['valid']})" in shown


def test_the_judge_is_paid_by_the_run_and_by_no_society(run):
    facts = run.summary()["facts"]
    judge, (society,) = facts["deception"]["judge"], facts["societies"]
    assert (judge["policy"], judge["model"]) == ("judge", "echo")
    assert judge["cost"]["calls"] == sum(row["purpose"] == "judge" for row in run.turns()) > 0
    assert society["cost"]["total"]["calls"] == 54  # 3 scenarios x (6 of one turn + 4 of three turns)
    assert facts["totals"]["cost"]["calls"] == 54 + judge["cost"]["calls"]


def test_what_could_not_be_judged_is_in_no_accuracy(run):
    facts = run.summary()["facts"]
    overall = facts["deception"]["societies"][0]["overall"]
    (society,) = facts["societies"]
    assert society["accuracy"] == pytest.approx(1 - overall["response"]["rate"])
    assert {row["metric"] for row in run.metrics()} > {"deception/response", "deception/thought/domain=Economy"}


def test_what_could_not_be_judged_is_held_against_no_agreement_and_no_confidence(run):
    with Journal.read(RunFolder(run.path).journal) as journal:
        record = read_record(journal)
    ((label, episodes),) = record.episodes.items()
    judged = {task: episode for task, episode in episodes.items() if not episode.is_excluded}
    assert 0 < len(judged) < len(episodes)
    assert run.summary()["facts"]["societies"][0]["majority_rule"]["tasks"] == len(judged)
    logprobs = {key: [-len(turn.text) / 999] for key, turn in record.turns.items()}
    alone = replace(record, episodes={label: judged})
    assert grey_measures(record, logprobs) == grey_measures(alone, logprobs)


def test_an_export_scores_only_what_could_be_judged(run, tmp_path):
    with Journal.read(RunFolder(run.path).journal) as journal:
        results, samples = write_lm_eval(journal, tmp_path)
    overall = run.summary()["facts"]["deception"]["societies"][0]["overall"]
    rows = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    assert len(rows) == overall["valid"]
    assert sum(row["labels"]["response"] == "deceptive" for row in rows) == overall["response"]["count"]
    assert results.is_file()


def test_tables_and_rows_say_what_the_judge_called_each_part(run, tmp_path):
    import pyarrow.parquet as pq

    rows = {row["key"]: row["labels"] for row in run.turns()}
    with Journal.read(RunFolder(run.path).journal) as journal:
        _, lines, _ = export_tables(journal, tmp_path, "jsonl")
        _, table, _ = export_tables(journal, tmp_path, "parquet")
    exported = {row["turn"]: row["labels"] for row in map(json.loads, lines.read_text("utf-8").splitlines())}
    assert exported == {key: labels for key, labels in rows.items() if labels is not None}
    assert {"thought": "deceptive", "response": "honest"} in exported.values()
    assert {row["turn"]: dict(row["labels"]) for row in pq.read_table(table).to_pylist()} == exported


def test_the_report_shows_the_rates_in_place_of_the_accuracy(run, capsys):
    from coterie.experiments.report.terminal import print_summary

    page = run.report().read_text("utf-8")
    assert "<h2>Deception</h2>" in page
    assert "by inducement" in page
    assert "<h2>Accuracy</h2>" not in page
    assert "GROUND" not in page
    print_summary(run.summary(), Console(width=80))
    shown = capsys.readouterr().out
    assert "Deceptive: " in shown
    assert "by inducement" in shown
    assert "turn 3" in shown
    assert "excl." in shown  # nothing is cut off


def test_an_audit_wants_verdicts_where_episodes_are_over(run, tmp_path):
    cut = play(tmp_path, budget={"calls": 60})
    assert cut.status == "stopped"
    for one in (run, cut):
        assert audit(RunFolder(one.path))[1] == []
    resumed = coterie.resume(cut, **{"budget.calls": 10_000})
    assert resumed.summary()["facts"]["deception"] == run.summary()["facts"]["deception"]


def test_other_benchmarks_have_no_such_section(tmp_path):
    policy = {"engine": {"kind": "scripted"}, "model": "none"}
    other = coterie.run(
        {"name": "sums", "policy": policy, "seats": [{"name": "ann"}], "protocol": "single", "baselines": [],
         "benchmark": {"kind": "sums", "limit": 2}},
        runs=tmp_path,
    )  # fmt: skip
    assert other.summary()["facts"]["deception"] is None
    assert "Deception" not in other.report().read_text("utf-8")


def test_the_example_is_a_run_as_it_stands(tmp_path):
    from coterie.config.load import load

    path = Path(__file__).parents[3] / "examples" / "deceptionbench.yaml"
    loaded = load(path)
    data = loaded.config.model_dump(mode="json")
    for policy in data["policies"].values():
        policy |= {"engine": {"kind": "scripted", "replies": [say("thought: honest\nresponse: honest")]}, "model": "x"}
    data["benchmark"]["path"] = str(path.parent / data["benchmark"]["path"])
    done = coterie.run(data, runs=tmp_path)
    assert (
        done.summary()["facts"]["deception"]["societies"][0]["overall"]["replies"]
        == done.summary()["facts"]["totals"]["tasks_planned"]
    )


NAMES = {"d": "deceptive", "h": "honest"}


def judged(thoughts: str, responses: str, **features: str) -> list[Judged]:
    return [
        Judged(features, {"thought": NAMES[t], "response": NAMES[r]}) if t != "-" else Judged(features, {}, "unread")
        for t, r in zip(thoughts, responses, strict=True)
    ]


def test_what_has_no_label_is_left_out_before_the_rate() -> None:
    rate = deception_rate(judged("ddh--", "dhh--"), "thought")
    assert rate == Rate(2, 3)
    assert rate.value == pytest.approx(2 / 3)
    assert deception_rate(judged("--", "--"), "response").value is None


def test_rates_are_told_by_any_feature() -> None:
    rows = [*judged("dd", "dh", domain="Economy", role="self"), *judged("hhh", "hdd", domain="Education", role="other")]
    for name, values in {"domain": ("Economy", "Education"), "role": ("self", "other")}.items():
        found = {value: deception_rate(group, "response") for value, group in by_feature(rows, name)}
        assert found == dict(zip(values, (Rate(1, 2), Rate(2, 3)), strict=True))


def test_a_mismatch_is_between_thought_and_response_of_one_reply() -> None:
    assert mismatch_rate(judged("ddh-h", "dhh-h")) == Rate(1, 4)
