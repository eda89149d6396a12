"""What a mechanism is: options with published defaults, a module that computes it, the paper's formula beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data
from coterie.attention.masks import Causal, Mask, Segments
from coterie.attention.spec import Spec
from coterie.attention.topology import Topology


@dataclass(frozen=True, slots=True)
class About:
    """What `coterie ls attention` and the page of mechanisms say."""

    name: str
    """As in YAML."""
    title: str
    formula: str
    """One or a few lines of plain text."""
    source: str
    """Authors' title and arXiv number."""
    cost: str
    """Multiplications in N queries, such as O(N w d)."""


class Heads(NamedTuple):
    """What a module with parameters is made for."""

    queries: int
    """Hq."""
    keys: int
    """Hk."""
    width: int
    """D, of queries, keys and values."""
    features: int
    """C, of `Context.features`."""


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What a call knows beside q, k and v. A mechanism that needs more than it finds here refuses by name."""

    causal: bool = False
    """Whether a query may see only keys at or before it."""
    grid: tuple[int, ...] | None = None
    """Sizes of the one to three axes on which the tokens lie, row-major; their product is N."""
    features: Tensor | None = None
    """[B, N, C], the hidden states of which q, k and v were made."""
    data: Data = Data()
    """Segments, roles, groups, times and agents of the tokens, hops, neighbours and distances."""

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Context:
        """The same with its tensors on a device, and those of floating-point numbers in a dtype; None: as they are."""
        converted: Context = _converted(self, device, dtype)
        return converted


def _converted(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """A context or a part of it, as `Context.to` says."""
    if isinstance(value, Tensor):
        return value.to(device, dtype if value.is_floating_point() else None)
    if isinstance(value, Topology):
        return value if device is None else value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _converted(getattr(value, f.name), device, dtype) for f in fields(value)})
    return value


@dataclass(frozen=True, slots=True)
class Options(ABC):
    """A frozen dataclass whose fields are the options of one mechanism of the literature."""

    about: ClassVar[About]
    reads: ClassVar[Literal["grid", "features"] | None] = None
    """What it needs of a context beside `data`."""
    meets_batch: ClassVar[bool] = False
    """Whether a sequence gets something of the other sequences of its batch."""

    @classmethod
    def small(cls) -> Self:
        """Options that show on a few dozen tokens what the mechanism does, for tests and pictures."""
        return cls()

    @abstractmethod
    def module(self, heads: Heads) -> nn.Module:
        """A module with the learned parameters, if any.

        Called with a context that lacks what it needs, it raises ValueError.
        """

    def pairs(self, tokens: int) -> int:
        """Products of a query with a key (or what stands for keys) in one head for so many tokens; dense has N^2."""
        return tokens**2

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        """Made-up inputs for tests, pictures and benchmarks; what a mechanism needs beyond its tensors."""
        if self.reads == "grid":
            return drawn_grid(tokens)
        if self.reads == "features":
            return Context(features=torch.randn(batch, tokens, heads.features, generator=draw))
        return Context()


class Mechanism(Options):
    """Attention: its module is called with (q, k, v, context) and gives o.

    q is [B, Hq, N, D], k and v are [B, Hk, N, D], o is [B, Hq, N, D].
    """

    @abstractmethod
    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """What `module` computes, written from the paper's formula in plain torch: no spec, no kernel, any dtype."""


class Features(Options):
    """What maps features to features, or pools them: its module is called with (x, context) and gives y.

    x is [B, N, C]; y is [B, N, C], or what it is pooled to.
    """

    @abstractmethod
    def naive(self, module: nn.Module, x: Tensor, context: Context) -> Tensor:
        """As in `Mechanism`."""


class Declaration(Mechanism):
    """A mechanism that is a spec and its data: no parameters, one call of `attend`.

    What a context says of any attention is added to the mask by itself: causality, and segments where it has them.
    """

    @abstractmethod
    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        """The spec, and `context.data` with the tensors of this call.

        Raises:
            ValueError: The context lacks what it needs, which is named.
        """

    def module(self, heads: Heads) -> nn.Module:
        """A module without parameters."""
        return Declared(self)


class Declared(nn.Module):
    """Calls `attend` with what a declaration says."""

    def __init__(self, declaration: Declaration) -> None:
        super().__init__()
        self.declaration = declaration

    def forward(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """O [B, Hq, N, D]."""
        spec, data = self.declaration.declare(q, k, context)
        return attend(q, k, v, replace(spec, mask=narrowed(spec.mask, context)), data)


def narrowed(mask: Mask | None, context: Context) -> Mask | None:
    """A mask, and what the context says of any attention."""
    for more, holds in ((Causal(), context.causal), (Segments(), context.data.queries.segment is not None)):
        if holds:
            mask = more if mask is None else mask & more
    return mask


def visible(q: Tensor, context: Context) -> Tensor:
    """For naive forms: which keys each query may see by the context's causality alone, bool [N, N]."""
    everything = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device)
    return everything.tril() if context.causal else everything


