"""A world of points on a plane, each of which is to go to the middle: small, exact, and learnt in seconds."""

import numpy as np

from coterie.rng import stream
from coterie.types import WorldSpec, WorldStep


class Points:
    """E environments of N points that choose their velocity; D = 2, of M - 1 others nothing is seen."""

    device = "cpu"

    def __init__(self, num_envs=16, num_agents=2, seed=0, length=20, *, discrete=False, deaths=False):
        size = 5 if discrete else 2
        self.spec = WorldSpec(num_agents, 2, "discrete" if discrete else "continuous", size)
        self.num_envs, self.seed, self.length, self.deaths, self.agent_steps = num_envs, seed, length, deaths, 0
        shape = (num_envs, num_agents)
        self.position = np.zeros((*shape, 2), np.float32)
        self.tick, self.episode = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self.terminated, self.truncated = np.zeros(shape, bool), np.zeros(num_envs, bool)
        self.poison = None

    @property
    def alive(self):
        return ~self.terminated

    @property
    def done(self):
        return self.truncated | self.terminated.all(1)

    def reset(self, mask=None):
        for env in np.flatnonzero(np.ones(self.num_envs, bool) if mask is None else mask):
            self.episode[env] += 1
            drawn = stream(self.seed, int(env), int(self.episode[env])).uniform(-1, 1, self.position[env].shape)
            self.position[env], self.tick[env] = drawn, 0
            self.terminated[env], self.truncated[env] = False, False
        return self.position

    def stagger(self, seed):
        pass

    def step(self, actions):
        if self.spec.action == "discrete":
            actions = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)[actions]
        self.position += 0.2 * np.clip(actions, -1, 1) * self.alive[..., None]
        distance = np.linalg.norm(self.position, axis=-1)
        if self.deaths:
            self.terminated |= distance > 1.5
            self.position[self.terminated] = 0
        self.tick += 1
        self.agent_steps += self.terminated.size
        self.truncated[:] = self.tick >= self.length
        reward = np.where(self.terminated, 0, -distance).astype(np.float32)
        if self.poison is not None and self.agent_steps >= self.poison:
            reward[3, 1] = np.nan
        return WorldStep(self.position, reward, self.terminated, self.truncated)

    def finished(self):
        distance = np.linalg.norm(self.position, axis=-1)
        return [{"distance": float(distance[env].mean()), "kind": "x"} for env in np.flatnonzero(self.done)]

    def state_dict(self):
        state = {
            name: getattr(self, name).copy() for name in ("position", "tick", "episode", "terminated", "truncated")
        }
        return state | {"agent_steps": np.asarray(self.agent_steps)}

    def load_state_dict(self, state):
        for name in ("position", "tick", "episode", "terminated", "truncated"):
            getattr(self, name)[...] = state[name]
        self.agent_steps = int(state["agent_steps"])

    def close(self):
        pass
