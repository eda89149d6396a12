"""Attention statistics in Triton: one kernel whose programs own queries, and one whose programs own keys. No atomics.

Products of queries and keys go to the tensor cores in the dtype they are stored in and are summed in fp32; everything
after is fp32. Every program is on grid axis 0, since the others end at 65 535.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from coterie.attention.stats import Layout, StatisticsRequest

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
OWN, PASSING = 64, 32
"""Tokens of a program: a warp group's least product. Tokens that pass by at a time: few, since bands are narrow."""
NUM_WARPS = 4
MOST_LABELS = 64
"""Labels of keys whose mass a program sums: twice as many spill in fp32."""
STRIDES = ("q_batch", "q_head", "q_token", "k_batch", "k_head", "k_token")
"""Arguments that are multiples of 16, if D is."""
_FAR = (1 << 31) - 1


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
    q, k, lse, start, stop, labels, span, entropy, sink, waad, mass,
    tokens, heads, group, scale, sinks, window,
    q_batch, q_head, q_token, k_batch, k_head, k_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, LABELS: tl.constexpr,
    REACH: tl.constexpr, CAUSAL: tl.constexpr,
    SPAN: tl.constexpr, ENTROPY: tl.constexpr, SINK: tl.constexpr, WAAD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Statistics of ROWS queries of one head. REACH says which keys matter: "all", a "band", or "first" ones."""
    blocks = tl.cdiv(tokens, ROWS)
    block = tl.program_id(0) % blocks
    head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, within = head // heads, head % heads
    rows = block * ROWS + tl.arange(0, ROWS)
    depth = tl.arange(0, D_BLOCK)
    there = rows < tokens
    q += batch * q_batch + within * q_head
    k += batch * k_batch + (within // group) * k_head
    queries = tl.load(
        q + rows.to(tl.int64)[:, None] * q_token + depth[None, :], mask=there[:, None] & (depth < D)[None, :], other=0.0
    )
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
        if SPAN:
            span_sum += tl.sum(a * distance, 1)
        if ENTROPY:
            entropy_sum -= tl.sum(tl.where(allowed, a * logits, 0.0), 1) * LN2
        if SINK:
            sink_sum += tl.sum(tl.where(columns[None, :] < first[:, None] + sinks, a, 0.0), 1)
        if WAAD:
            near_sum += tl.sum(a * tl.maximum(window - distance, 0.0), 1)
        if LABELS > 1:
            label = tl.load(labels + batch * tokens + columns, mask=columns < end, other=-1)
            one_hot = (label[:, None] == tl.arange(0, LABELS)[None, :]).to(tl.float32)
            mass_sum += tl.dot(a, one_hot, input_precision="ieee")

    place = head * tokens + rows
    if SPAN:
        tl.store(span + place, span_sum, mask=there)
    if ENTROPY:
        tl.store(entropy + place, entropy_sum, mask=there)
    if SINK:
        tl.store(sink + place, sink_sum, mask=there)
    if WAAD:
        tl.store(waad + place, window - near_sum, mask=there)
    if LABELS > 1:
        tl.store(mass + place[:, None] * LABELS + tl.arange(0, LABELS)[None, :], mass_sum, mask=there[:, None])


@triton.jit  # type: ignore[untyped-decorator]
def column_kernel(  # type: ignore[no-untyped-def]
    q, k, lse, start, stop, counted, received, fai,
    tokens, heads, group, scale, low, high,
    q_batch, q_head, q_token, k_batch, k_head, k_token,
    D: tl.constexpr, D_BLOCK: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    CAUSAL: tl.constexpr, RECEIVED: tl.constexpr, FAI: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What KEYS keys of one head get from the queries that count; queries pass by ROWS at a time."""
    blocks = tl.cdiv(tokens, KEYS)
    block = tl.program_id(0) % blocks
    head = (tl.program_id(0) // blocks).to(tl.int64)
    batch, within = head // heads, head % heads
    columns = block * KEYS + tl.arange(0, KEYS)
    depth = tl.arange(0, D_BLOCK)
    there = columns < tokens
    q += batch * q_batch + within * q_head
    k += batch * k_batch + (within // group) * k_head
    keys = tl.load(
        k + columns.to(tl.int64)[:, None] * k_token + depth[None, :],
        mask=there[:, None] & (depth < D)[None, :],
        other=0.0,
    )
    first = tl.load(start + batch * tokens + columns, mask=there, other=tokens)
    last = tl.load(stop + batch * tokens + columns, mask=there, other=0)

    begin, end = tl.min(first, 0), tl.max(last, 0)
    if CAUSAL or not RECEIVED:
        begin = tl.maximum(begin, block * KEYS)
    if not RECEIVED:
        begin = tl.maximum(begin, block * KEYS + low)
        end = tl.minimum(end, (block + 1) * KEYS + tl.minimum(high, tokens))

    received_sum = tl.zeros([KEYS], tl.float32)
    fai_sum = tl.zeros([KEYS], tl.float32)
    for row in range(begin, end, ROWS):
        rows = row + tl.arange(0, ROWS)
        queries = tl.load(
            q + rows.to(tl.int64)[None, :] * q_token + depth[:, None],
            mask=(rows < end)[None, :] & (depth < D)[:, None],
            other=0.0,
        )
        total = tl.load(lse + head * tokens + rows, mask=rows < end, other=0.0) * LOG2E
        counts = tl.load(counted + batch * tokens + rows, mask=rows < end, other=0) != 0
        logits = tl.dot(keys, queries, input_precision=PRECISION) * (scale * LOG2E) - total[None, :]
        allowed = (rows[None, :] >= first[:, None]) & (rows[None, :] < last[:, None]) & counts[None, :]
        behind = rows[None, :] - columns[:, None]
        if CAUSAL:
            allowed = allowed & (behind >= 0)
        a = tl.where(allowed, tl.exp2(logits), 0.0)
        if RECEIVED:
            received_sum += tl.sum(a, 1)
        if FAI:
            fai_sum += tl.sum(tl.where((behind >= low) & (behind <= high), a, 0.0), 1)

    place = head * tokens + columns
    if RECEIVED:
        tl.store(received + place, received_sum, mask=there)
    if FAI:
        tl.store(fai + place, fai_sum, mask=there)


def signatures(dtype: str, depth: int) -> dict[str, tuple[Any, dict[str, str], dict[str, Any]]]:
    """Kernel, types and constants of each kernel for WAAD and FAI, and for everything, for `compilation`."""
    types = dict.fromkeys(["tokens", "heads", "group", "sinks", "window", "low", "high"], "i32") | {"scale": "fp32"}
    types |= dict.fromkeys(["q", "k"], f"*{dtype}") | dict.fromkeys(["start", "stop", "labels"], "*i32")
    types |= dict.fromkeys(STRIDES, "i64") | {"counted": "*u8"}
    band = {"REACH": "band", "SPAN": False, "ENTROPY": False, "SINK": False, "WAAD": True, "LABELS": 1}
    whole = {"REACH": "all", "SPAN": True, "ENTROPY": True, "SINK": True, "WAAD": True, "LABELS": 1}
    mass = {"REACH": "all", "SPAN": False, "ENTROPY": False, "SINK": False, "WAAD": False, "LABELS": 16}
    most = {**mass, "LABELS": MOST_LABELS}
    rows, columns = _row_shape(depth), _column_shape(depth)
    cases: dict[str, tuple[Any, dict[str, Any]]] = {
        "stats WAAD": (row_kernel, {**rows, **band}),
        "stats all by query": (row_kernel, {**rows, **whole}),
        "stats mass": (row_kernel, {**rows, **mass}),
        "stats mass of many labels": (row_kernel, {**rows, **most}),
        "stats FAI": (column_kernel, {**columns, "RECEIVED": False, "FAI": True}),
        "stats all by key": (column_kernel, {**columns, "RECEIVED": True, "FAI": True}),
    }
    found = {}
    for name, (kernel, flags) in cases.items():
        constants = {**flags, "CAUSAL": True, "PRECISION": _precision(dtype)}
        arguments = [argument for argument in kernel.arg_names if argument not in constants]
        found[name] = (kernel, {argument: types.get(argument, "*fp32") for argument in arguments}, constants)
    return found


def fused_statistics(
    q: Tensor, k: Tensor, lse: Tensor, which: StatisticsRequest, layout: Layout, scale: float, causal: bool
) -> dict[str, Tensor]:
    """Row statistics, and column statistics as sums, as `tiled_statistics` gives them."""
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    launch = _Launch(q, k, lse.contiguous(), layout, scale, causal)
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
        sums = launch.rows(which) | launch.columns(which)
    counted = layout.queries[:, None]
    for name in sums.keys() & {"span", "entropy", "sink", "waad"}:
        sums[name] = sums[name].masked_fill_(~counted, 0)
    return sums


class _Launch:
    """The arguments that all launches share."""

    def __init__(self, q: Tensor, k: Tensor, lse: Tensor, layout: Layout, scale: float, causal: bool) -> None:
        self.q, self.k, self.lse, self.layout, self.causal = q, k, lse, layout, causal
        self.start, self.stop = layout.start.contiguous(), layout.stop.contiguous()
        self.sizes = (q.shape[2], q.shape[1], q.shape[1] // k.shape[1], scale)
        self.strides = (*q.stride()[:3], *k.stride()[:3])
        self.options = {"CAUSAL": causal, "PRECISION": _precision(str(q.dtype)), "num_warps": NUM_WARPS}

    def rows(self, which: StatisticsRequest) -> dict[str, Tensor]:
        """One launch over all keys if a statistic needs them, and else one for the band and one for first keys.

        Label mass has a launch of its own: in fp32 its product and the other sums together do not fit into registers.
        """
        whole = [name for name in ("span", "entropy") if getattr(which, name)]
        near = [name for name in ("waad", "sink") if getattr(which, name)]
        found = {"mass": self._mass(which)} if which.mass else {}
        if whole:
            return found | self._row(which, "all", whole + near)
        for name in near:
            found |= self._row(which, "band" if name == "waad" else "first", [name])
        return found

    def _mass(self, which: StatisticsRequest) -> Tensor:
        """Attention from label to label, with as many labels of keys at a time as a program has registers for."""
        labels, parts = self.layout.labels, []
        assert labels is not None
        known = torch.arange(which.mass, device=labels.device)
        of = ((labels[..., None] == known) & self.layout.queries[..., None]).float()
        for first in range(0, which.mass, MOST_LABELS):
            count = min(which.mass - first, MOST_LABELS)
            mine = (labels - first).masked_fill_((labels < first) | (labels >= first + count), -1)
            per_row = self._row(which, "all", ["mass"], mine, max(16, triton.next_power_of_2(count)))["mass"]
            parts.append(torch.stack([of[b].mT @ per_row[b, ..., :count] for b in range(len(of))]))
        return torch.cat(parts, -1)

    def _row(
        self, which: StatisticsRequest, reach: str, names: list[str], labels: Tensor | None = None, wide: int = 1
    ) -> dict[str, Tensor]:
        """One launch; `mass` with its labels, padded to so many, is [B, Hq, T, wide]."""
        out = {name: torch.empty_like(self.lse) for name in names if name != "mass"}
        if labels is not None:
            out["mass"] = self.lse.new_empty(*self.lse.shape, wide)
        row_kernel[self._grid()](
            self.q, self.k, self.lse, self.start, self.stop, self.start if labels is None else labels,
            *(out.get(name, self.lse) for name in ("span", "entropy", "sink", "waad", "mass")),
            *self.sizes, which.sink, which.waad, *self.strides, **_row_shape(self.q.shape[3]), LABELS=wide, REACH=reach,
            SPAN="span" in out, ENTROPY="entropy" in out, SINK="sink" in out, WAAD="waad" in out, **self.options,
        )  # fmt: skip
        return out

    def columns(self, which: StatisticsRequest) -> dict[str, Tensor]:
        names = [name for name in ("received", "fai") if getattr(which, name)]
        if not names:
            return {}
        out = {name: torch.empty_like(self.lse) for name in names}
        low, high = which.fai or (0, None)
        column_kernel[self._grid()](
            self.q, self.k, self.lse, self.start, self.stop, self.layout.queries.contiguous().view(torch.uint8),
            out.get("received", self.lse), out.get("fai", self.lse),
            *self.sizes, low, _FAR if high is None else min(high, _FAR), *self.strides,
            **_column_shape(self.q.shape[3]), RECEIVED="received" in out, FAI="fai" in out, **self.options,
        )  # fmt: skip
        return out

    def _grid(self) -> tuple[int]:
        return (self.q.shape[0] * self.q.shape[1] * triton.cdiv(self.q.shape[2], OWN),)


def _row_shape(depth: int) -> dict[str, int]:
    return {"D": depth, "D_BLOCK": max(16, triton.next_power_of_2(depth)), "ROWS": OWN, "KEYS": PASSING}


def _column_shape(depth: int) -> dict[str, int]:
    return {"D": depth, "D_BLOCK": max(16, triton.next_power_of_2(depth)), "ROWS": PASSING, "KEYS": OWN}


def _precision(dtype: str) -> str:
    """For fp32 three TensorFloat-32 products, which keep fp32's accuracy; half precision is exact either way."""
    return "tf32x3" if dtype in ("fp32", "torch.float32") else "ieee"
