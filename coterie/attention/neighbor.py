"""Attention over a few neighbours of each agent, given by index: of a swarm, of a graph of agents."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from coterie.attention.checks import (
    check_device,
    check_dtype,
    check_finite,
    check_not_empty,
    check_once,
    check_shape,
    check_type,
    kind_of,
)
from coterie.attention.dispatch import Backend, Candidate, choose
from coterie.attention.kernels import neighbor_torch
from coterie.attention.kernels.neighbor_torch import Scores
from coterie.attention.topology import Topology

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_MAX_WIDTH = 256
"""Of a row: more numbers would not fit into registers, nor into a compiler's patience."""

_Given = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""q, k, distance, slope and bias."""


def neighbor_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    topology: Topology,
    *,
    scale: float | None = None,
    distance: Tensor | None = None,
    slope: Tensor | None = None,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of each query over its neighbours.

        s_ij = scale q_i.k_j - slope distance_ij + bias_ij    p_i = softmax over neighbours j    o_i = sum_j p_ij v_j

    Differentiable in q, k, v, distance, slope and bias, by o and by lse. Gradients are sums in a fixed order: the same
    inputs give the same bits. A query without neighbours gets zeros, lse = -inf and zero gradients. What `distance` and
    `bias` hold in empty slots is not read.

    Args:
        q: [A, H, D].
        k: [M, Hk, D], in the dtype of q. Hk divides H; consecutive query heads share a key head.
        v: [M, Hk, D], in the dtype of q.
        topology: The neighbours.
        scale: 1/sqrt(D) by default.
        distance: [A, K], floating-point.
        slope: [H], floating-point; with `distance` and only with it.
        bias: [A, K, H], floating-point.
        allowed: Bool [A, K], to leave neighbours out that the topology names; all by default.

    Returns:
        o [A, H, D] in the dtype of v, and lse [A, H], the log of each softmax's denominator, in float32 (float64 for
        float64).

    Raises:
        ValueError: A tensor has another shape, dtype or device, or `scale`, `distance`, `slope` or
            `bias` a value that is not finite.
    """
    check_type("topology", topology, Topology, "a Topology")
    result: tuple[Tensor, Tensor] = _attend(_check_rows, (q, k, distance, slope, bias), v, topology, allowed, scale)
    return result


