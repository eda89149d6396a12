from dataclasses import replace

import numpy as np
import pytest

from coterie.envs.swarm import SwarmConfig, VecSwarm
from coterie.envs.swarm.training import SwarmWorld

ALONE = SwarmConfig(num_drones=4, num_neighbours=2, scenario="static_same_goal", control_hz=50)
ACTIONS = np.random.default_rng(0).uniform(-0.1, 0.25, (50, 3, 4, 4))


@pytest.mark.parametrize("crash", ["fly_on", "lose"])
def test_everybody_in_the_world_earns_the_mean(crash):
    config, lost = replace(ALONE, crash=crash), 0
    own, team = VecSwarm(config, 3, 3, threads=1), VecSwarm(replace(config, team_reward=True), 3, 3, threads=1)
    for world in (own, team):
        world.reset()
        places, speeds = [[0, 0, 5], [0.2, 0, 5], [0, 0.2, 5], [2, 2, 5]], [[1, 0.5, 0], *[[0, 0, 0]] * 3]
        world.set_state(pos=places, vel=speeds)
    for action in ACTIONS:
        there = own.alive
        step, shared = own.step(action), team.step(action)
        wanted = [[row[on].mean() if alive else 0 for alive in on] for row, on in zip(step.reward, there, strict=True)]
        np.testing.assert_allclose(shared.reward, wanted, atol=1e-6)
        assert (shared.observation == step.observation).all()
        lost += int(step.terminated.sum())
    assert bool(lost) == (crash == "lose")


def test_what_a_team_earns_in_an_episode_is_the_same():
    found = []
    for team_reward in (False, True):
        world = SwarmWorld(replace(ALONE, seconds=1, team_reward=team_reward), 3, 3, threads=1)
        world.reset()
        for action in ACTIONS:
            world.step(action)
        found.append([episode["reward"] for episode in world.finished()])
    assert len(found[0]) == 3 and found[1] == pytest.approx(found[0], abs=1e-4)
