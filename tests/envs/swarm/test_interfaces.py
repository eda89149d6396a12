"""Each interface passes its own library's checks."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.test.max_cycles_test import max_cycles_test  # noqa: F401  # there for its import alone
from pettingzoo.test.state_test import test_parallel_env as check_state
from torchrl.envs.utils import check_env_specs

from coterie.envs.swarm import Obstacles, SwarmConfig, VecSwarm
from coterie.envs.swarm.gymnasium import SwarmEnv, SwarmVectorEnv
from coterie.envs.swarm.pettingzoo import parallel_env
from coterie.envs.swarm.torchrl import SwarmTorchRLEnv

SHORT = SwarmConfig(num_drones=3, obstacles=Obstacles(), seconds=0.3)
LOSING = SwarmConfig(num_drones=3, seconds=0.3, crash="lose", scenario="static_same_goal")


def test_gymnasium_finds_nothing_wrong_with_one_swarm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render.*")
        warnings.filterwarnings("ignore", message=".*not within the observation space.*has different.*")
        warnings.filterwarnings("ignore", message=".*spec.*")
        check_env(SwarmEnv(SHORT), skip_render_check=True)


@pytest.mark.parametrize("config", [SHORT, LOSING], ids=["time", "lose"])
def test_pettingzoo_finds_nothing_wrong(config):
    parallel_api_test(parallel_env(config), num_cycles=100)
    parallel_seed_test(lambda: parallel_env(config), num_cycles=20)


def test_pettingzoo_finds_the_state_in_its_space():
    env = parallel_env(SHORT)
    env.reset(seed=1)
    check_state(env)


def test_a_vector_of_swarms_begins_again_in_the_same_step():
    env = SwarmVectorEnv(SHORT, 5)
    observation, _ = env.reset(seed=3)
    assert observation in env.observation_space
    for _ in range(30):
        observation, reward, terminated, truncated, infos = env.step(env.action_space.sample())
    assert truncated.all() and not terminated.any() and reward.shape == (5,)
    assert infos["_final_obs"].all() and not np.array_equal(infos["final_obs"], observation)
    assert not env.step(env.action_space.sample())[3].any()


def test_a_vector_of_swarms_waits_where_it_is_told_to():
    env = SwarmVectorEnv(SHORT, 2, AutoresetMode.DISABLED)
    env.reset(seed=3)
    for _ in range(30):
        *_, truncated, _ = env.step(env.action_space.sample())
    assert truncated.all()
    env.reset(options={"reset_mask": np.array([True, False])})
    assert env.world.done.tolist() == [False, True]


def test_observations_that_were_handed_out_do_not_change():
    env = SwarmVectorEnv(SHORT, 2)
    first, _ = env.reset(seed=3)
    kept = first.copy()
    env.step(env.action_space.sample())
    assert np.array_equal(first, kept)


def test_a_seed_repeats_a_vector_of_swarms():
    one, two = SwarmVectorEnv(SHORT, 3), SwarmVectorEnv(SHORT, 3)
    assert np.array_equal(one.reset(seed=5)[0], two.reset(seed=5)[0])
    actions = one.action_space.sample()
    assert np.array_equal(one.step(actions)[0], two.step(actions)[0])


def test_timeouts_terminate_as_in_quad_swarm_rl_if_asked():
    env = SwarmVectorEnv(SwarmConfig(num_drones=2, num_neighbours=1, seconds=0.1, compat="quad_swarm_rl"), 1)
    env.reset(seed=0)
    for _ in range(11):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
    assert terminated.all() and not truncated.any()


@pytest.mark.parametrize("config", [SHORT, LOSING], ids=["time", "lose"])
def test_torchrl_finds_nothing_wrong(config):
    check_env_specs(SwarmTorchRLEnv(config, 4))


def test_episodes_of_torchrl_are_those_of_the_world_and_begin_again_where_they_ended():
    env, world = SwarmTorchRLEnv(SHORT, 4), VecSwarm(SHORT, 4)
    env.set_seed(5)
    world.seed(5)
    flown = env.rollout(45, break_when_any_done=False)
    observation, action = flown["agents", "observation"], flown["agents", "action"].numpy()
    assert np.array_equal(observation[:, 0], world.reset())
    for t in range(30):
        step = world.step(action[:, t])
        assert np.array_equal(flown["next", "agents", "observation"][:, t], step.observation)
        assert np.array_equal(flown["next", "agents", "reward"][:, t, :, 0], step.reward)
    assert flown["next", "truncated"].sum(1).tolist() == [[1]] * 4 and not flown["next", "terminated"].any()
    assert np.array_equal(observation[:, 30], world.reset())
