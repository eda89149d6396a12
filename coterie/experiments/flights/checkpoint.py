"""An episode flown by a checkpoint of a training run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coterie import rng
from coterie.config.schema import WorldConfig
from coterie.experiments.flights.recording import Act, Attend, Recording, record
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.training import Checkpoint
from coterie.experiments.training.assembly import load_policy

if TYPE_CHECKING:
    from torch import Tensor

    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.swarm.networks import Actor

KIND = "quad_swarm_v0"
"""The worlds that are flown in."""
_LONGEST = 60.0
"""Seconds that are recorded at most."""


def fly_checkpoint(folder: RunFolder, config: WorldConfig, checkpoint: Checkpoint) -> Recording:
    """An episode in the world of the training, by the likeliest actions; nothing is replayed or made easier.

    It is another one than those of the training, and the same whenever it is flown.

    Args:
        folder: Of the run.
        config: Of the run; its world is of kind `KIND`.
        checkpoint: One that is still there.

    Raises:
        ResumeError: the checkpoint is damaged, gone, or of other networks.
        PhysicsError: a number is none.
    """
    from coterie.envs.swarm.training import SwarmWorld

    built = config.env.build()  # type: ignore[attr-defined]  # of QuadSwarmConfig, which a world's config need not be
    shown = replace(
        built, replay=None, curriculum=None, seconds=min(built.seconds, _LONGEST),
        rewards=replace(built.rewards, annealing=0),
    )  # fmt: skip
    world = SwarmWorld(shown, 1, rng.derive(config.seed, "flight"), threads=1)
    try:
        policy = load_policy(folder, config, checkpoint, world.spec)
        return record(world.swarm, make_pilot(policy), attention=make_attention(policy, world.spec.observation_size))
    finally:
        world.close()


def make_pilot(policy: Actor | NormalisedActor) -> Act:
    """What takes a policy's likeliest actions."""
    from coterie.agents.swarm import distributions

    def act(observation: NDArray[np.float32]) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            action = distributions.mode(policy.distribution(_rows(policy, observation)))
        return action.cpu().numpy()[None]

    return act


def make_attention(policy: Actor | NormalisedActor, size: int) -> Attend | None:
    """What tells a policy's attention, as the mean over heads; None where it has none. `size`: D."""

    def attend(observation: NDArray[np.float32]) -> NDArray[Any]:
        import torch

        with torch.no_grad():
            weights = policy.attention(_rows(policy, observation))
        assert weights is not None
        return weights.mean(1).cpu().numpy()[None]

    return None if policy.attention(_rows(policy, np.zeros((1, 1, size), np.float32))) is None else attend


def _rows(policy: Actor | NormalisedActor, observation: NDArray[np.float32]) -> Tensor:
    """Observations [1, N, D] of one environment where the policy is, [N, D]."""
    import torch

    return torch.from_numpy(observation[0]).to(next(policy.parameters()).device)
