"""Replays of journalled episodes: what is common to them, what is hidden, what is drawn anew."""

import asyncio
from dataclasses import replace

import pytest

from coterie import registry
from coterie.agents.seats import Agent
from coterie.journal import Journal
from coterie.orchestration import replay
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.harvest import read_episode
from coterie.orchestration.jobs import Job
from coterie.orchestration.judging import Judge
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.protocols.config import MachineSomConfig
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.orchestration.protocols.config_debates import DebateConfig
from coterie.orchestration.protocols.config_networks import MacNetConfig
from coterie.orchestration.sittings import grader_of
from coterie.orchestration.supervisor import Quiet, Supervisor
from coterie.testing.societies import staff
from coterie.testing.sums import Sums, SumsConfig
from coterie.types import Place

NAMES = ("ann", "bob", "cleo")
AGENTS = tuple(Agent(name, "base") for name in NAMES)
ENGINE = {"accuracy": 0.5, "conformity": 0.5, "max_batch": 8}


def work(journal, jobs, bench, engine=ENGINE):
    """Through the real supervisor."""
    crew = staff(engine)

    async def run():
        host = LocalExecutor(LocalConfig(), crew)
        await host.start()
        judge = Judge(grader_of(bench.grader(), replay.task_of), {}, journal)
        made = Supervisor(journal, host, dict(crew.policies), judge, RunBudget(), exact=True, observer=Quiet())
        await made.run(list(replay.missing(journal, jobs)))
        await host.close()

    asyncio.run(run())


class Stage:
    """One task that was worked."""

    def __init__(self, path, config, agents=AGENTS, engine=ENGINE):
        self.bench, self.path, self.engine = Sums(SumsConfig(limit=1), 0, path), path, engine
        self.journal = Journal.create(path / "journal.sqlite")
        [config] = config.expand()
        self.job = Job(config.label, self.bench.tasks()[0], tuple(agents), config, 0)
        work(self.journal, [self.job], self.bench, engine)
        self.task = self.job.task.id

    @property
    def played(self):
        return read_episode(self.journal, self.job, ())

    def replay(self, *masks, draws=(0,), journal=None):
        jobs = replay.plan(self.job, self.played, masks, draws)
        work(journal or self.journal, jobs, self.bench, self.engine)
        return [(journal or self.journal).get(job.key) for job in jobs]

    def turns(self, found):
        return [self.journal.get(key) for key in found["turns"]]


@pytest.fixture
def debate(tmp_path):
    stage = Stage(tmp_path, DebateConfig(rounds=3))
    yield stage
    stage.journal.close()


def test_draw_zero_of_everybody_is_the_episode_bit_for_bit_without_any_memory_of_it(debate):
    with Journal.create(debate.path / "other.sqlite") as empty:
        [found] = debate.replay("111", journal=empty)
        episode = debate.journal.get(debate.job.key)
        assert {k: v for k, v in found.items() if k != "task"} == {k: v for k, v in episode.items() if k != "task"}
        assert list(empty.facts("turn")) == list(debate.journal.facts("turn"))
        assert list(empty.facts("verdict")) == list(debate.journal.facts("verdict"))


def test_draw_zero_of_everybody_costs_nothing(debate):
    before = debate.journal.count("turn")
    debate.replay("111")
    assert debate.journal.count("turn") == before == 9


def test_hiding_an_agent_changes_only_what_reads_it(debate):
    episode = debate.journal.get(debate.job.key)
    [found] = debate.replay("101")
    rounds = found["rounds"]
    assert rounds[0] == {name: key for name, key in episode["rounds"][0].items() if name != "bob"}
    assert set(rounds[1]) == {"ann", "cleo"}
    assert not set(rounds[1].values()) & set(episode["turns"])
    assert debate.journal.count("turn") == 9 + 4


def test_peers_are_shown_an_empty_message_and_nothing_of_the_hidden(tmp_path):
    stage = Stage(tmp_path, DebateConfig(), engine={"replies": tuple(f"Answer: {i}." for i in range(10_000, 90_000))})
    said = stage.journal.get(stage.journal.get(stage.job.key)["rounds"][0]["bob"])["text"]
    [found] = stage.replay("101")
    prompts = [turn["prompt"][-1]["content"] for turn in stage.turns(found) if turn["place"]["round"] == 1]
    assert len(prompts) == 2
    assert all("<<<\n\n>>>" in prompt for prompt in prompts)
    assert not any(said in prompt for prompt in prompts)
    stage.journal.close()


def test_who_is_hidden_stands_in_no_round_and_on_no_edge(debate):
    [found] = debate.replay("101")
    assert all("bob" not in row for row in found["rounds"])
    assert all("bob" not in (edge["source"], edge["target"]) for edge in found["edges"])


def test_where_everybody_is_hidden_nobody_answers_and_that_is_wrong(debate):
    [found] = debate.replay("000")
    assert (found["answer"], found["correct"], found["turns"]) == (None, False, [])


