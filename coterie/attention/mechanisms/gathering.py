"""Tokens picked by index, for mechanisms whose queries see few of them."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Tokens [B, H, M, D] of x [B, H, N, D], by index [B, H, M].

    It copies whole rows; `torch.gather` would look up each number, and takes several times as long on a CPU.
    """
    batch, heads, n, width = x.shape
    start = torch.arange(batch * heads, device=x.device).view(batch, heads, 1) * n
    return x.reshape(-1, width).index_select(0, (index + start).flatten()).view(batch, heads, -1, width)
