"""The losses that can be named: what is minimised for each token of a language model. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coterie.agents.learning import losses

if TYPE_CHECKING:
    from torch import Tensor


class TokenLoss(Protocol):
    """A loss: frozen data, registered under the kind `loss` with fields named as those of its config."""

    def terms(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        """What each token adds, before aggregation, [M].

        Args:
            log_ratio: Log-probability of each token now, less what it was before the update, [M].
            advantage: [M].
            replies: The reply that a token is of, a number from 0, int64 [M]; all its tokens that count are there.
        """
        ...

    def clipped(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        """Of which tokens the ratio was cut, bool [M]."""
        ...


def _pushed_out(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return ((ratio > 1 + high) & (advantage > 0)) | ((ratio < 1 - low) & (advantage < 0))


@dataclass(frozen=True, slots=True)
class PPOLoss:
    """The clipped surrogate, token by token.

    Attributes:
        clip_low: How far a ratio may fall below 1.
        clip_high: How far it may rise above 1; 0.28 with 0.2 is DAPO's.
        dual_clip: A bad token adds no more than this times its advantage; None: no limit.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = 3.0

    def terms(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        found = losses.clipped_terms(losses.ratio(log_ratio), advantage, self.clip_low, self.clip_high)
        return found if self.dual_clip is None else losses.capped_terms(found, advantage, self.dual_clip)

    def clipped(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        ratio = losses.ratio(log_ratio)
        out = _pushed_out(ratio, advantage, self.clip_low, self.clip_high)
        return out if self.dual_clip is None else out | ((ratio > self.dual_clip) & (advantage < 0))


@dataclass(frozen=True, slots=True)
class GSPOLoss:
    """The clipped surrogate with one ratio per reply, the geometric mean of its tokens'.

    Attributes:
        clip_low: How far the ratio may fall below 1.
        clip_high: How far it may rise above 1.
    """

    clip_low: float = 3e-4
    clip_high: float = 4e-4

    def terms(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        ratio = losses.ratio(losses.reply_log_ratios(log_ratio, replies))
        return losses.clipped_terms(ratio, advantage, self.clip_low, self.clip_high)

    def clipped(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        ratio = losses.ratio(losses.reply_log_ratios(log_ratio, replies))
        return _pushed_out(ratio, advantage, self.clip_low, self.clip_high)


@dataclass(frozen=True, slots=True)
class CISPOLoss:
    """Log-probabilities weighted by their clipped ratio: every token keeps a gradient.

    Attributes:
        clip_low: How far the weight may fall below 1; 1 is no limit.
        clip_high: How far it may rise above 1.
    """

    clip_low: float = 1.0
    clip_high: float = 4.0

    def terms(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        return losses.weighted_terms(log_ratio, advantage, self.clip_low, self.clip_high)

    def clipped(self, log_ratio: Tensor, advantage: Tensor, replies: Tensor) -> Tensor:
        ratio = losses.ratio(log_ratio)
        return (ratio > 1 + self.clip_high) | (ratio < 1 - self.clip_low)
