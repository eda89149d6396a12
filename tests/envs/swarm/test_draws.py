"""Counted randomness in compiled code."""

import numpy as np

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm, draws


def test_philox_gives_the_published_numbers():
    zero, ones = [np.uint32(0)] * 6, [np.uint32(0xFFFFFFFF)] * 6
    assert [int(word) for word in draws.words(*zero)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(word) for word in draws.words(*ones)] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def fly(envs, seed=3, steps=40, first=0, threads=1, **fields):
    fields = {"obstacles": Obstacles(), **fields}
    world = VecSwarm(SwarmConfig(num_drones=8, **fields), envs, seed, first_env=first, threads=threads)
    world.reset()
    for t in range(steps):
        actions = np.random.default_rng(t).uniform(-0.2, 0.4, (8, 8, 4))[first : first + envs]
        step = world.step(actions)
    return step.observation.copy(), step.reward.copy()


def test_an_environment_is_the_same_alone_and_among_others():
    whole, part = fly(8), fly(3, first=2)
    assert np.array_equal(whole[0][2:5], part[0]) and np.array_equal(whole[1][2:5], part[1])


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("coterie.envs.swarm.world._LEAST_WORK", 0)
    assert np.array_equal(fly(8)[0], fly(8, threads=3)[0])


def test_the_same_seed_flies_the_same_episode_and_another_does_not():
    assert np.array_equal(fly(2)[0], fly(2)[0])
    assert not np.array_equal(fly(2)[0], fly(2, seed=4)[0])


def test_sensor_noise_is_normal_and_of_its_size():
    world = VecSwarm(SwarmConfig(num_drones=8, scenario="static_same_goal"), 256)
    observation = world.reset()
    error = observation[..., :3] - (world.get_state().position - world.goals)
    assert abs(error.std() - 0.005) < 2e-4 and abs(error.mean()) < 2e-4


def test_a_later_episode_differs_and_does_not_depend_on_when_others_were_reset():
    config = SwarmConfig(num_drones=2, num_neighbours=1)
    one, two = VecSwarm(config, 2, 5), VecSwarm(config, 2, 5)
    first = one.reset().copy()
    two.reset()
    two.reset(np.array([False, True]))
    two.reset(np.array([True, False]))
    second = one.reset().copy()
    assert not np.array_equal(first, second) and np.array_equal(second, two.observation)
