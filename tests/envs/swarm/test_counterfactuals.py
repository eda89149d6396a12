from dataclasses import replace

import numpy as np
import pytest

from coterie.envs.swarm import SwarmConfig, VecSwarm
from coterie.envs.swarm import layout as at
from coterie.envs.swarm.counterfactuals import Counterfactuals, hovering, keep

CROWD = SwarmConfig(num_drones=4, num_neighbours=2, scenario="static_same_goal", control_hz=50)


def flown(config=CROWD, num_envs=3, ticks=120, seed=3):
    """A swarm in the middle of an episode, where drones meet, and what is done next: [6, E, N, 4]."""
    world, rng = VecSwarm(config, num_envs, seed, threads=1), np.random.default_rng(0)
    world.reset()
    goals = world.goals[:, :1]
    for _ in range(ticks):
        world.step(rng.uniform(-0.1, 0.25, (num_envs, config.num_drones, 4)))
    near = goals + rng.uniform(-0.08, 0.08, (num_envs, config.num_drones, 3))
    world.set_state(pos=np.clip(near, 1, 9), vel=rng.uniform(-0.5, 0.5, near.shape))
    return world, rng.uniform(-0.1, 0.25, (6, num_envs, config.num_drones, 4)).astype(np.float32)


def earned(world, actions):
    return world.step(actions).reward.sum(1, dtype=np.float64)


@pytest.mark.parametrize("crash", ["fly_on", "lose"])
def test_where_nobody_does_anything_else_nothing_differs(crash):
    world, actions = flown(replace(CROWD, crash=crash))
    otherwise = Counterfactuals(world.config, 3, "nothing", threads=1)
    otherwise.begin([keep(world)])
    for action in actions:
        assert (otherwise.step(action) == earned(world, action)[:, None]).all()


@pytest.mark.parametrize("crash", ["fly_on", "lose"])
def test_a_world_without_a_drone_is_one_that_never_had_it(crash):
    # Noise is counted by drone, so that one of fewer drones would draw other noise.
    config = replace(CROWD, noise=None, downwash=False, crash=crash, num_neighbours=1)
    world, actions = flown(config, num_envs=2)
    state, goals = world.get_state(), world.goals
    otherwise = Counterfactuals(config, 2, threads=1)
    otherwise.begin([keep(world)])
    found = np.stack([otherwise.step(action) for action in actions])
    contacts = 0
    for drone in range(4):
        others = [i for i in range(4) if i != drone]
        small = VecSwarm(replace(config, num_drones=3), 2, 3, threads=1)
        small.reset()
        small.set_goals(goals[:, others])
        rows = [part[:, others] for part in state]
        small.set_state(*rows)
        # Contacts are drawn by pair, so they are compared up to the first tick that changes velocities.
        first = earned(small, actions[0][:, others])
        contacts += int(small.arrays.counters[:, at.PAIR_CONTACTS].sum())
        np.testing.assert_allclose(found[0, :, drone], first, atol=1e-5)
    assert contacts


def test_a_drone_that_meets_nobody_gets_what_it_earned():
    config = replace(CROWD, num_drones=3, crash="fly_on")
    world = VecSwarm(config, 2, 1, threads=1)
    world.reset()
    world.set_state(pos=[[-3, 0, 3], [0, 3, 5], [3, 0, 7]])
    otherwise, moment = Counterfactuals(config, 2, threads=1), keep(world)
    otherwise.begin([moment])
    action = np.full((2, 3, 4), 0.1, np.float32)
    own = world.step(action).reward.astype(np.float64)
    np.testing.assert_allclose(own.sum(1)[:, None] - otherwise.step(action), own, atol=1e-12)


def test_who_hits_others_is_told_what_it_cost_them():
    config = replace(CROWD, num_drones=3, noise=None)
    world = VecSwarm(config, 1, 1, threads=1)
    world.reset()
    for _ in range(100):
        world.step(np.zeros((1, 3, 4)))
    # The first two touch in this tick, the third is far away.
    world.set_state(pos=[[0, 0, 5], [0.11, 0, 5], [4, 0, 5]], vel=[[1, 0, 0], [-1, 0, 0], [0, 0, 0]])
    otherwise, action = Counterfactuals(config, 1, threads=1), np.full((1, 3, 4), 0.05, np.float32)
    otherwise.begin([keep(world)])
    own = world.step(action).reward[0].astype(np.float64)
    difference = own.sum() - otherwise.step(action)[0]
    assert own[0] < -4 and own[1] < -4 and own[2] > -1
    assert difference[0] < own[0] - 4 and difference[1] < own[1] - 4
    assert difference[2] == pytest.approx(own[2], abs=1e-6)


@pytest.mark.parametrize("team_reward", [False, True])
def test_a_drone_that_hovers_is_one_whose_action_was_replaced(team_reward):
    config = replace(CROWD, team_reward=team_reward)
    world, actions = flown(config)
    otherwise, state = Counterfactuals(config, 3, "hover", threads=1), world.state_dict()
    otherwise.begin([keep(world)])
    found = np.stack([otherwise.step(action) for action in actions])
    for drone in range(4):
        world.load_state_dict(state)
        replaced = actions.copy()
        replaced[:, :, drone] = hovering(config.quadrotor)
        wanted = np.stack([earned(world, action) for action in replaced])
        assert (found[:, :, drone] == wanted).all()


def test_a_level_drone_that_hovers_stays_at_its_height():
    config = replace(CROWD, num_drones=1, num_neighbours=0, noise=None)
    world = VecSwarm(config, 1, 0, threads=1)
    world.reset()
    world.set_state(pos=[0, 0, 5], vel=0.0, rot=np.eye(3), omega=0.0, motor=np.sqrt(1 / 1.9))
    for _ in range(50):
        world.step(np.full((1, 1, 4), hovering(config.quadrotor)))
    assert world.get_state().position[0, 0, 2] == pytest.approx(5, abs=1e-3)


def test_contacts_take_nobody_out_of_worlds_in_which_they_fly_on():
    world, actions = flown(CROWD)
    otherwise = Counterfactuals(CROWD, 3, threads=1)
    otherwise.begin([keep(world)])
    for action in actions:
        otherwise.step(action)
    arrays = otherwise._swarm.arrays
    assert arrays.counters[:, at.PAIR_CONTACTS].any()
    assert (arrays.terminated == otherwise._changed).all()


def test_parts_of_a_world_stand_in_order():
    world, actions = flown(num_envs=4)
    moment = keep(world)
    halves = [{name: rows[part] for name, rows in moment.items()} for part in (slice(0, 1), slice(1, 4))]
    found = []
    for moments in ([moment], halves):
        otherwise = Counterfactuals(CROWD, 4, threads=1)
        otherwise.begin(moments)
        found.append(otherwise.step(actions[0]))
    assert (found[0] == found[1]).all()
