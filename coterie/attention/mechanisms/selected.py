"""Native Sparse Attention: an overview of all keys, in full the blocks that matter, and the last keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Listed, Window
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    check_between,
    features_of,
    lengths_of,
    narrowed,
    visible,
    without_padding,
)
from coterie.attention.naive import naive_attention, share_heads
from coterie.attention.spec import Spec, widened

_ROWS = 1024
"""Queries whose scores are in memory at once while blocks are picked."""


@dataclass(frozen=True, slots=True)
class NativeSparse(Mechanism):
    """Compressed keys for an overview, the blocks that matter most there in full, and the last keys: gated by token.

    Which blocks matter has no gradient. Query heads that share a key head share their blocks. Padding stands behind
    all tokens; a compressed key that holds some is not there. Keys are compressed as they come: where a model rotates
    them by position, that was before; published ports compress first and then rotate.
    """

    length: int = 32
    """Keys that a compressed key stands for."""
    stride: int = 16
    """Keys between the first ones of two compressed keys."""
    block: int = 64
    top: int = 16
    """Blocks of each query, those below among them."""
    first: int = 1
    """Blocks at the start that every query has."""
    local: int = 2
    """Blocks up to its own that every query has."""
    window: int = 512
    compression: Literal["linear", "mean", "weighted"] = "linear"
    """One linear map of all keys of a compressed key with learned positions, their mean, or a learned weighted sum."""

    reads = "features"
    about: ClassVar[About] = About(
        name="native_sparse",
        title="Native / Flash Sparse Attention: compressed keys, the best blocks, a window, gated",
        formula="o_i = sum of sigmoid(W_b x_i) o_i^b over b in compressed, selected, window\n"
        "importance of block n: sum of p_ic |c and n overlap| / stride over compressed c and heads that share keys",
        source="Native Sparse Attention (arXiv 2502.11089); Flash Sparse Attention (arXiv 2508.18224), the same sum",
        cost="O(N (N / stride + top block + window) d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 1, math.inf, "length", "stride", "block", "top", "window")
        check_between(self, 0, math.inf, "first", "local")
        if self.length % self.stride or self.block % self.stride:
            raise ValueError(
                f"native_sparse: length {self.length} and block {self.block} must be multiples of stride {self.stride}"
            )
        if self.top < self.first + self.local:
            raise ValueError(
                f"native_sparse: top is {self.top}, fewer than the {self.first} first and {self.local} local blocks"
            )

    @classmethod
    def small(cls) -> Self:
        return cls(length=4, stride=2, block=4, top=4, first=1, local=1, window=5)

    def module(self, heads: Heads) -> nn.Module:
        return _NativeSparse(self, heads)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        heads, n, shared = q.shape[1], q.shape[2], q.shape[1] // k.shape[1]
        seen, at = visible(q, context), torch.arange(n, device=q.device)
        ends = at[self.length - 1 :: self.stride]
        keys, values = (self._compressed(x, module, name, len(ends)) for x, name in ((k, "key"), (v, "value")))
        chances = (q @ share_heads(keys, heads).mT * q.shape[-1] ** -0.5).masked_fill(~seen[:, ends], -torch.inf)
        chances = chances.softmax(-1).nan_to_num(0)
        summed = torch.unflatten(chances.detach(), 1, (-1, shared)).sum(2)
        per_length, per_block = self.length // self.stride, self.block // self.stride
        importance = summed.new_zeros(*summed.shape[:3], -(-n // self.block))
        for b in range(importance.shape[-1]):
            for m in range(per_length):
                for o in range(per_block):
                    c = b * per_block + m + o - (per_length - 1)
                    if 0 <= c < len(ends):
                        importance[..., b] += summed[..., c]
        own, blocks = at[:, None] // self.block, torch.arange(importance.shape[-1], device=q.device)
        importance[..., (blocks < self.first) | ((blocks <= own) & (blocks > own - self.local))] = torch.inf
        if context.causal:
            importance[..., blocks > own] = -torch.inf
        best = importance.argsort(dim=-1, descending=True, stable=True)[..., : self.top]
        picked = torch.zeros_like(importance, dtype=torch.bool).scatter(-1, best, True)
        picked = picked.repeat_interleave(self.block, -1)[..., :n].repeat_interleave(shared, 1) & seen
        near = seen & ((at[:, None] - at).abs() < self.window)
        outputs = [chances @ share_heads(values, heads)]
        outputs += [naive_attention(q, k, v, allowed=allowed)[0] for allowed in (picked, near)]
        gates = (features_of(self.about, context) @ module.get_parameter("gate.weight").T).sigmoid()
        return (gates[:, None, :, None] * torch.stack(outputs, -1)).sum(-1)

    def _compressed(self, x: Tensor, module: nn.Module, name: str, count: int) -> Tensor:
        if not count:
            return x[:, :, :0]
        parts = torch.stack([x[:, :, c * self.stride :][:, :, : self.length] for c in range(count)], 2)
        if self.compression == "mean":
            return parts.mean(3)
        weights = module.get_parameter(f"{name}_map")
        if self.compression == "weighted":
            return torch.einsum("bhcld,hl->bhcd", parts, weights)
        if name == "key":
            parts = parts + module.get_parameter("position")[:, None]
        return torch.einsum("bhcld,hlde->bhce", parts, weights)

    def pairs(self, tokens: int) -> int:
        each = (tokens // self.stride, self.top * self.block, self.window)
        return tokens * sum(min(tokens, keys) for keys in each)


class _NativeSparse(nn.Module):
    """Each branch is a call of `attend` with its gate."""

    def __init__(self, mechanism: NativeSparse, heads: Heads) -> None:
        super().__init__()
        self.mechanism = mechanism
        self.gate = nn.Linear(heads.features, 3, bias=False)
        shape = (heads.keys, mechanism.length)
        if mechanism.compression == "weighted":
            self.key_map, self.value_map = (nn.Parameter(torch.full(shape, 1 / shape[1])) for _ in "kv")
        elif mechanism.compression == "linear":
            spread = (heads.width * mechanism.length) ** -0.5
            self.key_map, self.value_map = (
                nn.Parameter(torch.randn(*shape, heads.width, heads.width) * spread) for _ in "kv"
            )
            self.position = nn.Parameter(torch.zeros(*shape, heads.width))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        options, at = self.mechanism, torch.arange(q.shape[2], device=q.device)
        lengths = lengths_of(options.about, context)
        q, k, v = without_padding(context, q, k, v)
        gates = self.gate(features_of(options.about, context)).sigmoid()[:, None]
        keys, values = self._compress(k, "key"), self._compress(v, "value")
        # A compressed key stands where its last key stands.
        ends = at[options.length - 1 :: options.stride]
        tokens, compressed = Tokens(), Tokens(ends)
        if lengths is not None:
            tokens, compressed = Tokens(segment=_behind(at, lengths)), Tokens(ends, _behind(ends, lengths))
        picked = self._pick(q, keys, context.causal, lengths)
        masks = (None, Listed(options.block), Window(options.window - 1, options.window - 1))
        overview, selected, near = (Spec(narrowed(mask, context), gate=True) for mask in masks)
        return (
            attend(q, keys, values, overview, Data(tokens, compressed, gate=gates[..., :1]))
            + attend(q, k, v, selected, Data(tokens, blocks=picked, gate=gates[..., 1:2]))
            + attend(q, k, v, near, Data(tokens, gate=gates[..., 2:]))
        )

    def _compress(self, x: Tensor, name: str) -> Tensor:
        """[B, Hk, C, D]; C is 0 where there are fewer keys than one compressed key stands for."""
        options = self.mechanism
        if x.shape[2] < options.length:
            return x[:, :, :0]
        parts = x.unfold(2, options.length, options.stride)
        if options.compression == "mean":
            return parts.mean(-1)
        maps = self.get_parameter(f"{name}_map")
        if options.compression == "weighted":
            return torch.einsum("bhcdl,hl->bhcd", parts, maps)
        if name == "key":
            parts = parts + self.position.mT[:, None]
        return torch.einsum("bhcdl,hlde->bhce", parts, maps)

    @torch.no_grad()
    def _pick(self, q: Tensor, keys: Tensor, causal: bool, lengths: Tensor | None) -> Tensor:
        """The blocks of each query [B, Hk, N, n], -1 for those after it, or after the last token."""
        options, at = self.mechanism, torch.arange(q.shape[2], device=q.device)
        blocks, ends = at[:: options.block] // options.block, at[options.length - 1 :: options.stride]
        left = torch.maximum(ends[:, None] + 1 - options.length, blocks * options.block)
        right = torch.minimum(ends[:, None], blocks * options.block + options.block - 1)
        q = torch.unflatten(widened(q), 1, (keys.shape[1], -1)) * q.shape[-1] ** -0.5
        keys = widened(keys)[:, :, None].mT
        overlap = (right + 1 - left).clamp(min=0).to(q.dtype) / options.stride
        found = []
        for rows in torch.split(at, _ROWS):
            logits = q[..., rows[0] : rows[-1] + 1, :] @ keys
            if causal:
                logits = logits.masked_fill(ends > rows[:, None], -torch.inf)
            if lengths is not None:
                logits = logits.masked_fill((ends >= lengths[:, None])[:, None, None, None], -torch.inf)
            importance = logits.softmax(-1).nan_to_num(0).sum(2) @ overlap
            behind = rows[:, None] // options.block - blocks
            forced = (blocks < options.first) | ((behind >= 0) & (behind < options.local))
            importance = importance.masked_fill(forced, torch.inf)
            if causal:
                importance = importance.masked_fill(behind < 0, -torch.inf)
            if lengths is not None:
                starts = blocks * options.block
                importance = importance.masked_fill((starts >= lengths[:, None])[:, None, None], -torch.inf)
            best = importance.topk(min(options.top, len(blocks)))
            found.append(best.indices.masked_fill(best.values == -torch.inf, -1))
        return torch.cat(found, 2)


def _behind(at: Tensor, lengths: Tensor) -> Tensor:
    """Segments [1 or B, N] of tokens at these places: padding where a sequence has ended."""
    return -(at >= lengths[:, None]).long()
