"""Attention over the tiles of a mask that hold anything, with a low-rank bias and a log-sum-exp that has a gradient."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coterie.attention.blocks import TileLists
from coterie.attention.dispatch import Backend
from coterie.attention.kernels.tile_torch import Terms
from coterie.attention.naive import share_heads


def tile_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: TileLists,
    *,
    scale: float,
    factors: tuple[Tensor, Tensor] | None = None,
    backend: Backend = "cpu",
) -> tuple[Tensor, Tensor]:
    """Softmax attention; differentiable in every floating-point tensor, by o and by lse.

        s_ij = scale q_i.k_j + u_i.w_j    p_i = softmax over the allowed j    o_i = sum_j p_ij v_j

    Gradients are sums in a fixed order: the same inputs give the same bits. A query that may attend to nothing gets
    zeros, lse = -inf and zero gradients; keys and queries without any allowed pair are not read.

    Args:
        q: [B, Hq, N, D].
        k: [B, Hk, M, D]; Hk divides Hq.
        v: [B, Hk, M, Dv].
        tiles: Which pairs are allowed.
        scale: Factor of q.k.
        factors: u [B, Hq, N, R] and w [B, Hq, M, R], float32 or float64.
        backend: "cpu" for the form in torch, or "triton".

    Returns:
        o [B, Hq, N, Dv] in the dtype of v, and lse [B, Hq, N] in float32 (float64 for float64).
    """
    if tiles.heads % k.shape[1] and k.shape[1] % tiles.heads:
        k, v = (share_heads(x, q.shape[1]) for x in (k, v))  # A list's heads would begin amid those of a key head.
    if scale <= 0:
        q, scale = q * scale, 1.0  # The form in Triton looks for the largest score among q.k.
    # A weight of zero times the NaN of some padding would be NaN.
    if tiles.unread is not None:
        k, v = (x.masked_fill(tiles.unread[:, None, :, None], 0) for x in (k, v))
    if tiles.idle is not None:
        q = q.masked_fill(tiles.idle[:, None, :, None], 0)
    form = importlib.import_module(f"coterie.attention.kernels.tile_{'torch' if backend == 'cpu' else backend}")
    result: tuple[Tensor, Tensor] = _Tile.apply(  # type: ignore[no-untyped-call]
        q, k, v, *(factors or (None, None)), scale, tiles, form
    )
    return result


class _Tile(torch.autograd.Function):
    """A form and its backward pass."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        q, k, v, u, w, ctx.scale, ctx.tiles, ctx.form = inputs
        o, lse = ctx.form.forward(Terms(q, k, u, w, ctx.scale), v, ctx.tiles)
        ctx.save_for_backward(q, k, v, u, w, o, lse)
        return o, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, u, w, o, lse = ctx.saved_tensors
        terms, learns = Terms(q, k, u, w, ctx.scale), any(ctx.needs_input_grad[3:5])
        found = ctx.form.backward(terms, v, ctx.tiles, o, lse, grad_o, grad_lse, learns)
        return found.q, found.k, found.v, found.u, found.w, None, None, None
