"""The formula through PyTorch's `scaled_dot_product_attention`, with masks and biases in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, *, allowed: Tensor | None, bias: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """Attention in the dtype of q, under autocast too. Queries that may attend to nothing get zeros, and no gradient.

    Args:
        q: [B, Hq, N, D].
        k: [B, Hk, M, D], consecutive query heads share one key head.
        v: [B, Hk, M, Dv].
        allowed: Bool, broadcastable to [B, Hq, N, M]; None: all.
        bias: Added to the logits, broadcastable to [B, Hq, N, M].
        causal: Whether query i sees keys 0..i alone; only without `allowed` and `bias`.
        scale: Factor of q.k; None: 1/sqrt(D).

    Returns:
        The output [B, Hq, N, Dv].
    """
    mask, empty = allowed, None
    if allowed is not None:
        # An empty row attends to everything, and that is thrown away: backends differ in what they make of such rows.
        empty = ~allowed.any(-1, keepdim=True)
        mask = allowed | empty
    if bias is not None:
        bias = bias.to(q.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    with torch.autocast(q.device.type, enabled=False):
        o = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
    return o if empty is None else o.masked_fill(empty, 0)
