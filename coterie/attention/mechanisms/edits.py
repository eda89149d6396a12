"""Edits of a map after its softmax, as merges of partial attentions to the keys of each role: the map is never made."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Roles, Rule
from coterie.attention.mechanisms.base import (
    About,
    Context,
    Heads,
    Mechanism,
    Missing,
    check_between,
    narrowed,
    visible,
    without_padding,
)
from coterie.attention.merge import merge
from coterie.attention.naive import share_heads
from coterie.attention.scan import scan
from coterie.attention.spec import Spec


class Edit(Mechanism):
    """Edits what queries make of the keys of each role; it learns nothing."""

    roles: ClassVar[tuple[str, ...]] = ()
    """What the numbers of `Tokens.role` stand for, from 0."""

    @abstractmethod
    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""

    @abstractmethod
    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        """The map [B, Hq, N, N] as it shall be, by its definition."""

    def module(self, heads: Heads) -> nn.Module:
        return _Edited(self)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        return self.edit(_map(q, k, context), self.role(context)) @ share_heads(v, q.shape[1])

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        role = torch.randint(len(self.roles), (batch, tokens), generator=draw).sort(-1).values
        return Context(data=Data(Tokens(role=role)))

    def role(self, context: Context) -> Tensor:
        """The roles of the tokens, [1 or B, 1, N].

        Raises:
            Missing: There are none.
        """
        role = context.data.queries.role
        if role is None:
            kinds = ", ".join(f"{at} {what}" for at, what in enumerate(self.roles))
            raise Missing(f"{self.about.name} reads roles ({kinds})", "Context(data=Data(Tokens(role=...)))")
        return role.view(-1, 1, role.shape[-1])

    def parts(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and log-sum-exps of the attention to the keys of each role."""
        role, kinds = self.role(context)[:, 0], range(len(self.roles))
        own: tuple[tuple[Rule, ...], ...] = tuple(tuple("always" if a == b else "never" for b in kinds) for a in kinds)
        spec, keys = Spec(narrowed(Roles(own), context)), replace(context.data.queries, role=role)
        found = []
        for kind in kinds:
            queries = replace(keys, role=torch.full_like(role, kind))
            found.append(attend(q, k, v, spec, replace(context.data, queries=queries, keys=keys), return_lse=True))
        return [o for o, _ in found], [lse for _, lse in found]


class _Edited(nn.Module):
    def __init__(self, mechanism: Edit) -> None:
        super().__init__()
        self.mechanism = mechanism

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        return self.mechanism.edited(q, k, v, context)


@dataclass(frozen=True, slots=True)
class SinkRedistribution(Edit):
    """VAR. Heads look at the image in a row where it has mass enough, and not too much of that lies on sinks."""

    keep: float = 0.6
    """What sinks keep of their mass."""
    most_sink: float = 0.5
    """Share of the image's mass up to which sinks may have it."""
    least_image: float = 0.2

    roles: ClassVar[tuple[str, ...]] = ("text", "image", "sink in the image")
    about: ClassVar[About] = About(
        name="var",
        title="VAR: heads that look at the image take mass from its sinks for its other parts",
        formula="p'_ij = keep p_ij on sinks, (1 + (1 - keep) S_i / A_i) p_ij on other image keys, else p_ij\n"
        "S_i, A_i: mass of the two;  where S_i <= 0.5 (S_i + A_i) and S_i + A_i >= 0.2",
        source="See What You Are Told: Visual Attention Sink in Large Multimodal Models (arXiv 2503.03321)",
        cost="O(N^2 d)",
    )

    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        outputs, lses = self.parts(q, k, v, context)
        _, image, sink = _masses(lses)
        applies = (image > 0) & (sink <= self.most_sink * (image + sink)) & (image + sink >= self.least_image)
        more = (1 + (1 - self.keep) * sink / image.masked_fill(~applies, 1)).masked_fill(~applies, 1)
        less = torch.ones_like(sink).masked_fill(applies, self.keep)
        return merge(outputs, lses, [1.0, more, less], renormalise=False)[0]

    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        is_image, is_sink = (role == 1)[..., None, :], (role == 2)[..., None, :]
        image, sink = ((p * which).sum(-1, keepdim=True) for which in (is_image, is_sink))
        applies = (image > 0) & (sink / (image + sink) <= self.most_sink) & (image + sink >= self.least_image)
        more = 1 + (1 - self.keep) * sink / torch.where(image > 0, image, 1)
        moved = torch.where(is_sink, self.keep * p, torch.where(is_image, more * p, p))
        return torch.where(applies, moved, p)


@dataclass(frozen=True, slots=True)
class Emphasis(Edit):
    """MotionCLR's (de-)emphasis of chosen words: their columns grow or shrink, and rows no longer sum to one."""

    factor: float = 1.0
    added: float = 0.5
    """To every entry of the columns; below 0 it de-emphasises."""

    roles: ClassVar[tuple[str, ...]] = ("other", "chosen")
    about: ClassVar[About] = About(
        name="motionclr_emphasis",
        title="MotionCLR emphasis: columns of chosen words grow or shrink after the softmax",
        formula="p'_ij = factor p_ij + added for chosen j that i sees, else p_ij",
        source="MotionCLR: Motion Generation and Training-free Editing via Understanding Attention (arXiv 2410.18977)",
        cost="O(N^2 d)",
    )

    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        outputs, lses = self.parts(q, k, v, context)
        o, _ = merge(outputs, lses, [1.0, self.factor], renormalise=False)
        # Sums of the chosen values that each query sees: linear attention with features of 0 and 1.
        chosen = (self.role(context) == 1)[..., None].to(v.dtype).expand(*v.shape[:3], 1)
        one, segment = torch.ones_like(chosen), context.data.queries.segment
        seen, _ = scan(one, chosen, v, causal=context.causal, segment=segment)
        return o + self.added * share_heads(seen, q.shape[1])

    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        return torch.where((role == 1)[..., None, :] & (p > 0), self.factor * p + self.added, p)