def neighbor_aggregate(
    logits: Tensor, v: Tensor, topology: Topology, *, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`neighbor_attention` with ready-made logits, such as a perceptron's scores of pairs, in place of q.k.

    Args:
        logits: [A, K, H], floating-point.
        v: [M, Hk, D]. Hk divides H.
        topology: The neighbours.
        allowed: Bool [A, K].
    """
    check_type("topology", topology, Topology, "a Topology")
    given = None, None, None, None, logits
    result: tuple[Tensor, Tensor] = _attend(_check_logits, given, v, topology, allowed, 1.0)
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend(
    check: Callable[..., None], given: _Given, v: Tensor, topology: Topology, allowed: Tensor | None,
    scale: float | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Check everything, then compute. Nobody waits for a GPU where the terms are tensors that were looked at before."""
    kinds = check, topology.num_keys, *map(kind_of, (*given, v, topology.index, allowed))
    check_once(kinds, lambda: check(*given, v, topology, allowed))
    if scale is not None and not math.isfinite(scale):
        raise ValueError(f"scale is {scale}, expected a finite number")
    index = topology.index if allowed is None else topology.index.masked_fill(~allowed, -1)
    _, _, distance, slope, bias = given
    check_finite("distance", distance, index)
    check_finite("slope", slope)
    check_finite("bias" if check is _check_rows else "logits", bias, index)
    scores = Scores(*given, v.shape[2] ** -0.5 if scale is None else float(scale))
    backend = _choose(v, index)
    if backend == "naive":
        with torch.autocast(v.device.type, enabled=False):
            return neighbor_torch.attend(scores, v, index)
    known = {"has_empty": allowed is not None or not topology.is_full} if backend == "triton" else {}
    result: tuple[Tensor, Tensor] = _Neighbor.apply(  # type: ignore[no-untyped-call]
        *given, v, scores.scale, index, topology, _form(backend), known
    )
    return result


def _check_rows(
    q: Tensor, k: Tensor, distance: Tensor | None, slope: Tensor | None, bias: Tensor | None, v: Tensor,
    topology: Topology, allowed: Tensor | None,
) -> None:  # fmt: skip
    sizes = check_shape("q", q, "A H D", {"A": topology.num_queries})
    check_not_empty("q", q, sizes, "H", "D")
    sizes = check_shape("k", k, "M Hk D", sizes | {"M": topology.num_keys})
    check_dtype("q", q, *_FLOATS)
    check_dtype("k", k, q.dtype)
    check_dtype("v", v, q.dtype)
    check_device(v=v, q=q, k=k)
    if (distance is None) != (slope is None):
        raise ValueError("distance and slope go together, but only one is given")
    sizes = _check_values(v, sizes, topology, allowed)
    _check_term("distance", distance, "A K", sizes, v)
    _check_term("slope", slope, "H", sizes, v)
    _check_term("bias", bias, "A K H", sizes, v)


def _check_logits(
    _q: None, _k: None, _distance: None, _slope: None, logits: Tensor, v: Tensor, topology: Topology,
    allowed: Tensor | None,
) -> None:  # fmt: skip
    pattern = {"A": topology.num_queries, "K": topology.num_neighbors, "M": topology.num_keys}
    sizes = check_shape("logits", logits, "A K H", pattern)
    check_not_empty("logits", logits, sizes, "H")
    check_dtype("v", v, *_FLOATS)
    _check_term("logits", logits, "A K H", _check_values(v, sizes, topology, allowed), v)


def _check_values(v: Tensor, sizes: dict[str, int], topology: Topology, allowed: Tensor | None) -> dict[str, int]:
    sizes = check_shape("v", v, "M Hk D", sizes | {"M": topology.num_keys, "K": topology.num_neighbors})
    if not sizes["Hk"] or sizes["H"] % sizes["Hk"]:
        raise ValueError(f"v has {sizes['Hk']} heads, which do not divide the {sizes['H']} heads of the queries")
    check_device(v=v, topology=topology.index, allowed=allowed)
    if allowed is not None:
        check_shape("allowed", allowed, "A K", sizes)
        check_dtype("allowed", allowed, torch.bool)
    return sizes


def _check_term(name: str, tensor: Tensor | None, pattern: str, sizes: dict[str, int], v: Tensor) -> None:
    if tensor is not None:
        check_shape(name, tensor, pattern, sizes)
        check_dtype(name, tensor, *_FLOATS)
        check_device(v=v, **{name: tensor})


def _choose(v: Tensor, index: Tensor) -> Backend:
    is_empty = not (index.numel() and v.numel())
    why = "numba keeps sums over neighbours in registers" if v.is_cpu else "Triton gathers rows once, into registers"
    return choose("neighbor", _candidates(v.device.type, v.dtype, v.shape[2], is_empty), why=why)


@functools.lru_cache(maxsize=256)
def _candidates(device: str, dtype: torch.dtype, width: int, is_empty: bool) -> list[Candidate]:
    nothing = "there is nothing to attend to" if is_empty else ""
    wide = f"D is above {_MAX_WIDTH}" if width > _MAX_WIDTH else ""
    fused = nothing or wide
    double = "it has no float64" if dtype == torch.float64 else ""
    triton = Candidate("triton", fused or double or _missing("triton") or _unreachable(device))
    if device == "cpu":
        return [Candidate("cpu", fused or _missing("numba")), Candidate("naive"), triton]
    return [triton, Candidate("naive")]


def _unreachable(device: str) -> str:
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    return "" if device == "cuda" or interpreted else f"it does not run on {device}"


@functools.cache
def _missing(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"{package} is not installed"


def _form(backend: Backend) -> ModuleType:
    return importlib.import_module(f"coterie.attention.kernels.neighbor_{'numba' if backend == 'cpu' else backend}")


class _Neighbor(torch.autograd.Function):
    """A fused form and its backward pass."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        q, k, distance, slope, bias, v, ctx.scale, index, ctx.topology, ctx.form, ctx.known = inputs
        o, lse = ctx.form.forward(Scores(q, k, distance, slope, bias, ctx.scale), v, index, **ctx.known)
        ctx.save_for_backward(q, k, distance, slope, bias, v, index, o, lse)
        return o, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_o: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, distance, slope, bias, v, index, o, lse = ctx.saved_tensors
        scores = Scores(q, k, distance, slope, bias, ctx.scale)
        found = ctx.form.backward(scores, v, index, ctx.topology.inverse, o, lse, grad_o, grad_lse, **ctx.known)
        return found.q, found.k, found.distance, found.slope, found.bias, found.v, *[None] * 5
