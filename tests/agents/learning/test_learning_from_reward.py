"""A policy that starts at random learns which digit follows, told only how many of its tokens were right."""

import numpy as np
import pytest

from coterie import rng
from coterie.agents.engines.decoding import CausalModel
from coterie.agents.learning.examples import Example
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import LLMSettings
from coterie.types import EncodedPrompt, Place, Sampling

ITERATIONS, TURNS = 24, 192
ASK, SAY = 10, 11


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=16, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("blank") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def roll_out(folder, seed, iteration):
    """Prompts with a digit, what the exported policy said, and the share of tokens that count on from the digit."""
    prompts = [(ASK, int(digit), SAY) for digit in rng.stream(seed, "digits", iteration).integers(0, 10, TURNS)]
    samples = CausalModel.load(str(folder), "cpu", "float32").generate(
        [EncodedPrompt(prompt, len(prompt)) for prompt in prompts], Sampling(temperature=1.0, max_tokens=2),
        [Place(f"{number}@{iteration}", 0, "learner") for number in range(TURNS)], seed, lambda ids: "", 0,
        lambda: False,
    )  # fmt: skip
    right = [
        np.mean([token == (prompt[1] + 1 + place) % 10 for place, token in enumerate(sample.token_ids)])
        for prompt, sample in zip(prompts, samples, strict=True)
    ]
    return prompts, samples, np.array(right)


def train(blank, folder, seed, is_shuffled):
    """The mean reward of the first and of the last two iterations."""
    learner = LanguageLearner(blank, ("counter",), LLMSettings(learning_rate=3e-3), "cpu", seed)
    rewards = []
    for iteration in range(ITERATIONS):
        learner.export("counter", folder)
        prompts, samples, reward = roll_out(folder, seed, iteration)
        rewards.append(reward.mean())
        if is_shuffled:
            reward = rng.stream(seed, "shuffle", iteration).permutation(reward)
        advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
        examples = [
            Example(f"{iteration:03d}-{number:04d}", "answer", prompt, sample.token_ids,
                    np.array(sample.logprobs, np.float32), np.full(len(sample.token_ids), worth, np.float32))
            for number, (prompt, sample, worth) in enumerate(zip(prompts, samples, advantage, strict=True))
        ]  # fmt: skip
        metrics = learner.update("counter", examples, iteration=iteration)
        assert metrics["mismatch_max"] < 1e-3  # what the engine samples by is what the learner computes
    return rewards[0], np.mean(rewards[-2:])


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_a_policy_learns_from_reward_alone(blank, tmp_path, seed):
    first, last = train(blank, tmp_path / "policy", seed, is_shuffled=False)
    assert first <= 0.2 and last >= 0.6, (first, last)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_policy_learns_nothing_from_shuffled_rewards(blank, tmp_path, seed):
    first, last = train(blank, tmp_path / "policy", seed, is_shuffled=True)
    assert first <= 0.2 and last <= 0.25, (first, last)
