"""SelfOrg: both modes, its theory (arXiv 2510.00685, Lemmas 1 and 2), and its known failure."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from coterie.agents.seats import Agent
from coterie.journal import Journal
from coterie.orchestration.protocols.config import ConsensusConfig, SelfOrgConfig
from coterie.orchestration.protocols.selforg import SelfOrg, agrees, nearness
from coterie.testing.scripted import ScriptedEngine
from coterie.testing.societies import check_protocol, play

MODES = [SelfOrgConfig(), SelfOrgConfig(mode="release")]
RANDOM = SelfOrgConfig(graph="random")
ALONE = {"conformity": 0.0, "errors": 40}


@pytest.fixture(autouse=True)
def _needs_minilm():
    pytest.importorskip("transformers")


def crew(size: int) -> tuple[Agent, ...]:
    return tuple(Agent(f"a{i}", "base", f"You are agent {i}.") for i in range(size))


def gold(question: str) -> str:
    a, b = re.findall(r"\d+", question)
    return str(int(a) + int(b))


def episodes(journal: Journal) -> Iterator[tuple[dict, str]]:
    for fact in journal.facts("episode"):
        first = next(iter(fact.payload["rounds"][0].values()))
        prompt = journal.get(first)["prompt"]
        yield fact.payload, gold(prompt[-1]["content"].partition("?")[0])


def edges_of(episode: dict, number: int = 1) -> frozenset[tuple[str, str]]:
    """Who read whom in a round."""
    return frozenset((edge["source"], edge["target"]) for edge in episode["edges"] if edge["round"] == number)


def is_right_source(journal: Journal) -> Iterator[bool]:
    """For each edge of the first round of reading, whether what was read is right."""
    for episode, answer in episodes(journal):
        for source, _ in edges_of(episode):
            yield journal.get(episode["rounds"][0][source])["answer"] == answer


def accuracy(size: int, num_tasks: int, **engine: float) -> float:
    config = SelfOrgConfig(rounds=1, consensus=None)
    with play(config, num_tasks=num_tasks, agents=crew(size), engine={**ALONE, **engine}) as journal:
        return float(np.mean([episode["answer"] == right for episode, right in episodes(journal)]))


@pytest.mark.parametrize("config", [*MODES, RANDOM], ids=lambda config: config.label)
def test_it_passes_the_conformance_suite(config):
    check_protocol(config)


def test_a_mode_is_its_published_defaults_and_nothing_more():
    release = SelfOrgConfig(mode="release")
    assert (release.contribution.kind, release.edges, release.top_k, release.cut) == (
        "softmax_psi", "tilt", 2, "lightest"
    )  # fmt: skip
    assert SelfOrgConfig(mode="release", top_k=3).top_k == 3


def test_more_agents_raise_the_chance_of_a_right_answer():
    alone, several, many = (accuracy(size, 60, accuracy=0.4) for size in (1, 4, 9))
    assert alone < several < many
    assert many > alone + 0.15


def test_right_answers_dominate_the_flow():
    with play(MODES[0], num_tasks=30, agents=crew(6), engine={**ALONE, "accuracy": 0.5}) as journal:
        right, wrong = [], []
        for episode, answer in episodes(journal):
            for name, key in episode["rounds"][0].items():
                said = right if journal.get(key)["answer"] == answer else wrong
                said.append(episode["extra"]["contributions"][0][name])
        assert np.mean(right) > np.mean(wrong)
        sources = list(is_right_source(journal))
    assert np.mean(sources) > 0.6  # half of the agents are right


def test_a_consistent_wrong_majority_drags_the_society_below_one_agent():
    alone = accuracy(1, 60, accuracy=0.3, errors=1)
    assert accuracy(7, 60, accuracy=0.3, errors=1) < alone


def test_a_level_is_one_call_across_tasks(monkeypatch):
    calls = []
    generate = ScriptedEngine.generate

    async def counted(engine, prompts, sampling, keys):
        calls.append([key.round for key in keys])
        return await generate(engine, prompts, sampling, keys)

    monkeypatch.setattr(ScriptedEngine, "generate", counted)
    with play(SelfOrgConfig(rounds=1), num_tasks=12, agents=crew(5), engine={"accuracy": 0.4}):
        pass
    # A chain of five is the deepest DAG, so one round has at most five levels.
    assert calls[0] == [0] * 60
    assert len(calls) <= 1 + 5


def test_sampled_contributions_come_with_their_standard_errors():
    config = SelfOrgConfig(rounds=1, contribution={"kind": "permutation", "num_permutations": 8})
    with play(config, num_tasks=1) as journal:
        ((episode, _),) = episodes(journal)
    assert [set(errors) for errors in episode["extra"]["standard_errors"]] == [{"ann", "bob", "cleo"}] * 2


@pytest.mark.parametrize("config", MODES, ids=lambda config: config.mode)
def test_the_random_graph_has_as_many_edges(config):
    """In the first round of reading, where both start from the same replies."""
    control, engine = config.model_copy(update={"graph": "random"}), {**ALONE, "accuracy": 0.5}
    with play(config, control, num_tasks=12, agents=crew(5), engine=engine) as journal:
        edges = {label: [edges_of(e) for e, _ in episodes(journal) if e["society"] == label]
                 for label in (config.label, control.label)}  # fmt: skip
    wired, drawn = edges.values()
    assert [*map(len, wired)] == [*map(len, drawn)]
    assert wired != drawn


def test_a_random_graph_is_drawn_anew_for_every_round_and_task():
    config = RANDOM.model_copy(update={"consensus": None, "threshold": -1})
    with play(config, num_tasks=4, agents=crew(5)) as journal:
        found = [edges_of(episode, number) for episode, _ in episodes(journal) for number in (1, 2)]
    assert {len(edges) for edges in found} == {10}
    assert len(set(found)) > 4


def test_who_leads_the_random_graph_is_not_who_contributes():
    """The control: right answers no longer dominate the flow."""
    with play(RANDOM, num_tasks=60, agents=crew(6), engine={**ALONE, "accuracy": 0.5}) as journal:
        sources = list(is_right_source(journal))
    assert abs(np.mean(sources) - 0.5) < 0.1


def test_the_last_contributions_are_measured_once(monkeypatch):
    calls = []
    measure = SelfOrg._contributions

    def counted(self, vectors, task, number, seed):
        calls.append(number)
        return measure(self, vectors, task, number, seed)

    monkeypatch.setattr(SelfOrg, "_contributions", counted)
    with play(SelfOrgConfig(consensus=None), num_tasks=1) as journal:
        assert journal.count("episode") == 1
    assert calls == [0, 1, 2]


def test_agents_that_agree_end_early():
    with play(SelfOrgConfig(rounds=5), num_tasks=4, engine={"accuracy": 1.0}) as journal:
        assert {len(episode["rounds"]) for episode, _ in episodes(journal)} == {2}


def test_nobody_stops_early_without_a_consensus_rule():
    with play(SelfOrgConfig(rounds=3, consensus=None), num_tasks=2, engine={"accuracy": 1.0}) as journal:
        assert {len(episode["rounds"]) for episode, _ in episodes(journal)} == {4}


def test_consensus_needs_both_likeness_and_even_contributions():
    rule, alike = ConsensusConfig(), np.ones((2, 2))
    assert agrees(alike, np.array([0.5, 0.5]), rule)
    assert not agrees(alike, np.array([0.3, 0.7]), rule)
    assert not agrees(np.array([[1, 0.9], [0.9, 1]]), np.array([0.5, 0.5]), rule)


def test_the_nearest_reply_is_measured_from_the_weighted_centroid():
    vectors = np.eye(3, dtype=np.float32)
    scores = nearness(vectors, np.array([3.0, 1.0, 0.0]))
    np.testing.assert_allclose(scores, np.array([3, 1, 0]) / np.sqrt(10), atol=1e-5)


def test_of_two_equally_near_replies_the_last_bits_choose_none():
    for seed in range(50):
        vectors = np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = nearness(vectors, np.array([0.5, 0.5]))
        assert scores[0] == scores[1]


def test_without_weight_the_centroid_is_the_mean():
    np.testing.assert_allclose(nearness(np.eye(2, dtype=np.float32), np.zeros(2)), [2**-0.5] * 2, atol=1e-5)
