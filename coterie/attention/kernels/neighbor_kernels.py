"""Kernels of `neighbor` in Triton.

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

import triton
import triton.language as tl

from coterie.attention.kernels.triton_shared import LN2, LOG2E

EMPTY = tl.constexpr(-3e38)
"""Below what a bias may be, which may stand for a mask itself."""
LOWEST = tl.constexpr(-2.9e38)
"""Where the search for the highest logit begins: far enough above `EMPTY` that its power is 0."""
E_AXIS = tl.constexpr(1 if [int(part) for part in triton.__version__.split(".")[:2]] < [3, 7] else 0)
"""Of edges in tiles: [R, E, C], or [E, R, C]. Triton before 3.7 lays lanes that columns leave over along the first
axis, later ones along the second: that must be rows, so that sums over edges stay within a thread."""


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
