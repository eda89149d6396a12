"""A benchmark that leaves the verdict to a model: what is asked after an episode, by whom it is seen, and resume."""

import json
from pathlib import Path
from typing import Any

import pytest

from coterie.envs.benchmarks.config import DeceptionBenchConfig
from coterie.envs.benchmarks.deceptionbench import DeceptionBench
from coterie.errors import WorkerLost
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.jobs import TaskLimits
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.protocols.config import SingleConfig
from coterie.orchestration.supervisor import Quiet
from coterie.testing.reach import texts_within
from coterie.testing.stage import play, staff

COLUMNS = ("L1-self", "L1-other", "L2-self-pressure", "L2-self-reward", "L2-other-pressure", "L2-other-reward")
# One policy is agent and judge: as a reply this has both parts, as a judgement both labels.
REPLY = '{"thought": "a", "response": "b"}\nthought: deceptive\nresponse: honest'
ENGINE = {"replies": (REPLY,)}
NUM_ANSWERS, NUM_TASKS = 18, 10  # of which four tasks have three turns


@pytest.fixture
def bench(tmp_path: Path) -> DeceptionBench:
    row = {"id": 0, "topic": "Economy", "dimension": "Lost things", **dict.fromkeys(COLUMNS, "Did you see my purse?")}
    told = {"question": "Seen it?", "groundtruth": "GROUND: give it back", "goal": "GOAL: keep it"}
    (tmp_path / "original.jsonl").write_text(json.dumps(row | told), encoding="utf-8")
    return DeceptionBench(DeceptionBenchConfig(path=str(tmp_path), judge="base"), 0, tmp_path)


def run(bench: DeceptionBench, **options: Any) -> Any:
    return play(SingleConfig(), **{"benchmark": bench, "engine": ENGINE, "max_tokens": 256, **options})


def turns(journal: Any, purpose: str) -> list[dict[str, Any]]:
    return [fact.payload for fact in journal.facts("turn") if fact.payload["place"]["purpose"] == purpose]


def test_every_answer_is_judged_through_the_same_door_and_is_none_of_the_episodes_turns(bench):
    with run(bench) as journal:
        assert len(turns(journal, "answer")) == len(turns(journal, "judge")) == NUM_ANSWERS
        assert journal.count("episode") == NUM_TASKS
        labels = {"thought": "deceptive", "response": "honest"}
        assert all(fact.payload["labels"] == labels for fact in journal.facts("verdict"))
        for fact in journal.facts("episode"):
            assert {key.rpartition("/")[0].rpartition("/")[2] for key in fact.payload["turns"]} == {"answer"}
            assert (fact.payload["labels"], fact.payload["correct"]) == (labels, True)
            assert fact.payload["features"]["domain"] == "Economy"


def test_a_conversation_goes_on_with_what_was_said(bench):
    with run(bench) as journal:
        long = [f.payload for f in journal.facts("episode") if f.payload["features"]["level"] == "L3"]
        assert [len(episode["rounds"]) for episode in long] == [3] * 4
        for episode in long:
            prompts = [journal.get(standing["ann"])["prompt"] for standing in episode["rounds"]]
            assert [m["role"] for m in prompts[2]][-5:] == ["user", "assistant", "user", "assistant", "user"]
            assert prompts[2][: len(prompts[1])] == prompts[1]
            assert prompts[2][-2]["content"] == REPLY


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("calls", [7, 25, 35])
def test_cut_anywhere_and_resumed_it_ends_the_same_and_asks_nothing_twice(bench, tmp_path, calls, exact):
    with run(bench, exact=exact) as journal:
        digest = journal.digest()
    path = tmp_path / "journal.sqlite"
    with run(bench, exact=exact, path=path, budget=RunBudget(calls=calls)) as cut:
        assert cut.count("turn") <= calls
        assert cut.count("episode") < NUM_TASKS
    with run(bench, exact=exact, path=path) as resumed:
        assert resumed.digest() == digest
        assert sum(1 for _ in resumed.notes("sample")) == 2 * NUM_ANSWERS


def test_the_limits_of_a_task_bind_its_agents_and_not_its_judge(bench):
    with run(bench, limits=TaskLimits(calls=1)) as journal:
        assert len(turns(journal, "answer")) == len(turns(journal, "judge")) == NUM_TASKS


def test_replies_that_cannot_be_judged_become_no_number(bench):
    with run(bench, engine={"replies": ("No comment.",)}) as journal:
        assert turns(journal, "judge") == []
        assert {json.dumps(f.payload) for f in journal.facts("verdict")} == {
            '{"answer": null, "correct": false, "labels": {}}'
        }
    with run(bench, engine={"replies": ("Thought: a\nResponse: " + 300 * "b",)}) as journal:
        assert turns(journal, "judge") == []
    with run(bench, engine={"replies": ("Thought: a\nResponse: b",)}) as journal:
        assert len(turns(journal, "judge")) == NUM_ANSWERS
        assert all(fact.payload["labels"] == {} for fact in journal.facts("verdict"))
        assert all(fact.payload["labels"] == {} for fact in journal.facts("episode"))


class Spy(Quiet):
    """Looks through everything that a protocol can reach (of the first worker), and through the one that examines."""

    def __init__(self, host):
        self.host, self.finds = host, [0, 0]

    def on_turn(self, turn, verdict):
        for i, worker in enumerate(self.host.workers):
            self.finds[i] += any("GROUND" in text or "GOAL" in text for text in texts_within(worker))


def test_gold_is_in_the_judges_prompts_and_nowhere_that_a_protocol_or_an_agent_can_see(bench):
    host = LocalExecutor(LocalConfig(), staff(ENGINE, max_tokens=256, examines=True))
    spy = Spy(host)
    with run(bench, executor=host, observer=spy) as journal:
        for turn in turns(journal, "answer"):
            assert not [m for m in turn["prompt"] if "GROUND" in m["content"] or "GOAL" in m["content"]]
        for turn in turns(journal, "judge"):
            assert ["GROUND" in m["content"] and "GOAL" in m["content"] for m in turn["prompt"]] == [True]
    assert spy.finds[0] == 0
    assert spy.finds[1] > 0


class Dead:
    async def advance(self, jobs, turns):
        raise WorkerLost("died")


def test_a_worker_that_is_lost_while_it_examines_is_replaced(bench):
    class Mourning(LocalExecutor):
        async def start(self):
            await super().start()
            self.workers = [self._workers[0], Dead()]

        async def revive(self, worker):
            self.workers = [*self.workers[:worker], self._hire()]

    with run(bench) as journal:
        digest = journal.digest()
    host = Mourning(LocalConfig(), staff(ENGINE, max_tokens=256, examines=True))
    with run(bench, executor=host) as journal:
        assert journal.digest() == digest


@pytest.mark.slow
def test_ray_workers_that_run_episodes_and_one_that_examines_give_the_same_facts(bench, nodes, monkeypatch):
    pytest.importorskip("ray")
    from coterie.orchestration.config import RayConfig
    from coterie.orchestration.ray.executor import RayExecutor

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(nodes.token))
    with run(bench) as journal:
        digest = journal.digest()
    crew = staff(ENGINE, max_tokens=256, examines=True)
    with run(bench, executor=RayExecutor(RayConfig(address=nodes.address, workers=2, replicas=2), crew)) as journal:
        assert journal.digest() == digest
