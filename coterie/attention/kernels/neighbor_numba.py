"""`neighbor` for the CPU: numba, on all threads that torch may use.

Kernels work on a range of rows and let go of the interpreter lock; ranges depend on shapes alone, so that results do
not depend on the number of threads.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from coterie.attention.kernels.neighbor_numba_kernels import (
    backward_keys_kernel,
    backward_rows_kernel,
    count_and_place,
    forward_kernel,
)
from coterie.attention.kernels.neighbor_torch import Gradients, Inverse, Scores

_CHUNK_EDGES = 1 << 16


def invert(index: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """What `topology.Inverse` holds, in linear time: offsets [M + 1] int64, edges [A * K] int32."""
    offsets = torch.zeros(num_keys + 2, dtype=torch.int64)
    edges = torch.empty(index.numel(), dtype=torch.int32)
    count_and_place(index.flatten().numpy(), offsets.numpy(), edges.numpy())
    return offsets[: num_keys + 1], edges


def forward(scores: Scores, v: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """As `neighbor_torch.attend`, not differentiable."""
    work = torch.promote_types(v.dtype, torch.float32)
    o = torch.empty(index.shape[0], scores.num_heads, v.shape[2], dtype=work)
    lse = torch.empty(o.shape[:2], dtype=work)
    q, k, distance, slope, bias, values = (_array(x, work) for x in (*scores[:5], v))
    arguments = q, k, values, index.numpy(), distance, slope, bias, lse.numpy().dtype.type(scores.scale)
    _run(forward_kernel(v.shape[2]), _row_ranges(index, scores.num_heads), *arguments, o.numpy(), lse.numpy())
    return o.to(v.dtype), lse


def backward(
    scores: Scores, v: Tensor, index: Tensor, inverse: Inverse, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor
) -> Gradients:
    """Gradients, each in the dtype of its tensor.

    Args:
        scores: As in the forward pass, like `v` and `index`.
        v: [M, Hk, D].
        index: [A, K].
        inverse: Of the topology of which `index` is a part or the whole.
        o: What the forward pass returned, like `lse`.
        lse: [A, H].
        grad_o: [A, H, D].
        grad_lse: [A, H].
    """
    work, heads = torch.promote_types(v.dtype, torch.float32), scores.num_heads
    ranges = _row_ranges(index, heads)
    q, k, distance, slope, bias, values, out = (_array(x, work) for x in (*scores[:5], v, grad_o))
    scale, offsets = lse.numpy().dtype.type(scores.scale), inverse.offsets
    grad_q, grad_k = (None if x is None else torch.empty(x.shape, dtype=work) for x in (scores.q, scores.k))
    grad_distance = None if distance is None else torch.zeros(index.shape, dtype=work)
    grad_slope = None if slope is None else torch.zeros(len(ranges), heads, dtype=torch.float64)
    grad_v = torch.empty(v.shape, dtype=work)
    edges = torch.empty(index.numel(), heads, 2, dtype=work)
    wanted = (None if x is None else x.numpy() for x in (grad_q, grad_distance, grad_slope))
    _run(backward_rows_kernel(v.shape[2]), ranges, ranges[0][1], q, k, values, index.numpy(), distance, slope, bias,
         scale, _array(o, work), lse.numpy(), out, _array(grad_lse, work), *wanted, edges.numpy())  # fmt: skip
    _run(backward_keys_kernel(v.shape[2]), _key_ranges(offsets, heads), q, out, edges.numpy(), offsets.numpy(),
         inverse.edges.numpy(), index.shape[1], scale, _array(grad_k, work), grad_v.numpy())  # fmt: skip
    grad_bias = None if bias is None else edges[:, :, 1].reshape(*index.shape, heads)
    grad_slope = None if grad_slope is None else grad_slope.sum(0)
    found = grad_q, grad_k, grad_v, grad_distance, grad_slope, grad_bias
    of = scores.q, scores.k, v, scores.distance, scores.slope, scores.bias
    return Gradients(*(x if x is None or y is None else x.to(y.dtype) for x, y in zip(found, of, strict=True)))  # type: ignore[arg-type]


def _array(tensor: Tensor | None, dtype: torch.dtype) -> Any:
    return None if tensor is None else tensor.detach().to(dtype).contiguous().numpy()


def _row_ranges(index: Tensor, heads: int) -> list[tuple[int, int]]:
    size = max(1, _CHUNK_EDGES // (index.shape[1] * heads))
    return [(low, min(low + size, index.shape[0])) for low in range(0, index.shape[0], size)]


def _key_ranges(offsets: Tensor, heads: int) -> list[tuple[int, int]]:
    """Ranges of keys with about as many incoming edges each: some keys may have nearly all."""
    num_keys, first, last = len(offsets) - 1, int(offsets[0]), int(offsets[-1])
    cuts = torch.searchsorted(offsets, torch.arange(first, last, max(1, _CHUNK_EDGES // heads))[1:]).tolist()
    bounds = sorted({0, *cuts, num_keys})
    return list(zip(bounds, bounds[1:], strict=False))


def _run(kernel: Any, ranges: list[tuple[int, int]], *arguments: Any) -> None:
    threads = torch.get_num_threads()
    if threads == 1 or len(ranges) < 2:
        for low, high in ranges:
            kernel(low, high, *arguments)
    else:
        list(_pool(os.getpid(), threads).map(lambda rows: kernel(*rows, *arguments), ranges))


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a fork has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="neighbor")
