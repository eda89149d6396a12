"""Where drones start, where goals are and how they move."""

import numpy as np
import pytest

from coterie.envs.swarm import Curriculum, Obstacles, SwarmConfig, VecSwarm
from coterie.envs.swarm.scenarios import MIXES, SCENARIOS


def make(name, envs=8, **fields):
    obstacles = Obstacles() if name in SCENARIOS and SCENARIOS[name].among_obstacles else None
    fields = {"num_drones": 8, "obstacles": obstacles, "scenario": name, **fields}
    world = VecSwarm(SwarmConfig(**fields), envs, 1)
    world.reset()
    return world


def watch(world, steps):
    """Goals after every tenth of so many steps, [steps / 10, E, N, 3]."""
    seen = []
    for t in range(steps):
        world.step(np.zeros((world.num_envs, world.num_drones, 4)))
        if t % 10 == 9:
            seen.append(world.goals)
    return np.array(seen)


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_goals_stay_in_the_room_and_move_where_the_scenario_says(name):
    world = make(name)
    start, goals = world.goals, watch(make(name), 700)
    assert (np.abs(goals[..., :2]) <= 4.71).all() and (goals[..., 2] >= 0.29).all() and (goals[..., 2] <= 9.71).all()
    has_moved = not np.allclose(goals[-1], start, atol=1e-3)
    assert has_moved == (SCENARIOS[name].move not in ("hold", "independent", "free_square"))
    is_shared = np.allclose(goals, goals[:, :, :1], atol=1e-5)
    assert is_shared == (not SCENARIOS[name].in_formation and name not in ("o_random", "o_swap_goals"))


def test_swapped_goals_are_the_same_goals():
    goals = watch(make("swap_goals"), 700)
    rows = [np.sort(goals[t].round(4).view([("", np.float32)] * 3), axis=1) for t in (0, -1)]
    assert (rows[0] == rows[1]).all() and not np.array_equal(goals[0], goals[-1])


def test_bezier_curves_are_smooth_and_end_where_they_should():
    goals = watch(make("ep_rand_bezier"), 1000)[:, :, 0]
    assert np.linalg.norm(np.diff(goals, axis=0), axis=-1).max() < 0.4


def test_neighbouring_goals_of_a_formation_keep_their_distance():
    goals = make("static_diff_goal", envs=32).goals.astype(float)
    apart = np.linalg.norm(goals[:, :, None] - goals[:, None], axis=-1) + 9 * np.eye(8)
    nearest = apart.min(-1)
    assert (nearest > 0.12).all() and (nearest < 0.62).all()


def test_obstacles_stand_on_cells_and_drones_start_beside_them():
    world = make("o_random", envs=32, obstacles=Obstacles(density=0.8))
    axes, pos = world._arrays.obstacles, world.get_state().position
    assert axes.shape[2] == 51 and np.allclose((axes + 0.5) % 1, 0, atol=1e-5) and np.abs(axes).max() <= 3.5
    gap = np.linalg.norm(pos[:, :, None, :2] - axes.swapaxes(1, 2)[:, None], axis=-1).min(-1)
    assert (gap > 0.8).all() and (pos[..., 2] >= 0.75).all()


def test_more_drones_than_free_cells_start_above_each_other():
    pos = make("o_random", envs=4, num_drones=32, obstacles=Obstacles(density=0.8)).get_state().position
    apart = np.linalg.norm(pos[:, :, None] - pos[:, None], axis=-1) + 9 * np.eye(32)
    assert apart.min() > 0.2


def test_a_mix_draws_all_of_its_scenarios():
    world = make("mix", envs=400)
    drawn = set(world._arrays.counters[:, 2].tolist())
    assert drawn == set(range(len(MIXES[False])))


def test_densities_and_sizes_are_drawn():
    world = make("mix", envs=100, obstacles=Obstacles(density=(0.05, 0.1, 0.2), size=(0.3, 0.6)))
    assert set(world._arrays.counters[:, 5].tolist()) == {3, 6, 12}
    assert {round(float(radius), 2) for radius in world._arrays.settings[:, 8]} == {0.15, 0.3}


def test_a_curriculum_raises_density_and_speed():
    world = make("mix", envs=1, obstacles=Obstacles(density=0.8), curriculum=Curriculum(1000, (0.0, 1.0), (0.5, 2.0)))
    seen = []
    for steps in (0, 500, 2000):
        world.agent_steps = steps
        world.reset()
        seen.append((int(world._arrays.counters[0, 5]), float(world._arrays.settings[0, 10])))
    assert seen == [(0, 0.5), (25, 1.25), (51, 2.0)]


def test_drones_start_level_and_facing_inwards():
    state = make("static_same_goal", envs=64).get_state()
    inward = -state.position[..., :2] / np.linalg.norm(state.position[..., :2], axis=-1, keepdims=True)
    assert ((state.attitude[..., :2, 0] * inward).sum(-1) > 0.49).all()
    assert (state.attitude[..., 2, 2] == 1).all() and (state.velocity == 0).all()