class Missing(ValueError):
    """A context lacks what a mechanism reads."""

    def __init__(self, lack: str, remedy: str) -> None:
        super().__init__(f"{lack}: give it {remedy}")
        self.lack = lack
        """The message without the remedy, which is one for callers in Python."""


def reason_of(refusal: ValueError) -> str:
    """What a mechanism says that does not fit, for who names it in a file."""
    return refusal.lack if isinstance(refusal, Missing) else str(refusal)


def features_of(about: About, context: Context) -> Tensor:
    """The hidden states [B, N, C] of a context, with zeros for padding.

    Raises:
        Missing: It has none.
    """
    if context.features is None:
        raise Missing(f"{about.name} reads the hidden states too", "Context(features=[B, N, C])")
    return without_padding(context, context.features)[0]


def grid_of(about: About, context: Context, tokens: int, *axes: int) -> tuple[int, ...]:
    """The grid of so many tokens, of one of these numbers of axes; a sequence is a grid of one.

    Raises:
        Missing: There is none, or one of other axes.
        ValueError: Its sizes are others.
    """
    grid = (tokens,) if context.grid is None and 1 in axes else context.grid
    if grid is None or len(grid) not in axes:
        wanted = " or ".join(str(n) for n in axes)
        raise Missing(f"{about.name} needs a grid of {wanted} axes, not {grid}", "Context(grid=...)")
    if math.prod(grid) != tokens:
        raise ValueError(f"{about.name} has {tokens} tokens, but its grid {grid} has {math.prod(grid)} places")
    return grid


def drawn_grid(tokens: int, axes: int = 2) -> Context:
    """A made-up context whose tokens lie on a grid, its axes as equal as their number allows."""
    sizes = list[int]()
    for left in range(axes, 1, -1):
        most = int(tokens ** (1 / left) + 1e-9)
        sizes.append(max(size for size in range(1, most + 1) if tokens % size == 0))
        tokens //= sizes[-1]
    return Context(grid=(*sizes, tokens))


def without_padding(context: Context, *tensors: Tensor) -> list[Tensor]:
    """Tensors [B, H, N, .] or [B, N, .] with zeros where the context says that tokens are padding."""
    segment = context.data.queries.segment
    if segment is None:
        return list(tensors)
    padding = (segment < 0)[..., None]
    return [x.masked_fill(padding[:, None] if padding.dim() == 3 and x.dim() == 4 else padding, 0) for x in tensors]


def check_between(options: Options, least: float, most: float, *names: str) -> None:
    """Refuse options, or members of options that are tuples, outside of least <= value <= most; None may be.

    Raises:
        ValueError: The first such option.
    """
    for name in names:
        value = getattr(options, name)
        if not all(x is None or least <= x <= most for x in (value if isinstance(value, tuple) else (value,))):
            wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise ValueError(f"{options.about.name}: {name} is {value}, expected {wanted}")


def padding_of(about: About, context: Context) -> Tensor | None:
    """Which tokens are padding, bool [1 or B, N], for mechanisms that know one segment for each sequence. None: none.

    Raises:
        ValueError: There are several segments in a sequence.
    """
    segment = context.data.queries.segment
    if segment is None:
        return None
    padding = (segment < 0).view(-1, segment.shape[-1])
    if bool((~padding & (segment != segment.amax(-1, keepdim=True))).any()):
        raise ValueError(
            f"{about.name} mixes tokens of all segments: give it one for each sequence, the rest as padding"
        )
    return padding


def lengths_of(about: About, context: Context) -> Tensor | None:
    """How many tokens each sequence has before its padding, [1 or B], for mechanisms that count from the first token.

    Raises:
        ValueError: As `padding_of`, or there is padding before a token.
    """
    padding = padding_of(about, context)
    if padding is None:
        return None
    if bool((padding[:, :-1] & ~padding[:, 1:]).any()):
        raise ValueError(f"{about.name} counts blocks from the first token: put the padding behind the last one")
    return (~padding).sum(-1)


def is_training(module: nn.Module, about: About) -> bool:
    """Whether a call may change what a module counts or draws, and the next one therefore computes something else.

    Raises:
        ValueError: The call is made again within a backward pass, as by gradient checkpointing: its gradients would be
            those of something else.
    """
    if module.training and torch._C._current_graph_task_id() != -1:
        raise ValueError(f"{about.name} computes something else in every call of training: do not checkpoint it")
    return module.training


def check_not_causal(about: About, context: Context, why: str) -> None:
    """For mechanisms that have no causal form.

    Args:
        about: Of the mechanism.
        context: Of the call.
        why: The reason, and which mechanism has one.

    Raises:
        ValueError: The context is causal.
    """
    if context.causal:
        raise ValueError(f"{about.name} has no causal form: {why}")
