"""The world in TorchRL's shapes: nested dictionaries of tensors that share memory with the world."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from coterie.envs.swarm.world import VecSwarm

GROUP = "agents"
"""Key of what belongs to each drone, [E, N, ...]; a `TensorDict` of batch size [E] is made from it."""


def _ends(world: VecSwarm) -> dict[str, Any]:
    lost: NDArray[np.bool_] = np.asarray(~world.alive.any(1))
    tensors = {"done": world.done, "terminated": lost, "truncated": world.done & ~lost}
    return {name: torch.from_numpy(value[:, None]) for name, value in tensors.items()}


def reset(world: VecSwarm, mask: Tensor | ArrayLike | None = None) -> dict[str, Any]:
    """Begin episodes where mask [E] or [E, 1] (TorchRL's `_reset`) is set. Ends are at the root."""
    chosen = None if mask is None else np.asarray(mask).reshape(world.num_envs)
    observation = torch.from_numpy(world.reset(chosen))
    return {GROUP: {"observation": observation}, **_ends(world)}


def step(world: VecSwarm, action: Tensor) -> dict[str, Any]:
    """One control step with actions [E, N, 4]: what follows, to be put under "next".

    Under "agents": observation [E, N, D], reward [E, N, 1] and terminated [E, N, 1]; at the root done, terminated and
    truncated [E, 1]. The next call overwrites the tensors.
    """
    result = world.step(action.detach().numpy())
    agents = {
        "observation": torch.from_numpy(result.observation),
        "reward": torch.from_numpy(result.reward)[..., None],
        "terminated": torch.from_numpy(result.terminated)[..., None],
    }
    return {GROUP: agents, **_ends(world)}
