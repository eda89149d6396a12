"""A small model learns a task it can be checked on, from reward alone, through the whole system; shuffled rewards teach
nothing."""

import dataclasses
import json

import pytest

import coterie
from coterie import rng
from coterie.experiments import society_training
from coterie.journal import Journal
from coterie.testing.models import write_llama

DIGITS = "0123456789"
SEEDS = (1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3)))


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
                "kind": "policy_gradient", "iterations": 20, "tasks": 5, "copies": 32, "advantage": "grpo",
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
    gather = society_training.gather

    def shuffled(*arguments):
        earned = gather(*arguments)
        order = rng.stream(seed, "shuffle", earned[0].turn.key).permutation(len(earned))
        return [dataclasses.replace(one, reward=earned[i].reward) for one, i in zip(earned, order, strict=True)]

    monkeypatch.setattr(society_training, "gather", shuffled)
    assert max(accuracies(tmp_path, seed)) <= 0.25
