"""One mechanism of the literature against dense SDPA, length by length: correct first, then timed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from coterie.attention.bench import LIMIT, Work, time_once
from coterie.attention.mechanisms.base import Context, Features, Heads, Mechanism, Options

HEADS = Heads(6, 6, 64, 384)
CHECKED = 512
"""The length at which the output is compared with the formula, which holds every pair."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One length; medians in milliseconds. `training` is a forward and a backward pass."""

    tokens: int
    share: float
    """Products of a query with a key, or what stands for keys, over the N^2 of dense attention; may exceed 1."""
    forward: float
    dense_forward: float
    training: float
    dense_training: float

    @property
    def gain(self) -> float:
        """How many times faster than dense the forward pass is."""
        return self.dense_forward / self.forward

    @property
    def training_gain(self) -> float:
        """How many times faster than dense, backward pass included."""
        return self.dense_training / self.training


class Race:
    """A mechanism with its first weights against dense SDPA on tensors of the same size: 6 heads of 64, float32.

    Raises:
        ValueError: The mechanism cannot be called so: causally, perhaps.
    """

    def __init__(self, mechanism: Options, device: str, *, causal: bool = False) -> None:
        assert isinstance(mechanism, Mechanism | Features)
        self.mechanism, self.device, self.causal = mechanism, torch.device(device), causal
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = mechanism.module(HEADS).to(device).eval()
        self.error = self._compare()
        """Largest difference to the formula, relative to its largest value."""

    @property
    def is_correct(self) -> bool:
        """Whether it computes its formula."""
        return self.error <= LIMIT

    @torch.no_grad()
    def _compare(self) -> float:
        inputs, context = self._inputs(CHECKED)
        found: Tensor = self.module(*inputs, context)
        expected: Tensor = cast(Any, self.mechanism).naive(self.module, *inputs, context)
        return float((found - expected).abs().max() / expected.abs().max())

    def time(self, tokens: int, repeats: int) -> Timing:
        """Both take turns; the first call of each is not timed."""
        inputs, context = self._inputs(tokens)
        learnt = [*inputs, *(p for p in self.module.parameters() if p.requires_grad)]
        dense = self._draw(tokens, 3)

        def ours() -> Tensor:
            return self.module(*inputs, context)  # type: ignore[no-any-return]

        def theirs() -> Tensor:
            q, k, v = dense
            return scaled_dot_product_attention(q, k, v, is_causal=self.causal)

        with torch.no_grad():
            forward = self._alternate(lambda: [ours()], lambda: [theirs()], repeats)
        training = self._alternate(lambda: _gradients(ours(), learnt), lambda: _gradients(theirs(), dense), repeats)
        return Timing(tokens, self.mechanism.pairs(tokens) / tokens**2, *forward, *training)

    def _inputs(self, tokens: int) -> tuple[list[Tensor], Context]:
        context = self.mechanism.context(tokens, torch.Generator().manual_seed(tokens), HEADS, 1)
        context = replace(context.to(self.device), causal=self.causal)
        if isinstance(self.mechanism, Features):
            return [self._draw(tokens, 1)[0].detach().transpose(1, 2).flatten(2).requires_grad_()], context
        return self._draw(tokens, 3), context

    def _draw(self, tokens: int, count: int) -> list[Tensor]:
        draw = torch.Generator().manual_seed(tokens)
        drawn = torch.randn(count, 1, HEADS.queries, tokens, HEADS.width, generator=draw)
        return [x.to(self.device).requires_grad_() for x in drawn]

    def _alternate(self, ours: Work, theirs: Work, repeats: int) -> list[float]:
        works = (ours, theirs)
        seconds = [[time_once(work, self.device) for work in works] for _ in range(repeats + 1)][1:]
        return [1e3 * statistics.median(column) for column in zip(*seconds, strict=True)]


def _gradients(o: Tensor, learnt: list[Tensor]) -> list[Tensor]:
    return [g for g in torch.autograd.grad(o.sum(), learnt, allow_unused=True) if g is not None]


def crossover(lengths: Sequence[int], gains: Sequence[float]) -> int | None:
    """The length from which on it is faster, at every longer one too; None: there is none among these."""
    found = None
    for tokens, gain in reversed(list(zip(lengths, gains, strict=True))):
        if gain <= 1:
            break
        found = tokens
    return found
