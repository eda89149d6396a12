"""Several worlds of one kind as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coterie.types import World, WorldStep


class JoinedWorld:
    """The environments of all parts, one part's after the other's; see `types.World`.

    Parts share nothing, so whoever wants to may step each in a thread of its own instead of this.

    Args:
        parts: At least one, of one spec.
        threads: So many parts are stepped at once.
    """

    def __init__(self, parts: Sequence[World], threads: int = 1) -> None:
        self.parts, self.spec = tuple(parts), parts[0].spec
        self.num_envs = sum(part.num_envs for part in parts)
        self._edges = np.cumsum([0, *(part.num_envs for part in parts)])
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @property
    def agent_steps(self) -> int:
        """Steps of all parts. Set it, and each part is told all of them: what grows with training follows the sum."""
        return self._total + sum(part.agent_steps - self._before for part in self.parts)

    @agent_steps.setter
    def agent_steps(self, value: int) -> None:
        self._total = self._before = value
        for part in self.parts:
            part.agent_steps = value

    _total = _before = 0
    device = "cpu"

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whose actions count, [E, N]."""
        return np.concatenate([part.alive for part in self.parts])

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which environments are over, [E]."""
        return np.concatenate([part.done for part in self.parts])

    def reset(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Begin episodes where mask [E] is set, or everywhere; observations [E, N, D]."""
        chosen = np.ones(self.num_envs, np.bool_) if mask is None else mask
        masks = np.split(chosen, self._edges[1:-1])
        return np.concatenate([part.reset(one) for part, one in zip(self.parts, masks, strict=True)])

    def stagger(self, seed: int) -> None:
        """See `World`."""
        for part in self.parts:
            part.stagger(seed)

    def step(self, actions: ArrayLike) -> WorldStep:
        """One step of every part."""
        given = np.split(np.asarray(actions), self._edges[1:-1])
        run = map if self._pool is None else self._pool.map
        steps = list(run(lambda part, one: part.step(one), self.parts, given))
        return WorldStep(*(np.concatenate(arrays) for arrays in zip(*steps, strict=True)))

    def finished(self) -> list[dict[str, float | str]]:
        """Metrics of all parts."""
        return [episode for part in self.parts for episode in part.finished()]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Everything that decides what follows, as copies."""
        state = {f"{i}.{name}": x for i, part in enumerate(self.parts) for name, x in part.state_dict().items()}
        return state | {"agent_steps": np.asarray(self.agent_steps, np.int64)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back.

        Raises:
            ResumeError: It is of another world.
        """
        for i, part in enumerate(self.parts):
            prefix = f"{i}."
            part.load_state_dict({name[len(prefix) :]: x for name, x in state.items() if name.startswith(prefix)})
        self.agent_steps = int(state["agent_steps"])

    def close(self) -> None:
        """Let threads and parts go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for part in self.parts:
            part.close()
