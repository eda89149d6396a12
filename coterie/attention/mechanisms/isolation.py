"""Who may see whom by what tokens are: tables of roles, and sets of entities that tokens belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Causal, Roles, Rule, Window
from coterie.attention.mechanisms.base import About, Context, Declaration, Heads, Missing, visible
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

Box = tuple[int, int, int, int]
"""First row, first column, row after the last, column after the last."""

LAMIC_ROLES = ("subject text", "shared text", "padding text", "region", "background", "reference")
"""Numbers in `Tokens.role`: SAD, CEI, EPrt, Reg, UReg and Ref of the published table."""

_LAMIC = (
    ("match", "always", "always", "match", "never", "match"),
    ("always", "always", "always", "stage", "stage", "always"),
    ("always", "always", "always", "always", "always", "always"),
    ("match", "stage", "always", "match to all", "stage", "match"),
    ("never", "stage", "always", "stage", "always", "never"),
    ("match", "always", "always", "match", "never", "match"),
)
_STAGES = {"match": ("overlap", "overlap"), "stage": ("never", "always"), "match to all": ("overlap", "always")}


@dataclass(frozen=True, slots=True)
class Lamic(Declaration):
    """Text, regions and reference images of several subjects in one sequence: each sees its own subject."""

    about: ClassVar[About] = About(
        name="lamic",
        title="LAMIC: text, regions and references of a subject see each other by a table of roles",
        formula="j allowed to i: table[role_i, role_j] is always, or it is match and entities_i & entities_j;\n"
        "stage 2 opens what is marked stage, and match to all",
        source="LAMIC: Layout-Aware Multi-Image Composition (arXiv 2508.00477)",
        cost="O(sum over subjects of n^2 d), at most O(N^2 d)",
    )

    stage: Literal[1, 2] = 1
    """Early steps of denoising keep regions apart, late ones let them see each other."""

    @property
    def table(self) -> tuple[tuple[Rule, ...], ...]:
        """The published table in one stage."""
        both = [[_STAGES.get(rule, (rule, rule)) for rule in row] for row in _LAMIC]
        return tuple(tuple(cast(Rule, rules[self.stage - 1]) for rules in row) for row in both)

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        _roles_and_groups(self.about, context, q)
        return Spec(Roles(self.table)), Data(context.data.queries)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        role, group = _roles_and_groups(self.about, context, q)
        shares = (group[:, :, None] & group[:, None]) != 0
        allowed = torch.zeros_like(shares)
        for mine, row in enumerate(_LAMIC):
            for theirs, rule in enumerate(row):
                between = (role[:, :, None] == mine) & (role[:, None] == theirs)
                if rule == "always" or (self.stage == 2 and rule in ("stage", "match to all")):
                    allowed |= between
                elif rule in ("match", "match to all"):
                    allowed |= between & shares
        return naive_attention(q, k, v, allowed=allowed[:, None] & visible(q, context))[0]

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        role = _runs(len(LAMIC_ROLES), tokens, draw, batch)
        return Context(data=Data(Tokens(role=role, group=_runs(8, tokens, draw, batch))))


@dataclass(frozen=True, slots=True)
class Isolation(Declaration):
    """Subjects of one image do not see each other. Reads roles, 0 background, 1 subject, and of subjects the group.

    `reposition` moves what they were elsewhere to where they are.
    """

    about: ClassVar[About] = About(
        name="isolation",
        title="IR-Diffusion: subjects do not see each other, the background sees and is seen",
        formula="j allowed to i: entities_i & entities_j, or one of them is background",
        source="Improving Multi-Subject Consistency in Open-Domain Image Generation with Isolation and Reposition "
        "Attention (arXiv 2411.19261)",
        cost="O(N^2 d) less what subjects do not see",
    )

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        _roles_and_groups(self.about, context, q)
        return Spec(Roles((("always", "always"), ("always", "overlap")))), Data(context.data.queries)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        role, group = _roles_and_groups(self.about, context, q)
        background = role == 0
        allowed = ((group[:, :, None] & group[:, None]) != 0) | background[:, :, None] | background[:, None]
        return naive_attention(q, k, v, allowed=allowed[:, None] & visible(q, context))[0]

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        group = _runs(8, tokens, draw, batch)
        return Context(data=Data(Tokens(role=(group != 0).long(), group=group)))


def reposition(x: Tensor, grid: tuple[int, int], source: Box, target: Box) -> tuple[Tensor, Tensor]:
    """Keys or values of a reference image with its subject scaled and moved to where it stands in the target image.

    Source: Reposition Attention of IR-Diffusion (arXiv 2411.19261).

    Args:
        x: [B, H, N, D], tokens of an image of N = rows * columns, row-major.
        grid: Rows and columns.
        source: Where the subject is.
        target: Where it shall be.

    Returns:
        [B, H, N, D] with zeros outside the target, and which tokens lie in the target, bool [N].

    Raises:
        ValueError: The grid has not N tokens, or a box is empty or leaves the grid.
    """
    rows, columns = grid
    if x.shape[2] != rows * columns:
        raise ValueError(f"x has {x.shape[2]} tokens, but the grid {grid} has {rows * columns}")
    for name, (top, left, bottom, right) in (("source", source), ("target", target)):
        if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
            raise ValueError(f"{name} is {(top, left, bottom, right)}, expected a box with cells inside {grid}")
    sampled, inside = [], []
    for axis, size in enumerate(grid):
        at = torch.arange(size, device=x.device, dtype=x.dtype)
        scale = (source[axis + 2] - source[axis]) / (target[axis + 2] - target[axis])
        # A cell's centre, in the units of grid_sample, where -1 and 1 are the outer edges.
        sampled.append((source[axis] + (at + 0.5 - target[axis]) * scale) * 2 / size - 1)
        inside.append((at >= target[axis]) & (at < target[axis + 2]))
    places = torch.stack(torch.meshgrid(*sampled, indexing="ij")[::-1], -1)
    image = x.transpose(2, 3).reshape(x.shape[0], -1, rows, columns)
    moved = functional.grid_sample(
        image, places.expand(len(image), -1, -1, -1), padding_mode="border", align_corners=False
    )
    within = (inside[0][:, None] & inside[1]).flatten()
    return moved.view(*x.shape[:2], x.shape[3], -1).transpose(2, 3) * within[:, None], within


@dataclass(frozen=True, slots=True)
class Composite(Declaration):
    """Visual tokens keep their own value, text sees both. Reads roles: 0 visual, 1 text."""

    about: ClassVar[About] = About(
        name="composite",
        title="EE-MLLM: visual tokens see none but themselves, text sees all before it",
        formula="o_i = v_i for visual i;  softmax over visual and text j <= i for text i",
        source="EE-MLLM: A Data-Efficient and Compute-Efficient Multimodal Large Language Model (arXiv 2408.11795)",
        cost="O(T (T + V) d) for T text and V visual tokens",
    )

    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        _field(self.about, context, "role", q)
        text = Roles((("never", "never"), ("always", "always")))
        return Spec(Window(0, 0) | (text & Causal())), Data(context.data.queries)

    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        is_text = _field(self.about, context, "role", q)[:, None, :, None] == 1
        causal = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
        own = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
        return torch.where(is_text, naive_attention(q, k, v, allowed=causal)[0], own)

    def pairs(self, tokens: int) -> int:
        visual = _visual(tokens)
        return visual + (tokens - visual) * tokens

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        return Context(data=Data(Tokens(role=(torch.arange(tokens) >= _visual(tokens)).long())))


def _visual(tokens: int) -> int:
    """Visual tokens in what is made up: 3 of 4."""
    return tokens * 3 // 4


def _roles_and_groups(about: About, context: Context, q: Tensor) -> tuple[Tensor, Tensor]:
    """Both [B, N], or the refusal of `_field`."""
    return _field(about, context, "role", q), _field(about, context, "group", q)


def _field(about: About, context: Context, name: str, q: Tensor) -> Tensor:
    """What the context knows of the tokens by that name, [B, N].

    Raises:
        Missing: It does not.
    """
    field: Tensor | None = getattr(context.data.queries, name)
    if field is None:
        raise Missing(f"{about.name} needs {name}s of the tokens", f"Context(data=Data(Tokens({name}=...)))")
    return field.expand(q.shape[0], q.shape[2])


def _runs(below: int, tokens: int, draw: torch.Generator, batch: int) -> Tensor:
    """Numbers that neighbouring tokens share, as tokens of one text or region do."""
    return torch.randint(0, below, (batch, 24), generator=draw).repeat_interleave(-(-tokens // 24), 1)[:, :tokens]
