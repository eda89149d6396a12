"""How far a policy is from its reference, estimated from tokens that the policy sampled (Schulman 2020).

With x = log pi - log pi_ref: k1 has the right mean as a number, but as a loss an expected gradient of zero, so it
belongs into the reward; k2's gradient is that of KL(pi, pi_ref), so it belongs into the loss; k3 is a number of the
right mean, never below zero and of little variance, whose gradient is that of KL(pi_ref, pi) to first order.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie.agents.learning.llm_settings import Estimator

_LARGEST_LOG_RATIO = 20.0
_LARGEST_K3 = 10.0


def estimate(log_prob: Tensor, reference: Tensor, estimator: Estimator) -> Tensor:
    """The divergence at each token, [M].

    Args:
        log_prob: Under the policy, [M].
        reference: Under the reference, [M].
        estimator: k1 is x, k2 is x^2 / 2, k3 is exp(-x) - 1 + x, at most 10. x is clamped to
            +-20, beyond which a loss has no gradient.
    """
    x = (log_prob - reference).clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    if estimator == "k1":
        return x
    if estimator == "k2":
        return 0.5 * x.square()
    return ((-x).expm1() + x).clamp(max=_LARGEST_K3)


def penalties(
    log_prob: NDArray[np.float32], reference: NDArray[np.float32], weight: float, estimator: Estimator
) -> tuple[float, ...]:
    """What each token of a reply loses of its reward, [T]: beta times the estimate."""
    found = estimate(torch.from_numpy(log_prob), torch.from_numpy(reference), estimator)
    return tuple((weight * found.double()).tolist())
