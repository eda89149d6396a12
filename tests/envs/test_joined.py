import numpy as np
import pytest

from coterie.envs.joined import JoinedWorld
from coterie.envs.swarm import Replay, Rewards, SwarmConfig
from coterie.envs.swarm.training import SwarmWorld

CONFIG = SwarmConfig(num_drones=2, num_neighbours=1, seconds=0.2, rewards=Rewards(annealing=1000))


def parts(*sizes):
    edges = np.cumsum([0, *sizes])
    return [SwarmWorld(CONFIG, size, 5, first_env=int(low)) for low, size in zip(edges, sizes, strict=False)]


def fly(world, steps, seed=0):
    """Actions, and all that was seen and told."""
    seen = []
    for t in range(steps):
        actions = np.random.default_rng([seed, t]).uniform(-1, 1, (world.num_envs, 2, 4)).astype(np.float32)
        step = world.step(actions)
        seen += [step.observation.copy(), step.reward.copy(), world.done.copy()]
        if world.done.any():
            seen.append([episode["reward"] for episode in world.finished()])
            seen.append(world.reset(world.done).copy())
    return seen


@pytest.mark.parametrize("threads", [1, 2])
def test_parts_together_are_the_whole(threads):
    whole, joined = SwarmWorld(CONFIG, 5, 5), JoinedWorld(parts(2, 3), threads)
    np.testing.assert_equal(joined.reset(), whole.reset())
    for one in (whole, joined):
        one.stagger(1)
    np.testing.assert_equal(fly(joined, 45), fly(whole, 45))
    assert joined.agent_steps == whole.agent_steps
    joined.close()


def test_each_part_is_told_of_all_steps():
    joined = JoinedWorld(parts(1, 1))
    joined.agent_steps = 700
    assert [part.swarm.penalty for part in joined.parts] == [0.7, 0.7]
    joined.reset()
    fly(joined, 3)
    assert joined.agent_steps == 700 + 3 * 4


def test_a_joined_world_goes_on_from_its_state():
    first, second = (JoinedWorld(parts(2, 1)) for _ in range(2))
    first.reset()
    fly(first, 7)
    second.load_state_dict(first.state_dict())
    assert second.agent_steps == first.agent_steps
    np.testing.assert_equal(fly(second, 30, seed=1), fly(first, 30, seed=1))


def test_replayed_collisions_go_on_from_the_state_too():
    config = SwarmConfig(
        num_drones=4, num_neighbours=1, seconds=1.2, scenario="static_same_goal",
        replay=Replay(probability=1.0, before=0.2, every=0.1, pause=0.1, uses=2, floor_limit=None),
    )  # fmt: skip
    first, second = (SwarmWorld(config, 3, 0) for _ in range(2))
    first.reset()
    # Two drones of each environment are on top of each other, again and again.
    for t in range(200):
        if t % 40 == 39:
            place = np.tile(np.array([[0, 0, 2], [0, 0, 2.05], [2, 2, 2], [-2, 2, 2]], np.float32), (3, 1, 1))
            first.swarm.set_state(pos=place, vel=0)
        first.step(np.zeros((3, 4, 4), np.float32))
        if first.done.any():
            first.reset(first.done)
    assert (first.swarm._replay.num_stored > 0).any()
    second.load_state_dict(first.state_dict())
    for t in range(300):
        actions = np.random.default_rng(t).uniform(-1, 1, (3, 4, 4)).astype(np.float32)
        steps = [world.step(actions) for world in (first, second)]
        np.testing.assert_equal(steps[0], steps[1])
        assert first.finished() == second.finished()
        if first.done.any():
            np.testing.assert_equal(first.reset(first.done), second.reset(second.done))