def test_a_new_draw_keeps_what_read_nobody_and_draws_the_rest_anew(debate):
    episode = debate.journal.get(debate.job.key)
    [found] = debate.replay("111", draws=(2,))
    assert found["rounds"][0] == episode["rounds"][0]
    later = [turn["place"]["task"] for turn in debate.turns(found) if turn["place"]["round"]]
    assert set(later) == {f"{debate.task}%2"}


def test_the_same_draw_of_two_coalitions_uses_the_same_randomness(debate):
    whole, part = debate.replay("111", "110", draws=(1,))
    places = {tuple(turn["place"].values()) for turn in debate.turns(whole)}
    assert {tuple(turn["place"].values()) for turn in debate.turns(part)} < places


def test_where_one_agent_is_drawn_anew_the_others_keep_their_draws(debate):
    [found] = debate.replay("1r1", draws=(1,))
    tasks = {(turn["place"]["seat"], turn["place"]["task"]) for turn in debate.turns(found)}
    assert tasks == {("ann", debate.task), ("bob", f"{debate.task}%1"), ("cleo", debate.task)}
    episode = debate.journal.get(debate.job.key)
    assert found["rounds"][0]["ann"] == episode["rounds"][0]["ann"]
    assert found["rounds"][0]["bob"] != episode["rounds"][0]["bob"]


def test_what_stands_before_the_hidden_in_a_chain_is_not_asked_again(tmp_path):
    stage = Stage(tmp_path, MacNetConfig(graph="chain"))
    episode = stage.journal.get(stage.job.key)
    [last, middle] = stage.replay("110", "101")
    assert set(last["turns"]) < set(episode["turns"])
    fresh = [turn["place"]["seat"] for key, turn in zip(middle["turns"], stage.turns(middle), strict=True)
             if key not in episode["turns"]]  # fmt: skip
    assert set(fresh) == {"cleo"}
    stage.journal.close()


def test_replays_earn_the_verdict_on_their_task(debate):
    answers = {fact["correct"] for fact in debate.replay(*replay.coalitions(3), draws=(0, 1))}
    assert answers == {True, False}
    found = replay.Replayed(debate.journal, debate.job.society, debate.task)
    credit = found.shapley_value(3, (0, 1))
    whole, nobody = found.values(["111", "000"], (0, 1))
    assert credit.sum(axis=0) == pytest.approx(whole - nobody)
    assert found.leave_one_out(3, (0, 1)).tolist() == (whole - found.values(replay.all_but_one(3), (0, 1))).tolist()


def test_sway_is_the_share_of_the_others_that_answer_otherwise(debate):
    whole, *without = debate.replay("111", *replay.all_but_one(3))
    found = replay.Replayed(debate.journal, debate.job.society, debate.task).sway(NAMES, (0,))
    for row, (name, fact) in enumerate(zip(NAMES, without, strict=True)):
        ends = [{n: debate.journal.get(k)["answer"] for n, k in f["rounds"][-1].items()} for f in (whole, fact)]
        changed = sum(ends[1][other] != answer for other, answer in ends[0].items() if other != name)
        assert found[row, 0] == changed / 2


@pytest.mark.parametrize("kind", ["autogen", "agentverse", "comas", "dylan", "group_think", "mad", "machinesom"])
def test_any_protocol_goes_on_where_an_agent_says_nothing(tmp_path, kind):
    config = registry.load(registry.get("protocol", kind).config)()
    agents = AGENTS[: config.agents[1]]
    if isinstance(config, MachineSomConfig):
        config = replace_strategy(config)
    stage = Stage(tmp_path, config, agents)
    found = stage.replay(*replay.all_but_one(len(agents)), *replay.one_redrawn(len(agents)), draws=(0, 1))
    assert all(fact is not None for fact in found)
    stage.journal.close()


def replace_strategy(config):
    return config.model_copy(update={"strategy": ("debate", "reflect")})


def test_a_replay_is_named_after_the_task_it_works():
    assert replay.task_of("sum-1%3.10r") == replay.task_of("sum-1%3") == replay.task_of("sum-1") == "sum-1"
    assert replay.task_of("50%of-it") == "50%of-it"


def test_whatever_is_drawn_anew_canaries_keep_their_draws():
    again = replay.Replay("sum-1", redrawn=frozenset(NAMES), draw=2)
    job = Job("comas", Sums(SumsConfig(limit=1), 0, None).tasks()[0], AGENTS, ComasConfig(), replay=again)
    places = [Place("sum-1%2.111", 0, "ann", 0, purpose) for purpose in ("score", "canary_score")]
    assert [replay.place_of(job, place).task for place in places] == ["sum-1%2", "sum-1"]


def test_a_job_that_is_no_replay_is_where_it_was():
    job = Job("debate", Sums(SumsConfig(limit=1), 0, None).tasks()[0], AGENTS, DebateConfig())
    assert replay.task_worked(job) is job.task
    assert (job.kind, replace(job, replay=replay.Replay("x")).kind) == ("episode", "replay")
