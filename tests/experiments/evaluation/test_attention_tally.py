import math

import numpy as np
import pytest
import torch

from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor
from coterie.experiments.evaluation.attention_tally import AttentionTally
from coterie.experiments.report.evaluation_terminal import tell_attention
from coterie.types import ObservationLayout, WorldSpec

SPEC = WorldSpec(3, 18 + 12 + 9, "continuous", 4, ObservationLayout(18, 2, 6, 9))


def actor(kind="attention"):
    return Actor(Architecture(kind, width=8, heads=2, final_width=8), SPEC, 1)


def test_weights_are_means_over_those_who_attend_to_anything():
    tally = AttentionTally(actor(), SPEC)
    tally.add(np.array([[0.5, 0.25, 0.25], [0.9, 0.0, 0.1], [0.0, 0.0, 0.0]]))
    tally.add(np.array([[0.0, 0.0, 1.0]]))
    found = tally.measure()
    assert found["neighbours"] == pytest.approx([1.4 / 3, 0.25 / 3]) and found["obstacles"] == pytest.approx(1.35 / 3)
    first = (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    second = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert found["evenness"] == pytest.approx((first + second) / 2) and found["looks"] == 3


def test_what_is_read_is_the_policys_own_attention():
    policy, tally = actor(), AttentionTally(actor(), SPEC)
    observation = torch.randn(4, 3, SPEC.observation_size)
    tally.look(observation.numpy())
    wanted = policy.attention(observation.flatten(0, 1)).mean((0, 1)).tolist()
    found = tally.measure()
    assert [*found["neighbours"], found["obstacles"]] == pytest.approx(wanted, abs=1e-6)
    assert tell_attention(found).startswith("neighbour 1 ")


def test_a_policy_without_attention_tells_nothing():
    tally = AttentionTally(actor("deepsets"), SPEC)
    tally.look(np.ones((2, 3, SPEC.observation_size), np.float32))
    assert tally.measure() is None
