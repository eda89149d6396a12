"""`attend`: the formula for a spec, by whichever form is best for the call."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from coterie.attention.blocks import tile_lists
from coterie.attention.checks import check_device, check_dtype, check_shape, check_type
from coterie.attention.data import Data, Fields
from coterie.attention.dispatch import Backend, Candidate, choose, forced, triton_refusal
from coterie.attention.masks import Causal, Neighbors
from coterie.attention.naive import naive_attention, share_heads
from coterie.attention.neighbor import neighbor_attention
from coterie.attention.sdpa import sdpa_attention
from coterie.attention.spec import Spec, widened
from coterie.attention.stats import attention_with_lse
from coterie.attention.tile import tile_attention
from coterie.attention.topology import Topology

DENSE = Spec()
NOTHING = Data()
_FEW_PAIRS = 1 << 18
"""Below which, on a CPU, no lists are made."""
_MOST_FACTORS = 21
"""Of which six products of parts are 128 wide: beside keys of 128, tiles just fit into a multiprocessor."""


@overload
def attend(q: Tensor, k: Tensor, v: Tensor, spec: Spec = ..., data: Data = ...) -> Tensor: ...
@overload
def attend(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec = ..., data: Data = ..., *, return_lse: Literal[True]
) -> tuple[Tensor, Tensor]: ...
@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec = DENSE, data: Data = NOTHING, *, return_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention as a spec declares it; differentiable in every floating-point tensor.

    A query that may attend to nothing gets zeros, zero gradients, and lse = -inf (its sink, where there is one). A key
    that nobody may attend to is not read: padding may hold anything.

    Args:
        q: [B, Hq, N, D] in float16, bfloat16, float32 or float64.
        k: [B, Hk, M, D] of the same dtype.
        v: [B, Hk, M, Dv] of the same dtype.
        spec: The terms of the formula; plain dense attention by default.
        data: The tensors that the spec refers to.
        return_lse: Whether to return the log of the softmax's denominators too.

    Returns:
        The output [B, Hq, N, Dv] in the dtype of v, with `return_lse` also the lse [B, Hq, N].

    Raises:
        ValueError: A tensor has a wrong shape, dtype, device, index, or a bias that is not finite; it is named. Or
            COTERIE_ATTENTION names a form that cannot serve this call.
    """
    check_type("spec", spec, Spec, "a Spec")
    check_type("data", data, Data, "a Data")
    fields = spec.read(q, k, data)
    batch, heads, queries, keys = fields.sizes
    check_shape("v", v, "B Hk M Dv", {"B": batch, "Hk": k.shape[1], "M": keys})
    check_dtype("v", v, q.dtype)
    check_device(q=q, v=v)
    gate = fields.term("gate", batch, heads, queries, v.shape[-1]) if spec.gate else None
    o, lse = _attend(q, k, v, spec, fields, return_lse)
    o = (o if gate is None else o * gate.to(o.dtype)).to(v.dtype)
    return o if lse is None or not return_lse else (o, lse)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, fields: Fields, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Without the gate, in the dtype of v or a wider one; the lse where it is asked for, or costs nothing."""
    if _is_listed(spec, q, v):
        return _by_neighbor(q, k, v, spec, fields)
    backend, is_plain = _choose(q, k, v, spec, fields, return_lse)
    if backend in ("cpu", "triton"):
        return _by_tile(q, k, v, spec, fields, backend)
    is_fused = is_plain and backend == "sdpa"
    allowed, bias = None if is_fused else spec.allowed(fields), spec.bias(fields)
    if allowed is not None:
        q, k, v = _without_unread(q, k, v, allowed)
    heads, scale = q.shape[1], _scale(spec, q)
    if spec.biased or spec.temperature:
        # Halves would round what biases say about positions.
        q, k, v = (widened(x) for x in (q, k, v))
    if spec.temperature:
        q = q / fields.term("temperature", *q.shape[:3])[..., None]
    if backend == "naive":
        sink = fields.term("sink", heads) if spec.sink else None
        return naive_attention(q, k, v, allowed=allowed, bias=bias, head_map=spec.head_map, scale=scale, sink=sink)
    if spec.head_map is not None:
        k, v = (share_heads(x, heads, spec.head_map) for x in (k, v))
    if return_lse:
        return attention_with_lse(q, k, v, scale=scale, causal=spec.mask is not None)
    causal = is_fused and spec.mask is not None
    return sdpa_attention(q, k, v, allowed=allowed, bias=bias, causal=causal, scale=scale), None


def _scale(spec: Spec, q: Tensor) -> float:
    return q.shape[-1] ** -0.5 if spec.scale is None else spec.scale


def _by_tile(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, fields: Fields, backend: Backend
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """By the tiles that hold anything. A sink is a key more, which output and lse tell all about."""
    batch, heads, queries, _ = fields.sizes
    dtype = v.dtype
    if backend == "cpu":
        q, k, v = (widened(x) for x in (q, k, v))
    if spec.head_map is not None:
        k, v = (share_heads(x, heads, spec.head_map) for x in (k, v))
    if spec.temperature:
        q = (widened(q) / fields.term("temperature", batch, heads, queries)[..., None]).to(q.dtype)
    tiles, factors = tile_lists(spec.mask, fields), spec.factors(fields)
    o, lse = tile_attention(q, k, v, tiles, scale=_scale(spec, q), factors=factors, backend=backend)
    if spec.sink:
        sink = fields.term("sink", heads)[:, None].to(lse.dtype)
        o = o * torch.sigmoid(lse - sink)[..., None]
        lse = torch.logaddexp(lse, sink)
    return o.to(dtype), lse


def _is_listed(spec: Spec, q: Tensor, v: Tensor) -> bool:
    """Whether the kernel `neighbor` computes it: neighbour lists are the whole mask, and no term needs more.

    It has no form in SDPA, which can compute it too.
    """
    if forced() == "sdpa":
        return False
    by_neighbor = spec.edge_bias is None or spec.edge_bias.by_neighbor
    unlisted = spec.rank or spec.key_bias or spec.sink or spec.temperature or spec.head_map
    return spec.mask == Neighbors() and by_neighbor and not unlisted and q.shape[-1] == v.shape[-1]


def _by_neighbor(q: Tensor, k: Tensor, v: Tensor, spec: Spec, fields: Fields) -> tuple[Tensor, Tensor]:
    """The sequences of a batch as one graph of separate parts."""
    batch, heads, queries, keys = fields.sizes
    given = fields.data.neighbors
    if batch == 1 and isinstance(given, Topology):
        topology = given
    else:
        index = fields.neighbors().expand(batch, queries, -1)
        starts = torch.arange(batch, device=index.device)[:, None, None] * keys
        topology = Topology(torch.where(index < 0, index, index + starts).flatten(0, 1), batch * keys)
    distance = slope = None
    if spec.edge_bias:
        reach = spec.edge_bias.of(widened(fields.distance(by_neighbor=True)))
        distance = reach.expand(batch, queries, -1).flatten(0, 1)
        slope = fields.term("slope", heads).expand(heads)
    rows, columns, values = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    o, lse = neighbor_attention(rows, columns, values, topology, scale=spec.scale, distance=distance, slope=slope)
    return o.view(batch, queries, *o.shape[1:]).transpose(1, 2), lse.view(batch, queries, heads).transpose(1, 2)


def _choose(
    q: Tensor, k: Tensor, v: Tensor, spec: Spec, fields: Fields, return_lse: bool
) -> tuple[Backend, bool]:  # fmt: skip
    """The backend, and whether SDPA could do without a mask and bias in memory."""
    counted = all(fields.token(side, "position") is None for side in ("queries", "keys"))
    causal = spec.mask == Causal() and counted and fields.sizes.queries == fields.sizes.keys
    is_plain = (spec.mask is None or causal) and not spec.biased
    temperature, refusal = fields.data.temperature, ""
    if spec.sink:
        refusal = "it has no sinks"
    elif return_lse and not (is_plain and fields.sizes.batch and fields.sizes.queries == fields.sizes.keys > 0):
        refusal = "it gives its log-sum-exp for plain self-attention alone"
    elif return_lse and q.is_cuda and q.dtype == torch.float64:
        refusal = "it gives no log-sum-exp in float64 on a GPU"
    elif return_lse and torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, temperature)):
        refusal = "its log-sum-exp has no gradient"
    sdpa, naive, tile = Candidate("sdpa", refusal), Candidate("naive"), _tile_candidate(q, v, spec, fields)
    if is_plain and not refusal:
        order, why = [sdpa, naive, tile], "plain dense attention"
    elif not tile.refusal and (q.is_cuda or fields.sizes.queries * fields.sizes.keys >= _FEW_PAIRS):
        order, why = [tile, sdpa, naive], "tiles that hold nothing are passed over, and no mask is kept"
    else:
        order, why = [sdpa, naive, tile], "mask and bias are small, or no tiles can have them: they are materialised"
    return choose("attend", order, why=why), is_plain


def _tile_candidate(q: Tensor, v: Tensor, spec: Spec, fields: Fields) -> Candidate:
    backend: Backend = "cpu" if q.device.type == "cpu" and forced() != "triton" else "triton"
    width, factors = max(q.shape[-1], v.shape[-1]), spec.rank + spec.key_bias
    refusal = "" if backend == "cpu" else triton_refusal(q, width)
    if backend == "triton" and factors > _MOST_FACTORS:
        refusal = f"the bias has {factors} factors, and tiles fit into a multiprocessor up to {_MOST_FACTORS}"
    if backend == "triton" and factors and q.dtype == torch.float32 and width > 64:
        refusal = f"D is {width}, and tiles of float32 with a bias fit into a multiprocessor up to 64"
    if spec.edge_bias:
        refusal = "an edge bias is in memory anyway"
    if 0 in (*fields.sizes, v.shape[-1]):
        refusal = "there is nothing to attend to"
    return Candidate(backend, refusal)


def _without_unread(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros where no pair is allowed: a weight of zero times the NaN of some padding would still be NaN."""
    unread, idle = (~allowed.any(2).any(1))[:, None, :, None], (~allowed.any(3).any(1))[:, None, :, None]
    return q.masked_fill(idle, 0), k.masked_fill(unread, 0), v.masked_fill(unread, 0)
