"""What proximal policy optimisation minimises: pure functions of tensors [M], a row each.

All are sums weighted by `weight` [M]: 1 over the number of rows that count, and 0 for those that do not.
"""

from __future__ import annotations

from torch import Tensor

from coterie.agents.learning.settings import PPOSettings


def policy_loss(log_ratio: Tensor, advantage: Tensor, weight: Tensor, clip: float) -> Tensor:
    """The clipped surrogate, to be minimised (Schulman et al. 2017, arXiv 1707.06347, equation 7).

    Args:
        log_ratio: Log-probability of each action now, less what it was.
        advantage: Normalised.
        weight: See above.
        clip: Epsilon.
    """
    ratio = log_ratio.exp()
    return -((ratio * advantage).minimum(ratio.clamp(1 - clip, 1 + clip) * advantage) * weight).sum()


def value_loss(value: Tensor, old_value: Tensor, target: Tensor, weight: Tensor, clip: float | None) -> Tensor:
    """Half the mean square error; with `clip` the greater of it and that of the value kept near the old one.

    The clipped form is that of the code of the paper above (Engstrom et al. 2020, arXiv 2005.12729, section 3).
    """
    error = (value - target).square()
    if clip is not None:
        near = old_value + (value - old_value).clamp(-clip, clip)
        error = error.maximum((near - target).square())
    return 0.5 * (error * weight).sum()


def divergence(log_ratio: Tensor, weight: Tensor) -> Tensor:
    """KL(old, new) estimated from old samples, never below zero: mean of r - 1 - log r (Schulman 2020)."""
    return ((log_ratio.expm1() - log_ratio) * weight).sum()


def clipped(log_ratio: Tensor, weight: Tensor, clip: float) -> Tensor:
    """Share of the rows whose ratio left the clipping range."""
    return ((log_ratio.expm1().abs() > clip) * weight).sum()


def adapted_rate(rate: float, kl: float, settings: PPOSettings) -> float:
    """The learning rate after an epoch with this divergence: see `PPOSettings.target_kl`."""
    if settings.target_kl is None:
        return rate
    if kl > 2 * settings.target_kl:
        rate /= 1.5
    elif kl < settings.target_kl / 2:
        rate *= 1.5
    return min(max(rate, settings.min_learning_rate), settings.max_learning_rate)
