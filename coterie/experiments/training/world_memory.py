"""Whether a training fits into the memory of this machine, asked before anything is made."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, cast

from coterie.config.schema import WorldConfig
from coterie.errors import EnvironmentMissing
from coterie.experiments import memory
from coterie.experiments.checks import available_memory

_GIB = 2**30
_NUMBER = 4
"""Bytes."""


def check_memory(config: WorldConfig) -> None:
    """Refuse a training whose rollout alone is larger than the memory that is free; a GPU has its own.

    Raises:
        EnvironmentMissing: it is.
    """
    needed, free = rollout_bytes(config) / _GIB, available_memory()
    if free is not None and needed > free:
        raise EnvironmentMissing(
            f"a rollout takes {needed:,.1f} GiB, and {free:,.1f} GiB of memory are free", where="learning.rollout",
            remedy="set a smaller `learning.rollout` or `env.num_envs`",
        )  # fmt: skip


def tell_memory() -> AbstractContextManager[None]:
    """What is larger than the memory, of this machine or of its GPU, is one clear error."""
    remedy = "set a smaller `env.num_envs`, `learning.rollout`, `policy.width` or `env.replay.size`"
    return memory.tell_memory("the training", remedy=remedy)


def rollout_bytes(config: WorldConfig) -> int:
    """What at least the steps of all agents between two updates take; 0 where a world does not say what agents see."""
    spec = getattr(config.env, "spec", lambda: None)()
    if spec is None:
        return 0
    env, learning = cast(Any, config.env), cast(Any, config.learning)
    agent_steps = int(env.num_envs) * spec.num_agents * int(getattr(learning, "rollout", 0))
    # What was observed and the same normalised; actions; log-probability, reward, value, target, advantage.
    numbers = 2 * spec.observation_size + (spec.action_size if spec.action == "continuous" else 2) + 5
    return int(agent_steps * numbers * _NUMBER)
