"""A small model learns a task it can be checked on, from reward alone, through the whole system; shuffled rewards teach
nothing."""

import dataclasses
import json

import pytest

import coterie
from coterie import rng
from coterie.errors import LearningError
from coterie.experiments.training import society
from coterie.journal import Journal
from coterie.testing.models import write_llama

DIGITS = "0123456789"
SEEDS = (1, 2, 3)


def accuracies(folder, seed: int) -> list[float]:
    """How often an agent of random weights repeats one of five digits that it is shown, by iteration."""
    rows = folder / "digits.jsonl"
    rows.write_text("".join(json.dumps({"question": digit, "answer": digit}) + "\n" for digit in DIGITS[:5]))
    model = write_llama(folder / "llama", alphabet=DIGITS, layers=1, width=32, seed=seed)
    run = coterie.run(
        {
            "name": "digits", "seed": seed, "device": "cpu",
            "policy": {
                "engine": {"kind": "transformers", "dtype": "float32", "context": 128, "max_batch": 256},
                "model": str(model), "sampling": {"temperature": 1.0, "max_tokens": 1},
            },
            "seats": [{"name": "pupil"}], "protocol": "single", "rewards": ["verifier"],
            "benchmark": {
                "kind": "custom", "path": str(rows), "answer_type": "number",
                "fields": {"question": "question", "answer": "answer"},
            },
            "learning": {
                "kind": "policy_gradient", "iterations": 20, "tasks": 5, "episodes_per_task": 32, "advantage": "grpo",
                "learning_rate": 0.01, "mask_cut": False,
            },
        },
        runs=folder / "runs",
    )  # fmt: skip
    with Journal.read(run.folder.journal) as journal:
        return [fact.payload["accuracy"] for fact in journal.facts("update")]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_small_model_learns_a_task_from_reward_alone(tmp_path, seed):
    found = accuracies(tmp_path, seed)
    assert found[0] <= 0.2
    assert found[-1] >= 0.6


@pytest.mark.parametrize("seed", SEEDS)
def test_with_shuffled_rewards_it_does_not(tmp_path, monkeypatch, seed):
    gather = society.gather

    def shuffled(*arguments):
        earned = gather(*arguments)
        order = rng.stream(seed, "shuffle", earned[0].turn.key).permutation(len(earned))
        return [dataclasses.replace(one, reward=earned[i].reward) for one, i in zip(earned, order, strict=True)]

    monkeypatch.setattr(society, "gather", shuffled)
    assert max(accuracies(tmp_path, seed)) <= 0.25


def judged(folder, **learning) -> coterie.Run:
    """Two agents of random weights judge each other, and a canary beside every solution."""
    model = write_llama(folder / "llama", alphabet=DIGITS, layers=1, width=32)
    return coterie.run(
        {
            "name": "judged", "seed": 1, "device": "cpu", "determinism": "exact",
            "policy": {
                "engine": {"kind": "transformers", "dtype": "float32", "context": 512},
                "model": str(model), "sampling": {"temperature": 1.0, "max_tokens": 4},
            },
            "seats": [{"name": "agent", "count": 2}],
            "protocol": {"kind": "comas", "preset": "improved", "rounds": 1, "canaries": 1},
            "benchmark": {"kind": "sums", "limit": 4}, "rewards": ["interaction"], "checkpoint_every": 2,
            "learning": {"kind": "policy_gradient", "iterations": 1, "tasks": 4, "episodes_per_task": 1, **learning},
        },
        runs=folder / "runs", display="plain",
    )  # fmt: skip


def test_canaries_are_scored_and_nobody_learns_from_them(tmp_path, monkeypatch, capsys):
    learnt = []
    learn = society.SocietyTrainer.learn
    monkeypatch.setattr(society, "_FOOLED", 0.0)
    monkeypatch.setattr(society.SocietyTrainer, "learn", lambda *given: learnt.extend(given[1]) or learn(*given))
    run = judged(tmp_path)
    with Journal.read(run.folder.journal) as journal:
        [judge] = [fact.payload["judge"] for fact in journal.facts("update")]
        asked = [fact.key for fact in journal.facts("turn") if "/canary_" in fact.key]
    assert 0 < sum(judge["canaries"]) <= 8 and judge["canary_score"] > 0 and len(asked) > 8
    assert learnt and not {earned.turn.key for earned in learnt} & set(asked)
    assert "agents score null answers" in capsys.readouterr().err


def test_judges_that_pay_for_canaries_end_a_training_before_it_learns_from_them(tmp_path):
    """The score is 0.3 in the first iteration and 0.375 in the second."""
    with pytest.raises(LearningError, match="agents score null answers .* more than 0.33") as error:
        judged(tmp_path, canary_limit=0.33, iterations=2)
    assert error.value.where == "learning.canary_limit"
    [journal] = tmp_path.glob("runs/*/journal.sqlite")
    with Journal.read(journal) as facts:
        [kept] = [note.payload["iteration"] for note in facts.notes("checkpoint")]
        assert kept == facts.count("update") == 1
