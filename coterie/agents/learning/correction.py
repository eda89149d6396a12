"""What makes up for that an engine samples with other numbers than the learner computes.

With w = pi_learner / pi_engine of a token, before the update, the loss of each token is multiplied by a bounded form
of w: min(w, C) (truncated importance sampling, TIS), or w where it is within bounds and nothing elsewhere (masked
importance sampling, MIS; IcePop). Of whole replies it is the product of w, which is unbiased but varies much, and gets
smaller the longer a reply is; or their geometric mean, which does not. No weight has a gradient.
Sources: decoupled PPO (Hilton et al. 2021, arXiv 2110.00641, equation 2); TIS (arXiv 1802.01561, equation 1, and for
engines Yao et al. 2025); IcePop (Ling team 2025).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from coterie.agents.learning.llm_settings import CorrectionKind, CorrectionSettings
from coterie.agents.learning.losses import ratio, reply_log_ratios


class Correction(NamedTuple):
    """What a token's loss is multiplied by, [M], and whether it counts at all, bool [M]."""

    weight: Tensor
    counts: Tensor


def correct(old: Tensor, engine: Tensor, replies: Tensor, settings: CorrectionSettings | None) -> Correction:
    """The weights of tokens, without gradient.

    Args:
        old: Log-probability in the learner before the update, [M].
        engine: In the engine that sampled, [M].
        replies: The reply that a token is of, a number from 0, int64 [M].
        settings: None: all weights are 1.
    """
    log_weight = (old - engine).detach()
    if settings is None:
        return Correction(torch.ones_like(log_weight), torch.ones_like(log_weight, dtype=torch.bool))
    weight = ratio(statistic(log_weight, replies, settings.kind))
    low = 0.0 if settings.low is None else settings.low
    counts = torch.ones_like(weight, dtype=torch.bool)
    if settings.mask:
        counts = (weight >= low) & (weight <= settings.high)
    if settings.veto is not None:
        counts = counts & ~vetoed(log_weight, replies, settings.veto)
    return Correction(weight.clamp(low, settings.high) * counts, counts)


def statistic(log_weight: Tensor, replies: Tensor, kind: CorrectionKind) -> Tensor:
    """Log of what is bounded, at each token, [M]: its own weight, or the product or geometric mean of its reply's."""
    if kind == "token":
        return log_weight
    mean = reply_log_ratios(log_weight, replies)
    return mean if kind == "geometric" else mean * replies.bincount()[replies]


def vetoed(log_weight: Tensor, replies: Tensor, least: float) -> Tensor:
    """Whether any token of the same reply has a weight below `least`, bool [M]."""
    below = ratio(log_weight) < least
    count = int(replies.max()) + 1 if len(replies) else 0
    return replies.new_zeros(count).index_add(0, replies, below.long())[replies] > 0


def mismatch(old: Tensor, engine: Tensor) -> dict[str, float]:
    """How far engine and learner are apart: what to watch.

    `mismatch_kl` is KL(engine, learner), mean of w - 1 - log w: about 1e-4 to 1e-3 where only rounding differs.
    `mismatch_geometric` is exp(mean log w), near 1. `mismatch_max` is the greatest |log w|.
    """
    if not len(old):
        return {"mismatch_kl": 0.0, "mismatch_geometric": 1.0, "mismatch_max": 0.0}
    log_weight = (old - engine).detach().double()
    return {
        "mismatch_kl": float((ratio(log_weight) - 1 - log_weight).mean()),
        "mismatch_geometric": float(log_weight.mean().exp()),
        "mismatch_max": float(log_weight.abs().max()),
    }
