import sys
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

from coterie.envs.actions import read_actions
from coterie.envs.pettingzoo import PettingZooWorld, WorldError
from coterie.envs.worlds import make_pettingzoo
from coterie.errors import ConfigError, EnvironmentMissing, ResumeError


class Walk(ParallelEnv):
    """Two agents of different kinds; `short` is done when its number says so, all others after five steps."""

    metadata = {"name": "walk_v0"}
    cut_one = False

    def __init__(self):
        self.possible_agents = ["long", "short"]
        self.observation_spaces = {"long": spaces.Box(-9, 9, (2, 2)), "short": spaces.Discrete(3)}
        self.action_spaces = {"long": spaces.Box(0, 4, (3,)), "short": spaces.Box(-np.inf, np.inf, (1,))}

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.seed, self.t, self.got = list(self.possible_agents), seed, 0, []
        return self._see(), {agent: {} for agent in self.agents}

    def _see(self):
        everything = {"long": np.full((2, 2), self.t + 1, np.float32), "short": self.t % 3}
        return {agent: everything[agent] for agent in self.agents}

    def step(self, actions):
        self.t += 1
        self.got.append(actions)
        seen = self._see()
        over = self.t >= 5
        terminated = {agent: agent == "short" and self.t == 2 for agent in self.agents}
        truncated = {agent: over or (self.cut_one and agent == "short") for agent in self.agents}
        rewards = {agent: float(self.t) for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (terminated[agent] or truncated[agent])]
        return seen, rewards, terminated, truncated, {agent: {} for agent in seen}


def run(world, steps, seed=0):
    seen = []
    for t in range(steps):
        random = np.random.default_rng([seed, t])
        shape = (world.num_envs, world.spec.num_agents)
        if world.spec.action == "discrete":
            actions = random.integers(0, world.spec.action_size, shape)
        else:
            actions = random.uniform(-1, 1, (*shape, world.spec.action_size)).astype(np.float32)
        step = world.step(actions)
        seen += [np.copy(x) for x in (*step, world.done, world.alive)] + [world.finished()]
        if world.done.any():
            seen.append(world.reset(world.done).copy())
    return seen


def test_agents_of_different_sizes_are_filled_up_and_told_apart():
    world = PettingZooWorld(Walk, 1, 0)
    assert (world.spec.observation_size, world.spec.action, world.spec.action_size) == (4 + 2, "continuous", 3)
    assert world.reset().tolist() == [[[1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 1]]]


def test_actions_are_spread_over_bounds_and_cut_to_size():
    world = PettingZooWorld(Walk, 1, 0)
    world.reset()
    world.step([[[-1, 0, 7], [5, 9, 9]]])
    (actions,) = world._envs[0].got
    assert actions["long"].tolist() == [0, 2, 4] and actions["short"].tolist() == [5]


def test_who_is_done_is_masked_until_the_reset():
    world = PettingZooWorld(Walk, 1, 0)
    world.reset()
    still = np.zeros((1, 2, 3))
    world.step(still)
    assert world.alive.tolist() == [[True, True]]
    step = world.step(still)
    assert step.terminated.tolist() == [[False, True]] and step.reward.tolist() == [[2, 2]]
    step = world.step(still)
    assert world.alive.tolist() == [[True, False]] and step.reward.tolist() == [[3, 0]]
    assert step.observation[0, 1].tolist() == [0] * 6


def test_a_time_limit_truncates_with_what_was_seen_last():
    world = PettingZooWorld(Walk, 1, 0)
    world.reset()
    for _ in range(5):
        step = world.step(np.zeros((1, 2, 3)))
    assert step.truncated.tolist() == [True] and world.done.tolist() == [True]
    assert step.observation[0, 0].tolist() == [6, 6, 6, 6, 1, 0]
    assert world.finished() == [{"reward": (1 + 2 + 3 + 4 + 5 + 1 + 2) / 2, "length": 5.0}]
    assert world.finished() == []


