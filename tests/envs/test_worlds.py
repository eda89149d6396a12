from types import SimpleNamespace

import numpy as np

from coterie.envs.joined import JoinedWorld
from coterie.envs.swarm import SwarmConfig
from coterie.envs.swarm.kernel import resetter, stepper
from coterie.envs.swarm.training import SwarmWorld
from coterie.envs.worlds import make_swarm


def made(num_envs):
    config = SwarmConfig(num_drones=8, num_neighbours=2)
    return make_swarm(SimpleNamespace(build=lambda: config, num_envs=num_envs), seed=3)


def test_few_drones_are_one_world():
    assert isinstance(made(16), SwarmWorld)


def test_many_drones_are_parts_of_about_512():
    world = made(200)
    assert isinstance(world, JoinedWorld)
    assert [part.num_envs for part in world.parts] == [66, 67, 67]
    world.close()


def test_a_world_that_is_made_is_compiled():
    kernels = stepper, resetter
    for each in kernels:
        each.cache_clear()
    world = made(200)
    compiled = [each(grid=False).signatures[:] for each in kernels]
    world.reset()
    world.step(np.zeros((200, 8, 4), np.float32))
    assert all(compiled) and compiled == [each(grid=False).signatures for each in kernels]
    world.close()


def test_parts_make_the_episodes_of_the_whole():
    world, whole = made(128), SwarmWorld(SwarmConfig(num_drones=8, num_neighbours=2), 128, 3)
    assert np.array_equal(world.reset(), whole.reset())
    world.close()
