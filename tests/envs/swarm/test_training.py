import numpy as np
import pytest

from coterie.envs.swarm import Obstacles, Replay, SwarmConfig
from coterie.envs.swarm.training import SwarmWorld
from coterie.errors import ResumeError

HOVER = 2 / 1.9 - 1


def still(num_drones=2, seconds=3.0, **fields):
    """One environment whose drones hover exactly, without noise."""
    fields = {"scenario": "static_diff_goal", "noise": None, "num_neighbours": 1, "downwash": False, **fields}
    world = SwarmWorld(SwarmConfig(num_drones=num_drones, seconds=seconds, **fields), 1, 0)
    world.reset()
    place = np.array([[i * 1.5 - 1.5, 0, 5] for i in range(num_drones)], np.float32)
    world.swarm.set_state(pos=place, vel=0, rot=np.eye(3), omega=0, motor=(1 / 1.9) ** 0.5)
    world.swarm.set_goals(place + [0, 0, 3])
    return world


def hover(world, steps):
    for _ in range(steps):
        world.step(np.full((1, world.spec.num_agents, 4), HOVER, np.float32))


def put(world, drone, place):
    position = world.swarm.get_state().position[0]
    position[drone] = place
    world.swarm.set_state(pos=position)


def end(world):
    hover(world, world.config.ticks - int(world.swarm.arrays.counters[0, 0]))
    (metrics,) = world.finished()
    return metrics


def test_who_reaches_its_goal_without_a_contact_succeeds():
    world = still()
    hover(world, 50)
    put(world, 0, world.swarm.goals[0, 0])
    metrics = end(world)
    assert (metrics["success"], metrics["reached"], metrics["deadlock"], metrics["collision"]) == (0.5, 0.5, 0.5, 0.0)


def test_flight_time_is_when_the_goal_was_reached():
    world = still()
    hover(world, 50)
    put(world, 0, world.swarm.goals[0, 0])
    # The mean over five ticks falls below half a metre with the fifth.
    assert end(world)["flight_time"] == pytest.approx(0.55, abs=0.011)


def test_without_anybody_there_is_no_flight_time():
    assert "flight_time" not in end(still())


def test_a_contact_is_a_collision_of_both_and_no_success():
    world = still(3)
    hover(world, 200)
    put(world, 0, world.swarm.get_state().position[0, 1] + np.float32([0, 0.05, 0]))
    hover(world, 2)
    metrics = end(world)
    assert metrics["drone_collision"] == metrics["collision"] == pytest.approx(2 / 3)
    assert metrics["contacts"] >= 2 / 3 and metrics["obstacle_collision"] == 0.0


def test_contacts_in_the_grace_period_are_no_collisions():
    world = still()
    put(world, 0, world.swarm.get_state().position[0, 1] + np.float32([0, 0.05, 0]))
    hover(world, 2)
    assert end(world)["collision"] == 0.0


def test_distances_are_those_of_the_last_seconds():
    metrics = end(still())
    assert metrics["distance_1s"] == pytest.approx(3.0, abs=0.02)
    assert metrics["distance_5s"] == pytest.approx(3.0, abs=0.02)


def test_the_reward_is_the_mean_return_of_the_drones():
    world, total = still(seconds=0.5), 0.0
    for _ in range(50):
        total += float(world.step(np.zeros((1, 2, 4), np.float32)).reward.mean())
    (metrics,) = world.finished()
    assert metrics["reward"] == pytest.approx(total, rel=1e-4)
    assert metrics["length"] == 50


def test_hits_of_the_floor_are_counted_per_drone():
    world = still()
    for _ in range(300):
        world.step(np.full((1, 2, 4), -1, np.float32))
    assert world.finished()[0]["floor_hits"] == 1.0


def test_an_end_is_told_once():
    world = still(seconds=0.1)
    hover(world, 10)
    assert len(world.finished()) == 1 and world.finished() == []


def test_metrics_name_scenario_and_density():
    world = SwarmWorld(SwarmConfig(obstacles=Obstacles(density=0.25), seconds=0.1, scenario="o_random"), 1, 0)
    world.reset()
    world.step(np.zeros((1, 8, 4)))
    for _ in range(9):
        world.step(np.zeros((1, 8, 4)))
    (metrics,) = world.finished()
    assert (metrics["scenario"], metrics["density"]) == ("o_random", 0.25)


def test_staggered_episodes_end_at_different_times_and_are_in_no_metrics():
    world = SwarmWorld(SwarmConfig(num_drones=1, num_neighbours=0, seconds=1.0), 32, 0)
    world.reset()
    world.stagger(7)
    ends, told = set(), 0
    for t in range(100):
        world.step(np.zeros((32, 1, 4)))
        if world.done.any():
            ends.add(t)
            told += len(world.finished())
            world.reset(world.done)
    assert len(ends) > 20 and told == 0
    for _ in range(100):
        world.step(np.zeros((32, 1, 4)))
        told += len(world.finished())
        world.reset(world.done)
    assert told == 32


def test_replayed_episodes_are_in_no_metrics():
    config = SwarmConfig(
        num_drones=2, num_neighbours=1, seconds=1.0,
        replay=Replay(probability=1.0, before=0.2, every=0.1, pause=0.1, uses=99, floor_limit=None),
    )  # fmt: skip
    world = SwarmWorld(config, 1, 0)
    world.reset()
    for _ in range(50):
        world.step(np.zeros((1, 2, 4)))
    put(world, 0, world.swarm.get_state().position[0, 1] + np.float32([0, 0.05, 0]))
    for _ in range(50):
        world.step(np.zeros((1, 2, 4)))
    assert len(world.finished()) == 1
    world.reset(world.done)
    while not world.done.any():
        world.step(np.zeros((1, 2, 4)))
    assert world.finished() == []


def test_the_spec_tells_where_neighbours_and_obstacles_stand():
    config = SwarmConfig(obstacles=Obstacles())
    spec = SwarmWorld(config, 1, 0).spec
    assert spec.layout.size == spec.observation_size == config.observation_size == 40
    assert (spec.layout.self_size, spec.layout.num_neighbours, spec.layout.obstacle_size) == (19, 2, 9)


@pytest.mark.parametrize("other", [{"num_envs": 3}, {"seed": 1}, {"config": SwarmConfig(num_drones=3)}])
def test_the_state_of_another_world_is_refused(other):
    def made(config=SwarmConfig(num_drones=2, num_neighbours=1), num_envs=2, seed=0):  # noqa: B008
        return SwarmWorld(config, num_envs, seed)

    with pytest.raises(ResumeError):
        made(**other).load_state_dict(made().state_dict())


def test_the_state_of_256_environments_fits_a_checkpoint():
    config = SwarmConfig(obstacles=Obstacles(density=0.2), replay=Replay(floor_limit=None))
    world = SwarmWorld(config, 256, 0)
    world.reset()
    size = sum(array.nbytes for array in world.state_dict().values())
    world.swarm._replay._uses[:] = 0
    full = sum(array.nbytes for array in world.state_dict().values())
    assert size < 3 * 2**20 and full < 14 * 2**20
