"""Contacts, downwash and what they cost."""

import numpy as np
import pytest

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm

HOVER = 2 / 1.9 - 1
ACTIONS = np.full((1, 2, 4), HOVER, np.float32)


def pair(gap, speed=0.0, **fields):
    """Two hovering drones, `gap` m apart along x, closing at twice this speed."""
    config = SwarmConfig(num_drones=2, num_neighbours=1, noise=None, scenario="static_same_goal", **fields)
    world = VecSwarm(config, 1)
    world.reset()
    pos = [[[-gap / 2, 0, 5], [gap / 2, 0, 5]]]
    world.set_state(pos, [[[speed, 0, 0], [-speed, 0, 0]]], np.eye(3), 0, np.sqrt(1 / 1.9))
    return world


def test_drones_that_meet_part():
    world = pair(0.1, 1.0)
    world.step(ACTIONS)
    velocity = world.get_state().velocity[0]
    assert velocity[1, 0] - velocity[0, 0] > -0.5
    assert np.linalg.norm(velocity, axis=-1).max() <= 1.01


def test_a_collision_spins_drones_in_opposite_senses():
    world = pair(0.09, 0.5)
    world.step(ACTIONS)
    omega = world.get_state().omega[0]
    assert 15 < np.linalg.norm(omega[0]) and np.allclose(omega[0], -omega[1], atol=1e-3)


def test_a_contact_costs_once():
    world = pair(0.09)
    first = world.step(ACTIONS).reward.copy()
    assert (first < -5).all()
    world.set_state(pos=[[[-0.045, 0, 5], [0.045, 0, 5]]], vel=0, omega=0)
    world._arrays.drones[:, 35:38] = world._arrays.drones[:, 0:3]
    world._arrays.flags[:] |= 1 << 4
    assert (world.step(ACTIONS).reward > -1).all()


def test_annealing_starts_without_penalties():
    from coterie.envs.swarm import Rewards

    world = pair(0.09, rewards=Rewards(annealing=1000))
    assert world.penalty == pytest.approx(0)
    assert (world.step(ACTIONS).reward > -1).all()
    world.agent_steps = 500
    assert world.penalty == 0.5


def test_proximity_costs_linearly():
    near, far = pair(0.12), pair(0.3)
    difference = far.step(ACTIONS).reward[0, 0] - near.step(ACTIONS).reward[0, 0]
    distance = 0.005 * (np.hypot(0.15, 3) - np.hypot(0.06, 3))
    assert difference == pytest.approx(0.01 * 10 * (1 - 0.12 / (4 * 0.0459619)) - distance, abs=2e-3)


def test_downwash_pushes_down_what_is_below():
    world = pair(2.0)
    world.set_state(pos=[[[0, 0, 5.3], [0, 0, 5.0]]])
    world.step(ACTIONS)
    velocity = world.get_state().velocity[0]
    expected = -0.01 * 6 / 17 * (7 - 10 * 0.3)
    assert velocity[1, 2] == pytest.approx(expected, abs=2e-3) and abs(velocity[0, 2]) < 1e-3


def test_walls_throw_drones_back():
    world = pair(2.0)
    world.set_state(pos=[[[4.999, 0, 5], [-1, 0, 5]]], vel=[[[3.0, 0, 0], [0, 0, 0]]])
    world.step(ACTIONS)
    velocity = world.get_state().velocity[0, 0]
    assert velocity[0] < 0 and velocity[2] < 0 and 0.5 < np.linalg.norm(velocity) < 2.5


def test_obstacles_throw_drones_back_and_cost():
    config = SwarmConfig(num_drones=1, num_neighbours=0, noise=None, obstacles=Obstacles(0.2), scenario="o_random")
    world = VecSwarm(config, 1)
    world.reset()
    x, y = world._arrays.obstacles[0, :, 0]
    world.set_state(pos=[x + 0.35, y, 5], vel=[-1.0, 0, 0], rot=np.eye(3), motor=np.sqrt(1 / 1.9))
    step = world.step(ACTIONS[:, :1])
    assert step.reward[0, 0] < -5 and world.get_state().velocity[0, 0, 0] > 0


def test_lost_drones_leave_the_world():
    world = pair(0.09, crash="lose")
    step = world.step(ACTIONS)
    assert step.terminated.all() and world.done.all()
    step = world.step(ACTIONS)
    assert (step.reward == 0).all() and (step.observation == 0).all() and not world.alive.any()
    world.reset(world.done)
    assert world.alive.all()
