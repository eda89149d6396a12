"""Statistics of self-attention from queries, keys and log-sum-exps alone, in memory linear in the tokens.

With lse_t = ln sum_s exp(a q_t.k_s) known, as every fused attention forward knows it, each entry of the map is
a_ts = exp(a q_t.k_s - lse_t) by itself, so tiles of the map can be made, summed up and forgotten in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from coterie.attention import checks
from coterie.attention.dispatch import Backend, Candidate, choose, triton_refusal
from coterie.attention.kernels.stats_naive import naive_statistics
from coterie.attention.kernels.stats_torch import tiled_statistics
from coterie.attention.layout import Layout, lay_out, positions
from coterie.attention.statistics_request import StatisticsRequest

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class AttentionStatistics:
    """What was asked for, in fp32, and None for the rest. Tokens that are no queries have 0 where a query is described.

    Padding has 0 everywhere.
    """

    span: Tensor | None = None
    """[B, Hq, T], tokens."""
    entropy: Tensor | None = None
    """[B, Hq, T], nats."""
    sink: Tensor | None = None
    """[B, Hq, T], in [0, 1]."""
    waad: Tensor | None = None
    """[B, Hq, T], tokens, in [0, W]."""
    received: Tensor | None = None
    """[B, Hq, T]."""
    fai: Tensor | None = None
    """[B, Hq, T]."""
    mass: Tensor | None = None
    """[B, Hq, L, L], from label to label; divided by `mass_queries`[:, None, :, None] it is the mean per query."""
    queries: Tensor | None = None
    """Bool [B, T], always there: the tokens that row statistics describe."""
    received_queries: Tensor | None = None
    """[B, T], the number of queries in the mean of `received`."""
    fai_queries: Tensor | None = None
    """[B, T], the number of queries in the mean of `fai`."""
    mass_queries: Tensor | None = None
    """[B, L], the number of queries with each label."""

    def head_means(self) -> dict[str, Tensor]:
        """Mean over all queries of the batch, per head [Hq], of each row statistic asked for; NaN without queries."""
        assert self.queries is not None
        rows = {"span": self.span, "entropy": self.entropy, "sink": self.sink, "waad": self.waad}
        count = self.queries.sum()
        return {name: values.sum((0, 2)) / count for name, values in rows.items() if values is not None}


@torch.no_grad()
def attention_statistics(
    q: Tensor,
    k: Tensor,
    lse: Tensor | None,
    which: StatisticsRequest,
    *,
    segments: Tensor | None = None,
    queries: Tensor | None = None,
    labels: Tensor | None = None,
    layout: Layout | None = None,
    scale: float | None = None,
    causal: bool = True,
) -> AttentionStatistics:
    """Row and column statistics of softmax attention, without the map. They carry no gradient.

    Query and key are what the softmax sees: after norms and rotary embedding. Windows, learned sinks and softcaps are
    not part of the formula. Query head h reads key head h // (Hq / Hk), and keys are not repeated in memory.

    Args:
        q: [B, Hq, T, D], float32, bfloat16 or float16.
        k: [B, Hk, T, D], the same dtype; Hk divides Hq.
        lse: [B, Hq, T] float32, the natural log of each softmax's denominator; None: it is computed, at the price of
            one fused attention forward. On the CPU, causal, it is compared with the scores of first tokens.
        which: What is wanted.
        segments: Integers [B, T]. A sequence is a run of equal numbers, and attends to itself alone; negative numbers
            are padding. By default each batch element is one sequence.
        queries: Bool [B, T], the tokens whose attention counts, such as a response; all by default.
        labels: Integers [B, T] below `which.mass`; negative: without a label.
        layout: What `lay_out` made of segments, queries and labels, in their place, where several layers share them.
        scale: Factor of q.k, 1/sqrt(D) by default.
        causal: Whether a query sees no later key. `fai` counts later queries only in either case.

    Raises:
        ValueError: A tensor has the wrong shape, dtype, device or values; `mass` without `labels` or the reverse.
    """
    checks.check_once(("stats", *map(checks.kind_of, (q, k, lse))), lambda: _check(q, k, lse))
    layout = _lay_out(q, layout, which, segments, queries, labels)
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if lse is None:
        _, lse = _attend(q, k, k, layout, scale, causal)
    elif causal and q.device.type == "cpu":
        _check_lse(q, k, lse, layout, scale)
    backend = _backend(q)
    if backend == "triton":
        from coterie.attention.kernels.stats_triton import fused_statistics as compute
    else:
        compute = naive_statistics if backend == "naive" else tiled_statistics
    found = compute(q, k, lse, which, layout, scale, causal)
    # Copies, since a layout serves other calls, too.
    counts = {f"{name}_queries": count.clone() for name, count in layout.counts(which, causal).items()}
    return AttentionStatistics(**found, **counts, queries=layout.queries.clone())


def attention_with_lse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    segments: Tensor | None = None,
    scale: float | None = None,
    causal: bool = True,
) -> tuple[Tensor, Tensor]:
    """Self-attention by PyTorch's fused kernels, and the log-sum-exp that they know anyway.

    The output is differentiable, the log-sum-exp is not. Padding gets zeros and -inf.

    Args:
        q: [B, Hq, T, D].
        k: [B, Hk, T, D], the same dtype.
        v: [B, Hk, T, Dv], the same dtype.
        segments: As for `attention_statistics`.
        scale: Factor of q.k, 1/sqrt(D) by default.
        causal: Whether a query sees no later key.

    Returns:
        The output [B, Hq, T, Dv] and the log-sum-exp [B, Hq, T] in float32 (on the CPU float64 for float64).

    Raises:
        ValueError: A tensor has the wrong shape, dtype or device.
    """
    checks.check_device(q=q, k=k, v=v, segments=segments)
    checks.check_dtype("q", q, *_FLOATS, torch.float64)
    for name, tensor in (("k", k), ("v", v)):
        checks.check_dtype(name, tensor, q.dtype)
    sizes = _check_heads(q, k)
    checks.check_shape("v", v, "B Hk T Dv", sizes)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return _attend(q, k, v, lay_out(q, segments=segments), scale, causal)


def _attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    if not layout.is_packed:
        return _fused(q, k, v, scale, causal)
    o = q.new_zeros(*q.shape[:3], v.shape[-1])
    lse = torch.full(q.shape[:3], -torch.inf, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device)
    for b, start, stop in layout.runs():
        one, rows = slice(b, b + 1), slice(start, stop)
        o[one, :, rows], lse[one, :, rows] = _fused(q[one, :, rows], k[one, :, rows], v[one, :, rows], scale, causal)
    return o, lse


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Calls by PyTorch's names, since `scaled_dot_product_attention` throws the log-sum-exp away."""
    aten: Any = torch.ops.aten
    size = v.shape[-1]
    wide = max(q.shape[-1], size)
    wide += -wide % (8 if q.is_cuda else 1)
    # To pad by nothing is to copy; the kernel of the CPU reads widths as if they were dense.
    q, k, v = (
        x if x.shape[-1] == wide and x.stride(-1) == 1 else functional.pad(x, (0, wide - x.shape[-1]))
        for x in (q, k, v)
    )
    if not q.is_cuda:
        o, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    elif _runs_cudnn(q, k, v, scale, causal):
        o, lse = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal, scale=scale)[:2]
        lse = lse.view(q.shape[:3])
    elif q.dtype != torch.float32:
        o, lse = aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, scale=scale)[:2]
    else:
        # This kernel wants as many key heads as query heads: the i-th of every group reads all key heads in order.
        group = q.shape[1] // k.shape[1]
        parts = [
            aten._scaled_dot_product_efficient_attention(q[:, i::group], k, v, None, True, 0.0, causal, scale=scale)
            for i in range(group)
        ]
        o, lse = (torch.stack([part[j] for part in parts], 2).flatten(1, 2) for j in (0, 1))
    return o[..., :size], lse[..., : q.shape[2]]


