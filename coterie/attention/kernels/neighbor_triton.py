"""`neighbor` for the GPU, in Triton.

A program is one warp. It works on as many queries (by key: keys) of one head as its lanes load rows of in one go, at 16
bytes each, and on some of their edges at a time: tiles [ROWS, EDGES, COLUMNS] in which a thread holds all edges of its
columns, so that sums over edges stay within threads and sums over columns within a few lanes. Every neighbour's row is
loaded once, into registers, and nothing of the size [A, K, D] is written. The pass by query leaves p and dL/ds of each
edge behind, 8 bytes that one load fetches: the pass by key is a sparse product without any reduction over columns.

Everything lies on the first axis of the grid, which alone reaches 2^31; offsets are int64; numbers are widened right
after they are loaded, because Triton's interpreter cannot compute with bfloat16; softmax is in base 2, its masks are
finite. The last rows are computed more than once instead of masked, and stored once.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from coterie.attention.kernels.neighbor_torch import Gradients, Inverse, Scores
from coterie.attention.kernels.triton_shared import LN2, LOG2E

EMPTY = tl.constexpr(-3e38)
"""Below what a bias may be, which may stand for a mask itself."""
LOWEST = tl.constexpr(-2.9e38)
"""Where the search for the highest logit begins: far enough above `EMPTY` that its power is 0."""
E_AXIS = tl.constexpr(1 if [int(part) for part in triton.__version__.split(".")[:2]] < [3, 7] else 0)
"""Of edges in tiles: [R, E, C], or [E, R, C]. Triton before 3.7 lays lanes that columns leave over along the first
axis, later ones along the second: that must be rows, so that sums over edges stay within a thread."""
LAUNCH = {"num_warps": 1}


@triton.jit  # type: ignore[untyped-decorator]
def _numbers(base, place, COLUMNS: tl.constexpr, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Addresses of the numbers, or pairs of them, of rows that begin at `place` [..., 1]."""
    if PAIRED:
        at = base.to(tl.pointer_type(tl.int32)) + tl.arange(0, COLUMNS // 2) + place // 2
    else:
        at = base + tl.arange(0, COLUMNS) + place
    return at


@triton.jit  # type: ignore[untyped-decorator]
def _inside(COLUMNS: tl.constexpr, D: tl.constexpr, PAIRED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Which numbers of a row, or pairs of them, there are."""
    return tl.arange(0, COLUMNS // 2) < D // 2 if PAIRED else tl.arange(0, COLUMNS) < D


@triton.jit  # type: ignore[untyped-decorator]
def _load(at, mask, PAIRED: tl.constexpr, MASKED: tl.constexpr):  # type: ignore[no-untyped-def]
    """What stands at these addresses, as fp32.

    Two bfloat16 are loaded as one word: a shift and a mask widen them, for which the compiler needs four instructions.
    """
    row = tl.load(at, mask=mask, other=0) if MASKED else tl.load(at)
    if PAIRED:
        return tl.interleave((row << 16).to(tl.float32, bitcast=True), (row & -65536).to(tl.float32, bitcast=True))
    else:
        return row.to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _gather(  # type: ignore[no-untyped-def]
    base, row, head, HEADS: tl.constexpr, D: tl.constexpr, COLUMNS: tl.constexpr, PAIRED: tl.constexpr,
    HAS_EMPTY: tl.constexpr,
):  # fmt: skip
    """Rows of [N, HEADS, D] as fp32 [R, E, COLUMNS], zeros where `row` [R, E] is -1, which it may be if HAS_EMPTY."""
    at = _numbers(base, (row.to(tl.int64) * (HEADS * D) + head * D)[:, :, None], COLUMNS, PAIRED)
    mask = (row >= 0)[:, :, None] & _inside(COLUMNS, D, PAIRED)[None, None, :]
    return _load(at, mask, PAIRED, HAS_EMPTY or D != COLUMNS)


@triton.jit  # type: ignore[untyped-decorator]
def _block(  # type: ignore[no-untyped-def]
    base, row, head, HEADS: tl.constexpr, D: tl.constexpr, COLUMNS: tl.constexpr, PAIRED: tl.constexpr
):
    """Rows of [N, HEADS, D] as fp32 [R, COLUMNS]."""
    at = _numbers(base, (row * (HEADS * D) + head * D)[:, None], COLUMNS, PAIRED)
    return _load(at, _inside(COLUMNS, D, PAIRED)[None, :], PAIRED, D != COLUMNS)


@triton.jit  # type: ignore[untyped-decorator]
def _store(base, value, row, head, live, HEADS: tl.constexpr, D: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    column = tl.arange(0, COLUMNS)
    place = (row * (HEADS * D) + head * D)[:, None] + column[None, :]
    tl.store(base + place, value.to(base.dtype.element_ty), mask=live[:, None] & (column < D)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _edges(base, place, present, HAS_EMPTY: tl.constexpr):  # type: ignore[no-untyped-def]
    """A number of each edge, as fp32."""
    return (tl.load(base + place, mask=present, other=0.0) if HAS_EMPTY else tl.load(base + place)).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _terms(  # type: ignore[no-untyped-def]
    distance, slope, bias, edge, head, present, HEADS: tl.constexpr, HAS_DISTANCE: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_EMPTY: tl.constexpr,
):  # fmt: skip
    """What the logits of edges have in base 2 besides q.k, and the distances; `edge` numbers them as [A, K]."""
    terms = tl.zeros(edge.shape, tl.float32)
    far = terms
    if HAS_DISTANCE:
        far = _edges(distance, edge, present, HAS_EMPTY)
        terms -= tl.load(slope + head).to(tl.float32) * LOG2E * far
    if HAS_BIAS:
        terms += _edges(bias, edge * HEADS + head, present, HAS_EMPTY) * LOG2E
    return terms, far


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, index, distance, slope, bias, o, lse, num_queries, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_EMPTY: tl.constexpr,
    PAIRED: tl.constexpr, ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Output and lse of ROWS queries and one head."""
    head = tl.program_id(0) % HEADS
    key_head = head // (HEADS // KEY_HEADS)
    row = (tl.program_id(0) // HEADS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_queries
    row = tl.minimum(row, num_queries - 1)
    if HAS_DOT:
        query = _block(q, row, head, HEADS, D, COLUMNS, PAIRED) * (scale * LOG2E)
    top, total = tl.full([ROWS], LOWEST, tl.float32), tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in tl.range(0, K, EDGES, loop_unroll_factor=UNROLL):
        slot = start + tl.expand_dims(tl.arange(0, EDGES), 1 - E_AXIS)
        edge = tl.expand_dims(row, E_AXIS) * K + slot
        key = tl.load(index + edge, mask=slot < K, other=-1) if HAS_EMPTY else tl.load(index + edge)
        s, _ = _terms(distance, slope, bias, edge, head, key >= 0, HEADS, HAS_DISTANCE, HAS_BIAS, HAS_EMPTY)
        if HAS_DOT:
            s += tl.sum(
                tl.expand_dims(query, E_AXIS) * _gather(k, key, key_head, KEY_HEADS, D, COLUMNS, PAIRED, HAS_EMPTY), 2
            )
        if HAS_EMPTY:
            s = tl.where(key >= 0, s, EMPTY)
        higher = tl.maximum(top, tl.max(s, E_AXIS))
        p = tl.exp2(s - tl.expand_dims(higher, E_AXIS))
        fade = tl.exp2(top - higher)
        total = total * fade + tl.sum(p, E_AXIS)
        values = _gather(v, key, key_head, KEY_HEADS, D, COLUMNS, PAIRED, HAS_EMPTY)
        sums = sums * fade[:, None] + tl.sum(p[:, :, None] * values, E_AXIS)
        top = higher
    some = total != 0  # a NaN is something, and stays one
    total = tl.where(some, total, 1.0)
    _store(o, sums / total[:, None], row, head, live, HEADS, D, COLUMNS)
    tl.store(lse + row * HEADS + head, tl.where(some, (top + tl.log2(total)) * LN2, float("-inf")), mask=live)


@triton.jit  # type: ignore[untyped-decorator]
def backward_rows_kernel(  # type: ignore[no-untyped-def]
    q, k, v, index, distance, slope, bias, o, lse, grad_o, grad_lse, grad_q, weights, grad_slope, num_queries, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_DISTANCE: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_EMPTY: tl.constexpr,
    PAIRED: tl.constexpr, ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Gradients of q, of the slope in parts, and weights of edges: p in the low half of 64 bits, dL/ds in the high."""
    head = tl.program_id(0) % HEADS
    key_head = head // (HEADS // KEY_HEADS)
    block = (tl.program_id(0) // HEADS).to(tl.int64)
    row = block * ROWS + tl.arange(0, ROWS)
    live = row < num_queries
    row = tl.minimum(row, num_queries - 1)
    out = _block(grad_o, row, head, HEADS, D, COLUMNS, PAIRED)
    spot = row * HEADS + head
    center = tl.sum(out * _block(o, row, head, HEADS, D, COLUMNS, PAIRED), 1) - tl.load(grad_lse + spot).to(tl.float32)
    norm = tl.load(lse + spot) * LOG2E
    if HAS_DOT:
        query = _block(q, row, head, HEADS, D, COLUMNS, PAIRED) * (scale * LOG2E)
    sums, sloped = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS], tl.float32)
    for start in tl.range(0, K, EDGES, loop_unroll_factor=UNROLL):
        slot = start + tl.expand_dims(tl.arange(0, EDGES), 1 - E_AXIS)
        edge = tl.expand_dims(row, E_AXIS) * K + slot
        key = tl.load(index + edge, mask=slot < K, other=-1) if HAS_EMPTY else tl.load(index + edge)
        ds = tl.sum(
            tl.expand_dims(out, E_AXIS) * _gather(v, key, key_head, KEY_HEADS, D, COLUMNS, PAIRED, HAS_EMPTY), 2
        )
        s, far = _terms(distance, slope, bias, edge, head, key >= 0, HEADS, HAS_DISTANCE, HAS_BIAS, HAS_EMPTY)
        if HAS_DOT:
            keys = _gather(k, key, key_head, KEY_HEADS, D, COLUMNS, PAIRED, HAS_EMPTY)
            s += tl.sum(tl.expand_dims(query, E_AXIS) * keys, 2)
        p = tl.exp2(s - tl.expand_dims(norm, E_AXIS))
        ds = p * (ds - tl.expand_dims(center, E_AXIS))
        if HAS_EMPTY:
            p, ds = tl.where(key >= 0, p, 0.0), tl.where(key >= 0, ds, 0.0)
        if HAS_DOT:
            sums += tl.sum(ds[:, :, None] * keys, E_AXIS)
        if HAS_DISTANCE:
            sloped += tl.where(live, tl.sum(ds * far, E_AXIS), 0.0)
        both = ds.to(tl.int32, bitcast=True).to(tl.int64) << 32 | p.to(tl.uint32, bitcast=True).to(tl.int64)
        tl.store(weights + edge * HEADS + head, both, mask=tl.expand_dims(live, E_AXIS) & (slot < K))
    if HAS_DOT:
        _store(grad_q, sums * scale, row, head, live, HEADS, D, COLUMNS)
    if HAS_DISTANCE:
        tl.store(grad_slope + block * HEADS + head, -tl.sum(sloped, 0))


@triton.jit  # type: ignore[untyped-decorator]
def _incoming(incoming, first, degree, start, EDGES: tl.constexpr):  # type: ignore[no-untyped-def]
    """EDGES edges of each key, from the one that `start` numbers on; -1 behind its last."""
    place = start + tl.expand_dims(tl.arange(0, EDGES), 1 - E_AXIS)
    first, degree = tl.expand_dims(first, E_AXIS), tl.expand_dims(degree, E_AXIS)
    return tl.load(incoming + first + place, mask=place < degree, other=-1)


@triton.jit  # type: ignore[untyped-decorator]
def backward_keys_kernel(  # type: ignore[no-untyped-def]
    q, grad_o, weights, offsets, incoming, grad_k, grad_v, num_keys, scale,
    K: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
    HAS_DOT: tl.constexpr, HAS_EMPTY: tl.constexpr,
    PAIRED: tl.constexpr, ROWS: tl.constexpr, EDGES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of k and v of ROWS keys and one key head, summed over incoming edges in their order."""
    key_head = tl.program_id(0) % KEY_HEADS
    row = (tl.program_id(0) // KEY_HEADS).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < num_keys
    row = tl.minimum(row, num_keys - 1)
    first = tl.load(offsets + row)
    degree = (tl.load(offsets + row + 1) - first).to(tl.int32)
    most = tl.max(degree, 0)
    keys, values = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
    for member in range(HEADS // KEY_HEADS):
        head = key_head * (HEADS // KEY_HEADS) + member
        coming = _incoming(incoming, first, degree, 0, EDGES)
        for start in range(0, most, EDGES):
            edge = coming
            coming = _incoming(incoming, first, degree, start + EDGES, EDGES)
            both = tl.load(weights + edge.to(tl.int64) * HEADS + head, mask=edge >= 0, other=0)
            p = both.to(tl.int32).to(tl.float32, bitcast=True)
            query = tl.where(edge >= 0, edge, -K) // K
            if HAS_EMPTY:  # An edge may be in the topology and not be allowed.
                query = tl.where(both != 0, query, -1)
            values += tl.sum(p[:, :, None] * _gather(grad_o, query, head, HEADS, D, COLUMNS, PAIRED, True), E_AXIS)
            if HAS_DOT:
                ds = (both >> 32).to(tl.int32).to(tl.float32, bitcast=True)
                keys += tl.sum(ds[:, :, None] * _gather(q, query, head, HEADS, D, COLUMNS, PAIRED, True), E_AXIS)
    _store(grad_v, values, row, key_head, live, KEY_HEADS, D, COLUMNS)
    if HAS_DOT:
        _store(grad_k, keys * scale, row, key_head, live, KEY_HEADS, D, COLUMNS)


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
