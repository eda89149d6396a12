import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from points import Points

from coterie.agents.learning.ppo import PPOLearner
from coterie.agents.learning.settings import PPOSettings
from coterie.agents.swarm.architecture import Architecture
from coterie.agents.swarm.networks import Actor, Critic
from coterie.agents.swarm.team import TeamCritic
from coterie.envs.joined import JoinedWorld
from coterie.envs.swarm import SwarmConfig, VecSwarm
from coterie.envs.swarm.training import SwarmWorld
from coterie.errors import ConfigError, CreditError
from coterie.orchestration.crew import LocalCrew
from coterie.orchestration.shards import Shard
from coterie.orchestration.trainer import Trainer
from coterie.orchestration.world_credit import AttentionCredit, DifferenceCredit, EqualCredit
from coterie.rewards.credit.config_world import AttentionShareConfig, DifferenceConfig, EqualConfig
from coterie.rewards.credit.world import Shares

SWARM = SwarmConfig(num_drones=3, num_neighbours=1, scenario="static_same_goal", control_hz=50, seconds=0.2)
RULES = {
    "equal": (EqualCredit, EqualConfig()),
    "difference": (DifferenceCredit, DifferenceConfig()),
    "attention": (AttentionCredit, AttentionShareConfig()),
}


def swarm(num_envs=4, first_env=0, config=SWARM):
    return SwarmWorld(config, num_envs, 1, first_env=first_env, threads=1)


def trainer(kind, *worlds, config=None, make=None, **settings):
    """Of one world, or of one for each shard, with a rule of credit."""
    spec, chosen = worlds[0].spec, PPOSettings(**{"rollout": 16, "minibatch": 96, "epochs": 2, **settings})
    shape = Architecture("mlp", width=16, final_width=16, initial_std=0.5)
    team = TeamCritic(shape, spec, 2, seed=1) if kind == "attention" else None
    learner = PPOLearner(Actor(shape, spec, 1), Critic(shape, spec, central=chosen.central, seed=1), chosen, team=team)
    first, shards = 0, []
    for world in worlds:
        rule = (make or RULES[kind][0])(config or RULES[kind][1], world, learner, 1)
        shards.append(Shard(world, learner, 1, first, rule))
        first += world.num_envs
    return Trainer(LocalCrew(shards, learner), 1)


@pytest.mark.parametrize("kind", RULES)
def test_a_small_swarm_trains_with_each_rule(kind):
    made = trainer(kind, swarm())
    records = [made.iterate() for _ in range(4)]
    assert records[-1].episodes and "credit_agreement" in records[-1].learning
    assert ("credit_explained" in records[-1].learning) == (kind == "attention")


def test_equal_shares_are_the_worlds_own_team_reward():
    rewards = []
    for world in (swarm(), swarm(config=replace(SWARM, team_reward=True))):
        made = trainer("equal", world)
        made.iterate()
        rewards.append(made.crew.shards[0]._collected.shared)
    torch.testing.assert_close(*rewards, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("horizon", "instead"), [(1, "removed"), (4, "removed"), (3, "hover")])
def test_differences_are_those_of_worlds_simulated_one_by_one(horizon, instead):
    config = DifferenceConfig(horizon=horizon, instead=instead)
    made = trainer("difference", swarm(2), config=config, discount=0.9)
    shard = made.crew.shards[0]
    shard.begin()
    states = []
    watch = shard._credit.watch
    shard._credit.watch = lambda part, t: (states.append(part.swarm.state_dict()), watch(part, t))[1]
    told, rollout = shard.collect(0, 0), shard._rollout
    over = rollout.truncated | rollout.terminated.all(2)
    assert over.any()
    # The same worlds, put where they were; who is gone is parked far away before the step.
    world = VecSwarm(SWARM, 2, 1, threads=1)
    for t, env, drone in itertools.product(range(0, 16, 3), range(2), range(3)):
        world.load_state_dict(states[t])
        total = weight = 0.0
        for k in range(min(horizon, 16 - t)):
            action = rollout.action[t + k].numpy().copy()
            if instead == "hover":
                action[:, drone] = 2 / 1.9 - 1
            else:
                world.arrays.drones[:, 0:3, drone] = world.arrays.drones[:, 35:38, drone] = 0, 0, 9.5
                world.arrays.drones[:, 3:6, drone] = 0
            step = world.step(action).reward[env].astype(np.float64)
            without = step.sum() - (step[drone] if instead == "removed" else 0)
            total += 0.9**k * (float(rollout.reward[t + k, env].double().sum()) - without)
            weight += 0.9**k
            if over[t + k, env]:
                break
        assert float(told.shared[t, env, drone]) == pytest.approx(total / weight, abs=2e-5), (t, env, drone)