def _runs_cudnn(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> bool:
    """Whether `scaled_dot_product_attention` would choose cuDNN, on an H100 twice as fast as the others."""
    choice = torch._fused_sdp_choice(q, k, v, None, 0.0, causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1])
    return bool(choice == SDPBackend.CUDNN_ATTENTION.value)


def _check(q: Tensor, k: Tensor, lse: Tensor | None) -> None:
    checks.check_device(q=q, k=k, lse=lse)
    checks.check_dtype("q", q, *_FLOATS)
    checks.check_dtype("k", k, q.dtype)
    sizes = _check_heads(q, k)
    if lse is not None:
        checks.check_dtype("lse", lse, torch.float32)
        checks.check_shape("lse", lse, "B Hq T", sizes)


def _lay_out(
    q: Tensor,
    layout: Layout | None,
    which: StatisticsRequest,
    segments: Tensor | None,
    queries: Tensor | None,
    labels: Tensor | None,
) -> Layout:
    if layout is None:
        layout = lay_out(q, segments=segments, queries=queries, labels=labels)
    elif not (segments is None and queries is None and labels is None):
        raise ValueError("layout takes the place of segments, queries and labels: give either it or them")
    elif layout.start.shape != (q.shape[0], q.shape[2]) or layout.start.device != q.device:
        raise ValueError(
            f"layout is of a batch of shape {list(layout.start.shape)} on {layout.start.device}, "
            f"but q has shape {list(q.shape)} and is on {q.device}"
        )
    if (layout.labels is None) != (which.mass == 0):
        raise ValueError("labels and mass go together: give both or none")
    if layout.labels is not None:
        checks.check_range("labels", layout.labels, -1, which.mass)
    return layout


def _check_heads(q: Tensor, k: Tensor) -> dict[str, int]:
    sizes = checks.check_shape("q", q, "B Hq T D")
    if q.numel() == 0:
        raise ValueError(f"q has shape {list(q.shape)}, which holds nothing")
    sizes = checks.check_shape("k", k, "B Hk T D", sizes)
    if sizes["Hk"] == 0 or sizes["Hq"] % sizes["Hk"]:
        raise ValueError(f"k has {sizes['Hk']} heads, which do not divide the {sizes['Hq']} heads of q")
    return sizes


def _check_lse(q: Tensor, k: Tensor, lse: Tensor, layout: Layout, scale: float) -> None:
    """The first token of a sequence sees itself alone: its log-sum-exp is its score. Finds other bases and scales."""
    batch, first = (layout.start == positions(layout.start)).nonzero(as_tuple=True)
    group = q.shape[1] // k.shape[1]
    own = k[batch, :, first].float().repeat_interleave(group, 1)
    score = (q[batch, :, first].float() * own).sum(-1) * scale
    wrong = (lse[batch, :, first] - score).abs() > 0.02 * score.abs().clamp(min=1)
    if bool(wrong.any()):
        raise ValueError("lse is not the natural log of the denominators of softmax(scale * q.k) over the allowed keys")


def _backend(q: Tensor) -> Backend:
    return choose(
        "stats",
        [Candidate("triton", triton_refusal(q, q.shape[-1])), Candidate("cpu"), Candidate("naive")],
        why="one pass over tiles of the map",
    )
