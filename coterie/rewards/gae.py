"""Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438), with time limits worked right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Advantages(NamedTuple):
    """What actions were worth.

    Attributes:
        advantage: [T, ...], beyond what was expected; 0 where `alive` is not set.
        target: [T, ...], what the value should have been: advantage plus value.
    """

    advantage: Tensor
    target: Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    *,
    terminated: Tensor,
    truncated: Tensor,
    alive: Tensor | None = None,
    discount: float = 0.99,
    trace: float = 0.95,
    timeouts_terminate: bool = False,
) -> Advantages:
    """Advantages by equations 11 and 16 of the paper, over episodes that end at different times.

    A time limit is no end of what could be earned: the value of the last observation stands for the rest (Pardo et al.
    2018, arXiv 1712.00378). An agent that is done earns nothing more.

    Args:
        reward: float [T, ...].
        value: Of what was observed before each step, float [T, ...].
        next_value: Of what each step led to, before any reset, float [T, ...]; not read where nothing is to come.
        terminated: bool [T, ...], the agent is done: nothing that follows counts.
        truncated: bool, broadcasts to [T, ...]: the episode was cut off after this step.
        alive: bool [T, ...], whose steps count; None: all.
        discount: Gamma.
        trace: Lambda: 0 is one-step advantages, 1 is returns less values.
        timeouts_terminate: Take a time limit for an end, as quad-swarm-rl does.
    """
    if timeouts_terminate:
        terminated = terminated | truncated
    goes_on = torch.where(terminated, torch.zeros_like(reward), torch.ones_like(reward))
    # Multiplying would let a value that is no number through.
    future = torch.where(terminated, torch.zeros_like(next_value), next_value)
    error = reward + discount * future - value
    carried = discount * trace * torch.where(truncated, torch.zeros_like(reward), goes_on)
    advantage = torch.empty_like(error)
    running = torch.zeros_like(error[0])
    for t in range(len(error) - 1, -1, -1):
        running = error[t] + carried[t] * running
        advantage[t] = running
    if alive is not None:
        advantage = torch.where(alive, advantage, torch.zeros_like(advantage))
    return Advantages(advantage, advantage + value)


class ReplyAdvantages(NamedTuple):
    """The same of the T tokens of a reply, float64 [T] each."""

    advantage: NDArray[np.float64]
    target: NDArray[np.float64]


def of_replies(
    rewards: Sequence[NDArray[np.float64]], values: Sequence[NDArray[np.float64]], discount: float, trace: float
) -> list[ReplyAdvantages]:
    """Advantages of tokens, where each reply is an episode of its own that ends with its last token.

    Args:
        rewards: Of each token of each reply, [T].
        values: Before each token, likewise.
        discount: Gamma.
        trace: Lambda.
    """
    lengths = [len(reward) for reward in rewards]
    reward, value, next_value = torch.zeros(3, max([1, *lengths]), len(lengths), dtype=torch.float64)
    ends = torch.zeros(reward.shape, dtype=torch.bool)
    for n, length in enumerate(lengths):
        reward[:length, n], value[:length, n] = torch.from_numpy(rewards[n]), torch.from_numpy(values[n])
        ends[length - 1 :, n] = True
    next_value[:-1] = value[1:]
    never = torch.zeros_like(ends)
    found = gae(reward, value, next_value, terminated=ends, truncated=never, discount=discount, trace=trace)
    return [ReplyAdvantages(*(part[:length, n].numpy() for part in found)) for n, length in enumerate(lengths)]


def normalise(advantage: Tensor, alive: Tensor | None = None) -> Tensor:
    """Zero mean and unit variance over what is alive; 0 elsewhere."""
    chosen = advantage if alive is None else advantage[alive]
    if chosen.numel() < 2:
        return torch.zeros_like(advantage)
    scaled = (advantage - chosen.mean()) / (chosen.std() + 1e-8)
    return scaled if alive is None else torch.where(alive, scaled, torch.zeros_like(scaled))