@dataclass(frozen=True, slots=True)
class Replacement(Edit):
    """MotionCLR's replacement: all sequences of a batch take the map of one, for their own values.

    Its segments are those of the map. Padding of another sequence gives zeros where the map sees it.
    """

    sequence: int = 0

    meets_batch = True

    about: ClassVar[About] = About(
        name="motionclr_replacement",
        title="MotionCLR replacement: all sequences of a batch under the map of one of them",
        formula="o_b = softmax(Q_s K_s^T / sqrt(d)) V_b",
        source="MotionCLR: Motion Generation and Training-free Editing via Understanding Attention (arXiv 2410.18977)",
        cost="O(N^2 d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, math.inf, "sequence")

    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        if not 0 <= self.sequence < len(q):
            raise ValueError(f"motionclr_replacement has sequence={self.sequence}, but the batch has {len(q)}")
        (v,) = without_padding(context, v)
        q, k = (x[self.sequence : self.sequence + 1].expand_as(x) for x in (q, k))
        segment = context.data.queries.segment
        if segment is not None and segment.dim() == 2:
            segment = segment[self.sequence]
        return attend(q, k, v, Spec(narrowed(None, context)), Data(Tokens(segment=segment)))

    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        return p[self.sequence].expand_as(p)

    def role(self, context: Context) -> Tensor:
        return torch.zeros(1, 1, 0)

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return Context()


@dataclass(frozen=True, slots=True)
class Suppression(Edit):
    """V2P trains a pointer to look at its target alone; `mass_outside` is that loss, and this what it leads to."""

    keep: float = 0.0
    """What keys outside keep of their weight before rows are renormalised; 1 is plain attention."""

    roles: ClassVar[tuple[str, ...]] = ("outside", "target")
    about: ClassVar[About] = About(
        name="v2p_suppression",
        title="V2P suppression: keys outside a target lose their weight, which is a loss in training",
        formula="p'_ij = w_j p_ij / sum_l w_l p_il,  w = 1 on the target, keep outside;  loss sum_{j outside} p_ij",
        source="V2P: From Background Suppression to Center Peaking for Robust GUI Grounding (arXiv 2508.13634)",
        cost="O(N^2 d)",
    )

    def __post_init__(self) -> None:
        check_between(self, 0, math.inf, "keep")

    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        return merge(*self.parts(q, k, v, context), [self.keep, 1.0])[0]

    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        return _normalised(torch.where((role == 1)[..., None, :], p, self.keep * p))

    def mass_outside(self, q: Tensor, k: Tensor, context: Context) -> Tensor:
        """What each query gives to keys outside the target, [B, Hq, N]; differentiable."""
        _, lses = self.parts(q, k, k, context)
        return _masses(lses)[0]


@dataclass(frozen=True, slots=True)
class AttentiveEraser(Edit):
    """Inside the object to be erased no query sees it, so that it is painted from the background; others see all."""

    similarity: float = 1.0
    """Factor of the logits inside: below 1 the background is mixed more evenly."""

    roles: ClassVar[tuple[str, ...]] = ("background", "object")
    about: ClassVar[About] = About(
        name="attentive_eraser",
        title="Attentive Eraser: queries in an object see the background alone, mixed more evenly",
        formula="p'_ij = softmax over background j of similarity s_ij, for i in the object, else p_ij",
        source="Attentive Eraser: Unleashing Diffusion Model's Object Removal Potential (arXiv 2412.12974)",
        cost="O(N^2 d)",
    )

    def edited(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        inside = self.role(context) == 1
        q = torch.where(inside[..., None], self.similarity * q, q)
        return merge(*self.parts(q, k, v, context), [1.0, (~inside).to(q.dtype)])[0]

    def edit(self, p: Tensor, role: Tensor) -> Tensor:
        is_object = role == 1
        # Powers of a softmax are the softmax of multiples.
        erased = torch.where(is_object[..., None, :] | (p == 0), 0, p.clamp(min=1e-300) ** self.similarity)
        return torch.where(is_object[..., None], _normalised(erased), p)


def _map(q: Tensor, k: Tensor, context: Context) -> Tensor:
    logits = q @ share_heads(k, q.shape[1]).mT / math.sqrt(q.shape[-1])
    return logits.masked_fill(~visible(q, context), -torch.inf).softmax(-1)


def _normalised(weights: Tensor) -> Tensor:
    """Rows that sum to one; those of zeros alone stay."""
    total = weights.sum(-1, keepdim=True)
    return torch.where(total > 0, weights / torch.where(total > 0, total, 1), 0)


def _masses(lses: list[Tensor]) -> list[Tensor]:
    """Shares of the parts in what a row attends to; where it attends to nothing, zeros."""
    stacked = torch.stack(lses)
    empty = (stacked == -torch.inf).all(0)
    return list(stacked.masked_fill(empty, 0).softmax(0).masked_fill(empty, 0))
