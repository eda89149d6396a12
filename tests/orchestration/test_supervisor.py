"""The supervisor with scripted engines: sharing, determinism, budgets, faults, resume."""

import pytest

from coterie.errors import EngineError, ProtocolError
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.protocols.config import MachineSomConfig, SelfConsistencyConfig, SingleConfig
from coterie.orchestration.worker import TaskLimits
from coterie.testing.societies import AGENTS, check_protocol, play

DEBATE = MachineSomConfig(strategy=("debate", "reflect", "debate"))


@pytest.fixture(scope="module")
def digest() -> str:
    with play(DEBATE) as journal:
        return journal.digest()


@pytest.mark.parametrize(
    "config", [SingleConfig(), SelfConsistencyConfig(samples=5), DEBATE, MachineSomConfig(strategy="all", rounds=2)]
)
def test_builtin_protocols_pass_the_conformance_suite(config):
    check_protocol(config)


def test_all_eight_strategies_share_their_prefixes():
    with play(MachineSomConfig(strategy="all"), num_tasks=2) as journal:
        assert journal.count("episode") == 2 * 8
        assert journal.count("turn") == 2 * 45  # 15 nodes of the prefix tree x 3 agents, instead of 32 x 3


def test_the_single_agent_is_the_first_sample_of_self_consistency():
    with play(SingleConfig(), SelfConsistencyConfig(samples=4), num_tasks=3) as journal:
        assert journal.count("turn") == 3 * 4


def test_another_seed_gives_other_facts(digest):
    with play(DEBATE, seed=1) as journal:
        assert journal.digest() != digest


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("fault", ["crash", "wrong_length", "lie"])
def test_a_misbehaving_engine_changes_no_fact(fault, exact, digest):
    with play(DEBATE, engine={"max_batch": 4, "faults": {fault: 0.05}}, exact=exact, attempts=10) as journal:
        assert journal.digest() == digest
        failures = [note.payload for note in journal.notes("failure")]
    assert failures
    assert {failure["code"] for failure in failures} == {"E_ENGINE"}


def test_a_hanging_engine_is_given_up_at_the_deadline_and_asked_again(digest):
    with play(DEBATE, engine={"max_batch": 8, "faults": {"hang": 0.05}}, attempts=10, deadline=0.2) as journal:
        assert journal.digest() == digest
        assert {note.payload["code"] for note in journal.notes("failure")} == {"E_TIMEOUT"}


def test_an_engine_that_always_fails_ends_the_run_with_its_name(tmp_path):
    with pytest.raises(EngineError, match="gave up after 3 attempts"), play(DEBATE, engine={"faults": {"crash": 1}}):
        pass


def test_a_run_budget_is_never_exceeded_and_stops_every_batching_at_the_same_turn():
    stopped = set()
    for max_batch in (1, 3, 64):
        budget = RunBudget(tokens=20_000)
        with play(DEBATE, budget=budget, engine={"max_batch": max_batch}) as journal:
            spent = sum(f.payload["num_prompt_tokens"] + f.payload["num_tokens"] for f in journal.facts("turn"))
            assert spent == budget.spent_tokens
            stopped.add(journal.digest())
        assert 10_000 < spent <= 20_000
    assert len(stopped) == 1


def test_a_call_budget_is_used_up_exactly():
    with play(DEBATE, budget=RunBudget(calls=17)) as journal:
        assert journal.count("turn") == 17


def test_a_run_out_of_budget_goes_on_with_more_to_the_same_end(tmp_path, digest):
    path = tmp_path / "journal.sqlite"
    with play(DEBATE, budget=RunBudget(calls=17), path=path) as journal:
        assert journal.digest() != digest
    with play(DEBATE, path=path) as journal:
        assert journal.digest() == digest


def test_an_episode_out_of_its_own_budget_ends_without_an_answer():
    with play(DEBATE, limits=TaskLimits(calls=7)) as journal:
        episodes = [fact.payload for fact in journal.facts("episode")]
        assert journal.count("turn") == len(episodes) * 7
    assert all(episode["answer"] is None for episode in episodes)
    assert all("budget of 7 calls" in episode["decision"] for episode in episodes)


def test_an_episode_never_exceeds_its_token_budget():
    with play(DEBATE, limits=TaskLimits(tokens=3000)) as journal:
        spent: dict[str, int] = {}
        for fact in journal.facts("turn"):
            task = fact.payload["place"]["task"]
            spent[task] = spent.get(task, 0) + fact.payload["num_prompt_tokens"] + fact.payload["num_tokens"]
    assert spent
    assert max(spent.values()) <= 3000


def test_a_protocol_that_raises_is_named_with_its_task(monkeypatch):
    from coterie.orchestration.protocols.single import Single

    async def run(self, task, agents, ask):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(Single, "run", run)
    with pytest.raises(ProtocolError, match="'single' failed: ZeroDivisionError: oh") as caught, play(SingleConfig()):
        pass
    assert "sum-0000" in caught.value.where


def test_verdicts_are_journalled_and_gold_is_not():
    with play(SingleConfig(), num_tasks=4) as journal:
        assert journal.count("verdict") == 4
        assert {tuple(sorted(f.payload)) for f in journal.facts("verdict")} == {("answer", "correct")}
        assert "gold" not in repr([f.payload for f in journal.facts()])


def test_agents_read_each_other_only_in_debate():
    with play(MachineSomConfig(strategy=("debate", "reflect")), num_tasks=1) as journal:
        (episode,) = (fact.payload for fact in journal.facts("episode"))
        prompts = {key: journal.get(key)["prompt"] for turns in episode["rounds"] for key in turns.values()}
    assert {(e["round"], e["source"], e["target"]) for e in episode["edges"]} == {
        (1, a.name, b.name) for a in AGENTS for b in AGENTS if a is not b
    }
    for key, prompt in prompts.items():
        assert ("<<<" in prompt[-1]["content"]) == ("/001/" in key)
