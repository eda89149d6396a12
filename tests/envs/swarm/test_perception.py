"""What drones observe, against numpy."""

import numpy as np
import pytest

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm


def scattered(n, k, seed=0, **fields):
    """One environment without noise, with drones that fly anywhere."""
    world = VecSwarm(SwarmConfig(num_drones=n, num_neighbours=k, noise=None, **fields), 1)
    world.reset()
    rng, (x, y, z) = np.random.default_rng(seed), world.config.room
    pos = rng.uniform([-x / 2, -y / 2, 0.5], [x / 2, y / 2, z], (n, 3))
    vel = rng.normal(size=(n, 3))
    observation = world.set_state(pos=pos[None], vel=vel[None])[0]
    state = world.get_state()
    return world, observation, state.position[0].astype(float), state.velocity[0].astype(float)


def ranked(pos, vel, i, closing=True):
    apart, faster = pos - pos[i], vel - vel[i]
    distance = np.linalg.norm(apart, axis=1)
    key = distance + closing * (apart * faster).sum(1) / np.maximum(distance, 0.01)
    key[i] = np.inf
    return np.argsort(key), distance


@pytest.mark.parametrize("rule", ["closing", "distance"])
def test_neighbours_are_ranked_by_the_rule(rule):
    world, _, pos, vel = scattered(32, 6, neighbour_rule=rule)
    for i in range(32):
        assert world.neighbours[0, i].tolist() == ranked(pos, vel, i, rule == "closing")[0][:6].tolist()


def test_neighbours_are_observed_relative_and_clipped():
    world, observation, pos, vel = scattered(8, 2)
    j = world.neighbours[0, 3, 1]
    assert np.allclose(observation[3, 24:27], np.clip(pos[j] - pos[3], -10, 10), atol=1e-5)
    assert np.allclose(observation[3, 27:30], np.clip(vel[j] - vel[3], -6, 6), atol=1e-5)


def test_out_of_sight_is_nobody_and_zeros():
    world, observation, *_ = scattered(2, 1, neighbour_range=0.001)
    assert (world.neighbours == -1).all() and (observation[:, 18:] == 0).all()


def test_the_grid_finds_exactly_who_is_in_sight():
    world, _, pos, vel = scattered(300, 4, room=(8.0, 8.0, 8.0))
    for i in range(0, 300, 7):
        order, distance = ranked(pos, vel, i)
        expected = [j for j in order if distance[j] <= 1.0 and j != i][:4]
        assert world.neighbours[0, i, : len(expected)].tolist() == expected
        assert (world.neighbours[0, i, len(expected) :] == -1).all()


def test_the_grid_meets_the_same_drones_as_brute_force(monkeypatch):
    few = scattered(128, 2, neighbour_range=1.0)[0]
    monkeypatch.setattr("coterie.envs.swarm.parameters.BRUTE_FORCE", 0)
    many = scattered(128, 2, neighbour_range=1.0)[0]
    state = few.get_state()
    pos = np.round(state.position * 2.5) / 2.5 * 0.3  # crowded: many are in contact
    for world in (few, many):
        world.set_state(pos=pos)
    a, b = few.step(np.zeros((1, 128, 4))), many.step(np.zeros((1, 128, 4)))
    assert np.allclose(a.reward, b.reward, atol=1e-4)
    assert np.allclose(few.get_state().velocity, many.get_state().velocity, atol=1e-3)


def test_the_patch_is_the_distance_to_the_nearest_obstacle():
    world, observation, pos, _ = scattered(8, 2, obstacles=Obstacles(density=0.5, size=0.7))
    axes = world._arrays.obstacles[0, :, :32].T
    for i in range(8):
        expected = [
            np.linalg.norm(axes - (pos[i, :2] + [dx, dy]), axis=1).min() - 0.35
            for dx in (-0.1, 0, 0.1)
            for dy in (-0.1, 0, 0.1)
        ]
        assert np.allclose(observation[i, -9:], expected, atol=1e-5)


def test_oneself_is_observed_as_published():
    world, observation, pos, vel = scattered(2, 1, obstacles=Obstacles())
    state = world.get_state()
    assert np.allclose(observation[:, :3], pos - world.goals[0], atol=1e-5)
    assert np.allclose(observation[:, 3:6], vel, atol=1e-6)
    assert np.allclose(observation[:, 6:15], state.attitude[0].reshape(2, 9))
    assert np.allclose(observation[:, 18], pos[:, 2], atol=1e-6)


def test_relabelled_drones_observe_the_same():
    world, before, pos, vel = scattered(8, 3)
    kept = before.copy()
    order = np.random.default_rng(2).permutation(8)
    goals = world.goals
    world.set_goals(goals[:, order])
    attitude = world.get_state().attitude[:, order]
    after = world.set_state(pos[order][None], vel[order][None], attitude)
    assert np.allclose(after[0], kept[order], atol=1e-6)
