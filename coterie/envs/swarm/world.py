"""`VecSwarm`: many environments of a swarm in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.envs.cores import count_cores
from coterie.envs.swarm import draws
from coterie.envs.swarm import layout as at
from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.kernel import Arrays, resetter, scratch, stepper
from coterie.envs.swarm.parameters import parameters, scenario_table
from coterie.envs.swarm.replay import CollisionReplay
from coterie.envs.swarm.spawning import NOWHERE
from coterie.errors import ConfigError, CoterieError, ResumeError

if TYPE_CHECKING:
    from coterie.envs.swarm.cuda import Device

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_KEPT = (
    "drones", "flags", "counters", "settings", "obstacles", "cells", "keys", "observation", "neighbours", "reward",
    "terminated", "truncated",
)  # fmt: skip
_LEAST_WORK = 512
"""Agent-steps for which it is not worth to wake a thread."""
_LEAST_PART = 2048
"""Agent-steps of a part of the work, where there are more parts than threads."""


class PhysicsError(CoterieError):
    """A number of the world is none any more."""

    code = "E_PHYSICS"


class State(NamedTuple):
    """What flies where: arrays [E, N, ...], copies.

    Attributes:
        position: [3], m; z is up, and the floor is at 0.
        velocity: [3], m/s.
        attitude: [3, 3], turns body into world axes.
        omega: [3], angular velocity in body axes, rad/s.
        motor: [4], square root of each motor's share of full thrust.
    """

    position: Floats
    velocity: Floats
    attitude: Floats
    omega: Floats
    motor: Floats


class Step(NamedTuple):
    """What a step returns. The arrays are the world's own, and the next call overwrites them.

    Attributes:
        observation: float32 [E, N, D].
        reward: float32 [E, N].
        terminated: bool [E, N]: the drone is done, and out of the world until the next reset.
        truncated: bool [E]: the time is up.
    """

    observation: Floats
    reward: Floats
    terminated: Mask
    truncated: Mask


class VecSwarm:
    """E environments of N drones. Nothing is reset unless it is asked for.

    An episode is a function of the seed, of the environment's index and of how many episodes it had; neither E nor
    threads nor the order of resets change it.

    Args:
        config: The world.
        num_envs: E.
        seed: One integer, or one for each environment, each of which is then the first of its own.
        first_env: Index of the first environment: a worker that holds environments 64 to 127 says 64.
        threads: At most so many work at once; None: as many as this process has cores.
        device: `cpu`, or `cuda`: actions may be tensors anywhere, and what `step` and `reset` return, `neighbours`,
            `alive` and `done` are tensors on the GPU. For up to 128 drones, without replay.
    """

    def __init__(
        self,
        config: SwarmConfig,
        num_envs: int,
        seed: int | Sequence[int] = 0,
        *,
        first_env: int = 0,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: give at least 1")
        self.config, self.num_envs, self.num_drones = config, num_envs, config.num_drones
        self.first_env, self.agent_steps = first_env, 0
        """`agent_steps` counts the steps of all drones in this world; annealing and curriculum follow it. Set it where
        several workers share them, or to go on from a checkpoint."""
        self.scenarios = config.scenarios
        self._parameters = parameters(config)
        grid = self._parameters.grid
        self._step, self._reset = stepper(grid=grid), resetter(grid=grid)
        self._arrays = self._allocate()
        self._threads = min(threads or count_cores(), num_envs)
        self._pool = ThreadPoolExecutor(self._threads) if self._threads > 1 else None
        # More parts than threads: one may be kept waiting by other work on its core.
        parts = max(self._threads, min(4 * self._threads, num_envs * self.num_drones // _LEAST_PART))
        self._parts = min(parts, num_envs) if self._pool else 1
        self._scratch = [scratch(self._parameters, self.num_drones) for _ in range(self._parts)]
        self._replay = CollisionReplay(config, self._arrays) if config.replay else None
        self._device = None if device == "cpu" else self._open(device)
        self.seed(seed)

    def _allocate(self) -> Arrays:
        config, e, n = self.config, self.num_envs, self.num_drones
        arrays = Arrays(
            drones=np.zeros((e, at.ROWS, n), np.float32),
            flags=np.zeros((e, n), np.int32),
            counters=np.zeros((e, at.COUNTERS), np.int32),
            settings=np.zeros((e, at.SETTINGS), np.float32),
            obstacles=np.full((e, 2, config.max_obstacles), NOWHERE, np.float32),
            cells=np.zeros((e, config.cells[0] * config.cells[1]), np.int32),
            keys=np.zeros((e, 2), np.uint32),
            table=scenario_table(self.scenarios),
            densities=np.zeros(len(config.obstacles.densities) if config.obstacles else 1, np.float32),
            sizes=np.asarray(config.obstacles.sizes if config.obstacles else (0,), np.float32),
            observation=np.zeros((e, n, config.observation_size), np.float32),
            neighbours=np.full((e, n, config.num_neighbours), -1, np.int32),
            reward=np.zeros((e, n), np.float32),
            terminated=np.zeros((e, n), np.bool_),
            truncated=np.ones(e, np.bool_),
            broken=np.zeros(e, np.bool_),
        )
        return arrays

    def _open(self, device: str) -> Device:
        for refused, where, what, remedy in (
            (device != "cuda", "device", f"device is {device!r}", "take `cpu` or `cuda`"),
            (self._parameters.grid, "num_drones", f"a GPU takes no {self.num_drones} drones", "take at most 128"),
            (self._replay is not None, "replay", "a GPU keeps no collisions", "leave `replay` out, or take `cpu`"),
        ):
            if refused:
                raise ConfigError(what, where=where, remedy=remedy)
        from coterie.envs.swarm.cuda import Device  # with torch, which a CPU's world does without

        return Device(self._parameters, self._arrays)

    def seed(self, seed: int | Sequence[int]) -> None:
        """Start counting episodes again, under this seed; a reset of everything has to follow."""
        if isinstance(seed, int | np.integer):
            places = [(int(seed), self.first_env + env) for env in range(self.num_envs)]
        else:
            places = [(int(one), 0) for one in seed]
        if len(places) != self.num_envs:
            raise ValueError(f"{len(places)} seeds for {self.num_envs} environments")
        self.seeds, a = places, self.arrays
        a.keys[:] = [draws.key(*place) for place in places]
        a.counters[:] = 0
        a.truncated[:] = True
        if self._replay:
            self._replay.clear()
        self._send()

    @property
    def level(self) -> float:
        """How far the curriculum is, in [0, 1]."""
        return min(self.agent_steps / self.config.curriculum.steps, 1.0) if self.config.curriculum else 1.0

    @property
    def penalty(self) -> float:
        """By what collision, proximity and obstacle penalties are multiplied in episodes that begin now."""
        annealing = self.config.rewards.annealing
        return min(self.agent_steps / annealing, 1.0) if annealing else 1.0

    @property
    def alive(self) -> Mask:
        """Whose actions count, bool [E, N]: all, but for those that are done."""
        return ~self.live.terminated

    @property
    def arrays(self) -> Arrays:
        """Everything the world holds, not copies (on a GPU: copies); what stands where is told in `layout`."""
        if self._device:
            self._device.pull(self._arrays)
        return self._arrays

    @property
    def live(self) -> Arrays:
        """As `arrays`, but not copies on a GPU either: tensors there."""
        return self._device.tensors if self._device else self._arrays

    def _send(self) -> None:
        if self._device:
            self._device.push(self._arrays)

    @property
    def neighbours(self) -> NDArray[np.int32]:
        """Whom each drone observes, int32 [E, N, K], nearest first; -1: nobody, and zeros in the observation."""
        return self.live.neighbours

    @property
    def observation(self) -> Floats:
        """What was observed last, [E, N, D]."""
        return self.live.observation

    @property
    def done(self) -> Mask:
        """Which environments can be reset: their time is up, or all their drones are done; bool [E]."""
        return self.live.truncated | self.live.terminated.all(1)

    def _progress(self) -> None:
        config, curriculum = self.config, self.config.curriculum
        factor, speed = 1.0, 1.0
        if curriculum:
            factor = curriculum.density[0] + (curriculum.density[1] - curriculum.density[0]) * self.level
            speed = curriculum.speed[0] + (curriculum.speed[1] - curriculum.speed[0]) * self.level
        self._speed = speed
        if config.obstacles:
            cells = self._arrays.cells.shape[1]
            shares = config.obstacles.densities
            if config.obstacles.count is not None:
                shares = (config.obstacles.count / cells if cells else 0.0,)
            self._arrays.densities[:] = np.asarray(shares, np.float32) * np.float32(factor)

    def reset(self, mask: ArrayLike | None = None) -> Floats:
        """Begin an episode where mask [E] is set, or everywhere; observations [E, N, D].

        With `replay`, some go on from before a collision instead.
        """
        if mask is None:
            chosen: Any = np.ones(self.num_envs, np.bool_)
        else:
            chosen = mask if self._device and hasattr(mask, "cpu") else np.asarray(_here(mask))
        if tuple(chosen.shape) != (self.num_envs,) or str(chosen.dtype).removeprefix("torch.") != "bool":
            raise ValueError(f"mask is {chosen.dtype} {tuple(chosen.shape)}: give bool ({self.num_envs},)")
        self._progress()
        if self._device:
            self._device.reset(chosen, self._arrays.densities, self.penalty, self._speed)
            return self.observation
        a, fresh = self._arrays, chosen.copy()
        if self._replay:
            fresh &= ~self._replay.restore(chosen)
        a.settings[chosen, at.PENALTY] = self.penalty
        a.settings[chosen, at.SPEED] = self._speed
        self._spread(self._reset, chosen, fresh)
        return a.observation

    def step(self, actions: ArrayLike) -> Step:
        """One control step of everything, also of environments that are done.

        Args:
            actions: [E, N, 4], one number per motor: -1 is no thrust, 1 is full thrust. Clipped.

        Raises:
            PhysicsError: A number is none; says where it was, and the seed.
        """
        given: Any = actions if self._device else np.ascontiguousarray(_here(actions), np.float32)
        there = self.alive if self.config.team_reward else None
        if tuple(given.shape) != (self.num_envs, self.num_drones, 4):
            raise ValueError(f"actions are {tuple(given.shape)}: give ({self.num_envs}, {self.num_drones}, 4)")
        if self._device:
            self._device.step(given)
        else:
            self._spread(self._step, given)
        a = self.live
        self.agent_steps += self.num_envs * self.num_drones
        if a.broken.any():
            self._fail(np.asarray(_here(given)))
        if there is not None:
            _share(a.reward, there)
        if self._replay:
            self._replay.watch()
        return Step(a.observation, a.reward, a.terminated, a.truncated)

    def _fail(self, actions: Floats) -> None:
        a = self.arrays
        env = int(np.flatnonzero(a.broken)[0])
        seed, index = self.seeds[env]
        tick, episode = a.counters[env, at.TICK], a.counters[env, at.EPISODE]
        a.broken[:] = False
        self._send()
        raise PhysicsError(
            "the physics of a swarm gave a number that is none",
            where=f"environment {index}, episode {episode}, step {tick}, seed {seed}",
            remedy="look at the policy: its actions were not finite"
            if not np.isfinite(actions[env]).all()
            else "reset that environment with that seed, and report it with the actions",
        )

    def _spread(self, work: Callable[..., None], *arrays: NDArray[Any]) -> None:
        if self._pool is None or self.num_envs * self.num_drones < _LEAST_WORK:
            work(0, self.num_envs, self._parameters, self._arrays, *arrays, self._scratch[0])
            return
        edges = [self.num_envs * part // self._parts for part in range(self._parts + 1)]
        started = [
            self._pool.submit(work, low, high, self._parameters, self._arrays, *arrays, room)
            for low, high, room in zip(edges, edges[1:], self._scratch, strict=False)
        ]
        for ended in started:
            ended.result()

    def get_state(self) -> State:
        """A copy of what flies where."""
        rows = np.swapaxes(self.arrays.drones, 1, 2)
        e, n = self.num_envs, self.num_drones
        return State(
            rows[..., at.POSITION : at.POSITION + 3].copy(),
            rows[..., at.VELOCITY : at.VELOCITY + 3].copy(),
            rows[..., at.ATTITUDE : at.ATTITUDE + 9].reshape(e, n, 3, 3).copy(),
            rows[..., at.OMEGA : at.OMEGA + 3].copy(),
            rows[..., at.MOTOR : at.MOTOR + 4].copy(),
        )

    def set_state(
        self,
        pos: ArrayLike | None = None,
        vel: ArrayLike | None = None,
        rot: ArrayLike | None = None,
        omega: ArrayLike | None = None,
        motor: ArrayLike | None = None,
    ) -> Floats:
        """Put drones somewhere; what is not given stays. Nobody has been in contact with anybody. Observations.

        Shapes are those of `State`, or anything that broadcasts to them.
        """
        a, e, n = self.arrays, self.num_envs, self.num_drones
        places = ((pos, at.POSITION, 3), (vel, at.VELOCITY, 3), (omega, at.OMEGA, 3), (motor, at.MOTOR, 4))
        for given, row, size in places:
            if given is not None:
                a.drones[:, row : row + size] = np.swapaxes(np.broadcast_to(np.asarray(given), (e, n, size)), 1, 2)
        if rot is not None:
            matrices = np.broadcast_to(np.asarray(rot), (e, n, 3, 3)).reshape(e, n, 9)
            a.drones[:, at.ATTITUDE : at.ATTITUDE + 9] = np.swapaxes(matrices, 1, 2)
        a.drones[:, at.BEFORE] = NOWHERE * np.arange(1, n + 1)
        a.drones[:, at.BEFORE + 1 : at.BEFORE + 3] = 0
        a.flags[:] &= at.REACHED | at.EVER_DRONE | at.EVER_OBSTACLE | at.LOST
        return self._look()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All that decides what follows, as copies: put back, the same actions give the same steps, bit for bit."""
        arrays = self.arrays
        state = {name: getattr(arrays, name).copy() for name in _KEPT}
        state["agent_steps"] = np.asarray(self.agent_steps, np.int64)
        if self._replay:
            state |= {f"replay.{name}": value for name, value in self._replay.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state_dict` gave, of a world of the same config, number of environments and seeds.

        Raises:
            ResumeError: It is of another world; nothing was changed.
        """
        for name in _KEPT:
            there: Any = state.get(name)
            here = getattr(self._arrays, name)
            same = there is not None and there.shape == here.shape and there.dtype == here.dtype
            if name == "keys":
                same = same and np.array_equal(there, here)
            if not same:
                raise ResumeError(
                    "the state of a swarm is of another one", where=name,
                    remedy="resume with the world, the number of environments and the seed with which it was made, and "
                    "on a GPU if it began there, else on a CPU",
                )  # fmt: skip
        if self._replay:
            self._replay.load_state_dict({k[7:]: value for k, value in state.items() if k.startswith("replay.")})
        for name in _KEPT:
            getattr(self._arrays, name)[...] = state[name]
        self._send()
        self.agent_steps = int(state["agent_steps"])

    def _look(self) -> Floats:
        everything, a = np.ones(self.num_envs, np.bool_), self._arrays
        if self._device:
            self._send()
            self._device.look(everything)
            return self.observation
        over, gone = a.truncated.copy(), a.terminated.copy()
        self._spread(self._reset, everything, ~everything)
        a.truncated[:], a.terminated[:] = over, gone
        return a.observation

    @property
    def goals(self) -> Floats:
        """Where each drone is to go, [E, N, 3], a copy."""
        return np.swapaxes(self.arrays.drones[:, at.GOAL : at.GOAL + 3], 1, 2).copy()

    def set_goals(self, goals: ArrayLike) -> Floats:
        """Set all goals, anything that broadcasts to [E, N, 3]; they stay for the rest of the episode. Observations."""
        a = self.arrays
        wanted = np.broadcast_to(np.asarray(goals), (self.num_envs, self.num_drones, 3))
        a.drones[:, at.GOAL : at.GOAL + 3] = np.swapaxes(wanted, 1, 2)
        a.counters[:, at.NEXT_LEG], a.counters[:, at.MOVING] = 1 << 30, 0
        return self._look()

    def obstacles(self, env: int) -> tuple[Floats, float]:
        """Middles [M, 2] of the obstacles of an environment, m, a copy, and their radius."""
        a = self.arrays
        count = int(a.counters[env, at.NUM_OBSTACLES])
        return a.obstacles[env, :, :count].T.copy(), float(a.settings[env, at.RADIUS])

    def scenario(self, env: int) -> str:
        """What an environment flies."""
        return self.scenarios[int(self.arrays.counters[env, at.SCENARIO])]

    def close(self) -> None:
        """Let the threads go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _share(reward: Any, there: Any) -> None:
    """Give each of those who were there the mean of what they earned, in place: [E, N], arrays or tensors."""
    mean = (reward * there).sum(1) / there.sum(1).clip(1)
    reward[...] = mean[:, None] * there


def fits_gpu(config: SwarmConfig) -> bool:
    """Whether there is a GPU that numba can use, and this world is one for it."""
    from coterie.envs.swarm.cuda import is_available

    return config.num_drones <= at.BLOCK and not config.replay and is_available()


def _here(given: Any) -> Any:
    """An array; of a tensor, which may be on a GPU, a copy."""
    return given.detach().cpu().numpy() if hasattr(given, "cpu") else given
