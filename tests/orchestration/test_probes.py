"""Agents are asked how sure they are, beside the episode and by the same door."""

import tempfile
from pathlib import Path

import pytest

from coterie.journal import Fact, Journal
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config_probes import PTrueConfig, VerbalConfidenceConfig
from coterie.orchestration.probes import Interviewer, PTrue, Speaker, VerbalConfidence
from coterie.orchestration.protocols.config import MachineSomConfig, SelfConsistencyConfig, SingleConfig
from coterie.orchestration.protocols.config_debates import DebateConfig, GroupThinkConfig
from coterie.testing.stage import play
from coterie.types import Sampling

BLACK = frozenset({"tokens", "logprobs", "seeded"})
GREY = BLACK | {"choices"}
DEBATE = DebateConfig()


def interviewer(capabilities: frozenset[str] = GREY, samples: int = 3, **probes) -> Interviewer:
    asked = probes or {
        "p_true": PTrue(PTrueConfig(samples=samples)),
        "verbal_confidence": VerbalConfidence(VerbalConfidenceConfig()),
    }
    return Interviewer(asked, {"base": Speaker(Sampling(max_tokens=64), capabilities)})


def probed(journal: Journal, name: str) -> list[dict]:
    found = [fact.payload["agents"] for fact in journal.facts("probe") if fact.payload["probe"] == name]
    return [agent for agents in found for agent in agents.values()]


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", 1.0), (" false.\n", 0.0), ('"True"', 1.0), ("", None), ("True or False", None), ("untrue", None),
     ("It is True", None)],
)  # fmt: skip
def test_p_true_reads_one_word_and_nothing_else(text, value):
    assert PTrue(PTrueConfig()).read(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("85", 0.85), ("Confidence: 40%", 0.4), ("100.", 1.0), ("0", 0.0), ("0.9", None), ("101", None), ("-5", None),
     ("", None), ("90 to 95", None), ("I am 90 sure", None)],
)  # fmt: skip
def test_verbal_confidence_reads_one_whole_number_up_to_100(text, value):
    assert VerbalConfidence(VerbalConfidenceConfig()).read(text) == value


def test_probes_change_nothing_of_the_episodes():
    with play(DEBATE) as plain, play(DEBATE, interviewer=interviewer()) as asked:
        for fact in plain.facts():
            assert asked.get(fact.key) == fact.payload
        more = {fact.kind for fact in asked.facts() if plain.get(fact.key) is None}
        assert more == {"turn", "probe"}
        used = {key for fact in asked.facts("episode") for key in fact.payload["turns"]}
        assert not any("/probe:" in key for key in used)


def test_every_agent_is_asked_in_its_own_conversation_about_the_answer_it_stands_by():
    with play(DEBATE, num_tasks=2, interviewer=interviewer()) as journal:
        for fact in journal.facts("episode"):
            agents = journal.get(f"probe/p_true/{fact.payload['society']}/{fact.payload['task']}")["agents"]
            assert {name: row["about"] for name, row in agents.items()} == fact.payload["rounds"][-1]
            for name, row in agents.items():
                turn, (probe,) = journal.get(row["about"]), map(journal.get, row["turns"])
                assert probe["prompt"][:-2] == turn["prompt"]
                assert probe["prompt"][-2] == {"role": "assistant", "content": turn["text"]}
                assert f"<<<\n{turn['answer']}\n>>>" in probe["prompt"][-1]["content"]
                assert (probe["place"]["seat"], probe["policy"]) == (name, turn["policy"])


def test_replies_are_constrained_and_drawn_once_where_the_engine_tells_their_probability():
    with play(DEBATE, num_tasks=2, interviewer=interviewer(GREY)) as journal:
        rows = probed(journal, "p_true")
    assert all(row["constrained"] and row["readings"] in ([0.0], [1.0]) for row in rows)


def test_elsewhere_several_replies_are_drawn():
    engine = {"replies": ("Answer: 5", "True", "False 5", "false", "True 7")}
    with play(DEBATE, num_tasks=4, engine=engine, interviewer=interviewer(BLACK, samples=5)) as journal:
        rows = probed(journal, "p_true")
        said = {journal.get(key)["text"] for row in rows for key in row["turns"]}
    assert {len(row["readings"]) for row in rows} == {5}
    assert not any(row["constrained"] for row in rows)
    assert said == set(engine["replies"])
    assert {value for row in rows for value in row["readings"]} == {0.0, 1.0, None}


def test_who_stands_by_no_answer_is_not_asked():
    with play(DEBATE, engine={"replies": ("no idea",)}, interviewer=interviewer()) as journal:
        assert [fact.payload["agents"] for fact in journal.facts("probe")] == [{}] * 12
        assert not any(fact.payload["place"]["purpose"].startswith("probe:") for fact in journal.facts("turn"))


def test_a_reply_that_was_cut_is_unparsed():
    replies = ("5", "5" + " " * 40)
    with play(SingleConfig(), num_tasks=20, engine={"replies": replies}, interviewer=interviewer()) as journal:
        rows = probed(journal, "verbal_confidence")
        cut = {row["readings"][0] for row in rows if journal.get(row["turns"][0])["finish"] == "length"}
        whole = {row["readings"][0] for row in rows if journal.get(row["turns"][0])["finish"] == "stop"}
    assert (cut, whole) == ({None}, {0.05})


def test_of_several_samples_an_agent_is_asked_about_the_first_and_shares_it_with_a_single_agent():
    with play(SelfConsistencyConfig(samples=4), SingleConfig(), interviewer=interviewer()) as journal:
        many, one = (
            {f.payload["task"]: f.payload["agents"] for f in journal.facts("probe")
             if (f.payload["probe"], f.payload["society"]) == ("p_true", society)}
            for society in ("self_consistency", "single")
        )  # fmt: skip
    assert many == one


def test_a_reply_in_pieces_is_shown_whole():
    config = GroupThinkConfig(granularity="chunk", rounds=4)
    with play(config, num_tasks=2, max_tokens=8, engine={"accuracy": 1}, interviewer=interviewer()) as journal:
        rows = probed(journal, "p_true")
        shown = [journal.get(row["turns"][0])["prompt"][-2]["content"] for row in rows]
    assert shown
    assert all(text.startswith("The answer is ") for text in shown)


def test_a_run_with_probes_resumes_to_the_same_digest():
    config = MachineSomConfig(strategy=("debate",))
    with tempfile.TemporaryDirectory() as scratch, play(config, interviewer=interviewer()) as journal:
        path = Path(scratch) / "journal.sqlite"
        with Journal.create(path) as copy:
            for key in [note.key for note in journal.notes("sample")][::2]:
                copy.commit([Fact(key, "turn", journal.get(key))])
                if (verdict := journal.get(f"verdict/{key}")) is not None:
                    copy.commit([Fact(f"verdict/{key}", "verdict", verdict)])
        with play(config, interviewer=interviewer(), path=path) as resumed:
            assert resumed.digest() == journal.digest()


def test_probes_are_within_the_budget_of_the_run():
    with play(SingleConfig(), num_tasks=3, interviewer=interviewer(), budget=RunBudget(calls=5)) as journal:
        assert journal.count("turn") <= 5
        assert journal.count("episode") < 3


def test_requests_that_are_drawn_in_different_ways_share_no_call():
    with play(SingleConfig(), num_tasks=8, interviewer=interviewer()) as journal:
        turns = list(journal.facts("turn"))
    longest = {fact.payload["place"]["purpose"]: fact.payload["num_tokens"] for fact in turns}
    assert longest["probe:p_true"] <= len("False")
    assert longest["answer"] > len("False")
