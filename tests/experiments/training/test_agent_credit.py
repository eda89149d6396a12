"""A society is trained on shares of its team reward: from attention to facts to what is learnt from."""

import json

import pytest

import coterie
from coterie.experiments.training import society
from coterie.journal import Journal
from coterie.orchestration import records
from coterie.testing.models import write_llama

ALPHABET = "0123456789 ?+-=.:,<>\nAnswerOthpl'sbtweda;ymgUkiuqoEnE"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("llama"), alphabet=ALPHABET, layers=3, width=16, heads=2, context=1024)


def train(llama, folder, monkeypatch, credit, **changes):
    """Two debating agents; the journal's facts by kind, and what was learnt from."""
    rows = folder / "digits.jsonl"
    rows.write_text("".join(json.dumps({"question": digit, "answer": digit}) + "\n" for digit in "012345"))
    learnt = []
    learn = society.SocietyTrainer.learn

    def spy(self, earned):
        learnt.extend(earned)
        return learn(self, earned)

    monkeypatch.setattr(society.SocietyTrainer, "learn", spy)
    engine = {"kind": "transformers", "dtype": "float32", "context": 1024}
    fields = {"question": "question", "answer": "answer"}
    run = coterie.run(
        {
            "name": "shared", "seed": 3, "device": "cpu", "determinism": "exact",
            "policies": {"base": {"engine": engine, "model": str(llama), "sampling": {"temperature": 1.0,
                                                                                     "max_tokens": 6}}},
            "seats": [{"name": "ann", "policy": "base"}, {"name": "bob", "policy": "base"}],
            "protocol": {"kind": "debate", "rounds": 2}, "rewards": ["verifier"], "credit": {"agent": credit},
            "benchmark": {"kind": "custom", "path": str(rows), "answer_type": "number", "fields": fields},
            "learning": {"kind": "policy_gradient", "iterations": 2, "tasks": 3, "episodes_per_task": 2,
                         "advantage": "grpo", "learning_rate": 0.01, "mask_cut": False},
            **changes,
        },
        runs=folder / "runs",
    )  # fmt: skip
    with Journal.read(run.folder.journal) as journal:
        assert journal.verify() == []
        return {kind: list(journal.facts(kind)) for kind in ("credit", "episode", "update", "turn")}, learnt


def test_a_society_learns_from_shares_by_attention(llama, tmp_path, monkeypatch):
    facts, learnt = train(llama, tmp_path, monkeypatch, {"kind": "attention", "right": 2.0, "wrong": 1.0})
    turns = {fact.key: records.read_turn(fact.key, fact.payload) for fact in facts["turn"]}
    assert len(facts["credit"]) == len(facts["episode"]) == 12
    shares, num_read = {}, 0
    for fact in facts["credit"]:
        credit = fact.payload
        assert sum(credit["turns"].values()) == pytest.approx(1, abs=1e-6)
        assert sum(credit["agents"].values()) == pytest.approx(1, abs=1e-6)
        assert (credit["missing"], credit["unread"]) == (0, 0)
        assert all(0 < edge["weight"] < 1 for edge in credit["edges"])
        # Each was shown the other's first answer, and has its own in its conversation, if anything was said.
        first = {key for key in credit["turns"] if turns[key].place.round == 0 and turns[key].text.strip()}
        last = credit["turns"].keys() - {key for key in credit["turns"] if turns[key].place.round == 0}
        read = {(edge["source"], edge["reader"]) for edge in credit["edges"]}
        assert {(source, reader) for source in first for reader in last} <= read
        num_read += len(read)
        shares |= {key: 4 * share * credit["reward"] for key, share in credit["turns"].items()}
    assert num_read > 24
    assert {one.turn.key for one in learnt} == {key for key, turn in turns.items() if turn.token_ids}
    assert all(one.reward == pytest.approx(shares[one.turn.key], abs=1e-6) for one in learnt)
    means = facts["update"][-1].payload["credit"]["shares"]
    assert sum(means.values()) == pytest.approx(1)


def test_with_equal_shares_every_turn_earns_the_team_reward(llama, tmp_path, monkeypatch):
    config = {"kind": "equal", "right": 3.0, "wrong": -1.0, "own": 0.5}
    facts, learnt = train(llama, tmp_path, monkeypatch, config, rewards=[{"kind": "verifier", "wrong": 2.0,
                                                                         "unparsed": 2.0, "right": 2.0}])  # fmt: skip
    assert {round(share, 6) for fact in facts["credit"] for share in fact.payload["turns"].values()} == {0.25}
    won = {key for fact in facts["episode"] if fact.payload["correct"] for key in fact.payload["turns"]}
    assert {one.turn.key: one.reward for one in learnt} == pytest.approx(
        {one.turn.key: (3.0 if one.turn.key in won else -1.0) + 0.5 * 2.0 for one in learnt}
    )


@pytest.mark.parametrize("kind", ["leave_one_out", pytest.param("counterfactual", marks=pytest.mark.slow)])
def test_a_society_learns_from_replays_without_its_agents(llama, tmp_path, monkeypatch, kind):
    facts, learnt = train(llama, tmp_path, monkeypatch, {"kind": kind, "draws": 2, "wrong": -1.0})
    assert len(facts["credit"]) == len(facts["episode"]) == 12
    for fact in facts["credit"]:
        assert sum(fact.payload["turns"].values()) == pytest.approx(1, abs=1e-6)
        assert fact.payload["worths"].keys() == {"ann", "bob"}
    played = {key for fact in facts["episode"] for key in fact.payload["turns"]}
    assert {one.turn.key for one in learnt} <= played
    assert all(fact.payload["accuracy"] is not None and fact.payload["episodes"] == 6 for fact in facts["update"])
