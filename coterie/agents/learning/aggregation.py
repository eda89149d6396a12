"""How the losses of tokens become one number: a weight for each token, from counts over the whole optimiser batch.

With weights that know the whole batch, what micro-batches and ranks compute just adds up. l_it is the loss of token t
of reply i, T_i the reply's length, B the number of replies, N of tokens; only tokens that count are counted, and a
reply without any is no reply.

    token_mean                sum l_it / N               DAPO (arXiv 2503.14476, equation 8)
    seq_mean_token_mean       sum l_it / (B T_i)         GRPO (arXiv 2402.03300, equation 3)
    seq_mean_token_sum        sum l_it / B               REINFORCE (Williams 1992)
    seq_mean_token_sum_norm   sum l_it / (B L)           Dr. GRPO (arXiv 2503.20783, section 3.2), L a constant
"""

from __future__ import annotations

import torch
from torch import Tensor

from coterie.agents.learning.llm_settings import Aggregation


def token_weights(
    replies: Tensor, roles: Tensor, counts: Tensor, mode: Aggregation, norm_length: int, equal_roles: bool
) -> Tensor:
    """What each token's loss is multiplied by before all are added, float64 [M]; 0 for those that do not count.

    Args:
        replies: The reply that a token is of, a number from 0, int64 [M].
        roles: Its role, likewise, int64 [M].
        counts: Whether it counts, bool [M].
        mode: See above.
        norm_length: L.
        equal_roles: Each role has its own N and B, and the mean over roles is taken; otherwise all are one.
    """
    chosen = counts.nonzero()[:, 0]
    weight = torch.zeros(len(replies), dtype=torch.float64)
    if not len(chosen):
        return weight
    replies, roles = replies[chosen], roles[chosen] if equal_roles else torch.zeros_like(chosen)
    length = replies.bincount()
    speaks = torch.zeros_like(length).index_put((replies,), roles)  # the role of each reply
    num_tokens = roles.bincount().double()
    num_replies = speaks[length > 0].bincount(minlength=len(num_tokens)).double()
    if mode == "token_mean":
        share = 1 / num_tokens[roles]
    elif mode == "seq_mean_token_mean":
        share = 1 / (num_replies[roles] * length[replies])
    elif mode == "seq_mean_token_sum":
        share = 1 / num_replies[roles]
    else:
        share = 1 / (num_replies[roles] * norm_length)
    weight[chosen] = share / int((num_tokens > 0).sum())
    return weight
