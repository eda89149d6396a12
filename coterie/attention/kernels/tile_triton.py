"""Attention over lists of tiles in Triton: what is launched, and in which sizes."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from coterie.attention.blocks import Entries, TileLists
from coterie.attention.kernels.tile_kernels import (
    forward_kernel,
    key_kernel,
    query_kernel,
    split_kernel,
    third_columns,
)
from coterie.attention.kernels.tile_torch import Grads, Terms

_SHAPES = {
    "forward": ((128, 4, 3), (64, 4, 3), (128, 4, 3), (128, 8, 3), (64, 8, 1), (64, 2, 2)),
    "queries": ((64, 4, 2), (64, 4, 2), (64, 4, 2), (64, 4, 2), (32, 8, 1), (64, 2, 2)),
    "keys": ((64, 4, 2), (64, 4, 2), (64, 4, 2), (32, 4, 2), (32, 8, 1), (64, 4, 2)),
}
"""By kernel STEP, warps and stages: D up to 64 and up to 128, the same with factors, in fp32 or wider, and where fewer
than 16 queries have a list."""
STRIDES = tuple(f"{name}_{axis}" for name in "qkv" for axis in ("batch", "head", "token"))
"""Arguments that are multiples of 16, if D is."""
_MOST_PARTS = 8
"""Into which a list by key may be cut, where some are much longer than others."""
_CODES = 0b01_00_00_10_01_00, 0b00_01_00_00_01_10
"""Which parts of factors are multiplied, two bits for each product, the first on the right: of u, and of w."""
_DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


def forward(terms: Terms, v: Tensor, tiles: TileLists) -> tuple[Tensor, Tensor]:
    """What the form in torch gives."""
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        return _Launch(terms, v, tiles, learns=False).forward()


def backward(
    terms: Terms, v: Tensor, tiles: TileLists, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor, learns: bool
) -> Grads:
    """Likewise."""
    with torch.cuda.device_of(v):  # type: ignore[no-untyped-call]
        return _Launch(terms, v, tiles, learns=learns).backward(o, lse, grad_o.contiguous(), grad_lse.contiguous())


def signatures(
    dtype: str, width: int, rank: int, rows: int, shared: int
) -> dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]]:
    """By pass the kernel, the types of arguments, the constants and the options of launch, for `compilation`."""
    types = dict.fromkeys(["queries", "keys", "heads", "group", "batch_lists", "head_lists"], "i32")
    types |= dict.fromkeys(STRIDES, "i32") | dict.fromkeys(["full_starts", "some_starts", "bits"], "*i64")
    types |= dict.fromkeys(["full_other", "some_other", "some_places"], "*i32") | {"scale": "fp32"}
    types |= dict.fromkeys(["q", "k", "v", "o", "grad_o", "grad_q"], f"*{dtype}")
    parts = _MOST_PARTS if _is_cut(rank, rows) else 1
    types |= dict.fromkeys(["grad_k", "grad_v"], f"*{dtype if parts == 1 else 'fp32'}")
    types |= dict.fromkeys(["u", "w"], "*bf16")
    more = {"PARTS": parts, "LEARNS": rank > 0} | ({} if rank else dict.fromkeys(["u", "w", "grad_u", "grad_w"]))
    found = {}
    for name, kernel in (("forward", forward_kernel), ("queries", query_kernel), ("keys", key_kernel)):
        shape, options = _shape(name, dtype, width, width, rank, rows, shared)
        fixed = {argument: value for argument, value in {**shape, **more}.items() if argument in kernel.arg_names}
        free = {argument: types.get(argument, "*fp32") for argument in kernel.arg_names if argument not in fixed}
        found[name] = (kernel, free, fixed, options)
    return found


class _Launch:
    """The arguments that all launches share."""

    def __init__(self, terms: Terms, v: Tensor, tiles: TileLists, *, learns: bool) -> None:
        self.q, self.k, self.v = (_near(x) for x in (terms.q, terms.k, v))
        factors = zip((terms.u, terms.w), _CODES, strict=True)
        self.u, self.w = (None if x is None else _split(x, code) for x, code in factors)
        self.tiles, self.width, self.rank = tiles, v.shape[-1], 0 if terms.u is None else terms.u.shape[-1]
        self.learns = learns
        self.batch, self.heads, self.queries, self.depth = self.q.shape
        self.key_heads, self.keys = self.k.shape[1:3]
        self.dtype = _DTYPES[v.dtype]
        group = self.heads // self.key_heads
        self.shared = _shared(tiles, group, self.key_heads, self.rank)
        strides = [stride for x in (self.q, self.k, self.v) for stride in x.stride()[:3]]
        self.numbers = (
            self.queries, self.keys, self.heads, group, tiles.batch, tiles.heads, terms.scale, *strides
        )  # fmt: skip

    @functools.cached_property
    def parts(self) -> int:
        """Into which lists by key are cut. The host waits for the device to know it: the backward pass alone asks."""
        is_cut = _is_cut(self.rank, self.tiles.rows)
        return min(_MOST_PARTS, _next_power(self.tiles.longest)) if is_cut else 1

    def forward(self) -> tuple[Tensor, Tensor]:
        o = self.v.new_empty(*self.q.shape[:3], self.width)
        lse = torch.empty(self.q.shape[:3], dtype=torch.float32, device=self.v.device)
        self._launch(forward_kernel, "forward", self._lists(self.tiles.by_query), (o, lse))
        return o, lse

    def backward(self, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor) -> Grads:
        delta = torch.empty_like(lse)
        grad_q, grad_u = self.by_query(o, lse, grad_o, grad_lse, delta)
        grad_k, grad_v, grad_w = self.by_key(lse, grad_o, delta)
        return Grads(grad_q, grad_k, grad_v, grad_u, grad_w)

    def by_query(
        self, o: Tensor, lse: Tensor, grad_o: Tensor, grad_lse: Tensor, delta: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of q and u; fills delta."""
        grad_q, grad_u = self.q.new_empty(self.q.shape), self._thirds(self.queries)
        out = (o, lse, grad_o, grad_lse, delta, grad_q, grad_u)
        self._launch(query_kernel, "queries", self._lists(self.tiles.by_query), out)
        return grad_q, self._sum(grad_u)

    def by_key(self, lse: Tensor, grad_o: Tensor, delta: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of k, v and w."""
        dtype = self.v.dtype if self.parts == 1 else lse.dtype
        grad_k, grad_v = (x.new_empty(self.parts, *x.shape, dtype=dtype) for x in (self.k, self.v))
        grad_w = self._thirds(self.keys)
        full, some, bits = *self.tiles.by_key, self.tiles.bits
        lists = (full.starts, full.other, some.starts, some.other, some.place, bits)
        self._launch(key_kernel, "keys", lists, (lse, grad_o, delta, grad_k, grad_v, grad_w))
        if self.parts == 1:
            return grad_k[0], grad_v[0], self._sum(grad_w)
        return grad_k.sum(0).to(self.k.dtype), grad_v.sum(0).to(self.v.dtype), None

    def _lists(self, entries: tuple[Entries, Entries]) -> tuple[Tensor, ...]:
        full, some = entries
        return full.starts, full.other, some.starts, some.other, self.tiles.bits

    def _thirds(self, tokens: int) -> Tensor | None:
        """Room for slopes that met the parts of the other side's factors."""
        if not self.learns:
            return None
        columns = third_columns(_wide(self.rank))
        return torch.empty(self.batch, self.heads, tokens, columns, dtype=torch.float32, device=self.v.device)

    def _sum(self, x: Tensor | None) -> Tensor | None:
        """Of slopes that met each part once the sum, [.., R]."""
        return None if x is None else x[..., : 3 * self.rank].view(*x.shape[:-1], 3, self.rank).sum(-2)

    def _launch(self, kernel: Any, name: str, lists: tuple[Tensor, ...], out: tuple[Tensor | None, ...]) -> None:
        shape, options = _shape(name, self.dtype, self.depth, self.width, self.rank, self.tiles.rows, self.shared)
        if name != "forward":
            shape["LEARNS"] = self.learns
        if name == "keys":
            shape["PARTS"] = self.parts
            programs = self.batch * self.key_heads * self.tiles.counts[1] * self.parts
        else:
            steps = self.tiles.rows * shape["GROUP"] // shape["STEP"]
            programs = self.batch * self.heads // self.shared * self.tiles.counts[0] * steps
        kernel[programs,](self.q, self.k, self.v, self.u, self.w, *lists, *out, *self.numbers, **shape, **options)


def _near(x: Tensor) -> Tensor:
    """With numbers of a token next to each other, and tokens of a tile within offsets of 32 bits."""
    return x if x.stride(-1) == 1 and x.stride(-2) < 1 << 24 else x.contiguous()


def _split(x: Tensor, code: int) -> Tensor:
    """Factors [.., R] as parts [.., F]."""
    x = x.float().contiguous()
    # The interpreter cannot multiply bfloat16: there one part is all.
    parts = x.new_empty(*x.shape[:-1], _wide(x.shape[-1]), dtype=torch.bfloat16 if x.is_cuda else torch.float32)
    rows, step = x.numel() // x.shape[-1], 64
    split_kernel[triton.cdiv(rows, step),](x, parts, rows, RANK=x.shape[-1], F=parts.shape[-1], CODE=code, STEP=step)
    return parts


def _wide(rank: int) -> int:
    """F of a rank."""
    return max(16, _next_power(6 * rank)) if rank else 0


def _shared(tiles: TileLists, group: int, key_heads: int, rank: int) -> int:
    """How many heads are rows of one product: those that share keys and a list, where few queries have one list."""
    return group if tiles.rows < 16 and key_heads % tiles.heads == 0 and not rank else 1


def _is_cut(rank: int, rows: int) -> bool:
    """Whether lists by key are cut where some are much longer than others."""
    return not rank and rows < 16


def _shape(
    name: str, dtype: str, depth: int, width: int, rank: int, rows: int, shared: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """The constants of a kernel, and the options of its launch."""
    group = 1 if rows >= 16 else max(16 // rows, _next_power(shared))
    wide = max(depth, width)
    if dtype == "fp32" or wide > 128:
        kind = 4
    elif rows < 16:
        kind = 5
    else:
        kind = (2 if rank else 0) + (wide > 64)
    step, warps, stages = _SHAPES[name][kind]
    if name == "keys":
        step = max(step, group)
    else:
        step = min(step, rows * group)
        warps = max(warps, step // 16) if rows < 16 else warps
    constants = {
        "D": depth, "D_BLOCK": max(16, _next_power(depth)), "DV": width, "DV_BLOCK": max(16, _next_power(width)),
        "F": _wide(rank),
        "ROWS": rows, "GROUP": group, "SHARED": shared, "STEP": step,
        "PRECISION": "tf32x3" if dtype == "fp32" else "ieee",
    }  # fmt: skip
    return constants, {"num_warps": warps, "num_stages": stages}


def _next_power(number: int) -> int:
    """The least power of two that is not below a number of at least 1."""
    return 1 << (number - 1).bit_length()
