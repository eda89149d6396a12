import math

import pytest
import torch

from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.team import TeamCritic
from coterie.types import ObservationLayout, WorldSpec

SPEC = WorldSpec(3, 18 + 12, "continuous", 4, ObservationLayout(18, 2))
SHAPE = Architecture("attention", width=8, heads=2, final_width=8)


def made(spec=SPEC, shape=SHAPE, heads=2):
    critic = TeamCritic(shape, spec, heads, seed=1).double()
    with torch.no_grad():
        critic.output.bias.fill_(0.3)
        critic.output.weight.mul_(100)
    return critic


def seen(teams=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(teams * 3, SPEC.observation_size, generator=generator, dtype=torch.float64)
    action = torch.randn(teams * 3, 4, generator=generator, dtype=torch.float64)
    present = torch.ones(teams, 3, dtype=torch.bool)
    present[1, 2], present[2, :2], present[3] = False, False, False
    return observation, action, present


def test_terms_are_those_of_the_formula():
    critic, (observation, action, present) = made().requires_grad_(requires_grad=False), seen()
    found, weights = critic(observation, action, present), critic.attention(observation, action, present)
    members = critic.joint(torch.cat([critic.encoder(observation), action], 1)).view(5, 3, 8)
    for team in range(5):
        there = [i for i in range(3) if present[team, i]]
        added = dict.fromkeys(range(3), 0.0)
        if there:
            mean = sum(members[team, i] for i in there) / len(there)
            query = critic.query.weight @ mean
            for head in range(2):
                part = slice(4 * head, 4 * head + 4)
                keys = {i: (critic.key.weight @ members[team, i])[part] for i in there}
                logits = {i: float(query[part] @ keys[i]) / math.sqrt(4) for i in there}
                total = sum(math.exp(logit) for logit in logits.values())
                for i in there:
                    value = float(critic.output.weight[head] @ members[team, i] + critic.output.bias[head])
                    assert float(weights[team, head, i]) == pytest.approx(math.exp(logits[i]) / total, abs=1e-9)
                    added[i] += math.exp(logits[i]) / total * value
        assert found[team].tolist() == pytest.approx([added[i] for i in range(3)], abs=1e-9)


def test_weights_of_those_who_are_there_sum_to_one():
    observation, action, present = seen()
    weights = made().attention(observation, action, present)
    torch.testing.assert_close(weights.sum(-1), present.any(1)[:, None].double().expand(5, 2))
    assert not weights.transpose(1, 2)[~present].any()


def test_the_order_of_members_changes_nothing():
    critic, (observation, action, present) = made(), seen()
    turned = [part.view(5, 3, -1).flip(1).flatten(0, 1) for part in (observation, action)]
    torch.testing.assert_close(critic(*turned, present.flip(1)).flip(1), critic(observation, action, present))


def test_what_those_who_are_gone_did_changes_nothing():
    critic, (observation, action, present) = made(), seen()
    other = torch.where(present.flatten()[:, None], action, 7 * torch.ones_like(action))
    torch.testing.assert_close(critic(observation, other, present), critic(observation, action, present))


def test_teams_of_another_size_and_discrete_actions_fit():
    spec = WorldSpec(2, 6, "discrete", 5)
    critic = made(spec, Architecture("mlp", width=8, final_width=9), heads=4)
    observation = torch.randn(12, 6, dtype=torch.float64)
    action, present = torch.arange(12) % 5, torch.ones(3, 4, dtype=torch.bool)
    assert critic(observation, action, present).shape == (3, 4)
