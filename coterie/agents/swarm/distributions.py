"""What actions are drawn from: pure functions, with their noise from outside."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """Independent normals: mean [B, A], log of the standard deviation [A], in all states the same."""

    mean: Tensor
    log_std: Tensor


class Categorical(NamedTuple):
    """One of A: logits [B, A], up to a constant."""

    logits: Tensor


Distribution = Gaussian | Categorical


def of(parameters: Tensor, log_std: Tensor | None) -> Distribution:
    """What an actor returned [B, A], as a distribution: of continuous actions if there is a `log_std`."""
    return Categorical(parameters) if log_std is None else Gaussian(parameters, log_std)


def mode(distribution: Distribution) -> Tensor:
    """The likeliest action: [B, A], or [B] int64."""
    return distribution.mean if isinstance(distribution, Gaussian) else distribution.logits.argmax(-1)


def sample(distribution: Distribution, noise: Tensor) -> Tensor:
    """An action for each row: [B, A], or [B] int64.

    Args:
        distribution: What to draw from.
        noise: Standard normals [B, A]; for a categorical uniforms [B] in [0, 1), inverted by the cumulative sum.
    """
    if isinstance(distribution, Gaussian):
        return distribution.mean + distribution.log_std.exp() * noise
    cumulative = distribution.logits.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(cumulative, (noise.double() * cumulative[:, -1])[:, None], right=True)
    return drawn[:, 0].clamp(max=cumulative.shape[1] - 1)


def log_prob(distribution: Distribution, action: Tensor) -> Tensor:
    """[B], in nats; of the density, if actions are continuous."""
    if isinstance(distribution, Gaussian):
        off = (action - distribution.mean) * (-distribution.log_std).exp()
        constant = distribution.log_std.sum() + 0.5 * math.log(2 * math.pi) * action.shape[-1]
        return -0.5 * off.square().sum(-1) - constant
    return distribution.logits.log_softmax(-1).gather(-1, action[:, None])[:, 0]


def entropy(distribution: Distribution) -> Tensor:
    """[B], in nats."""
    if isinstance(distribution, Gaussian):
        one = distribution.log_std.sum() + 0.5 * (1 + math.log(2 * math.pi)) * len(distribution.log_std)
        return one.expand(len(distribution.mean))
    log_probs = distribution.logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
