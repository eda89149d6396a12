"""Attention over lists of tiles in Triton: programs that own queries, and for keys' gradients programs that own keys.

No atomics: sums are in a fixed order. Products go to the tensor cores in the dtype that q, k and v are stored in and
are summed in fp32; factors of a bias, which hold positions, go there in parts (`split_kernel`). Every program is on
grid axis 0, since the others end at 65 535, and offsets are 64 bits wide but within a tile.

Where every query or few have a list of their own, the query heads that share keys are rows of one product: a tensor
core wants sixteen. Rows of a product are called lanes: lane l of a tile is query l // GROUP of head l % GROUP.

Scores are in units of q.k until the exponential, which takes the scale, a positive number, and the change of base in
one multiplication with what is subtracted.
"""

from __future__ import annotations

import triton
import triton.language as tl

from coterie.attention.blocks import KEYS
from coterie.attention.kernels.triton_shared import LN2, LOG2E, load_rows

WIDE = tl.constexpr(KEYS)


@triton.jit  # type: ignore[untyped-decorator]
def _columns(  # type: ignore[no-untyped-def]
    x, column, token, keys, WIDTH: tl.constexpr, BLOCK: tl.constexpr, IS_FULL: tl.constexpr, IS_FAR: tl.constexpr
):  # fmt: skip
    """What belongs to the keys of a column of tiles. Full tiles end before the keys do.

    Offsets within a tile stay in registers, unless IS_FAR: few warps have none to spare.
    """
    key = tl.arange(0, WIDE)
    depth = tl.arange(0, BLOCK)
    if IS_FAR:
        places = x + (column * WIDE + key).to(tl.int64)[:, None] * token + depth[None, :]
    else:
        places = x + column.to(tl.int64) * (WIDE * token) + (key[:, None] * token + depth[None, :])
    if IS_FULL:
        if WIDTH == BLOCK:
            return tl.load(places)
        return tl.load(places, mask=(depth < WIDTH)[None, :], other=0.0)
    return tl.load(places, mask=(column * WIDE + key < keys)[:, None] & (depth < WIDTH)[None, :], other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _scores(  # type: ignore[no-untyped-def]
    left, right, u, w, word, scale, F: tl.constexpr, IS_FULL: tl.constexpr, BY_KEY: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Of the rows in left and right, in units of q.k; minus infinity where nothing is allowed.

    Left are lanes and right keys, or with BY_KEY the other way round; u and w are the factors of left and right.
    """
    scores = tl.dot(left, tl.trans(right), input_precision=PRECISION)
    if F > 0:
        # A product for itself, since it may be large and then little.
        scores += tl.dot(u, tl.trans(w), input_precision="ieee") * (1.0 / scale)
    if not IS_FULL:
        bit = tl.arange(0, WIDE)
        if BY_KEY:
            is_allowed = ((word[None, :] >> bit[:, None]) & 1) != 0
        else:
            is_allowed = ((word[:, None] >> bit[None, :]) & 1) != 0
        scores = tl.where(is_allowed, scores, float("-inf"))
    return scores


@triton.constexpr_function
def third_columns(F):  # type: ignore[no-untyped-def]
    """How many columns of parts hold each part once."""
    return max(16, F // 2)


@triton.jit
def _project(sums, slope, thirds):  # type: ignore[no-untyped-def]
    """Sums plus slope times parts of factors. Slopes of a query cancel, and factors may be large: so twice the bits."""
    high = slope.to(thirds.dtype)
    low = (slope - high.to(tl.float32)).to(thirds.dtype)
    sums = tl.dot(high, thirds, sums, input_precision="ieee")
    return tl.dot(low, thirds, sums, input_precision="ieee")


@triton.jit  # type: ignore[untyped-decorator]
def _lanes(  # type: ignore[no-untyped-def]
    q, k, v, u, w, queries, keys, heads, group, batch_lists, head_lists,
    q_batch, q_head, q_token, k_batch, k_head, v_batch, v_head,
    D: tl.constexpr, D_BLOCK: tl.constexpr, F: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SHARED: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """What a program that owns queries owns.

    By lane the query and its factors; keys, values and factors of the keys of its heads; by lane the number of the
    query, the place in tensors by head and query, whether there is one, and the word in a tile's bits; and the line of
    the list. Late queries come first: where masks are causal, they have most to do.
    """
    tiles, parts, units = tl.cdiv(queries, ROWS), ROWS * GROUP // STEP, heads // SHARED
    lane = tl.program_id(0) % parts * STEP + tl.arange(0, STEP)
    tile = tiles - 1 - tl.program_id(0) // parts % tiles
    unit = tl.program_id(0) // (parts * tiles)
    batch, head = (unit // units).to(tl.int64), (unit % units * SHARED).to(tl.int64)
    row, mine = tile * ROWS + lane // GROUP, head + lane % GROUP
    place, there = (batch * heads + mine) * queries + row, (row < queries) & (lane % GROUP < SHARED)
    line = (batch % batch_lists * head_lists + head * head_lists // heads) * tiles + tile
    own = load_rows(q + batch * q_batch, mine * q_head + row.to(tl.int64) * q_token, there, D, D_BLOCK)
    k += batch * k_batch + head // group * k_head
    v += batch * v_batch + head // group * v_head
    factors = own
    if F > 0:
        factors = load_rows(u, place * F, there, F, F)
        w += (batch * heads + head) * keys * F
    return own, factors, k, v, w, row, place, there, lane // GROUP, line


@triton.jit  # type: ignore[untyped-decorator]
def _absorb(  # type: ignore[no-untyped-def]
    top, total, sums, own, k, v, u, w, column, word, scale, keys, k_token, v_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr, IS_FULL: tl.constexpr, IS_FAR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One step of a softmax that runs along: the largest score, the denominator and the sum of values."""
    others = _columns(k, column, k_token, keys, D, D_BLOCK, IS_FULL, IS_FAR)
    factors = others
    if F > 0:
        factors = _columns(w, column, F, keys, F, F, IS_FULL, IS_FAR)
    scores = _scores(own, others, u, factors, word, scale, F, IS_FULL, False, PRECISION)
    new = tl.maximum(top, tl.max(scores, 1))
    base = new
    if not IS_FULL:
        base = tl.where(new == float("-inf"), 0.0, new)  # Nothing was allowed yet.
    weights = tl.exp2(scores * (scale * LOG2E) - (base * (scale * LOG2E))[:, None])
    fade = tl.exp2((top - base) * (scale * LOG2E))
    values = _columns(v, column, v_token, keys, DV, DV_BLOCK, IS_FULL, IS_FAR)
    sums = tl.dot(weights.to(values.dtype), values, sums * fade[:, None], input_precision=PRECISION)
    return new, total * fade + tl.sum(weights, 1), sums


@triton.jit  # type: ignore[untyped-decorator]
def forward_kernel(  # type: ignore[no-untyped-def]
    q, k, v, u, w, full_starts, full_other, some_starts, some_other, bits, o, lse,
    queries, keys, heads, group, batch_lists, head_lists, scale,
    q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SHARED: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Output and lse of STEP lanes of a row of tiles, in SHARED heads."""
    own, factors, k, v, w, row, place, there, at, line = _lanes(
        q, k, v, u, w, queries, keys, heads, group, batch_lists, head_lists,
        q_batch, q_head, q_token, k_batch, k_head, v_batch, v_head, D, D_BLOCK, F, ROWS, GROUP, SHARED, STEP,
    )  # fmt: skip

    top = tl.full([STEP], float("-inf"), tl.float32)
    total = tl.zeros([STEP], tl.float32)
    sums = tl.zeros([STEP, DV_BLOCK], tl.float32)
    for entry in range(tl.load(full_starts + line), tl.load(full_starts + line + 1)):
        column = tl.load(full_other + entry)
        top, total, sums = _absorb(
            top, total, sums, own, k, v, factors, w, column, row, scale, keys, k_token, v_token,
            D, D_BLOCK, DV, DV_BLOCK, F, True, GROUP > 1, PRECISION,
        )  # fmt: skip
    for entry in range(tl.load(some_starts + line), tl.load(some_starts + line + 1)):
        column = tl.load(some_other + entry)
        word = tl.load(bits + entry * ROWS + at)
        top, total, sums = _absorb(
            top, total, sums, own, k, v, factors, w, column, word, scale, keys, k_token, v_token,
            D, D_BLOCK, DV, DV_BLOCK, F, False, GROUP > 1, PRECISION,
        )  # fmt: skip

    depth = tl.arange(0, DV_BLOCK)
    sums = sums / tl.where(total == 0.0, 1.0, total)[:, None]
    mask = there[:, None] & (depth < DV)[None, :]
    tl.store(o + place[:, None] * DV + depth[None, :], sums.to(o.dtype.element_ty), mask=mask)
    tl.store(lse + place, top * scale + tl.log2(total) * LN2, mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def _descend(  # type: ignore[no-untyped-def]
    slope_q, slope_u, own, grad, total, delta, k, v, u, w, column, word, scale, keys, k_token, v_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr, LEARNS: tl.constexpr, IS_FULL: tl.constexpr, IS_FAR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a column of tiles adds to the gradients of queries, and where factors learn to theirs."""
    others = _columns(k, column, k_token, keys, D, D_BLOCK, IS_FULL, IS_FAR)
    factors = others
    if F > 0:
        factors = _columns(w, column, F, keys, F, F, IS_FULL, IS_FAR)
    scores = _scores(own, others, u, factors, word, scale, F, IS_FULL, False, PRECISION)
    weights = tl.exp2(scores * (scale * LOG2E) - total[:, None])
    values = _columns(v, column, v_token, keys, DV, DV_BLOCK, IS_FULL, IS_FAR)
    slope = weights * (tl.dot(grad, tl.trans(values), input_precision=PRECISION) - delta[:, None])
    slope_q = tl.dot(slope.to(others.dtype), others, slope_q, input_precision=PRECISION)
    if LEARNS:
        THIRDS: tl.constexpr = third_columns(F)
        slope_u = _project(slope_u, slope, _columns(w, column, F, keys, THIRDS, THIRDS, IS_FULL, IS_FAR))
    return slope_q, slope_u


@triton.jit  # type: ignore[untyped-decorator]
def query_kernel(  # type: ignore[no-untyped-def]
    q, k, v, u, w, full_starts, full_other, some_starts, some_other, bits, o, lse, grad_o, grad_lse, delta,
    grad_q, grad_u,
    queries, keys, heads, group, batch_lists, head_lists, scale,
    q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr, LEARNS: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SHARED: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of q and u for STEP lanes, and what the gradients of keys need to know of each query: delta."""
    own, factors, k, v, w, row, place, there, at, line = _lanes(
        q, k, v, u, w, queries, keys, heads, group, batch_lists, head_lists,
        q_batch, q_head, q_token, k_batch, k_head, v_batch, v_head, D, D_BLOCK, F, ROWS, GROUP, SHARED, STEP,
    )  # fmt: skip

    grad = load_rows(grad_o, place * DV, there, DV, DV_BLOCK)
    total = tl.load(lse + place, mask=there, other=0.0)
    empty = total == float("-inf")
    total = tl.where(empty, 0.0, total * LOG2E)
    known = tl.sum(grad.to(tl.float32) * load_rows(o, place * DV, there, DV, DV_BLOCK).to(tl.float32), 1)
    known -= tl.where(empty, 0.0, tl.load(grad_lse + place, mask=there, other=0.0))
    tl.store(delta + place, known, mask=there)

    slope_q = tl.zeros([STEP, D_BLOCK], tl.float32)
    slope_u = tl.zeros([STEP, third_columns(F)], tl.float32)
    for entry in range(tl.load(full_starts + line), tl.load(full_starts + line + 1)):
        column = tl.load(full_other + entry)
        slope_q, slope_u = _descend(
            slope_q, slope_u, own, grad, total, known, k, v, factors, w, column, row, scale, keys,
            k_token, v_token, D, D_BLOCK, DV, DV_BLOCK, F, LEARNS, True, GROUP > 1, PRECISION,
        )  # fmt: skip
    for entry in range(tl.load(some_starts + line), tl.load(some_starts + line + 1)):
        column = tl.load(some_other + entry)
        word = tl.load(bits + entry * ROWS + at)
        slope_q, slope_u = _descend(
            slope_q, slope_u, own, grad, total, known, k, v, factors, w, column, word, scale, keys,
            k_token, v_token, D, D_BLOCK, DV, DV_BLOCK, F, LEARNS, False, GROUP > 1, PRECISION,
        )  # fmt: skip

    depth = tl.arange(0, D_BLOCK)
    mask = there[:, None] & (depth < D)[None, :]
    tl.store(grad_q + place[:, None] * D + depth[None, :], (slope_q * scale).to(grad_q.dtype.element_ty), mask=mask)
    if LEARNS:
        at_u = place[:, None] * third_columns(F) + tl.arange(0, third_columns(F))[None, :]
        tl.store(grad_u + at_u, slope_u, mask=there[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _gather(  # type: ignore[no-untyped-def]
    slope_k, slope_v, slope_w, others, values, starts, line, other, places, bits, q, grad_o, u, w, lse, delta,
    place, scale, queries, q_head, q_token, part,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr, LEARNS: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SHARED: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr,
    IS_FULL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the lanes of a part of the listed tiles add to the gradients of keys."""
    size: tl.constexpr = ROWS * GROUP
    begin, end = tl.load(starts + line), tl.load(starts + line + 1)
    if PARTS > 1:
        begin, end = begin + (end - begin) * part // PARTS, begin + (end - begin) * (part + 1) // PARTS
    steps = tl.arange(0, STEP)
    rows, mine = steps % size // GROUP, steps % GROUP
    offsets, within = rows * q_token, rows
    if GROUP > 1:
        offsets, within = offsets + mine.to(tl.int64) * q_head, within + mine.to(tl.int64) * queries
    for first in range(0, (end - begin).to(tl.int32) * size, STEP):
        # A part of a tile, or a few tiles.
        tile = begin + first // size
        inside = True
        if size < STEP:
            inside = tile + steps // size < end
            tile = tl.minimum(tile + steps // size, end - 1)
        row = tl.load(other + tile) * ROWS + first % size // GROUP
        there = inside & (row + rows < queries) & (mine < SHARED)
        own = load_rows(q + row.to(tl.int64) * q_token, offsets, there, D, D_BLOCK)
        at = place + row + within
        total = tl.load(lse + at, mask=there, other=float("inf")) * LOG2E
        word = at
        if not IS_FULL:
            word = tl.load(bits + tl.load(places + tile).to(tl.int64) * ROWS + (first % size // GROUP + rows))
            total = tl.where(total == float("-inf"), float("inf"), total)  # They may attend to nothing.
        factors = own
        if F > 0:
            factors = load_rows(u, at * F, there, F, F)
        scores = _scores(others, own, w, factors, word, scale, F, IS_FULL, True, PRECISION)
        weights = tl.exp2(scores * (scale * LOG2E) - total[None, :])
        grad = load_rows(grad_o, at * DV, there, DV, DV_BLOCK)
        slope_v = tl.dot(weights.to(grad.dtype), grad, slope_v, input_precision=PRECISION)
        known = tl.load(delta + at, mask=there, other=0.0)
        slope = weights * (tl.dot(values, tl.trans(grad), input_precision=PRECISION) - known[None, :])
        slope_k = tl.dot(slope.to(own.dtype), own, slope_k, input_precision=PRECISION)
        if LEARNS:
            THIRDS: tl.constexpr = third_columns(F)
            slope_w = _project(slope_w, slope, load_rows(u, at * F, there, THIRDS, THIRDS))
    return slope_k, slope_v, slope_w


@triton.jit  # type: ignore[untyped-decorator]
def key_kernel(  # type: ignore[no-untyped-def]
    q, k, v, u, w, full_starts, full_other, some_starts, some_other, some_places, bits, lse, grad_o, delta,
    grad_k, grad_v, grad_w,
    queries, keys, heads, group, batch_lists, head_lists, scale,
    q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, DV: tl.constexpr, DV_BLOCK: tl.constexpr,
    F: tl.constexpr, LEARNS: tl.constexpr,
    ROWS: tl.constexpr, GROUP: tl.constexpr, SHARED: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of k, v and w for a column of tiles, from a part of its list in all heads that read these keys."""
    tiles, key_heads = tl.cdiv(keys, WIDE), heads // group
    part, column = tl.program_id(0) % PARTS, tl.program_id(0) // PARTS % tiles
    unit = tl.program_id(0) // (PARTS * tiles)
    batch, key_head = (unit // key_heads).to(tl.int64), (unit % key_heads).to(tl.int64)
    others = _columns(k + batch * k_batch + key_head * k_head, column, k_token, keys, D, D_BLOCK, False, False)
    values = _columns(v + batch * v_batch + key_head * v_head, column, v_token, keys, DV, DV_BLOCK, False, False)
    slope_k = tl.zeros([WIDE, D_BLOCK], tl.float32)
    slope_v = tl.zeros([WIDE, DV_BLOCK], tl.float32)
    key = column * WIDE + tl.arange(0, WIDE)
    for head in range(key_head * group, (key_head + 1) * group, SHARED):
        line = (batch % batch_lists * head_lists + head * head_lists // heads) * tiles + column
        place, queries_of_head = (batch * heads + head) * queries, q + batch * q_batch + head * q_head
        factors = others
        if F > 0:
            factors = _columns(w + (batch * heads + head) * keys * F, column, F, keys, F, F, False, False)
        slope_w = tl.zeros([WIDE, third_columns(F)], tl.float32)
        slope_k, slope_v, slope_w = _gather(
            slope_k, slope_v, slope_w, others, values, full_starts, line, full_other, full_other, bits,
            queries_of_head, grad_o, u, factors, lse, delta, place, scale, queries, q_head, q_token,
            part, D, D_BLOCK, DV, DV_BLOCK, F, LEARNS, ROWS, GROUP, SHARED, STEP, PARTS, True, PRECISION,
        )  # fmt: skip
        slope_k, slope_v, slope_w = _gather(
            slope_k, slope_v, slope_w, others, values, some_starts, line, some_other, some_places, bits,
            queries_of_head, grad_o, u, factors, lse, delta, place, scale, queries, q_head, q_token,
            part, D, D_BLOCK, DV, DV_BLOCK, F, LEARNS, ROWS, GROUP, SHARED, STEP, PARTS, False, PRECISION,
        )  # fmt: skip
        if LEARNS:
            at = (batch * heads + head) * keys + key
            at_w = at[:, None] * third_columns(F) + tl.arange(0, third_columns(F))[None, :]
            tl.store(grad_w + at_w, slope_w, mask=(key < keys)[:, None])

    sequences = tl.num_programs(0) // (PARTS * tiles * key_heads)
    at = ((part.to(tl.int64) * sequences + batch) * key_heads + key_head) * keys + key
    depth, depth_v = tl.arange(0, D_BLOCK), tl.arange(0, DV_BLOCK)
    mask, mask_v = (key < keys)[:, None] & (depth < D)[None, :], (key < keys)[:, None] & (depth_v < DV)[None, :]
    tl.store(grad_k + at[:, None] * D + depth[None, :], (slope_k * scale).to(grad_k.dtype.element_ty), mask=mask)
    tl.store(grad_v + at[:, None] * DV + depth_v[None, :], slope_v.to(grad_v.dtype.element_ty), mask=mask_v)


@triton.jit  # type: ignore[untyped-decorator]
def split_kernel(x, parts, rows, RANK: tl.constexpr, F: tl.constexpr, CODE: tl.constexpr, STEP: tl.constexpr):  # type: ignore[no-untyped-def]
    """Factors [rows, RANK] in fp32 as parts [rows, F]: products with the other side's parts add up to what fp32 gives.

    A tensor core multiplies no fp32. Three bfloat16 hold its 24 bits, and six products of parts all but the last bits;
    the first three products have each part of a side once.
    """
    row = tl.program_id(0).to(tl.int64) * STEP + tl.arange(0, STEP)
    column = tl.arange(0, F)
    there = (row < rows)[:, None]
    mask = there & (column < 6 * RANK)[None, :]
    rest = tl.load(x + row[:, None] * RANK + (column % RANK)[None, :], mask=mask, other=0.0)
    which = ((CODE >> (column // RANK * 2)) & 3)[None, :]
    first = rest.to(parts.dtype.element_ty).to(tl.float32)
    second = (rest - first).to(parts.dtype.element_ty).to(tl.float32)
    part = tl.where(which == 0, first, tl.where(which == 1, second, rest - first - second))
    tl.store(parts + row[:, None] * F + column[None, :], part.to(parts.dtype.element_ty), mask=there)
