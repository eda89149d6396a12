import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_settings import CriticSettings, KLSettings, LLMSettings, LoraSettings
from coterie.agents.learning.sharded import ShardedLearner
from coterie.errors import LearningError, WorkerLost
from coterie.types import SignalRequest

pytestmark = pytest.mark.slow

FULL = LLMSettings(learning_rate=1e-3, kl=KLSettings(0.1), precision="float64", micro_batch_tokens=40)
LORA = replace(FULL, kl=None, lora=LoraSettings(rank=4, alpha=8), gradient_checkpointing=True)
CRITIC = replace(FULL, kl=None, critic=CriticSettings(learning_rate=0.3, weight=0.5))


@pytest.fixture
def shard(tiny):
    made = []

    def make(settings, policies, ranks):
        made.append(ShardedLearner(tiny, policies, settings, "cpu", 3, ranks))
        return made[-1]

    yield make
    for learner in made:
        learner.close()


def score(learner, examples):
    """With values, where there is a critic, and made-up targets of these."""
    found = zip(examples, learner.score("solver", examples, SignalRequest()), strict=True)
    return [replace(one, **told, target=one.advantage + 1) for one, told in found]


def test_several_processes_have_one_critic(shard, tiny, turns):
    alone, both = LanguageLearner(tiny, ("solver",), CRITIC, "cpu", 3), shard(CRITIC, ("solver",), 2)
    for iteration in range(2):
        given = [score(learner, turns(11, seed=iteration)) for learner in (alone, both)]
        for one, other in zip(*given, strict=True):
            np.testing.assert_allclose(one.value, other.value, rtol=1e-9)
        expected, found = (
            one.update("solver", g, iteration=iteration) for one, g in zip((alone, both), given, strict=True)
        )
        assert found == pytest.approx(expected, rel=1e-8)
    assert given[0][0].value.any()
    for name, tensor in alone.optimiser_state("solver").items():
        torch.testing.assert_close(both.optimiser_state("solver")[name], tensor, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("settings", "policies", "ranks"), [(FULL, ("solver",), 3), (LORA, ("solver", "judge"), 2)])
def test_several_processes_learn_what_one_does(shard, tiny, turns, tmp_path, settings, policies, ranks):
    """Steps of AdamW in float64, of an odd number of micro-batches; then one goes on from the other."""
    alone, both = LanguageLearner(tiny, policies, settings, "cpu", 3), shard(settings, policies, ranks)
    before = {name: tensor.clone() for name, tensor in alone.weights("solver").items()}
    for iteration in range(2):
        expected = alone.update("solver", turns(11, seed=iteration), iteration=iteration)
        found = both.update("solver", turns(11, seed=iteration), iteration=iteration)
        assert found == pytest.approx(expected, rel=1e-10)
    for one, other in (
        (alone.weights("solver"), both.weights("solver")),
        (alone.optimiser_state("solver"), both.optimiser_state("solver")),
    ):
        assert list(one) == list(other)
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-9, atol=1e-13)
    assert not any(torch.equal(tensor, before[name]) for name, tensor in alone.weights("solver").items())
    both.load("solver", alone.weights("solver"), alone.optimiser_state("solver"))
    for name, learner in (("one", alone), ("both", both)):
        learner.update("solver", turns(11, seed=5), iteration=5)
        learner.export("solver", tmp_path / name)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(p.name for p in (tmp_path / "both").iterdir())
    for one, other in zip(alone.reference_logprobs(turns(3)), both.reference_logprobs(turns(3)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_errors_come_through_and_the_death_of_a_process_has_a_name(shard, turns):
    learner = shard(replace(FULL, kl=None), ("solver",), 2)
    # A Ctrl-C in the run's terminal is not for them.
    assert os.getpgrp() not in [os.getpgid(process.pid) for process in learner._processes]
    os.kill(learner._processes[1].pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="process 1"):
        learner.logprobs("solver", turns(4))
    with pytest.raises(LearningError, match="closed"):
        learner.weights("solver")
    broken = shard(replace(FULL, kl=None), ("solver",), 2)
    examples = turns(4)
    examples[2] = replace(examples[2], advantage=np.full_like(examples[2].advantage, np.nan))
    with pytest.raises(LearningError, match="turn turn-002"):
        broken.update("solver", examples, iteration=0)
