"""Attention statistics in Triton: what is launched, and on which tiles."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from coterie.attention.kernels.stats_kernels import column_kernel, row_kernel

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
