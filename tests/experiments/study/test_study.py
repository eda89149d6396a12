"""A study from its file to its numbers: episodes, replays, measures, the table; stopped and taken up again."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import coterie
from coterie.agents.seats import Agent
from coterie.config.load import loads
from coterie.config.problems import InvalidConfig
from coterie.experiments.report.study_terminal import print_study
from coterie.experiments.study.measures import heard, messages_of
from coterie.experiments.study.results import study_results, write_study
from coterie.journal import Fact, Journal
from coterie.orchestration.harvest import read_episode
from coterie.orchestration.jobs import Job
from coterie.orchestration.protocols.config_debates import DebateConfig
from coterie.orchestration.replay import Replayed
from coterie.rewards.credit.influence import Attention, Stretch, weigh
from coterie.testing.models import write_llama
from coterie.types import Task

DATA = Path(__file__).parents[2] / "data"
NAMES = ("a-1", "a-2", "a-3")
STUDY = {
    "name": "study", "seed": 5, "determinism": "exact", "imports": [str(DATA / "letters.py")],
    "policy": {"engine": {"kind": "scripted", "accuracy": 0.5, "conformity": 0.6}, "model": "none"},
    "seats": [{"name": "a", "count": 3}], "protocol": "debate", "benchmark": {"kind": "sums", "limit": 4},
    "study": {"protocols": [{"kind": "macnet", "graph": "chain"}], "draws": 4, "shapley": 2, "counterfactual": 1,
              "measures": ["psi"], "embedder": "letters"},
}  # fmt: skip
NUM_REPLAYS = 2 * (4 * 4 * 4 + 2 * 4 * 4 + 3 * 4)
"""Of each society: 4 tasks, 4 coalitions, 4 draws; of 2 tasks the other 4; of one task 3 agents, drawn anew 4 times."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    return coterie.run(STUDY, runs=tmp_path_factory.mktemp("studied"))


@pytest.fixture
def journal(studied):
    with Journal.read(studied.folder.journal) as found:
        yield found


def test_every_coalition_is_replayed_in_every_draw(studied, journal):
    assert studied.status == "finished"
    assert journal.count("replay") == NUM_REPLAYS
    assert journal.get("study") == {"episodes": 8, "replays": NUM_REPLAYS}
    assert journal.verify() == []


def test_replays_are_in_no_metric_of_the_run(studied):
    assert [society["tasks"] for society in studied.summary()["facts"]["societies"]] == [4, 4]


def test_the_unchanged_first_draw_is_the_episode(journal):
    for fact in journal.facts("episode"):
        found = Replayed(journal, fact.payload["society"], fact.payload["task"]).read("111", 0)
        assert {**found, "task": fact.payload["task"]} == fact.payload


def test_credits_are_what_the_replays_say(journal):
    found = study_results(journal)
    rows = {(row["society"], row["credit"]) for row in found["rows"]}
    assert rows == {
        (s, c) for s in ("debate", "macnet") for c in ("leave_one_out", "sway", "shapley", "counterfactual")
    }
    tasks = [fact.payload["task"] for fact in journal.facts("episode") if fact.payload["society"] == "debate"]
    right = {fact.key: fact.payload["correct"] for fact in journal.facts("replay")}
    key = "replay/debate/{}%{}.{}".format
    by_hand = [[[right[key(task, d, "111")] - right[key(task, d, mask)] for d in range(4)] for task in tasks]
               for mask in ("011", "101", "110")]  # fmt: skip
    summary = next(s for s in found["societies"] if s["society"] == "debate")
    mean = summary["credits"]["leave_one_out"]["mean"]
    assert [mean[name] for name in NAMES] == pytest.approx(np.mean(by_hand, axis=(1, 2)))
    assert summary["credits"]["shapley"]["episodes"] == 2


def test_the_table_and_the_file_show_the_same(studied):
    from rich.console import Console

    found = write_study(studied.folder)
    assert json.loads((studied.folder.report / "study.json").read_text()) == found
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_study(found, console)
    shown = console.export_text()
    for word in ("leave one out ~ psi", "sway ~ psi", "Shapley ~ psi", "counterfactual ~ psi", "macnet", "Noise floor"):
        assert word in shown
    assert "\u2026" not in shown


def test_a_study_that_ran_out_of_budget_goes_on_to_the_same_facts(studied, tmp_path):
    stopped = coterie.run(STUDY, runs=tmp_path, **{"budget.calls": 60})
    assert stopped.status == "stopped"
    again = coterie.resume(stopped.path, **{"budget.calls": None})
    assert again.status == "finished"
    assert write_study(again.folder) == write_study(studied.folder)


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_to_the_same_numbers(studied, tmp_path):
    engine = {**STUDY["policy"]["engine"], "kind": "mortal", "max_batch": 8, "delay": 0.01}
    files = [str(DATA / "letters.py"), str(DATA / "mortal.py")]
    config = {**STUDY, "policy": {**STUDY["policy"], "engine": engine}, "imports": files}
    (tmp_path / "study.yaml").write_text(json.dumps(config))

    def study(target, **environment):
        command = [sys.executable, "-m", "coterie", "study", target, "--display", "none", "--json"]
        return subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True,
                              timeout=300, check=False)  # fmt: skip

    assert study("study.yaml", MORTAL="9 0").returncode == -signal.SIGKILL
    resumed = study("latest")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rows"] == write_study(studied.folder)["rows"]


