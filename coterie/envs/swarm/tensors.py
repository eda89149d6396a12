"""The world in TorchRL's shapes: nested dictionaries of tensors that share memory with the world."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from coterie.envs.swarm.world import VecSwarm

GROUP = "agents"
"""Key of what belongs to each drone, [E, N, ...]; a `TensorDict` of batch size [E] is made from it."""


def _ends(world: VecSwarm) -> dict[str, Any]:
    lost = ~world.alive.any(1)
    ends = {"done": world.done, "terminated": lost, "truncated": world.done & ~lost}
    return {name: torch.as_tensor(value)[:, None] for name, value in ends.items()}


def reset(world: VecSwarm, mask: Tensor | ArrayLike | None = None) -> dict[str, Any]:
    """Begin episodes where mask [E] or [E, 1] (TorchRL's `_reset`) is set. Ends are at the root."""
    chosen: Any = None if mask is None else torch.as_tensor(mask).reshape(world.num_envs)
    observation = torch.as_tensor(world.reset(chosen))
    return {GROUP: {"observation": observation}, **_ends(world)}


def step(world: VecSwarm, action: Tensor) -> dict[str, Any]:
    """One control step with actions [E, N, 4]: what follows, to be put under "next".

    Under "agents": observation [E, N, D], reward [E, N, 1] and terminated [E, N, 1]; at the root done, terminated and
    truncated [E, 1]. The next call overwrites the tensors.
    """
    taken: Any = action
    result = world.step(taken)
    agents = {
        "observation": torch.as_tensor(result.observation),
        "reward": torch.as_tensor(result.reward)[..., None],
        "terminated": torch.as_tensor(result.terminated)[..., None],
    }
    return {GROUP: agents, **_ends(world)}
