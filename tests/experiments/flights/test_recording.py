from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm
from coterie.envs.swarm import layout as at
from coterie.experiments.flights.recording import CONTACT, DRONE, GONE, OBSTACLE, Recording, record, thin

Make = Callable[..., Recording]


def hover(observation: Any) -> Any:
    return np.full((*observation.shape[:2], 4), 2 / 1.9 - 1, np.float32)


def test_it_holds_the_start_and_every_tick_of_the_episode() -> None:
    world = VecSwarm(SwarmConfig(num_drones=2, num_neighbours=1, seconds=1.0), 1, seed=3)
    start = world.reset() is not None and world.get_state().position[0].copy()
    world.seed(3)
    found = record(world, hover)
    assert (len(found.position), found.seconds, found.times[-1]) == (101, 1.0, 1.0)
    np.testing.assert_array_equal(found.position[0], start)
    np.testing.assert_array_equal(found.position[-1], world.get_state().position[0])
    np.testing.assert_array_equal(found.goal[-1], world.goals[0])


def test_quaternions_turn_as_the_world_does() -> None:
    world = VecSwarm(SwarmConfig(num_drones=3, seconds=0.7), 1, seed=1)
    found = record(world, lambda seen: hover(seen) + 0.1 * np.arange(4, dtype=np.float32))
    turned = Rotation.from_quat(found.attitude[-1], scalar_first=True).as_matrix()
    np.testing.assert_allclose(turned, world.get_state().attitude[0], atol=1e-5)


def test_a_seed_is_an_episode(flown: Make) -> None:
    fields = {"num_drones": 3, "seconds": 0.5}
    first, again, other = flown(**fields), flown(**fields), flown(seed=6, **fields)
    np.testing.assert_array_equal(first.position, again.position)
    assert (first.position != other.position).any()


def test_a_limit_ends_it_sooner(flown: Make) -> None:
    assert flown(num_drones=2, num_neighbours=1, seconds=0.25).seconds == 0.25


def test_contacts_are_those_that_the_world_counts() -> None:
    config = SwarmConfig(num_drones=8, obstacles=Obstacles(density=0.4), seconds=2.0, scenario="o_random")
    world = VecSwarm(config, 1, seed=5)
    found = record(world, lambda seen: np.random.default_rng(1).uniform(-1, 1, (1, 8, 4)))
    counters = world.arrays.counters[0]
    assert np.count_nonzero(found.events & OBSTACLE) == counters[at.OBSTACLE_CONTACTS] > 0
    assert np.count_nonzero(found.events & DRONE) <= 2 * counters[at.PAIR_CONTACTS]


def test_rewards_and_neighbours_are_those_of_each_tick(crowded: Recording) -> None:
    assert (crowded.reward[0] == 0).all() and (crowded.reward[1:] != 0).all()
    others = crowded.neighbours[50]
    apart = np.linalg.norm(crowded.position[50][:, None] - crowded.position[50][others], axis=-1)
    assert others.shape == (8, 2) and (apart > 0).all()


def test_attention_has_a_weight_for_each_neighbour_and_for_obstacles(crowded: Recording) -> None:
    assert crowded.attention is not None
    assert crowded.attention.shape == (*crowded.events.shape, 3)
    np.testing.assert_allclose(crowded.attention.sum(-1), 1, rtol=1e-5)


def test_a_lost_drone_stays_where_it_was(flown: Make) -> None:
    found = flown(num_drones=8, obstacles=Obstacles(density=0.5), scenario="o_random", crash="lose", seconds=4.0)
    gone = found.events & GONE > 0
    lost = np.flatnonzero(gone[-1])
    assert len(lost)
    for drone in lost:
        since = int(np.argmax(gone[:, drone]))
        assert found.events[since, drone] & CONTACT
        assert (found.position[since:, drone] == found.position[since, drone]).all()
    assert np.abs(found.position).max() < 20


def test_thinned_it_keeps_all_that_happened(crowded: Recording) -> None:
    found = thin(crowded, 50)
    assert found.hz == 50 and found.seconds == pytest.approx(crowded.seconds)
    np.testing.assert_array_equal(found.position, crowded.position[::2])
    np.testing.assert_allclose(found.reward.sum(0), crowded.reward.sum(0), rtol=1e-4)
    assert (np.bitwise_or.reduce(found.events) == np.bitwise_or.reduce(crowded.events)).all()
    whole = np.bitwise_or.reduce(np.stack([crowded.events[2::2], crowded.events[1::2]]))
    np.testing.assert_array_equal(found.events[1:], whole)


def test_several_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="2"):
        record(VecSwarm(SwarmConfig(num_drones=2, num_neighbours=1), 2), hover)