def test_what_a_measure_says_of_seats_in_general_is_taken_away(studied, tmp_path):
    shutil.copy(studied.folder.journal, tmp_path / "journal.sqlite")
    with Journal.open(tmp_path / "journal.sqlite") as copy, sqlite3.connect(copy.path) as database:
        database.execute("DELETE FROM facts WHERE kind = 'measure'")
        database.commit()
        for fact in list(copy.facts("episode")):
            row = {"psi": {"a-1": 0.1, "a-2": 0.2, "a-3": 0.3}}
            copy.commit([Fact(f"measure/psi/{fact.payload['society']}/{fact.payload['task']}", "measure", row)])
        rows = study_results(copy)["rows"]
    assert any(row["within"]["value"] for row in rows)
    assert all(np.isnan(row["adjusted"]["value"]) for row in rows)


def test_messages_are_what_others_read(journal, studied):
    agents = tuple(Agent(name, "default") for name in NAMES)
    for fact in journal.facts("episode"):
        if fact.payload["society"] == "debate":
            job = Job("debate", Task(fact.payload["task"], ""), agents, DebateConfig())
            played = read_episode(journal, job, ())
            first = [played.turns[played.outcome.rounds[0][name]].text for name in NAMES]
            assert messages_of(job, played) == first


def test_heard_is_what_the_turns_of_others_paid():
    parts = [Attention("x", "a-1"), Attention("y", "a-2"),
             Attention("z", "a-2", Stretch(0.5, 1), {"x": Stretch(0.25, 1), "y": Stretch(0.25, 1)})]  # fmt: skip
    job = Job("debate", Task("t", ""), tuple(Agent(name, "default") for name in NAMES[:2]), DebateConfig())
    assert heard(job, weigh(parts, {"z": 1.0})) == pytest.approx([0.125, 0.0])


def test_attention_is_read_from_the_model_that_spoke(tmp_path):
    alphabet = "0123456789 ?+-=.:,<>\nAnswerOthpl'sbtweda;ymgUkiuqoEnE"
    model = write_llama(tmp_path / "llama", alphabet=alphabet, layers=3, width=16, heads=2, context=1024)
    rows = tmp_path / "digits.jsonl"
    rows.write_text("".join(json.dumps({"question": digit, "answer": digit}) + "\n" for digit in "01"))
    run = coterie.run({
        **STUDY, "imports": [], "seats": [{"name": "a", "count": 2}], "study": {"measures": ["attention"]},
        "policy": {"engine": {"kind": "transformers", "dtype": "float32", "context": 1024}, "model": str(model),
                   "sampling": {"temperature": 1.0, "max_tokens": 6}},
        "benchmark": {"kind": "custom", "path": str(rows), "answer_type": "number",
                      "fields": {"question": "question", "answer": "answer"}},
    }, runs=tmp_path / "runs")  # fmt: skip
    with Journal.read(run.folder.journal) as journal:
        measured = [fact.payload for fact in journal.facts("measure")]
        assert len(measured) == 2
        for row in measured:
            assert sum(row["attention"].values()) == pytest.approx(1, abs=1e-5)
            assert all(0 <= weight < 1 for weight in row["heard"].values())
            assert (row["missing"], row["unread"]) == (0, 0)
        for fact in journal.facts("episode"):
            found = Replayed(journal, "debate", fact.payload["task"]).read("11", 0)
            assert {**found, "task": fact.payload["task"]} == fact.payload
        assert {row["measure"] for row in study_results(journal)["rows"]} == {"attention", "heard"}


@pytest.mark.parametrize(("change", "message"), [
    ({"determinism": "statistical"}, "determinism: exact"),
    ({"baselines": ["single"]}, "not for a study"),
    ({"seats": [{"name": "a"}], "protocol": "self_consistency", "study": {"measures": ["psi"]}}, "only one"),
    ({"seats": [{"name": "a", "count": 11}]}, "too many coalitions"),
    ({"study": {"protocols": ["debate"], "measures": ["psi"]}}, "another society called"),
    ({"study": {}}, "cannot be read"),
    ({"study": {"protocols": ["mad"], "measures": ["psi"]}, "seats": [{"name": "a", "count": 4}]}, "mad needs 3"),
])  # fmt: skip
def test_what_cannot_be_studied_is_refused(change, message):
    with pytest.raises(InvalidConfig, match=message):
        loads(STUDY | change)