def test_alone_everybody_gets_what_it_earned():
    apart = replace(SWARM, num_drones=1, num_neighbours=0)
    made = trainer("difference", swarm(config=apart))
    record = made.iterate()
    told = made.crew.shards[0]._collected
    torch.testing.assert_close(told.shared, told.reward)
    assert record.learning["credit_agreement"] == 0


def test_with_a_fraction_steps_are_drawn_alike_in_all_shards():
    found = []
    for worlds in ((swarm(4),), (swarm(2), swarm(2, 2)), (JoinedWorld([swarm(1), swarm(3, 1)]),)):
        made = trainer("difference", *worlds, config=DifferenceConfig(fraction=0.4))
        shards = made.crew.shards
        made.crew.begin()
        # Noise in actions is counted by shard, so that shards do not act alike.
        noise = torch.zeros(16, 4, 3, 4)
        for shard in shards:
            shard._noise = lambda iteration, part=noise[:, : shard.world.num_envs]: part
        found.append(torch.cat([one.shared for one in made.crew.collect(3, 0)], 1))
        assert 0 < shards[0]._credit._chosen.sum() < 16
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_training_with_credit_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, kind, shards):
    def make():
        return trainer(kind, *(swarm(2, 2 * shard) for shard in range(shards)))

    made = make()
    for _ in range(2):
        made.iterate()
    made.save(tmp_path / "two")
    expected = [made.iterate() for _ in range(2)]
    again = make()
    again.load(tmp_path / "two")
    assert [again.iterate() for _ in range(2)] == expected


def test_a_rule_that_mints_reward_ends_the_training():
    class Generous(EqualCredit):
        def share(self, rollout):
            return Shares(super().share(rollout).reward + 0.01)

    with pytest.raises(CreditError, match="given"):
        trainer("equal", swarm(), make=Generous).iterate()


def test_a_world_that_cannot_be_simulated_from_where_it_is_is_refused():
    with pytest.raises(ConfigError, match="otherwise"):
        trainer("difference", Points())


@pytest.mark.parametrize("discrete", [False, True])
def test_the_critic_of_a_team_finds_who_earned_what(discrete):
    world = Points(num_envs=16, num_agents=3, discrete=discrete)
    made = trainer("attention", world, learning_rate=3e-3, max_learning_rate=3e-3, epochs=6, minibatch=192)
    records = [made.iterate().learning for _ in range(10)]
    assert records[0]["credit_agreement"] == 0
    assert records[-1]["credit_agreement"] > 0.5 and records[-1]["credit_explained"] > 0.3


def test_pieces_of_a_minibatch_add_up_with_a_critic_of_the_team(monkeypatch):
    found = []
    for rows in (10_000, 21):
        monkeypatch.setattr("coterie.agents.learning.ppo._ROWS_AT_ONCE", rows)
        made = trainer("attention", swarm())
        made.iterate()
        shard, count = made.crew.shards[0], 16 * 4 * 3
        found.append(shard.differentiate(torch.arange(count), torch.tensor(count)))
    torch.testing.assert_close(found[0].parameters, found[1].parameters)
