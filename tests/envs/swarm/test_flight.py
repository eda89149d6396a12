"""The compiled flight against the oracle, and against what is known of a quadrotor."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import oracle

from coterie.envs.swarm import SwarmConfig, VecSwarm

HOVER = 2 / 1.9 - 1


def still(num_drones=2, height=5.0, motor=0.0, **fields):
    """One environment without noise, drones 2 m apart at rest."""
    fields = {"num_neighbours": min(1, num_drones - 1), "noise": None, "scenario": "static_same_goal", **fields}
    world = VecSwarm(SwarmConfig(num_drones=num_drones, **fields), 1)
    world.reset()
    x = 2.0 * np.arange(num_drones) - (num_drones - 1)
    pos = np.stack([x, 0 * x, 0 * x + height], -1)
    world.set_state(pos, 0, np.eye(3), 0, motor)
    return world


def test_two_drones_fly_as_in_the_oracle_for_150_steps():
    world = still(motor=np.sqrt(1 / 1.9))
    drones = [tuple(part[0, i].astype(float) for part in world.get_state()) for i in range(2)]
    rng = np.random.default_rng(1)
    for _ in range(150):
        actions = (HOVER + 0.02 * rng.normal(size=(2, 4))).astype(np.float32)
        world.step(actions[None])
        drones = [oracle.control_step(one, action.astype(float)) for one, action in zip(drones, actions, strict=True)]
    state = world.get_state()
    for i, drone in enumerate(drones):
        assert np.abs(state.position[0, i] - drone[0]).max() < 1e-4
        assert np.abs(state.velocity[0, i] - drone[1]).max() < 1e-4
        assert np.abs(state.attitude[0, i] - drone[2]).max() < 1e-4


def test_a_drone_at_hover_thrust_stays_where_it_is():
    world = still(motor=np.sqrt(1 / 1.9))
    before = world.get_state().position
    for _ in range(100):
        world.step(np.full((1, 2, 4), HOVER, np.float32))
    assert np.abs(world.get_state().position - before).max() < 1e-3


def test_without_thrust_a_drone_falls_freely():
    world = still(height=9.0)
    for _ in range(50):
        world.step(np.full((1, 2, 4), -1.0))
    assert np.allclose(world.get_state().velocity[..., 2], -9.81 * 0.5, atol=1e-4)


def test_a_motor_is_at_63_percent_after_35_milliseconds():
    world = still()
    for _ in range(3):
        world.step(np.ones((1, 2, 4)))
    low = world.get_state().motor[0, 0, 0]
    world.step(np.ones((1, 2, 4)))
    assert low < 0.632 < world.get_state().motor[0, 0, 0]


def test_the_first_and_third_motor_turn_a_drone_the_other_way():
    world = still(motor=np.sqrt(1 / 1.9))
    world.step(HOVER + 0.1 * np.array([-1.0, 1, -1, 1])[None, None].repeat(2, 1))
    assert (world.get_state().omega[0, :, 2] > 0).all()


def test_attitude_stays_orthogonal_over_a_long_wild_flight():
    world = still(seconds=100)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        world.step(rng.uniform(-1, 1, (1, 2, 4)))
    r = world.get_state().attitude
    assert np.abs(r @ r.swapaxes(-1, -2) - np.eye(3)).max() < 1e-4


def test_rotor_noise_has_its_stationary_deviation():
    world = VecSwarm(SwarmConfig(num_drones=8, scenario="static_same_goal"), 64)
    world.reset()
    for _ in range(60):
        world.step(np.zeros((64, 8, 4)))
    from coterie.envs.swarm.layout import JITTER

    jitter = world._arrays.drones[:, JITTER : JITTER + 4]
    assert abs(jitter.std() - 0.01 / np.sqrt(1 - 0.85**2)) < 1e-3


def test_a_drone_that_lands_lies_flat_and_still():
    world = still(height=0.06)
    for _ in range(30):
        step = world.step(np.full((1, 2, 4), -1.0))
    state = world.get_state()
    assert np.allclose(state.position[..., 2], 0.0459619, atol=1e-6)
    assert (state.velocity == 0).all() and (state.attitude[..., 2, 2] == 1).all()
    assert (step.reward < -0.009).all()


def test_a_landed_drone_takes_off_again():
    world = still(height=0.046)
    for _ in range(20):
        world.step(np.full((1, 2, 4), -1.0))
    for _ in range(60):
        world.step(np.full((1, 2, 4), 0.5))
    assert (world.get_state().position[..., 2] > 0.2).all()
