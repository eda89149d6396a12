"""What a mechanism is: options with published defaults, a module that computes it, and the paper's formula beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from coterie.attention.attend import attend
from coterie.attention.data import Data
from coterie.attention.spec import Spec


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


class Mechanism(ABC):
    """A frozen dataclass whose fields are the options of one mechanism of the literature."""

    about: ClassVar[About]

    @abstractmethod
    def module(self, heads: Heads) -> nn.Module:
        """A module with the learned parameters, if any: called with (q, k, v, context), it gives o.

        q is [B, Hq, N, D], k and v are [B, Hk, M, D], o is [B, Hq, N, D]. It raises ValueError where the context lacks
        what it needs.
        """

    @abstractmethod
    def naive(self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """What `module` computes, written from the paper's formula in plain torch: no spec, no kernel, any dtype."""

    @abstractmethod
    def pairs(self, tokens: int) -> int:
        """Products of a query with a key (or what stands for keys) in one head for so many tokens; dense has N^2."""

    def context(self, tokens: int, draw: torch.Generator, heads: Heads, batch: int) -> Context:
        """Made-up inputs for tests, pictures and benchmarks; what a mechanism needs beyond q, k and v."""
        return Context()


class Declaration(Mechanism):
    """A mechanism that is a spec and its data: no parameters, one call of `attend`."""

    @abstractmethod
    def declare(self, q: Tensor, k: Tensor, context: Context) -> tuple[Spec, Data]:
        """The spec and the tensors of this call.

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
        return attend(q, k, v, spec, data)
