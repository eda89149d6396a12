"""Attention without softmax, through a state of fixed size: plain linear, Lightning Attention-2, Flow-Attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    visible,
    without_padding,
)
from coterie.attention.mechanisms.bias import slopes
from coterie.attention.naive import share_heads
from coterie.attention.scan import scan
from coterie.attention.spec import widened


@dataclass(frozen=True, slots=True)
class Linear(Mechanism):
    """Kernelised attention; features are above 0, so that every row has a sum to be divided by."""

    feature_map: Literal["elu", "exp", "sigmoid"] = "elu"
    """phi: 1 + elu(x), as in the paper, e^x, or the logistic function."""

    about: ClassVar[About] = About(
        name="linear",
        title="Linear attention: positive features instead of softmax, sums instead of a map",
        formula="o_i = phi(q_i) sum_j phi(k_j) v_j^T / phi(q_i) sum_j phi(k_j),  phi = 1 + elu",
        source="Transformers are RNNs (arXiv 2006.16236)",
        cost="O(N d^2)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Linear(self.feature_map)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        phi = {"elu": lambda x: torch.where(x > 0, x + 1, x.exp()), "exp": torch.exp, "sigmoid": torch.sigmoid}
        queries, keys = (phi[self.feature_map](x) for x in (q, share_heads(k, q.shape[1])))
        weights = queries @ keys.mT * visible(q, context)
        return weights / weights.sum(-1, keepdim=True) @ share_heads(v, q.shape[1])

    def pairs(self, tokens: int) -> int:
        return tokens


class _Linear(nn.Module):
    def __init__(self, feature_map: str) -> None:
        super().__init__()
        self.feature_map = feature_map

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        q, k, v = without_padding(context, q, k, v)
        q, k = (functional.elu(x) + 1 if self.feature_map == "elu" else getattr(x, self.feature_map)() for x in (q, k))
        # A column of ones gives the sums of rows.
        o, _ = _scanned(q, k, functional.pad(v, (0, 1), value=1.0), context)
        return o[..., :-1] / _safe(o[..., -1:])


@dataclass(frozen=True, slots=True)
class Lightning(Mechanism):
    """A decay for each head; not causal, it decays to both sides."""

    depth: float = 0.0
    """Place of the layer in the model, 0 the first and 1 the last: later layers forget less."""

    about: ClassVar[About] = About(
        name="lightning",
        title="Lightning Attention-2: no softmax, and a decay by head of what lies behind",
        formula="o_i = sum_j d_h^|i-j| (q_i.k_j) v_j,  log d_h = -2^(-8h/H) (1 - depth + 1e-5)",
        source="Lightning Attention-2 (arXiv 2401.04658)",
        cost="O(N d^2)",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, 1, "depth")

    def module(self, heads: Heads) -> nn.Module:
        return _Lightning(self.depth)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        at = torch.arange(q.shape[2], device=q.device)
        away = (at[:, None] - at).abs().to(widened(q).dtype)
        rates = [2 ** (-8 * (h + 1) / q.shape[1]) * (1 - self.depth + 1e-5) for h in range(q.shape[1])]
        decay = torch.stack([torch.exp(-rate * away) for rate in rates])
        weights = q @ share_heads(k, q.shape[1]).mT * decay * visible(q, context)
        return weights @ share_heads(v, q.shape[1])

    def pairs(self, tokens: int) -> int:
        return tokens


class _Lightning(nn.Module):
    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        decay = -slopes(q.shape[1], widened(q).dtype, q.device) * (1 - self.depth + 1e-5)
        return _scanned(q, k, v, context, decay)[0]


@dataclass(frozen=True, slots=True)
class Flow(Mechanism):
    """Keys compete for what flows out, queries share out what flows in; n_i counts the keys that a query sees."""

    about: ClassVar[About] = About(
        name="flow",
        title="Flow-Attention: linear attention whose keys compete as sources of a conserved flow",
        formula="I_i = n_i / f(q_i).sum_j f(k_j);  O_j = n_j / f(k_j).sum_i f(q_i);  f = sigmoid\n"
        "J_i = f(q_i).sum_j f(k_j) O_j / n_i;  P_j = clamp(f(k_j).sum_i f(q_i) I_i / n_j, -1, 1)\n"
        "o_i = sigmoid(J_i) I_i / n_i f(q_i) sum_j f(k_j)^T v_j n_j e^P_j / sum_l e^P_l",
        source="Flowformer (arXiv 2202.06258)",
        cost="O(N d^2)",
    )

    def module(self, heads: Heads) -> nn.Module:
        return _Flow()

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        seen = visible(q, context).to(q.dtype)
        n = seen.sum(-1)
        k, v = (share_heads(x, q.shape[1]) for x in (k, v))
        q, k = (1 / (1 + torch.exp(-x)) for x in (q, k))
        # [B, H, N, N]: what query i and key j share, each sums over what comes before it.
        flow = q @ k.mT
        incoming, outgoing = n / (flow * seen).sum(-1), n / (flow.mT * seen).sum(-1)
        sinks = (flow * outgoing[..., None, :] * seen).sum(-1) / n
        sources = (flow.mT * incoming[..., None, :] * seen).sum(-1) / n
        sources = sources.clamp(-1, 1).exp()
        competition = sources * n / (sources[..., None, :] * seen).sum(-1)
        o = flow * (incoming / n)[..., None] * competition[..., None, :] * seen @ v
        return o / (1 + torch.exp(-sinks))[..., None]

    def pairs(self, tokens: int) -> int:
        return tokens


class _Flow(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        dtype = v.dtype
        q, k, v = (widened(share_heads(x, q.shape[1])) for x in without_padding(context, q, k, v))
        q, k = q.sigmoid(), k.sigmoid()
        n = _seen(torch.ones_like(q[..., :1]), context)

        def flow(ends: Tensor, starts: Tensor) -> Tensor:
            return (ends * _seen(starts, context)).sum(-1, keepdim=True)

        incoming, outgoing = n / flow(q, k), n / flow(k, q)
        sinks, sources = flow(q, k * outgoing) / n, (flow(k, q * incoming) / n).clamp(-1, 1).exp()
        competition = sources * n / _seen(sources, context)
        o, _ = _scanned(q * (incoming / n), k, v * competition, context)
        return (o * sinks.sigmoid()).to(dtype)


def _seen(x: Tensor, context: Context) -> Tensor:
    """Sums [B, H, N or 1, .] over the tokens that each token sees; 1 for padding."""
    if context.data.queries.segment is None:
        return x.cumsum(2) if context.causal else x.sum(2, keepdim=True)
    one = torch.ones_like(x[..., :1])
    return _safe(_scanned(one, one, x, context)[0])


def _scanned(
    q: Tensor, k: Tensor, v: Tensor, context: Context, log_decay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    segment = context.data.queries.segment
    return scan(q, k, v, log_decay=log_decay, causal=context.causal, segment=segment)


def _safe(total: Tensor) -> Tensor:
    """Padding has no features, so that its sums are 0."""
    return total.masked_fill(total == 0, 1)
