"""A value head beside a policy: it learns what replies earn, and leaves the policy alone unless it is let in."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import CriticSettings, LLMSettings, LoraSettings
from coterie.errors import LearningError
from coterie.types import SignalRequest

FULL = LLMSettings(learning_rate=1e-3, updates=1, correction=None, critic=CriticSettings(learning_rate=0.3))
LORA = replace(FULL, lora=LoraSettings(rank=4, alpha=8))
EXACT = replace(FULL, precision="float64", critic=replace(FULL.critic, weight=0.5, clip=None))


def make(tiny, settings=FULL, policies=("solver",)):
    return LanguageLearner(tiny, policies, settings, "cpu", 3)


def score(learner, examples, target=lambda example: np.full(len(example.token_ids), len(example.token_ids) / 10)):
    """The examples with what the learner told of them, and what its critic is to expect."""
    found = zip(examples, learner.score("solver", examples, SignalRequest()), strict=True)
    return [replace(example, **told, target=target(example)) for example, told in found]


def test_at_first_nothing_is_expected(tiny, turns):
    for example in score(make(tiny), turns(5)):
        assert example.value.shape == (len(example.token_ids),) and not example.value.any()


def test_the_first_step_of_the_head_is_that_of_the_formula(tiny, turns):
    """Of 0.5 (V - target)^2, mean over tokens; AdamW's first step is the sign of the gradient."""
    learner, examples = make(tiny, replace(FULL, equal_roles=False, max_grad_norm=1e9)), turns(6)
    given = score(learner, examples)
    model, gradient, count = learner._base.teacher.model, torch.zeros(32), 0
    for example in given:
        ids = torch.tensor([[*example.prompt_ids, *example.token_ids]])
        with torch.no_grad():
            hidden = model.get_decoder()(ids).last_hidden_state[0, len(example.prompt_ids) - 1 : -1]
        gradient -= (hidden * torch.tensor(example.target, dtype=torch.float32)[:, None]).sum(0)
        count += len(hidden)
    metrics = learner.update("solver", given, iteration=0)
    state = learner.optimiser_state("solver")
    torch.testing.assert_close(state["critic.weight.exp_avg"], 0.1 * gradient / (32 * count), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(state["critic.weight"], -0.3 * gradient.sign(), rtol=1e-4, atol=1e-6)
    assert metrics["value_loss"] == pytest.approx(0.5 * np.concatenate([e.target**2 for e in given]).mean(), rel=1e-5)


@pytest.mark.parametrize("settings", [FULL, LORA])
def test_a_head_that_is_not_let_in_changes_no_bit_of_the_policy(tiny, turns, settings):
    with_critic, without = make(tiny, settings), make(tiny, replace(settings, critic=None))
    examples = score(with_critic, turns(8))
    metrics = with_critic.update("solver", examples, iteration=0)
    plain = without.update("solver", examples, iteration=0)
    assert {name: metrics[name] for name in plain} == plain
    for name, tensor in with_critic.weights("solver").items():
        assert torch.equal(tensor, without.weights("solver")[name])


def gradients(tiny, examples, settings):
    """Of the policy and of the head, and the metrics."""
    learner, seen = make(tiny, settings), {}
    given = score(learner, examples)
    policy, critic = learner._optimisers["solver"], learner._critics["solver"]
    for optimiser, parameters in ((policy, learner._base.parameters("solver")), (critic._optimiser, critic._head)):

        def keep(where, parameters=parameters):
            seen.update({name: parameter.grad.clone() for name, parameter in parameters.items()})
            return 0.0, 0.0

        optimiser.step = keep
    return seen, learner.update("solver", given, iteration=0)


def test_gradients_are_the_same_however_a_batch_is_split(tiny, turns):
    whole, metrics = gradients(tiny, turns(9), replace(EXACT, micro_batch_tokens=10_000))
    assert whole["weight"].abs().sum() > 0 and metrics["value_loss"] > 0
    for micro_batch_tokens in (1, 50):
        parts, other = gradients(tiny, turns(9), replace(EXACT, micro_batch_tokens=micro_batch_tokens))
        assert other["value_loss"] == pytest.approx(metrics["value_loss"], rel=1e-12)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=1e-9, atol=1e-14)


def test_a_head_that_is_let_in_moves_the_policy_by_its_share(tiny, turns):
    """The gradient of the policy is linear in `weight`; a head that is not zero any more has one to give."""
    found = []
    for weight in (0.0, 0.5, 1.0):
        settings = replace(EXACT, critic=replace(EXACT.critic, weight=weight))
        learner = make(tiny, settings)
        with torch.no_grad():
            learner._critics["solver"]._head["weight"].fill_(3.0)
        policy, seen = learner._optimisers["solver"], {}

        def keep(where, learner=learner, seen=seen):
            seen.update({n: p.grad.clone() for n, p in learner._base.parameters("solver").items()})
            return 0.0, 0.0

        policy.step = keep
        learner.update("solver", score(learner, turns(6)), iteration=0)
        found.append(seen["model.layers.0.mlp.up_proj.weight"])
    none, half, whole = found
    assert (whole - none).abs().max() > 1e-3
    torch.testing.assert_close(half - none, (whole - none) / 2, rtol=0, atol=1e-7)  # norms round to float32


def test_it_learns_what_can_be_told_from_the_tokens(tiny, turns):
    """What the token before is decides what comes: a linear head sees that."""

    def target(example):
        before = (example.prompt_ids[-1], *example.token_ids[:-1])
        return np.array([float(token < 12) for token in before])

    learner, found = make(tiny, replace(FULL, learning_rate=1e-6, updates=4)), []
    for iteration in range(8):
        found.append(learner.update("solver", score(learner, turns(16), target), iteration=iteration))
    assert found[0]["explained_variance"] == 0 and found[-1]["explained_variance"] > 0.2
    assert found[-1]["value_loss"] < found[0]["value_loss"] / 2


@pytest.mark.parametrize("settings", [replace(FULL, warmup=3), LORA])
def test_a_critic_that_was_put_back_goes_on_bit_for_bit(tiny, turns, settings):
    learner = make(tiny, settings)
    learner.update("solver", score(learner, turns(8)), iteration=0)
    kept = [{n: t.clone() for n, t in part("solver").items()} for part in (learner.weights, learner.optimiser_state)]
    again = make(tiny, settings)
    again.load("solver", *kept)
    examples = score(learner, turns(8, seed=1))
    assert all(np.array_equal(a.value, b.value) for a, b in zip(examples, score(again, turns(8, seed=1)), strict=True))
    assert examples[0].value.any()
    assert again.update("solver", examples, iteration=1) == learner.update("solver", examples, iteration=1)
    for name, tensor in learner.optimiser_state("solver").items():
        assert torch.equal(tensor, again.optimiser_state("solver")[name])


def test_each_adapter_has_a_critic_of_its_own(tiny, turns):
    learner = make(tiny, LORA, ("solver", "judge"))
    learner.update("solver", score(learner, turns(8)), iteration=0)
    assert learner.optimiser_state("solver")["critic.weight"].any()
    assert not learner.optimiser_state("judge")["critic.weight"].any()


def test_a_critic_that_is_told_nothing_is_an_error(tiny, turns):
    with pytest.raises(LearningError, match="a critic learns from"):
        make(tiny).update("solver", turns(3), iteration=0)
