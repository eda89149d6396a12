"""Collision replay: episodes go on from shortly before a collision. States are rows, and kept as copies of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.envs.swarm import layout as at
from coterie.envs.swarm.config import Replay, SwarmConfig
from coterie.envs.swarm.draws import words
from coterie.envs.swarm.kernel import Arrays
from coterie.envs.swarm.layout import FOR_REPLAY, PURPOSES
from coterie.errors import ResumeError

_HISTORY = 100
_ENOUGH = 10


class CollisionReplay:
    """Watches environments, stores states from before collisions, and puts them back (Huang et al. 2023).

    Args:
        config: The world; `config.replay` is given.
        arrays: The world's; those of states are read and written.
    """

    def __init__(self, config: SwarmConfig, arrays: Arrays) -> None:
        assert isinstance(config.replay, Replay)
        self.settings, self._config = config.replay, config
        self._rows = (arrays.drones, arrays.flags, arrays.counters, arrays.settings, arrays.obstacles, arrays.cells)
        self._keys = arrays.keys
        hz = config.control_hz
        self._every = max(round(self.settings.every * hz), 1)
        self._back = max(round(self.settings.before / self.settings.every), 1)
        self._pause = round(self.settings.pause * hz)
        envs, kept = len(arrays.counters), self._back + 1
        self._recent = [np.zeros((envs, kept, *rows.shape[1:]), rows.dtype) for rows in self._rows]
        self._pool = [np.zeros((envs, int(self.settings.size), *rows.shape[1:]), rows.dtype) for rows in self._rows]
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        envs = len(self._keys)
        size = int(self.settings.size)
        self._taken = np.zeros(envs, np.int64)
        """Snapshots of the present episode."""
        self._last_event = np.full(envs, -self._pause, np.int64)
        self._uses = np.full((envs, size), -1, np.int64)
        """How often each stored collision was replayed; -1: there is none."""
        self._next = np.zeros(envs, np.int64)
        self._floor: deque[float] = deque(maxlen=_HISTORY)
        self.is_armed = self.settings.floor_limit is None

    @property
    def num_stored(self) -> NDArray[np.int64]:
        """Collisions that each environment holds, [E]."""
        return np.asarray((self._uses >= 0).sum(1), np.int64)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What is remembered, as copies; of the places for collisions only those that hold one."""
        held = np.nonzero(self._uses >= 0)
        state: dict[str, NDArray[Any]] = {
            "taken": self._taken.copy(), "last_event": self._last_event.copy(), "uses": self._uses.copy(),
            "next": self._next.copy(), "floor": np.asarray(self._floor, np.float64), "armed": np.asarray(self.is_armed),
        }  # fmt: skip
        for i, (kept, pool) in enumerate(zip(self._recent, self._pool, strict=True)):
            state[f"recent.{i}"], state[f"pool.{i}"] = kept.copy(), pool[held]
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back.

        Raises:
            ResumeError: It is of another world, or of one without replay; nothing was changed.
        """
        uses = state.get("uses")
        if uses is None or uses.shape != self._uses.shape:
            raise ResumeError("the collisions of a swarm are of another one", where="replay",
                              remedy="resume with the `replay` with which it was made")  # fmt: skip
        self._taken[:], self._last_event[:], self._uses[:] = state["taken"], state["last_event"], uses
        self._next[:], self.is_armed = state["next"], bool(state["armed"])
        self._floor = deque(state["floor"].tolist(), maxlen=_HISTORY)
        held = np.nonzero(uses >= 0)
        for i, (kept, pool) in enumerate(zip(self._recent, self._pool, strict=True)):
            kept[...] = state[f"recent.{i}"]
            pool[held] = state[f"pool.{i}"]

    def watch(self) -> None:
        """After a step: keep a snapshot where it is time for one, and store collisions."""
        counters = self._rows[2]
        ticks = counters[:, at.TICK]
        if self.is_armed:
            events = np.flatnonzero(counters[:, at.EVENT] > 0)
            for env in events[self._taken[events] > self._back]:
                if ticks[env] - self._last_event[env] >= self._pause:
                    self._store(int(env))
        due = np.flatnonzero(ticks % self._every == 0)
        if len(due):
            slots = self._taken[due] % (self._back + 1)
            for kept, rows in zip(self._recent, self._rows, strict=True):
                kept[due, slots] = rows[due]
            self._taken[due] += 1

    def _store(self, env: int) -> None:
        # The latest snapshot is up to `every` old, the oldest of those kept is from `before` earlier than that.
        slot = self._taken[env] % (self._back + 1)
        place = self._next[env] % self._uses.shape[1]
        for pool, kept in zip(self._pool, self._recent, strict=True):
            pool[env, place] = kept[env, slot]
        self._uses[env, place] = 0
        self._next[env] += 1
        self._last_event[env] = self._rows[2][env, at.TICK]

    def restore(self, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """At a reset of the chosen environments: put stored states back where the draw says so; where it did, [E]."""
        self._note_floor(chosen)
        replayed = np.zeros(len(chosen), np.bool_)
        counters = self._rows[2]
        for env in np.flatnonzero(chosen & (self.num_stored > 0)):
            episode = counters[env, at.EPISODE] + 1
            k0, k1 = self._keys[env]
            word, other, _, _ = words(0, 0, episode, FOR_REPLAY * PURPOSES, k0, k1)
            if word / 2**32 >= self.settings.probability:
                continue
            held = np.flatnonzero(self._uses[env] >= 0)
            place = held[int(other) * len(held) >> 32]
            for rows, pool in zip(self._rows, self._pool, strict=True):
                rows[env] = pool[env, place]
            counters[env, at.EPISODE], counters[env, at.REPLAYED] = episode, 1
            self._uses[env, place] += 1
            if self._uses[env, place] >= self.settings.uses:
                self._uses[env, place] = -1
            replayed[env] = True
        self._taken[chosen] = 0
        self._last_event[chosen] = np.where(replayed, counters[:, at.TICK], 0)[chosen] - self._pause
        return replayed

    def _note_floor(self, chosen: NDArray[np.bool_]) -> None:
        # By drone 0's time on the floor: before drones can fly, collisions teach nothing.
        drones, _, counters, *_ = self._rows
        over = chosen & (counters[:, at.TICK] > 0) & (counters[:, at.REPLAYED] == 0)
        cost = self._config.rewards.floor * self._config.rewards.time * self._config.pace
        self._floor.extend(float(ticks) * cost for ticks in drones[over, at.ON_FLOOR_TICKS, 0])
        limit = self.settings.floor_limit
        if limit is not None and len(self._floor) >= _ENOUGH and sum(self._floor) / len(self._floor) < limit:
            self.is_armed = True
