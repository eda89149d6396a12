"""Counted sampling: a token is a function of logits, sampling settings and one uniform, by inverse CDF.

No generator has state, so a token does not depend on which other requests were in the batch. Both engines that run a
model here draw by this code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coterie import rng
from coterie.types import Place, Sampling

_BLOCK = 64
_WIDTH = 256
_FEW = 512


@dataclass(slots=True)
class UniformStream:
    """The uniforms of one turn, by position. Drawn in blocks; position p is the same however far one reads."""

    seed: int
    place: Place
    _drawn: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def at(self, position: int) -> float:
        """The uniform in [0, 1) for the token at `position` (0 is the first sampled token)."""
        if position >= len(self._drawn):
            count = _BLOCK * (position // _BLOCK + 1)
            p = self.place
            self._drawn = rng.uniforms(self.seed, "token", p.task, p.round, p.seat, p.repeat, p.purpose, count=count)
        return float(self._drawn[position])


@dataclass(frozen=True, slots=True)
class Rows:
    """Sampling settings of a batch as tensors [B]: temperature, top_k (0: off), top_p (1: off)."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    is_greedy: bool
    """No row draws."""
    plain: Tensor
    """bool: the row has neither top_k nor top_p."""
    is_plain: bool
    """All rows are plain."""
    is_cut: bool
    """No row is plain."""

    @classmethod
    def build(cls, settings: Sequence[Sampling], device: torch.device | str = "cpu") -> Rows:
        """One row per setting."""

        def column(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        plain = [s.top_k == 0 and s.top_p >= 1 for s in settings]
        return cls(
            column([s.temperature for s in settings], torch.float32),
            column([s.top_k for s in settings], torch.int64),
            column([s.top_p for s in settings], torch.float32),
            is_greedy=all(s.temperature == 0 for s in settings),
            plain=column(plain, torch.bool),
            is_plain=all(plain),
            is_cut=not any(plain),
        )


def sample(logits: Tensor, rows: Rows, uniforms: Tensor) -> Tensor:
    """Draw one token per row.

    Args:
        logits: [B, V], any float dtype; -inf forbids a token.
        rows: Settings of the B rows. Temperature 0 takes the largest logit, the lowest id on a tie.
        uniforms: [B] in [0, 1).

    Returns:
        int64 [B]. Without top_k and top_p the CDF runs in the order of ids; with them in the order of falling
        probability, ties by id.
    """
    if rows.is_greedy:
        return logits.argmax(dim=-1)
    logits = logits.float()
    cold = rows.temperature == 0
    probs = torch.softmax(logits / torch.where(cold, 1.0, rows.temperature).unsqueeze(1), dim=-1)
    drawn = _draw(probs, rows, uniforms)
    return torch.where(cold, logits.argmax(dim=-1), drawn) if bool(cold.any()) else drawn


def _draw(probs: Tensor, rows: Rows, uniforms: Tensor) -> Tensor:
    if rows.is_plain:
        return _invert(probs, uniforms)
    cut = _invert_truncated(probs, rows, uniforms)
    return cut if rows.is_cut else torch.where(rows.plain, _invert(probs, uniforms), cut)


def _invert(mass: Tensor, uniforms: Tensor) -> Tensor:
    """The first index at which the running sum of `mass` [B, V] exceeds the uniform's share of the row's total."""
    # Two levels, since a running sum over a whole vocabulary is slow: first the block, then the place within it.
    blocks = torch.nn.functional.pad(mass, (0, -mass.shape[1] % _WIDTH)).view(len(mass), -1, _WIDTH)
    sums = blocks.sum(dim=-1).to(torch.float64)
    reach = sums.cumsum(dim=-1)
    target = uniforms.to(torch.float64).unsqueeze(1) * reach[:, -1:]
    block = _first_above(reach, sums, target)
    inner = blocks.gather(1, block.unsqueeze(2).expand(-1, 1, _WIDTH)).squeeze(1).to(torch.float64)
    before = (reach - sums).gather(1, block)
    return (block * _WIDTH + _first_above(inner.cumsum(dim=-1), inner, target - before)).squeeze(1)


def _first_above(reach: Tensor, mass: Tensor, target: Tensor) -> Tensor:
    # Rounding may put the target at or past the end; the last index that carries mass is the answer then.
    index = torch.searchsorted(reach, target, right=True)
    last = mass.shape[1] - 1 - (mass.flip(-1) > 0).to(torch.int8).argmax(dim=-1, keepdim=True)
    return torch.minimum(index, last)


def _invert_truncated(probs: Tensor, rows: Rows, uniforms: Tensor) -> Tensor:
    ordered, ids = _largest(probs, rows)
    rank = torch.arange(ordered.shape[1], device=probs.device).unsqueeze(0)
    kept = ordered.masked_fill(rank >= _limits(rows, probs.shape[1]), 0.0)
    # A token stays if what stands before it has less than top_p of what top_k left.
    before = kept.cumsum(dim=-1, dtype=torch.float64) - kept
    kept = kept.masked_fill((before >= _reach(probs, kept, rows)) & (rank > 0), 0.0)
    return ids.gather(1, _invert(kept, uniforms).unsqueeze(1)).squeeze(1)


def _limits(rows: Rows, vocabulary: int) -> Tensor:
    return torch.where(rows.top_k == 0, vocabulary, rows.top_k).unsqueeze(1)


def _reach(probs: Tensor, kept: Tensor, rows: Rows) -> Tensor:
    """float64 [B, 1]: the mass at which top_p stops; beyond any sum where top_p is off."""
    left = torch.where((rows.top_k == 0).unsqueeze(1), probs.sum(-1, keepdim=True), kept.sum(-1, keepdim=True))
    share = torch.where(rows.top_p < 1, rows.top_p, torch.inf).to(torch.float64)
    return share.unsqueeze(1) * left


def _largest(probs: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Probabilities and ids in falling order, ties by id: the few that matter if they can be told, else all."""
    vocabulary = probs.shape[1]
    few = min(max(_FEW, int(rows.top_k.max())), vocabulary)
    ordered, ids = probs.topk(few, dim=-1)
    edge = ordered[:, -1:]
    # Enough if top_k or top_p ends before the edge, and no tie crosses it.
    ends = (_limits(rows, vocabulary) <= few) | (
        ordered.sum(-1, keepdim=True, dtype=torch.float64) > rows.top_p[:, None]
    )
    if bool(ends.all()) and bool(((probs >= edge).sum(-1, keepdim=True) == few).all()):
        ids, by_id = ids.sort(dim=-1)
        ordered, order = ordered.gather(1, by_id).sort(dim=-1, descending=True, stable=True)
        return ordered, ids.gather(1, order)
    return probs.sort(dim=-1, descending=True, stable=True)


def logprobs_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Natural-log probabilities of `tokens` [B] under `logits` [B, V] at temperature 1, float32 [B]."""
    logits = logits.float()
    return logits.gather(1, tokens.unsqueeze(1)).squeeze(1) - logits.logsumexp(dim=-1)
