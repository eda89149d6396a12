"""Attention statistics in Triton: one kernel whose programs own queries, and one whose programs own keys. No atomics.

Products of queries and keys go to the tensor cores in the dtype they are stored in and are summed in fp32; everything
after is fp32. Every program is on grid axis 0, since the others end at 65 535.
"""

from __future__ import annotations

import triton
import triton.language as tl

from coterie.attention.kernels.triton_shared import LN2, LOG2E, load_rows


@triton.jit  # type: ignore[untyped-decorator]
def _key_range(  # type: ignore[no-untyped-def]
    first, last, block, window, sinks, ROWS: tl.constexpr, REACH: tl.constexpr, CAUSAL: tl.constexpr
):
    """The first key that matters to a block of queries, and the one after the last."""
    begin, end = tl.min(first, 0), tl.max(last, 0)
    if CAUSAL:
        end = tl.minimum(end, (block + 1) * ROWS)
    if REACH == "band":
        begin = tl.maximum(begin, block * ROWS - window + 1)
        end = tl.minimum(end, (block + 1) * ROWS + window - 1)
    if REACH == "first":
        end = tl.minimum(end, tl.max(tl.where(first < last, first, -sinks), 0) + sinks)
    return begin, end


@triton.jit  # type: ignore[untyped-decorator]
def row_kernel(  # type: ignore[no-untyped-def]
    q, k, lse, start, stop, silence, labels, span, entropy, sink, waad, mass,
    tokens, heads, group, scale, sinks, window,
    q_batch, q_head, q_token, k_batch, k_head, k_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, LABELS: tl.constexpr,
    REACH: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Statistics of ROWS queries of one head. REACH says which keys matter: "all", a "band", or "first" ones.

    Statistics whose pointer is None are not wanted; without `silence` all tokens count.
    """
    blocks = tl.cdiv(tokens, ROWS)
    block = tl.program_id(0) % blocks
    head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, within = head // heads, head % heads
    rows = block * ROWS + tl.arange(0, ROWS)
    depth = tl.arange(0, D_BLOCK)
    there = rows < tokens
    q += batch * q_batch + within * q_head
    k += batch * k_batch + (within // group) * k_head
    queries = load_rows(q, rows.to(tl.int64) * q_token, there, D, D_BLOCK)
    total = tl.load(lse + head * tokens + rows, mask=there, other=0.0) * LOG2E
    first = tl.load(start + batch * tokens + rows, mask=there, other=tokens)
    last = tl.load(stop + batch * tokens + rows, mask=there, other=0)

    begin, end = _key_range(first, last, block, window, sinks, ROWS, REACH, CAUSAL)
    span_sum = tl.zeros([ROWS], tl.float32)
    entropy_sum = tl.zeros([ROWS], tl.float32)
    sink_sum = tl.zeros([ROWS], tl.float32)
    near_sum = tl.zeros([ROWS], tl.float32)
    mass_sum = tl.zeros([ROWS, LABELS], tl.float32)
    for key in range(begin, end, KEYS):
        columns = key + tl.arange(0, KEYS)
        keys = tl.load(
            k + columns.to(tl.int64)[None, :] * k_token + depth[:, None],
            mask=(columns < end)[None, :] & (depth < D)[:, None],
            other=0.0,
        )
        logits = tl.dot(queries, keys, input_precision=PRECISION) * (scale * LOG2E) - total[:, None]
        allowed = (columns[None, :] >= first[:, None]) & (columns[None, :] < last[:, None]) & (columns < end)[None, :]
        if CAUSAL:
            allowed = allowed & (columns[None, :] <= rows[:, None])
        a = tl.where(allowed, tl.exp2(logits), 0.0)
        distance = tl.abs(rows[:, None] - columns[None, :]).to(tl.float32)
        if span is not None:
            span_sum += tl.sum(a * distance, 1)
        if entropy is not None:
            entropy_sum -= tl.sum(tl.where(allowed, a * logits, 0.0), 1) * LN2
        if sink is not None:
            sink_sum += tl.sum(tl.where(columns[None, :] < first[:, None] + sinks, a, 0.0), 1)
        if waad is not None:
            near_sum += tl.sum(a * tl.maximum(window - distance, 0.0), 1)
        if LABELS > 1:
            label = tl.load(labels + batch * tokens + columns, mask=columns < end, other=-1)
            one_hot = (label[:, None] == tl.arange(0, LABELS)[None, :]).to(tl.float32)
            mass_sum += tl.dot(a, one_hot, input_precision="ieee")

    place = head * tokens + rows
    counts = there
    if silence is not None:
        counts = tl.load(silence + batch * tokens + rows, mask=there, other=1.0) == 0
    if span is not None:
        tl.store(span + place, tl.where(counts, span_sum, 0.0), mask=there)
    if entropy is not None:
        tl.store(entropy + place, tl.where(counts, entropy_sum, 0.0), mask=there)
    if sink is not None:
        tl.store(sink + place, tl.where(counts, sink_sum, 0.0), mask=there)
    if waad is not None:
        tl.store(waad + place, tl.where(counts, window - near_sum, 0.0), mask=there)
    if LABELS > 1:
        tl.store(mass + place[:, None] * LABELS + tl.arange(0, LABELS)[None, :], mass_sum, mask=there[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def _near_sum(  # type: ignore[no-untyped-def]
    queries, keys, total, rows, columns, until, scale, window, PRECISION: tl.constexpr
):
    """What is missing to the window from attention to keys before all of these queries."""
    logits = tl.dot(tl.trans(queries), tl.trans(keys), input_precision=PRECISION) * (scale * LOG2E) - total[:, None]
    weight = (window + columns).to(tl.float32)[None, :] - rows.to(tl.float32)[:, None]
    return tl.sum(tl.where(rows[:, None] < until[None, :], tl.exp2(logits) * weight, 0.0), 1)


@triton.jit
def _store_means(out, sums, counts, head, batch, columns, there):  # type: ignore[no-untyped-def]
    """Of keys at `head` + columns, over as many queries as `counts` has at `batch` + columns."""
    count = tl.load(counts + batch + columns, mask=there, other=1.0)
    tl.store(out + head + columns, sums / tl.maximum(count, 1.0), mask=there)


@triton.jit  # type: ignore[untyped-decorator]
def column_kernel(  # type: ignore[no-untyped-def]
    q, k, lse, start, stop, silence, received_queries, fai_queries, received, fai, waad,
    tokens, heads, group, scale, low, high, window,
    q_batch, q_head, q_token, k_batch, k_head, k_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BEFORE: tl.constexpr,
    SHARE: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What KEYS keys get from queries, in SHARE heads that read the same keys; queries pass by ROWS at a time.

    Queries at the keys' own places meet all keys of a narrow window here, but for the last of the block before: with
    these BEFORE keys their WAAD is complete. Causal, and a window of at most ROWS + 1 and BEFORE + 1 tokens.
    Statistics whose pointer is None are not wanted; without `silence` all tokens count.
    """
    own = (tl.program_id(0) % tl.cdiv(tokens, KEYS)) * KEYS
    head = (tl.program_id(0) // tl.cdiv(tokens, KEYS)).to(tl.int64) * SHARE
    batch, within = head // heads, head % heads
    columns = own + tl.arange(0, KEYS)
    depth = tl.arange(0, D_BLOCK)
    there = columns < tokens
    k += batch * k_batch + (within // group) * k_head
    start += batch * tokens
    stop += batch * tokens
    keys = load_rows(k, columns.to(tl.int64) * k_token, there, D, D_BLOCK)
    first, last = tl.load(start + columns, mask=there, other=tokens), tl.load(stop + columns, mask=there, other=0)
    if waad is not None:
        earlier = own - BEFORE + tl.arange(0, BEFORE)
        before = load_rows(k, earlier.to(tl.int64) * k_token, earlier >= 0, D, D_BLOCK)
        earlier_until = tl.minimum(tl.load(stop + earlier, mask=earlier >= 0, other=0), earlier + window)

    # Which queries matter to a key: of its sequence, in causal attention not before it, and for FAI at its distances.
    since = tl.maximum(first, columns) if CAUSAL else first
    fai_since = tl.maximum(first, columns + low)
    fai_until = tl.minimum(last, columns + high + 1)
    near_until = tl.minimum(last, columns + window)
    own_end = tl.minimum(own + KEYS, tokens)
    begin, end = own, own_end
    if fai is not None:
        end = tl.minimum(own_end + high, tokens)
    if received is not None:
        end = tokens
        if not CAUSAL:
            begin = tl.minimum(tl.min(first, 0), own) // ROWS * ROWS
    if end > own_end + 4 * KEYS:
        end = tl.maximum(tl.minimum(end, tl.max(last, 0)), own_end)

    lanes = tl.arange(0, ROWS)
    tiles = tl.cdiv(end - begin, ROWS)
    places = q + batch * q_batch + within * q_head + (begin + lanes).to(tl.int64)[None, :] * q_token + depth[:, None]
    received_sum = tl.zeros([KEYS], tl.float32)
    fai_sum = tl.zeros([KEYS], tl.float32)
    row = begin
    for _ in range(0, SHARE * tiles):
        row = tl.multiple_of(row, 16)
        rows = row + lanes
        inside = rows < tokens
        queries = tl.load(places, mask=(lanes < end - row)[None, :] & (depth < D)[:, None], other=0.0)
        total = tl.load(lse + head * tokens + rows, mask=inside) * LOG2E
        if silence is not None:
            counts = tl.load(silence + batch * tokens + rows, mask=inside, other=1.0) == 0
            total = tl.where(counts, total, float("inf"))  # What does not count gives nothing: exp2(-inf).
        a = tl.exp2(tl.dot(keys, queries, input_precision=PRECISION) * (scale * LOG2E) - total[None, :])
        if received is not None:
            is_seen = (rows[None, :] >= since[:, None]) & (rows[None, :] < last[:, None])
            received_sum += tl.sum(tl.where(is_seen, a, 0.0), 1)
        if fai is not None:
            in_horizon = (rows[None, :] >= fai_since[:, None]) & (rows[None, :] < fai_until[:, None])
            fai_sum += tl.sum(tl.where(in_horizon, a, 0.0), 1)
        if waad is not None:
            if row < own_end:
                weight = (window + columns).to(tl.float32)[:, None] - rows.to(tl.float32)[None, :]
                is_near = (rows[None, :] >= columns[:, None]) & (rows[None, :] < near_until[:, None])
                missing = tl.sum(tl.where(is_near, a * weight, 0.0), 0)
                if row == own:
                    missing += _near_sum(queries, before, total, rows, earlier, earlier_until, scale, window, PRECISION)
                near = window - missing
                if silence is not None:
                    near = tl.where(counts, near, 0.0)
                tl.store(waad + head * tokens + rows, near, mask=rows < own_end)
        row += ROWS
        places += ROWS * q_token
        if row >= end:  # the next head
            if received is not None:
                _store_means(received, received_sum, received_queries, head * tokens, batch * tokens, columns, there)
                received_sum = tl.zeros([KEYS], tl.float32)
            if fai is not None:
                _store_means(fai, fai_sum, fai_queries, head * tokens, batch * tokens, columns, there)
                fai_sum = tl.zeros([KEYS], tl.float32)
            row = begin
            places += q_head - tiles.to(tl.int64) * ROWS * q_token
            head += 1
