"""Configs of the protocols. Imports nothing heavy."""

from __future__ import annotations

from itertools import product
from typing import Literal, Self

from pydantic import Field, model_validator

from coterie.config.base import Config, KindConfig

Pattern = Literal["debate", "reflect"]


class DecisionConfig(Config):
    """How a society's answer is made from its agents' answers."""

    rule: Literal["majority", "first", "longest_agreement"] = "majority"
    """`first` is the first agent's answer; `longest_agreement` the answer held together over the most final rounds."""
    tie: Literal["none", "first", "random"] = "none"
    """What a tie gives: no answer, the answer of the earliest agent among the tied, or a counted draw."""
    no_answer: Literal["abstain", "strict"] = "abstain"
    """`abstain`: agents without a parsed answer do not vote. `strict`: the winner needs more than half of all."""


class ProtocolConfig(KindConfig):
    """Base of protocol configs. A config may stand for several societies of one run, see `expand`."""

    @property
    def label(self) -> str:
        """The society's name in reports and in the keys of its episodes."""
        return self.kind

    def expand(self) -> tuple[Self, ...]:
        """One config per society that this one stands for."""
        return (self,)


class MachineSomConfig(ProtocolConfig):
    """MachineSoM (arXiv 2310.02124): a round of independent answers, then one thinking pattern per round for all."""

    kind: Literal["machinesom"] = "machinesom"
    strategy: tuple[Pattern, ...] | Literal["all"] = Field(default=("debate", "reflect", "debate"))
    """The pattern of each round after the first (1 to 5), or `all`: every strategy of `rounds` rounds in one run."""
    rounds: int = Field(3, ge=1, le=5)
    """How long the strategies are; only read with `strategy: all`."""
    history: Literal["full", "last"] = "full"
    """What an agent sees of its own past: the whole conversation (as published), or its last answer only."""
    decision: DecisionConfig = DecisionConfig()

    @model_validator(mode="after")
    def _has_rounds(self) -> Self:
        if self.strategy != "all" and not 1 <= len(self.strategy) <= 5:
            raise ValueError("strategy needs 1 to 5 rounds")
        return self

    @property
    def label(self) -> str:
        return "all" if self.strategy == "all" else "-".join(self.strategy)

    def expand(self) -> tuple[Self, ...]:
        if self.strategy != "all":
            return (self,)
        patterns: tuple[Pattern, ...] = ("debate", "reflect")
        return tuple(self.model_copy(update={"strategy": s}) for s in product(patterns, repeat=self.rounds))


class SingleConfig(ProtocolConfig):
    """One agent answers once."""

    kind: Literal["single"] = "single"


class SelfConsistencyConfig(ProtocolConfig):
    """One agent answers many times, majority wins (arXiv 2203.11171).

    The samples are journalled once; reports give the exact expected accuracy of any number of them, and compare at the
    society's own cost.
    """

    kind: Literal["self_consistency"] = "self_consistency"
    samples: int = Field(16, ge=1, le=1024)
    decision: DecisionConfig = DecisionConfig()
