"""What learners minimise: pure functions of tensors [M], a row or token each. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.agents.learning.settings import PPOSettings

if TYPE_CHECKING:
    from torch import Tensor

# Of worlds: sums weighted by `weight` [M], 1 over the number of rows that count, and 0 for those that do not.


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


def explained_variance(value: Tensor, target: Tensor) -> float:
    """1 less the share of the targets' variance that the values leave; 0 where there is none."""
    if len(target) < 2:
        return 0.0
    total = float(target.double().var())
    return 1 - float((target - value).double().var()) / total if total > 0 else 0.0


def adapted_rate(rate: float, kl: float, settings: PPOSettings) -> float:
    """The learning rate after an epoch with this divergence: see `PPOSettings.target_kl`."""
    if settings.target_kl is None:
        return rate
    if kl > 2 * settings.target_kl:
        rate /= 1.5
    elif kl < settings.target_kl / 2:
        rate *= 1.5
    return min(max(rate, settings.min_learning_rate), settings.max_learning_rate)


# Of language models: what is minimised for each token, [M], before anything is added up. `log_ratio` is the
# log-probability now less the learner's own before the update.

_LARGEST = 20.0
"""Log ratios are clamped to +-20 before they are exponentiated: the greatest ratio is 4.9e8, and never infinite."""


def ratio(log_ratio: Tensor) -> Tensor:
    """Its exponential, without overflow."""
    return log_ratio.clamp(-_LARGEST, _LARGEST).exp()


def clipped_terms(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A).

    PPO's with low = high (arXiv 1707.06347, equation 7), DAPO's with a greater high (arXiv 2503.14476, equation 8),
    GSPO's if r is that of a whole reply (arXiv 2507.18071, equation 5).
    """
    return -(ratio * advantage).minimum(ratio.clamp(1 - low, 1 + high) * advantage)


def capped_terms(terms: Tensor, advantage: Tensor, cap: float) -> Tensor:
    """`clipped_terms` of bad tokens kept at or below -cap A, cap > 1: dual clip (arXiv 1912.09729, equation 5)."""
    return terms.where(advantage >= 0, terms.minimum(-cap * advantage))


def weighted_terms(log_ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """-sg(clip(r, 1 - low, 1 + high)) A log r: CISPO (arXiv 2506.13585, equation 4).

    The paper has log pi for log r. What they differ by does not depend on the weights.
    """
    return -ratio(log_ratio).clamp(1 - low, 1 + high).detach() * advantage * log_ratio


def reply_log_ratios(log_ratio: Tensor, replies: Tensor) -> Tensor:
    """The mean over each reply's tokens, [M]: log of the geometric mean (GSPO, arXiv 2507.18071, equation 7).

    Args:
        log_ratio: [M].
        replies: The reply that a token is of, a number from 0, int64 [M].
    """
    count = int(replies.max()) + 1 if len(replies) else 0
    totals = log_ratio.new_zeros(count).index_add(0, replies, log_ratio)
    return (totals / replies.bincount(minlength=count).clamp(min=1).to(log_ratio))[replies]
