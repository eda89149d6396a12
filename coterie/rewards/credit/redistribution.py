"""Shares of a reply's advantage by the attention that its tokens receive (ABC, arXiv 2402.00782)."""

from __future__ import annotations

import numpy as np

from coterie.rewards.credit.token import Floats


def abc_shares(received: Floats, beta: float) -> Floats:
    """The shares beta a_t + (1 - beta) 1[t = T], [T], which sum to one; a is `received`, made to sum to one.

    Source: arXiv 2402.00782, the per-token reward by the reply's, there with beta in [0, 1]. Attention that is 0
    everywhere counts as equal.
    """
    total = received.sum()
    even = np.full(len(received), 1 / max(len(received), 1))
    shares = beta * (received / total if total > 0 else even)
    shares[-1:] += 1 - beta
    return shares


def to_go(shares: Floats) -> Floats:
    """The sum of the shares from each token on, [T]: what a token is worth if shares are rewards, discount 1."""
    return np.minimum(np.cumsum(shares[::-1])[::-1], 1.0)
