"""`neighbor` for the GPU, in Triton.

A program works on a block of queries (by key: of keys), one head and all their edges, in tiles [rows, edges, D]: every
row is fetched once, into registers, and nothing of the size [A, K, D] is written. Everything lies on the first axis of
the grid, which alone reaches 2^31; offsets are int64; numbers are widened right after they are loaded, because Triton's
interpreter cannot compute with bfloat16; softmax is in base 2, its masks are finite.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from coterie.attention.kernels.neighbor_torch import Gradients, Inverse, Scores

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
EMPTY = tl.constexpr(-3e38)
"""Below what a bias may be, which may stand for a mask itself."""
LAUNCH = {"num_warps": 4, "maxnreg": 128}
"""Without the limit the assembler spills a register or two to make room for one program more."""


@triton.jit  # type: ignore[untyped-decorator]
def _rows(base, row, head, column, seen, HEADS: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of [N, HEADS, D] as fp32 [R, E, columns], zeros where not seen."""
    place = (row.to(tl.int64) * HEADS + head) * D
    mask = seen[:, :, None] & (column < D)[None, None, :]
    return tl.load(base + place[:, :, None] + column[None, None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _block(base, row, head, column, live, HEADS: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of [N, HEADS, D] as fp32 [R, columns]."""
    place = (row * HEADS + head) * D
    mask = live[:, None] & (column < D)[None, :]
    return tl.load(base + place[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _store(base, value, row, head, column, live, HEADS: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    place = (row * HEADS + head) * D
    mask = live[:, None] & (column < D)[None, :]
    tl.store(base + place[:, None] + column[None, :], value.to(base.dtype.element_ty), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _add_terms(  # type: ignore[no-untyped-def]
    s, distance, slope, bias, edge, head, seen, HEADS: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr
):
    """The logits of edges in base 2, with what does not come from q.k; `edge` numbers them as [A, K]."""
    if HAS_DISTANCE:
        s -= tl.load(slope + head).to(tl.float32) * tl.load(distance + edge, mask=seen, other=0.0).to(tl.float32)
    if HAS_BIAS:
        s += tl.load(bias + edge * HEADS + head, mask=seen, other=0.0).to(tl.float32)
    return s * LOG2E


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, index, distance, slope, bias, o, lse, num_queries, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Output and lse of ROWS queries and one head."""
    head = tl.program_id(0) % HEADS
    key_head = head // (HEADS // KEY_HEADS)
    row = (tl.program_id(0) // HEADS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, live = tl.arange(0, COLUMNS), row < num_queries
    if HAS_DOT:
        query = _block(q, row, head, column, live, HEADS, D) * scale
    top, total = tl.full([ROWS], EMPTY, tl.float32), tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, K, EDGES):
        slot = start + tl.arange(0, EDGES)
        edge = row[:, None] * K + slot[None, :]
        key = tl.load(index + edge, mask=live[:, None] & (slot < K)[None, :], other=-1)
        seen = key >= 0
        s = tl.zeros([ROWS, EDGES], tl.float32)
        if HAS_DOT:
            s += tl.sum(query[:, None, :] * _rows(k, key, key_head, column, seen, KEY_HEADS, D), 2)
        s = _add_terms(s, distance, slope, bias, edge, head, seen, HEADS, HAS_DISTANCE, HAS_BIAS)
        s = tl.where(seen, s, EMPTY)
        higher = tl.maximum(top, tl.max(s, 1))
        p = tl.where(seen, tl.exp2(s - higher[:, None]), 0.0)
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(p, 1)
        values = _rows(v, key, key_head, column, seen, KEY_HEADS, D)
        sums = sums * fade[:, None] + tl.sum(p[:, :, None] * values, 1)
        top = higher
    some = total != 0  # a NaN is something, and stays one
    total = tl.where(some, total, 1.0)
    _store(o, sums / total[:, None], row, head, column, live, HEADS, D)
    tl.store(lse + row * HEADS + head, tl.where(some, (top + tl.log2(total)) * LN2, float("-inf")), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def backward_rows_kernel(  # type: ignore[no-untyped-def]
    q, k, v, index, distance, slope, bias, o, lse, grad_o, grad_lse, grad_q, mean, grad_edge, grad_slope,
    num_queries, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr, STORE_EDGES: tl.constexpr,
    ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of q, of the slope in parts, of logits where wanted; and sum_j p_ij dL/dp_ij for the pass by key."""
    head = tl.program_id(0) % HEADS
    key_head = head // (HEADS // KEY_HEADS)
    block = (tl.program_id(0) // HEADS).to(tl.int64)
    row = block * ROWS + tl.arange(0, ROWS)
    column, live = tl.arange(0, COLUMNS), row < num_queries
    out = _block(grad_o, row, head, column, live, HEADS, D)
    spot = row * HEADS + head
    center = tl.sum(out * _block(o, row, head, column, live, HEADS, D), 1)
    center -= tl.load(grad_lse + spot, mask=live, other=0.0).to(tl.float32)
    tl.store(mean + spot, center, mask=live)
    norm = tl.load(lse + spot, mask=live, other=0.0) * LOG2E
    if HAS_DOT:
        query = _block(q, row, head, column, live, HEADS, D) * scale
    sums, sloped = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS], tl.float32)
    for start in range(0, K, EDGES):
        slot = start + tl.arange(0, EDGES)
        edge = row[:, None] * K + slot[None, :]
        listed = live[:, None] & (slot < K)[None, :]
        key = tl.load(index + edge, mask=listed, other=-1)
        seen = key >= 0
        s = tl.zeros([ROWS, EDGES], tl.float32)
        if HAS_DOT:
            keys = _rows(k, key, key_head, column, seen, KEY_HEADS, D)
            s += tl.sum(query[:, None, :] * keys, 2)
        s = _add_terms(s, distance, slope, bias, edge, head, seen, HEADS, HAS_DISTANCE, HAS_BIAS)
        p = tl.where(seen, tl.exp2(s - norm[:, None]), 0.0)
        weighed = tl.sum(out[:, None, :] * _rows(v, key, key_head, column, seen, KEY_HEADS, D), 2)
        ds = tl.where(seen, p * (weighed - center[:, None]), 0.0)
        if HAS_DOT:
            sums += tl.sum(ds[:, :, None] * keys, 1)
        if HAS_DISTANCE:
            sloped += tl.sum(ds * tl.load(distance + edge, mask=seen, other=0.0).to(tl.float32), 1)
        if STORE_EDGES:
            tl.store(grad_edge + edge * HEADS + head, ds, mask=listed)
    if HAS_DOT:
        _store(grad_q, sums * scale, row, head, column, live, HEADS, D)
    if HAS_DISTANCE:
        tl.store(grad_slope + block * HEADS + head, -tl.sum(sloped, 0))


@triton.jit  # type: ignore[untyped-decorator]
def backward_keys_kernel(  # type: ignore[no-untyped-def]
    q, k, v, index, distance, slope, bias, lse, grad_o, mean, offsets, incoming, grad_k, grad_v, num_keys, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v of ROWS keys and one key head, summed over incoming edges in their order."""
    key_head = tl.program_id(0) % KEY_HEADS
    row = (tl.program_id(0) // KEY_HEADS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column, live = tl.arange(0, COLUMNS), row < num_keys
    first = tl.load(offsets + row, mask=live, other=0)
    degree = tl.load(offsets + row + 1, mask=live, other=0) - first
    most = tl.max(degree, 0)
    value = _block(v, row, key_head, column, live, KEY_HEADS, D)
    values = tl.zeros([ROWS, COLUMNS], tl.float32)
    if HAS_DOT:
        key = _block(k, row, key_head, column, live, KEY_HEADS, D) * scale
        keys = tl.zeros([ROWS, COLUMNS], tl.float32)
    for member in range(HEADS // KEY_HEADS):
        head = key_head * (HEADS // KEY_HEADS) + member
        for start in range(0, most, EDGES):
            place = start + tl.arange(0, EDGES)
            listed = place[None, :] < degree[:, None]
            edge = tl.load(incoming + first[:, None] + place[None, :], mask=listed, other=0).to(tl.int64)
            # An edge may be in the topology and not be allowed.
            seen = tl.load(index + edge, mask=listed, other=-1) >= 0
            query = edge // K
            spot = query * HEADS + head
            s = tl.zeros([ROWS, EDGES], tl.float32)
            if HAS_DOT:
                queries = _rows(q, query, head, column, seen, HEADS, D)
                s += tl.sum(key[:, None, :] * queries, 2)
            s = _add_terms(s, distance, slope, bias, edge, head, seen, HEADS, HAS_DISTANCE, HAS_BIAS)
            p = tl.where(seen, tl.exp2(s - tl.load(lse + spot, mask=seen, other=0.0) * LOG2E), 0.0)
            out = _rows(grad_o, query, head, column, seen, HEADS, D)
            values += tl.sum(p[:, :, None] * out, 1)
            if HAS_DOT:
                ds = p * (tl.sum(out * value[:, None, :], 2) - tl.load(mean + spot, mask=seen, other=0.0))
                keys += tl.sum(ds[:, :, None] * queries, 1)
    _store(grad_v, values, row, key_head, column, live, KEY_HEADS, D)
    if HAS_DOT:
        _store(grad_k, keys * scale, row, key_head, column, live, KEY_HEADS, D)


def blocks(kernel: Any, width: int, slots: int) -> dict[str, int]:
    """ROWS, EDGES and COLUMNS of a kernel's tile, for rows of D numbers and K edges each.

    A tile has 2048 numbers, 16 to a thread; by key half of that, since two tiles and two sums must fit into registers.
    """
    columns = triton.next_power_of_2(max(width, 4))
    edges = min(16 if kernel is forward_kernel and slots <= 16 else 8, triton.next_power_of_2(slots))
    numbers = 1024 if kernel is backward_keys_kernel else 2048
    return {"ROWS": max(1, min(32, numbers // (columns * edges))), "EDGES": edges, "COLUMNS": columns}


def signatures(
    dtype: str, width: int, slots: int, *, heads: int = 1, key_heads: int = 1, has_bias: bool = False
) -> dict[str, tuple[Any, dict[str, str], dict[str, Any]]]:
    """Kernel, types and constants of each kernel of a call with q.k and distances, for `compilation`."""
    fixed = {"index": "*i32", "incoming": "*i32", "offsets": "*i64", "num_queries": "i32", "num_keys": "i32"}
    rows = dict.fromkeys(["q", "k", "v", "o", "grad_o", "grad_q", "grad_k", "grad_v"], f"*{dtype}")
    floats = ["distance", "slope", "lse", "grad_lse", "mean", "grad_slope"] + ["bias", "grad_edge"] * has_bias
    types = fixed | rows | dict.fromkeys(floats, "*fp32") | {"scale": "fp32"}
    flags = {"K": slots, "D": width, "HEADS": heads, "KEY_HEADS": key_heads, "HAS_DOT": True, "HAS_DISTANCE": True,
             "HAS_BIAS": has_bias, "STORE_EDGES": has_bias, "bias": None, "grad_edge": None}  # fmt: skip
    kernels = {
        "neighbor forward": forward_kernel,
        "neighbor backward by query": backward_rows_kernel,
        "neighbor backward by key": backward_keys_kernel,
    }
    found: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {}
    for name, kernel in kernels.items():
        mine = {argument: types[argument] for argument in kernel.arg_names if argument in types}
        constants = {**flags, **blocks(kernel, width, slots)}
        found[name] = kernel, mine, {a: constants[a] for a in kernel.arg_names if a not in mine}
    return found


def forward(scores: Scores, v: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """As `neighbor_torch.attend`, not differentiable."""
    scores, v = _contiguous(scores), v.contiguous()
    o = torch.empty(index.shape[0], scores.num_heads, v.shape[2], dtype=v.dtype, device=v.device)
    lse = torch.empty(o.shape[:2], dtype=torch.float32, device=v.device)
    flags = _flags(forward_kernel, scores, v, index)
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        forward_kernel[_grid(index.shape[0], scores.num_heads, flags)](
            *scores[:2], v, index, *scores[2:5], o, lse, index.shape[0], scores.scale, **flags, **LAUNCH
        )
    return o, lse


def backward(
    scores: Scores, v: Tensor, index: Tensor, inverse: Inverse, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor
) -> Gradients:
    """As `neighbor_numba.backward`."""
    v, grad_o, grad_lse = v.contiguous(), grad_o.contiguous(), grad_lse.contiguous()
    heads, by_query = scores.num_heads, _flags(backward_rows_kernel, scores, v, index)
    by_key, grid = _flags(backward_keys_kernel, scores, v, index), _grid(index.shape[0], heads, by_query)
    q, k, distance, slope, bias = _contiguous(scores)[:5]
    grad_q, grad_k = (None if x is None else torch.empty_like(x) for x in (q, k))
    grad_v = torch.empty_like(v)
    mean = torch.empty_like(lse)
    needs_edges = any(x is not None and x.requires_grad for x in (scores.distance, scores.bias))
    edges = lse.new_empty(*index.shape, heads) if needs_edges else None
    parts = None if slope is None else lse.new_empty(grid[0] // heads, heads)
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        backward_rows_kernel[grid](
            q, k, v, index, distance, slope, bias, o, lse, grad_o, grad_lse, grad_q, mean, edges, parts, index.shape[0],
            scores.scale, **by_query, STORE_EDGES=edges is not None, **LAUNCH,
        )  # fmt: skip
        backward_keys_kernel[_grid(v.shape[0], v.shape[1], by_key)](
            q, k, v, index, distance, slope, bias, lse, grad_o, mean, *inverse, grad_k, grad_v, v.shape[0],
            scores.scale, **by_key, **LAUNCH,
        )  # fmt: skip
    grad_distance = grad_slope = None
    if distance is not None and slope is not None and parts is not None:
        grad_slope = parts.sum(0, dtype=torch.float64).to(slope.dtype)
        grad_distance = None if edges is None else -(edges * slope.float()).sum(2).to(distance.dtype)
    grad_bias = None if edges is None or bias is None else edges.to(bias.dtype)
    return Gradients(grad_q, grad_k, grad_v, grad_distance, grad_slope, grad_bias)


def _contiguous(scores: Scores) -> Scores:
    q, k, distance, slope, bias = (None if x is None else x.contiguous() for x in scores[:5])
    return Scores(q, k, distance, slope, bias, scores.scale)


def _flags(kernel: Any, scores: Scores, v: Tensor, index: Tensor) -> dict[str, Any]:
    return {
        "K": index.shape[1], "D": v.shape[2], "HEADS": scores.num_heads, "KEY_HEADS": v.shape[1],
        "HAS_DOT": scores.q is not None, "HAS_DISTANCE": scores.distance is not None,
        "HAS_BIAS": scores.bias is not None, **blocks(kernel, v.shape[2], index.shape[1]),
    }  # fmt: skip


def _grid(rows: int, heads: int, flags: dict[str, Any]) -> tuple[int]:
    return (triton.cdiv(rows, flags["ROWS"]) * heads,)
