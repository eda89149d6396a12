"""`neighbor` for the GPU, in Triton: what is launched, and on which tiles."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from coterie.attention.kernels.neighbor_kernels import backward_keys_kernel, backward_rows_kernel, forward_kernel
from coterie.attention.kernels.neighbor_torch import Gradients, Inverse, Scores

LAUNCH = {"num_warps": 1}


def blocks(kernel: Any, width: int, slots: int, size: int) -> dict[str, int]:
    """ROWS, EDGES and COLUMNS of a kernel's tile, for rows of D numbers of so many bytes, and K edges each.

    ROWS are as many as 32 lanes load in one go. The forward pass sees 16 edges at once, which a program has registers
    for; backward there are more sums, and fewer edges leave room for more programs. Wider rows take more than one go;
    rows of halves that do not begin at multiples of 16 bytes are loaded in small pieces, each of which wants registers.
    """
    columns = triton.next_power_of_2(max(width, 4))
    lanes = 32 * 16 // size
    most = 16 if kernel is forward_kernel else 8 if kernel is backward_rows_kernel and size == 2 else 4
    most = most // 4 if size == 2 and width % 8 else most
    edges = min(max(1, most * lanes // max(lanes, columns)), triton.next_power_of_2(slots))
    return {"ROWS": max(1, min(32, lanes // columns)), "EDGES": edges, "COLUMNS": columns}


@functools.lru_cache(maxsize=1024)
def _constants(
    kernel: Any, dtype: torch.dtype, width: int, slots: int, heads: int, key_heads: int, has_empty: bool,
    has_dot: bool, has_distance: bool, has_bias: bool,
) -> dict[str, Any]:  # fmt: skip
    """A kernel's constants, by name."""
    tile = blocks(kernel, width, slots, dtype.itemsize)
    found = {"K": slots, "D": width, "HEADS": heads, "KEY_HEADS": key_heads, "HAS_DOT": has_dot, **tile,
             "PAIRED": dtype == torch.bfloat16 and width % 2 == 0}  # fmt: skip
    if kernel is backward_keys_kernel:
        return {**found, "HAS_EMPTY": has_empty}
    has_empty = has_empty or slots % tile["EDGES"] != 0  # slots behind the last are like empty ones
    # Loads of several tiles are under way together where that does not take too many registers.
    is_lean = not has_empty and width * dtype.itemsize % 16 == 0
    unroll = min(4, slots // tile["EDGES"]) if is_lean else 1
    return {**found, "HAS_DISTANCE": has_distance, "HAS_BIAS": has_bias, "HAS_EMPTY": has_empty, "UNROLL": unroll}


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def signatures(
    dtype: str, width: int, slots: int, *, heads: int = 1, key_heads: int = 1, has_bias: bool = False,
    has_empty: bool = False,
) -> dict[str, tuple[Any, dict[str, str], dict[str, Any]]]:  # fmt: skip
    """Kernel, types and constants of each kernel of a call with q.k and distances, for `compilation`."""
    types = {"index": "*i32", "incoming": "*i32", "offsets": "*i64", "weights": "*i64", "num_queries": "i32",
             "num_keys": "i32", "scale": "fp32"}  # fmt: skip
    types |= dict.fromkeys(["q", "k", "v", "o", "grad_o", "grad_q", "grad_k", "grad_v"], f"*{dtype}")
    types |= dict.fromkeys(["distance", "slope", "lse", "grad_lse", "grad_slope"] + ["bias"] * has_bias, "*fp32")
    kernels = {
        "neighbor forward": forward_kernel,
        "neighbor backward by query": backward_rows_kernel,
        "neighbor backward by key": backward_keys_kernel,
    }
    found: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {}
    for name, kernel in kernels.items():
        mine = {argument: types[argument] for argument in kernel.arg_names if argument in types}
        constants = _constants(kernel, _DTYPES[dtype], width, slots, heads, key_heads, has_empty, True, True, has_bias)
        found[name] = kernel, mine, {a: constants.get(a) for a in kernel.arg_names if a not in mine}
    return found


def forward(scores: Scores, v: Tensor, index: Tensor, *, has_empty: bool) -> tuple[Tensor, Tensor]:
    """As `neighbor_torch.attend`, not differentiable.

    Args:
        scores: The logits.
        v: [M, Hk, D].
        index: [A, K].
        has_empty: Whether some slot of `index` may be empty. Nobody looks whether one is.
    """
    q, k, distance, slope, bias = (_dense(x) for x in scores[:5])
    v, heads = _dense(v), scores.num_heads
    o = torch.empty(index.shape[0], heads, v.shape[2], dtype=v.dtype, device=v.device)
    lse = torch.empty(o.shape[:2], dtype=torch.float32, device=v.device)
    flags = _flags(forward_kernel, scores, v, index, has_empty)
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        forward_kernel[_grid(index.shape[0], heads, flags)](
            q, k, v, index, distance, slope, bias, o, lse, index.shape[0], scores.scale, **flags, **LAUNCH
        )
    return o, lse


def backward(
    scores: Scores, v: Tensor, index: Tensor, inverse: Inverse, o: Tensor, lse: Tensor, grad_o: Tensor,
    grad_lse: Tensor, *, has_empty: bool,
) -> Gradients:  # fmt: skip
    """As `neighbor_numba.backward`, with `has_empty` as in the forward pass."""
    q, k, distance, slope, bias = (_dense(x) for x in scores[:5])
    v, grad_o, grad_lse, heads = _dense(v), _dense(grad_o), _dense(grad_lse), scores.num_heads
    by_query, by_key = (
        _flags(kernel, scores, v, index, has_empty) for kernel in (backward_rows_kernel, backward_keys_kernel)
    )
    grad_q, grad_k = (None if x is None else torch.empty_like(x) for x in (q, k))
    grad_v, grid = torch.empty_like(v), _grid(index.shape[0], heads, by_query)
    weights = torch.empty(*index.shape, heads, dtype=torch.int64, device=v.device)
    parts = None if slope is None else lse.new_empty(grid[0] // heads, heads)
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        backward_rows_kernel[grid](
            q, k, v, index, distance, slope, bias, o, lse, grad_o, grad_lse, grad_q, weights, parts, index.shape[0],
            scores.scale, **by_query, **LAUNCH,
        )  # fmt: skip
        backward_keys_kernel[_grid(v.shape[0], v.shape[1], by_key)](
            q, grad_o, weights, *inverse, grad_k, grad_v, v.shape[0], scores.scale, **by_key, **LAUNCH
        )
    edges = weights.view(torch.float32)[..., 1::2]  # dL/ds
    grad_distance = grad_slope = grad_bias = None
    if slope is not None and parts is not None:
        grad_slope = parts.sum(0, dtype=torch.float64).to(slope.dtype)
    if scores.distance is not None and slope is not None and scores.distance.requires_grad:
        grad_distance = -(edges * slope.float()).sum(2).to(scores.distance.dtype)
    if scores.bias is not None and scores.bias.requires_grad:
        grad_bias = edges.to(scores.bias.dtype, copy=True)
    return Gradients(grad_q, grad_k, grad_v, grad_distance, grad_slope, grad_bias)


def _dense(tensor: Any) -> Any:
    """A tensor in the order of its indices, at an address that wide loads may begin at; None stays None."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % 16 else tensor


def _flags(kernel: Any, scores: Scores, v: Tensor, index: Tensor, has_empty: bool) -> dict[str, Any]:
    given = scores.q is not None, scores.distance is not None, scores.bias is not None
    return _constants(kernel, v.dtype, v.shape[2], index.shape[1], scores.num_heads, v.shape[1], has_empty, *given)


def _grid(rows: int, heads: int, flags: dict[str, Any]) -> tuple[int]:
    return (-(-rows // flags["ROWS"]) * heads,)
