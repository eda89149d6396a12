"""Biases of the logits as products of a few factors (FlashBias): u_i.w_j instead of a number for each pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.data import Data
from coterie.attention.mechanisms.base import About, Context, Declaration, visible
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec, widened

_SOURCE = "FlashBias: Fast Computation of Attention with Bias (arXiv 2505.12044)"


def alibi_slopes(heads: int) -> list[float]:
    """Powers of 2^(-8/heads), as ALiBi has them where the number of heads is a power of two."""
    return [2 ** (-8 * (h + 1) / heads) for h in range(heads)]


@dataclass(frozen=True, slots=True)
class Alibi(Declaration):
    """ALiBi with two factors of rank 2."""

    about: ClassVar[About] = About(
        name="alibi",
        title="a penalty linear in the distance back, as factors of rank 2",
        formula="s_ij = q_i.k_j / sqrt(d) - m_h (i - j),  j <= i;  u_i = (-m_h i, m_h), w_j = (1, j)",
        source="Train Short, Test Long (arXiv 2108.12409); " + _SOURCE,
        cost="O(N^2 (d + 2)), O(N) memory for the bias",
    )

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        at = torch.arange(q.shape[2], device=q.device, dtype=widened(q).dtype)
        slopes = at.new_tensor(alibi_slopes(q.shape[1]))[:, None]
        u = torch.stack([-slopes * at, slopes.expand(-1, len(at))], -1)
        w = torch.stack([torch.ones_like(at), at], -1)
        return Spec(rank=2), replace(context.data, query_factors=u, key_factors=w)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        slopes = torch.tensor(alibi_slopes(q.shape[1]), dtype=q.dtype, device=q.device)
        bias = -slopes[:, None, None] * (at[:, None] - at)
        return naive_attention(q, k, v, allowed=visible(q, context), bias=bias)[0]

    def pairs(self, tokens: int) -> int:
        return tokens**2
