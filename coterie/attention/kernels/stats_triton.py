"""Attention statistics in Triton: one kernel whose programs own queries, and one whose programs own keys. No atomics.

Products of queries and keys go to the tensor cores in the dtype they are stored in and are summed in fp32; everything
after is fp32. Every program is on grid axis 0, since the others end at 65 535.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from coterie.attention.kernels.triton_shared import LN2, LOG2E, load_rows

if TYPE_CHECKING:
    from coterie.attention.layout import Layout
    from coterie.attention.statistics_request import StatisticsRequest

MOST_SHARED = 4
"""Query heads at most for which a program keeps the keys that they share."""
MOST_LABELS = 64
"""Labels of keys whose mass a program sums: twice as many spill in fp32."""
STRIDES = ("q_batch", "q_head", "q_token", "k_batch", "k_head", "k_token")
"""Arguments that are multiples of 16, if D is."""
_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_MOST_BINARIES = 4096
_binaries: dict[tuple[object, ...], Any] = {}


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


def signatures(dtype: str, depth: int) -> dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """By case the kernel, the types of arguments, the constants and the options of launch, for `compilation`."""
    types = dict.fromkeys(["tokens", "heads", "group", "sinks", "window", "low", "high"], "i32") | {"scale": "fp32"}
    types |= dict.fromkeys(["q", "k"], f"*{dtype}") | dict.fromkeys(["start", "stop", "labels"], "*i32")
    types |= dict.fromkeys(STRIDES, "i64")
    row, band, column = _row_shape(dtype, depth), *(_column_shape(dtype, depth, received=x) for x in (False, True))
    apart = [] if _widest_window(dtype, depth) else ["waad"]
    cases: dict[str, tuple[Any, Shape, list[str], dict[str, Any]]] = {
        "stats WAAD and FAI": (column_kernel, band, ["silence", "received", "received_queries", *apart], {}),
        "stats all by key": (column_kernel, column, apart, {}),
        "stats WAAD of a wide window": (row_kernel, row, ["span", "entropy", "sink", "mass"], {"REACH": "band"}),
        "stats all by query": (row_kernel, row, ["mass"], {}),
        "stats mass": (row_kernel, row, ["span", "entropy", "sink", "waad"], {"LABELS": 16}),
        "stats mass of many labels": (row_kernel, row, ["span", "entropy", "sink", "waad"], {"LABELS": MOST_LABELS}),
    }
    found = {}
    for name, (kernel, (shape, options), unwanted, constants) in cases.items():
        fixed = {"D": depth, "BEFORE": 16, "SHARE": 4, "REACH": "all", "LABELS": 1, "CAUSAL": True}
        fixed |= {**shape, "PRECISION": _precision(dtype), **dict.fromkeys(unwanted), **constants}
        fixed = {argument: fixed[argument] for argument in kernel.arg_names if argument in fixed}
        free = [argument for argument in kernel.arg_names if argument not in fixed]
        found[name] = (kernel, {argument: types.get(argument, "*fp32") for argument in free}, fixed, options)
    return found


def fused_statistics(
    q: Tensor, k: Tensor, lse: Tensor, which: StatisticsRequest, layout: Layout, scale: float, causal: bool
) -> dict[str, Tensor]:
    """What `tiled_statistics` gives."""
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
        return _Launch(q, k, lse.contiguous(), which, layout, scale, causal).run()


class _Launch:
    """The arguments that all launches share."""

    def __init__(
        self, q: Tensor, k: Tensor, lse: Tensor, which: StatisticsRequest, layout: Layout, scale: float, causal: bool
    ) -> None:
        self.q, self.lse, self.which, self.layout, self.causal = q, lse, which, layout, causal
        self.batch, self.heads, self.tokens, self.depth = q.shape
        self.group, self.dtype = self.heads // k.shape[1], _DTYPES[q.dtype]
        self.data = (q, k, lse, layout.start, layout.stop, layout.silence)
        self.sizes = (self.tokens, self.heads, self.group, scale)
        self.strides = (*q.stride()[:3], *k.stride()[:3])

    def run(self) -> dict[str, Tensor]:
        """WAAD comes with the columns where its window is narrow enough to be seen from there."""
        which = self.which
        is_narrow = self.causal and 0 < which.waad <= _widest_window(self.dtype, self.depth)
        found = {"mass": self._mass()} if which.mass else {}
        if names := [name for name in ("span", "entropy") if getattr(which, name)]:
            names += ["sink"] * (which.sink > 0) + ["waad"] * (which.waad > 0 and not is_narrow)
            found |= self._rows("all", names)
        else:
            if which.sink:
                found |= self._rows("first", ["sink"])
            if which.waad and not is_narrow:
                found |= self._rows("band", ["waad"])
        names = ["received"] * which.received + ["fai"] * (which.fai is not None) + ["waad"] * is_narrow
        return found | self._columns(names) if names else found

    def _mass(self) -> Tensor:
        """Attention from label to label, with as many labels of keys at a time as a program has registers for.

        A launch of its own: in fp32 its product and the other sums together do not fit into registers.
        """
        labels, count, parts = self.layout.labels, self.which.mass, []
        assert labels is not None
        known = torch.arange(count, device=labels.device)
        of = ((labels[..., None] == known) & self.layout.queries[..., None]).float()
        for first in range(0, count, MOST_LABELS):
            size = min(count - first, MOST_LABELS)
            mine = (labels - first).masked_fill_((labels < first) | (labels >= first + size), -1)
            per_row = self._rows("all", [], mine, max(16, _next_power(size)))["mass"]
            parts.append(torch.stack([of[b].mT @ per_row[b, ..., :size] for b in range(len(of))]))
        return torch.cat(parts, -1)

    def _rows(self, reach: str, names: list[str], labels: Tensor | None = None, wide: int = 1) -> dict[str, Tensor]:
        """One launch; `mass` with its labels, padded to so many, is [B, Hq, T, wide]."""
        out = {name: torch.empty_like(self.lse) for name in names}
        if labels is not None:
            out["mass"] = self.lse.new_empty(*self.lse.shape, wide)
        shape, options = _row_shape(self.dtype, self.depth)
        wanted = [out.get(name) for name in ("span", "entropy", "sink", "waad", "mass")]
        blocks = self.batch * self.heads * -(-self.tokens // shape["ROWS"])
        numbers = (*self.sizes, self.which.sink, self.which.waad, *self.strides)
        constants = (self.depth, *shape.values(), wide, reach, self.causal, _precision(self.dtype))
        _launch(row_kernel, blocks, (*self.data, labels, *wanted), (*numbers, *constants), options)
        return out

    def _columns(self, names: list[str]) -> dict[str, Tensor]:
        which, tokens = self.which, self.tokens
        flags, options = _column_shape(self.dtype, self.depth, received=which.received)
        out = {name: torch.empty_like(self.lse) for name in names}
        before = max(16, _next_power(which.waad - 1)) if "waad" in out else 16
        share = math.gcd(self.group, MOST_SHARED)
        low, high = which.fai or (0, 0)
        counts = self.layout.counts(which, self.causal)
        wanted = (counts.get("received"), counts.get("fai"), out.get("received"), out.get("fai"), out.get("waad"))
        horizon = (min(low, tokens), tokens if high is None else min(high, tokens))
        numbers = (*self.sizes, *horizon, which.waad, *self.strides)
        constants = (self.depth, *flags.values(), before, share, self.causal, _precision(self.dtype))
        blocks = self.batch * self.heads // share * -(-tokens // flags["KEYS"])
        _launch(column_kernel, blocks, (*self.data, *wanted), (*numbers, *constants), options)
        return out


def _launch(
    kernel: Any, blocks: int, tensors: Sequence[Tensor | None], numbers: Sequence[object], options: dict[str, int]
) -> None:
    """Launch, and the second time with the same numbers do so by the binary, which takes a third of Python's time.

    Triton makes a binary for what it sees of arguments: dtypes, which are None or 1, and what 16 divides.
    """
    q = tensors[0]
    assert q is not None
    aligned = [x if x is None else x.data_ptr() % 16 for x in tensors]
    key = (kernel.__name__, q.dtype, q.device, *aligned, *numbers)
    if binary := _binaries.get(key):
        binary[blocks, 1, 1](*tensors, *numbers)
        return
    if len(_binaries) >= _MOST_BINARIES:
        _binaries.clear()
    _binaries[key] = kernel[blocks, 1, 1](*tensors, *numbers, **options)  # The interpreter makes none.


Shape = tuple[dict[str, int], dict[str, int]]
"""D_BLOCK, ROWS and KEYS of a kernel, and options of its launch."""


@functools.cache
def _row_shape(dtype: str, depth: int) -> Shape:
    return {"D_BLOCK": max(16, _next_power(depth)), "ROWS": 64, "KEYS": 32}, {"num_warps": 4}


@functools.cache
def _column_shape(dtype: str, depth: int, *, received: bool) -> Shape:
    shape = {"D_BLOCK": max(16, _next_power(depth)), "ROWS": 32, "KEYS": 64}
    if dtype == "fp32" or depth > 128:
        return shape, {"num_warps": 4}
    # Three programs fit into a multiprocessor with so many registers, which two sums by key spill.
    return {**shape, "ROWS": 64}, {"num_warps": 4, **({} if received else {"maxnreg": 168})}


def _widest_window(dtype: str, depth: int) -> int:
    """Up to which WAAD comes with the columns, for which wide heads in fp32 leave no registers."""
    return 0 if dtype == "fp32" and depth > 64 else _column_shape(dtype, depth, received=False)[0]["ROWS"] + 1


def _next_power(number: int) -> int:
    """The least power of two that is not below a number of at least 1."""
    return 1 << (number - 1).bit_length()


def _precision(dtype: str) -> str:
    """For fp32 three TensorFloat-32 products, which keep fp32's accuracy; half precision is exact either way."""
    return "tf32x3" if dtype == "fp32" else "ieee"