def test_an_environment_that_cuts_off_one_agent_alone_is_refused():
    class Cut(Walk):
        cut_one = True

    world = PettingZooWorld(Cut, 1, 0)
    world.reset()
    with pytest.raises(WorldError, match="cut some agents off"):
        world.step(np.zeros((1, 2, 3)))


def test_what_an_environment_raises_is_told_with_the_episode_and_the_seed_that_repeat_it():
    class Broken(Walk):
        def step(self, actions):
            if self.t == 2:
                raise ZeroDivisionError("no air")
            return super().step(actions)

    world = PettingZooWorld(Broken, 1, 0, first_env=7)
    world.reset()
    still = np.zeros((1, 2, 3))
    world.step(still)
    world.step(still)
    with pytest.raises(WorldError, match="ZeroDivisionError: no air") as caught:
        world.step(still)
    assert f"environment 7, episode 1, step 3, reset(seed={world._envs[0].seed}); " in caught.value.where
    assert "test_pettingzoo.py:" in caught.value.where


def test_an_environment_without_known_agents_or_numbers_to_observe_is_refused():
    class Unknown(Walk):
        def __init__(self):
            super().__init__()
            del self.possible_agents

    class Graphs(Walk):
        def __init__(self):
            super().__init__()
            self.observation_spaces["long"] = spaces.Graph(spaces.Box(0, 1, (1,)), None)

    with pytest.raises(ConfigError, match="names no possible_agents"):
        PettingZooWorld(Unknown, 1, 0)
    with pytest.raises(ConfigError, match="a space of kind Graph"):
        PettingZooWorld(Graphs, 1, 0)


def test_choices_are_read_from_their_start_and_not_beyond_their_end():
    read = read_actions([spaces.Discrete(5), spaces.Discrete(3, start=2)])
    assert read.size == 5 and [read.read(1, action) for action in range(5)] == [2, 3, 4, 4, 4]


def test_other_spaces_are_refused():
    with pytest.raises(ConfigError, match="Box, Discrete"):
        read_actions([spaces.Discrete(5), spaces.Box(0, 1)])


def mpe(id="mpe2.simple_spread_v3", num_envs=3, seed=4, **params):
    pytest.importorskip("mpe2")
    return make_pettingzoo(SimpleNamespace(id=id, params=params, num_envs=num_envs), seed)


@pytest.mark.parametrize("id", ["mpe2.simple_spread_v3", "mpe2.simple_tag_v3"])
@pytest.mark.parametrize("continuous", [False, True])
def test_copies_go_on_from_a_state_bit_for_bit(id, continuous):
    first, second = (mpe(id, continuous_actions=continuous) for _ in range(2))
    first.reset()
    run(first, 35)
    second.load_state_dict(first.state_dict())
    np.testing.assert_equal(run(second, 40, seed=1), run(first, 40, seed=1))
    assert second.agent_steps == first.agent_steps


def test_a_copy_does_not_depend_on_how_many_there_are():
    many, few = mpe(num_envs=3), mpe(num_envs=1)
    assert np.array_equal(many.reset()[:1], few.reset())


def test_the_state_of_another_world_is_refused():
    with pytest.raises(ResumeError):
        mpe(num_envs=2).load_state_dict(mpe(num_envs=3).state_dict())


@pytest.mark.parametrize(
    ("id", "params", "error", "said"),
    [
        ("mpe2.simple_spraed_v3", {}, ConfigError, "mpe2 has no module simple_spraed_v3"),
        ("json", {}, ConfigError, "parallel_env"),
        ("mpe2.simple_spread_v3", {"drones": 3}, ConfigError, "drones"),
    ],
)
def test_a_name_or_a_parameter_that_is_wrong_is_told(id, params, error, said):
    pytest.importorskip("mpe2")
    with pytest.raises(error, match=said):
        mpe(id, **params)


def test_what_needs_a_package_that_is_missing_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    for name in [name for name in sys.modules if name.startswith(("coterie.envs.pettingzoo", "coterie.envs.actions"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(EnvironmentMissing, match="gymnasium"):
        mpe()
