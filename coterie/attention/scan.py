"""Linear attention: a state instead of a map, with decay.

    o_i = sum_{j<=i} d^(i-j) (q_i.k_j) v_j + d^(i+1) q_i S        not causal: o_i = sum_j d^|i-j| (q_i.k_j) v_j

q and k are features: phi(q) and phi(k) come in. Weights of rows and columns are factors of q and v; a column of ones in
v gives the sum of a row's weights.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch
from torch import Tensor
from torch.nn import functional
from torch.torch_version import TorchVersion

from coterie.attention.checks import check_device, check_dtype, check_not_empty, check_shape
from coterie.attention.dispatch import Candidate, choose
from coterie.attention.kernels.scan_naive import naive_scan
from coterie.attention.kernels.scan_torch import chunked_scan
from coterie.attention.naive import share_heads
from coterie.attention.spec import widened

CPU_CHUNK, GPU_CHUNK = 64, 512
"""Tokens in a chunk: as many as a core's own cache has room for; on a GPU, so many that few steps follow each other."""
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor | None = None,
    causal: bool = True,
    segment: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Linear attention; differentiable in every floating-point tensor.

    Args:
        q: [B, Hq, N, D], features of the queries.
        k: [B, Hk, N, D], features of the keys, of the same dtype; consecutive query heads share a key head.
        v: [B, Hk, N, Dv] of the same dtype.
        log_decay: [Hq], log d of the formula, at most 0; by default 0: nothing decays.
        causal: Whether a query sees the keys at or before it alone.
        segment: [N] or [B, N] integers: the state begins anew where they change, and keys of other segments are not
            seen. Negative: padding, which is not read and gets zeros.
        state: [B, Hq, D, Dv], S of the formula, what lies before the first token; by default 0. In float32, or float64
            where q is, and only in causal order.

    Returns:
        The output [B, Hq, N, Dv] in the dtype of v, and the state behind the last token, in that of `state`.

    Raises:
        ValueError: A tensor has a wrong shape, dtype, device or value; it is named. Or COTERIE_ATTENTION names a form
            that cannot serve this call.
    """
    rate, start = _checked(q, k, v, log_decay, causal, segment, state)
    k, v = (share_heads(x, q.shape[1]) for x in (k, v))
    run = padding = None
    if segment is not None:
        of = segment.expand(1, -1) if segment.dim() == 1 else segment
        padding = (of < 0)[:, None, :, None]
        q, k, v = (x.masked_fill(padding, 0) for x in (q, k, v))
        run = functional.pad((of[:, 1:] != of[:, :-1]).cumsum(-1), (1, 0))
    if causal:
        o, last = _causal(q, k, v, rate, run, start)
    else:
        wide_q, wide_k, wide_v = (x.to(start.dtype) for x in (q, k, v))
        o, last = _both_sides(wide_q, wide_k, wide_v, None if log_decay is None else rate, run, start)
    # What is there already, but no gradient that comes from padding.
    return (o if padding is None else o.masked_fill(padding, 0)).to(v.dtype), last


def _both_sides(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor | None, run: Tensor | None, start: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        if rate is None and run is None:
            state = k.mT @ v
            return q @ state, state
        rate = start.new_zeros(q.shape[1]) if rate is None else rate
        o, last = _causal(q, k, v, rate, run, start)
        turned = None if run is None else run.flip(1)
        ahead, _ = _causal(q.flip(2), k.flip(2), v.flip(2), rate, turned, start)
        # Both hold the token itself.
        return o + ahead.flip(2) - (q * k).sum(-1, keepdim=True) * v, last


def _causal(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, run: Tensor | None, start: Tensor) -> tuple[Tensor, Tensor]:
    candidates = [Candidate("fla", _fla_refusal(q, k, v, rate, run, start)), Candidate("cpu"), Candidate("naive")]
    backend = choose("scan", candidates, why="kernels for all chunks at once, or else a chunk after the other")
    if backend == "fla":
        return _by_fla(q, k, v, rate, start)
    if backend == "cpu":
        return chunked_scan(q, k, v, rate, run, start, CPU_CHUNK if q.is_cpu else GPU_CHUNK)
    return naive_scan(q, k, v, rate, run, start)


def _by_fla(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """By `chunk_simple_gla`, which has tokens before heads, and names the state initial."""
    form = importlib.import_module("fla.ops.simple_gla").chunk_simple_gla
    rows = (x.transpose(1, 2).contiguous() for x in (q, k, v))
    o, last = form(*rows, g_gamma=rate, scale=1.0, initial_state=start.contiguous(), output_final_state=True)
    return o.transpose(1, 2), last


def _fla_refusal(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, run: Tensor | None, start: Tensor) -> str:
    if not q.is_cuda:
        return f"it does not run on {q.device.type}"
    if not has_fla():
        return "flash-linear-attention is not installed"
    if q.dtype not in (torch.bfloat16, torch.float16):
        return "it would round to tf32"
    if torch.is_grad_enabled() and rate.requires_grad:
        return "its decays by head have no gradient"
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v, start)) and _miscompiles(q.device):
        return "Triton before 3.7.1 compiles its backward pass wrongly for Hopper"
    if run is not None or not q.shape[2]:
        return "it is used for one segment"
    return ""


@functools.cache
def _miscompiles(device: torch.device) -> bool:
    """Whether this is what flash-linear-attention's issue 640 is about."""
    version = TorchVersion(importlib.import_module("triton").__version__)
    return torch.cuda.get_device_capability(device)[0] == 9 and version >= "3.4" and version < "3.7.1"


@functools.cache
def has_fla() -> bool:
    """Whether flash-linear-attention is installed."""
    return importlib.util.find_spec("fla") is not None


def _checked(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor | None, causal: bool, segment: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Decay and state, where none is given with their defaults."""
    sizes = check_shape("q", q, "B Hq N D")
    sizes = check_shape("v", v, "B Hk N Dv", check_shape("k", k, "B Hk N D", sizes))
    check_not_empty("q", q, sizes, "Hq", "D")
    if not sizes["Hk"] or sizes["Hq"] % sizes["Hk"]:
        raise ValueError(f"q has {sizes['Hq']} heads, which {sizes['Hk']} heads of k cannot share evenly")
    check_dtype("q", q, *_FLOATS)
    check_dtype("k", k, q.dtype)
    check_dtype("v", v, q.dtype)
    check_device(q=q, k=k, v=v, log_decay=log_decay, segment=segment, state=state)
    wide = widened(q[:0]).dtype
    if segment is not None:
        check_dtype("segment", segment, *_INTEGERS)
        check_shape("segment", segment, "N" if segment.dim() == 1 else "B N", sizes)
    if log_decay is not None:
        check_shape("log_decay", log_decay, "Hq", sizes)
        if not bool(((log_decay <= 0) & log_decay.isfinite()).all()):
            raise ValueError("log_decay holds values above 0 or not finite, expected log d with 0 < d <= 1")
    if state is not None:
        check_shape("state", state, "B Hq D Dv", sizes)
        check_dtype("state", state, wide)
        if not causal:
            raise ValueError("state is given, but only causal scans know what lies before the first token")
    rate = q.new_zeros(sizes["Hq"], dtype=wide) if log_decay is None else log_decay.to(wide)
    start = q.new_zeros(*(sizes[word] for word in ("B", "Hq", "D", "Dv")), dtype=wide) if state is None else state
    return rate, start
