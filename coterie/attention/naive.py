"""The oracle: the formula of the attention core in plain torch, with every pair of query and key in memory.

Queries i, keys j, and m(h) the key head that query head h reads:

    s_ij = a q_i.k_m(j) + b_ij      p_i = softmax over allowed j (and a sink)      o_i = g_i * sum_j p_ij v_m(j)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def naive_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None = None,
    bias: Tensor | None = None,
    head_map: Sequence[int] | Tensor | None = None,
    scale: float | Tensor | None = None,
    sink: Tensor | None = None,
    gate: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention with dense masks and biases; differentiable in every floating-point argument.

    It computes in float64 where q, k or v is, else in float32, under autocast too. A query that may attend to nothing
    gets zeros, zero gradients, and lse = -inf (its sink, where there is one).

    Args:
        q: [..., Hq, N, D].
        k: [..., Hk, M, D].
        v: [..., Hk, M, Dv].
        allowed: Bool, broadcastable to [..., Hq, N, M]; all by default.
        bias: Added to the logits; finite, broadcastable to [..., Hq, N, M].
        head_map: The key head of each query head; by default consecutive query heads share one (grouped-query
            attention, arXiv 2305.13245).
        scale: Factor of q.k, 1/sqrt(D) by default; a tensor broadcasts to [..., Hq, N, M].
        sink: [Hq], the logit of a key that has no value.
        gate: Factor of the output, broadcastable to [..., Hq, N, Dv].

    Returns:
        The output [..., Hq, N, Dv] in the dtype of v, and the log of each softmax's denominator [..., Hq, N].
    """
    with torch.autocast(q.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.promote_types(v.dtype, torch.float32))
        keys, values = (share_heads(x.to(dtype), q.shape[-3], head_map) for x in (k, v))
        logits = (q.to(dtype) @ keys.mT) * (q.shape[-1] ** -0.5 if scale is None else scale)
        if bias is not None:
            logits = logits + bias.to(dtype)
        if allowed is None:
            allowed = torch.ones(1, k.shape[-2], dtype=torch.bool, device=q.device)
        # An empty row attends to everything, and that is thrown away: no infinity is subtracted from another.
        empty = ~allowed.any(-1, keepdim=True)
        logits = logits.masked_fill(~(allowed | empty), -torch.inf)
        weights, total = logits.softmax(-1), logits.logsumexp(-1, keepdim=True)
        lse = total.masked_fill(empty, -torch.inf)
        if sink is not None:
            logit = sink.to(dtype)[:, None, None]
            weights, lse = weights * torch.sigmoid(total - logit), torch.logaddexp(lse, logit)
        o = weights.masked_fill(empty, 0) @ values
        return (o if gate is None else o * gate.to(dtype)).to(v.dtype), lse.squeeze(-1)


def share_heads(x: Tensor, heads: int, head_map: Sequence[int] | Tensor | None = None) -> Tensor:
    """Keys or values [..., Hk, M, D] as each of `heads` query heads reads them: [..., Hq, M, D]."""
    if head_map is None:
        return x if x.shape[-3] == heads else x.repeat_interleave(heads // x.shape[-3], -3)
    return x.index_select(-3, torch.as_tensor(head_map, device=x.device))
