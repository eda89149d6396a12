import numpy as np
import pytest

from coterie import registry
from coterie.rewards.advantage import Estimate
from coterie.testing.rewards import check_advantage, check_reward


def build(kind, name):
    return registry.impl(kind, name)(registry.load(registry.get(kind, name).config)())


@pytest.mark.parametrize("name", registry.names("reward"))
def test_every_reward_keeps_to_the_rules(name):
    check_reward(build("reward", name))


@pytest.mark.parametrize("name", registry.names("advantage"))
def test_every_estimator_keeps_to_the_rules(name):
    check_advantage(build("advantage", name))


def test_an_estimator_that_goes_by_order_is_found_out():
    class First:
        def estimate(self, turns, memory):
            base = turns[0].reward if turns else 0.0
            return Estimate({t.key: np.full(t.num_tokens, t.reward - base, np.float32) for t in turns}, {})

    with pytest.raises(AssertionError, match="depends on the order"):
        check_advantage(First())


def test_an_estimator_that_divides_by_no_deviation_is_found_out():
    class Scaled:
        def estimate(self, turns, memory):
            rewards = np.array([t.reward for t in turns], np.float32)
            with np.errstate(all="ignore"):
                gains = (rewards - rewards.mean()) / rewards.std() if turns else rewards
            pairs = zip(turns, gains, strict=True)
            return Estimate({t.key: np.full(t.num_tokens, gain, np.float32) for t, gain in pairs}, {})

    with pytest.raises(AssertionError, match="not finite"):
        check_advantage(Scaled())
