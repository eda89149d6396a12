"""`VecSwarm`: resets, episodes, failures, collision replay."""

import numpy as np
import pytest

from coterie.envs.swarm import Obstacles, PhysicsError, Replay, SwarmConfig, VecSwarm


def make(envs=4, seed=0, **fields):
    world = VecSwarm(SwarmConfig(num_drones=4, **fields), envs, seed)
    world.reset()
    return world


def test_a_partial_reset_leaves_the_others_alone():
    world = make()
    for _ in range(5):
        world.step(np.zeros((4, 4, 4)))
    before = world.get_state().position
    world.reset(np.array([True, False, False, True]))
    after = world.get_state().position
    changed = (before != after).any((1, 2))
    assert changed.tolist() == [True, False, False, True]


@pytest.mark.parametrize("mask", [np.ones(3, bool), np.ones(4)])
def test_a_mask_of_another_shape_or_type_is_refused(mask):
    with pytest.raises(ValueError, match="mask"):
        make().reset(mask)


def test_actions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="actions"):
        make().step(np.zeros((4, 4)))


def test_an_episode_is_truncated_when_its_time_is_up():
    world = make(seconds=0.1)
    ends = [bool(world.step(np.zeros((4, 4, 4))).truncated.all()) for _ in range(10)]
    assert ends == [False] * 9 + [True]
    world.reset(world.done)
    assert not world.step(np.zeros((4, 4, 4))).truncated.any()


def test_quad_swarm_rl_has_one_step_more():
    world = make(seconds=0.1, compat="quad_swarm_rl")
    ends = [bool(world.step(np.zeros((4, 4, 4))).truncated.all()) for _ in range(11)]
    assert ends == [False] * 10 + [True]


def test_an_action_that_is_no_number_stops_with_the_place_and_the_seed():
    world = make(seed=7)
    world.step(np.zeros((4, 4, 4)))
    actions = np.zeros((4, 4, 4))
    actions[2, 1, 0] = np.nan
    with pytest.raises(PhysicsError) as caught:
        world.step(actions)
    assert caught.value.where == "environment 2, episode 1, step 2, seed 7"


def test_state_that_is_put_back_flies_on_as_before():
    one, two = make(noise=None, scenario="static_same_goal"), make(noise=None, scenario="static_same_goal", seed=1)
    two.set_goals(one.goals)
    two.set_state(*one.get_state())
    for _ in range(30):
        a, b = one.step(np.full((4, 4, 4), 0.1)), two.step(np.full((4, 4, 4), 0.1))
    assert np.array_equal(a.observation, b.observation)


def test_wild_flight_in_a_crowd_stays_finite():
    world = VecSwarm(SwarmConfig(num_drones=64, obstacles=Obstacles(0.5), num_neighbours=4), 2)
    world.reset()
    world.set_state(pos=[0, 0, 2])
    rng = np.random.default_rng(0)
    for _ in range(200):
        step = world.step(rng.uniform(-1, 1, (2, 64, 4)))
    assert np.isfinite(step.observation).all()


def crash(world, steps):
    """Fly so that the drones meet: all at one place after a while."""
    for t in range(steps):
        if t % 300 == 250:
            world.set_state(pos=[[0, 0, 5], [0.05, 0, 5], [2, 0, 5], [-2, 0, 5]], vel=0, rot=np.eye(3), omega=0)
        world.step(np.full((world.num_envs, 4, 4), 2 / 1.9 - 1))


def test_collisions_are_stored_from_a_second_and_a_half_before():
    world = make(envs=2, replay=Replay(floor_limit=None), scenario="static_same_goal")
    crash(world, 260)
    assert world._replay.num_stored.tolist() == [1, 1]
    ticks = world._replay._pool[2][:, 0, 0]
    assert (ticks == 100).all()


def test_replayed_episodes_go_on_from_the_stored_state():
    world = make(envs=2, replay=Replay(probability=1.0, floor_limit=None, uses=2), scenario="static_same_goal")
    crash(world, 260)
    stored = world._replay._pool[0][:, 0].copy()
    world.reset()
    assert np.array_equal(world._arrays.drones, stored)
    assert (world._arrays.counters[:, 0] == 100).all() and (world._arrays.counters[:, 9] == 1).all()
    world.reset()
    assert world._replay.num_stored.tolist() == [0, 0]
    world.reset()
    assert (world._arrays.counters[:, 0] == 0).all()


def test_nothing_is_stored_before_drones_can_fly():
    world = make(envs=2, replay=Replay(), scenario="static_same_goal")
    crash(world, 260)
    assert world._replay.num_stored.tolist() == [0, 0]
