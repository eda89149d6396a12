"""Linear attention in plain PyTorch, a chunk of tokens after the other: memory linear in the tokens, and no map.

With S the state before a chunk of C tokens, d the decay, i and j from 0 in the chunk:

    o_i = sum_{j<=i} d^(i-j) (q_i.k_j) v_j + d^(i+1) q_i S        S' = d^C S + sum_j d^(C-1-j) k_j v_j^T

The backward pass walks from the last chunk to the first with the gradient of the state, and makes each chunk's map
again. Chunks fit into a core's own cache. Source: Lightning Attention-2 (arXiv 2401.04658); retention has the same
chunks (arXiv 2307.08621).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def chunked_scan(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, run: Tensor | None, state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Causal linear attention, forward and backward; differentiable once in every floating-point tensor.

    Args:
        q: [B, H, N, D].
        k: [B, H, N, D].
        v: [B, H, N, Dv].
        log_decay: [H], logarithm of what a state is multiplied by at each token.
        run: [B or 1, N], equal where consecutive tokens are of one segment; None: all are.
        state: [B, H, D, Dv] before the first token, for its segment. Its dtype is computed in.
        chunk: Tokens in a chunk.

    Returns:
        The output [B, H, N, Dv] in the dtype of v, and the state behind the last token.
    """
    return _Scan.apply(q, k, v, log_decay, run, state, chunk)  # type: ignore[no-any-return, no-untyped-call]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, run: Tensor | None, state: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor]:
        o, states = torch.empty_like(v), [state]
        with torch.autocast(q.device.type, enabled=False):
            for at, weights in _chunks(log_decay, run, q.shape[2], chunk):
                queries, keys, values = (x[:, :, at].to(state.dtype) for x in (q, k, v))
                map_ = (queries @ keys.mT).mul_(weights.inner)
                o[:, :, at] = (map_ @ values).add_((queries * weights.into) @ states[-1])
                states.append(((keys * weights.out).mT @ values).add_(weights.over * states[-1]))
        ctx.save_for_backward(q, k, v, log_decay, run, *states[:-1])
        ctx.chunk = chunk
        return o, states[-1] if q.shape[2] else state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, log_decay, run, *states = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (q, k, v)]
        grad_decay = torch.zeros_like(log_decay) if ctx.needs_input_grad[3] else None
        with torch.autocast(q.device.type, enabled=False):
            chunks = list(_chunks(log_decay, run, q.shape[2], ctx.chunk))
            for (at, weights), state in zip(reversed(chunks), reversed(states), strict=True):
                queries, keys, values, upstream = (x[:, :, at].to(grad_state.dtype) for x in (q, k, v, grad_o))
                products = queries @ keys.mT
                map_, grad_map = products * weights.inner, (upstream @ values.mT).mul_(weights.inner)
                into, out = (upstream @ state.mT).mul_(weights.into), (values @ grad_state.mT).mul_(weights.out)
                if grad_decay is not None:
                    carried = weights.over * state * grad_state
                    grad_decay += _times_distance(grad_map * products, into * queries, out * keys, carried)
                grads[2][:, :, at] = (map_.mT @ upstream).add_((keys * weights.out) @ grad_state)
                grads[1][:, :, at] = out.add_(grad_map.mT @ queries)
                grads[0][:, :, at] = into.add_(grad_map @ keys)
                grad_state = ((queries * weights.into).mT @ upstream).add_(weights.over * grad_state)
        return *grads, grad_decay, None, grad_state, None


class _Weights(NamedTuple):
    """What the terms of a chunk are multiplied by; each broadcasts to four dimensions."""

    inner: Tensor
    """[C, C], of the key in the output of the query."""
    into: Tensor
    """[C, 1], of the state before in the output of the query."""
    out: Tensor
    """[C, 1], of the key in the state behind."""
    over: Tensor
    """[1, 1], of the state before in the state behind."""


def _chunks(log_decay: Tensor, run: Tensor | None, tokens: int, chunk: int) -> Iterator[tuple[slice, _Weights]]:
    weights = _weights(log_decay, chunk)
    for start in range(0, tokens, chunk):
        size = min(chunk, tokens - start)
        weights = weights if size == chunk else _weights(log_decay, size)
        at = slice(start, start + size)
        yield at, weights if run is None else _within_runs(weights, run, at)


def _weights(log_decay: Tensor, size: int) -> _Weights:
    rate, place = log_decay[:, None, None], torch.arange(size, device=log_decay.device)
    inner = (rate * (place[:, None] - place).clamp(min=0)).exp().tril()
    into, out = (rate * (place[:, None] + 1)).exp(), (rate * place.flip(0)[:, None]).exp()
    return _Weights(inner, into, out, into[:, -1:])


def _within_runs(weights: _Weights, run: Tensor, at: slice) -> _Weights:
    own = run[:, at]
    first, last = run[:, max(at.start - 1, 0), None], own[:, -1:]
    into, out = ((own == other)[:, None, :, None] for other in (first, last))
    return _Weights(
        weights.inner * (own[:, :, None] == own[:, None])[:, None],
        weights.into * into,
        weights.out * out,
        weights.over * (first == last)[:, None, None],
    )


def _times_distance(inner: Tensor, into: Tensor, out: Tensor, over: Tensor) -> Tensor:
    """Sum by head of what the weights of a chunk multiply, each term times the tokens it decayed for."""
    size = inner.shape[-1]
    place = torch.arange(size, device=inner.device, dtype=inner.dtype)[:, None]
    terms = (inner * (place - place.mT), into * (place + 1), out * place.flip(0), size * over)
    return torch.stack([term.sum((0, 2, 3)) for term in terms]).sum(0)
