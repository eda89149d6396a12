"""Configs of the protocols. Imports nothing heavy."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from coterie.config.base import Config, KindConfig, OneOf

Pattern = Literal["debate", "reflect"]
History = Literal["full", "last"]


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

    agents: ClassVar[tuple[int, int | None]] = (1, None)
    """The fewest and the most agents that the protocol works with; None is no limit."""
    symmetric: ClassVar[bool] = False
    """All have the same part: with other seats in front each says the same, unless `decision` asks for `first`."""
    judges: ClassVar[bool] = False
    """Its agents judge each other, and its outcomes hold these judgements."""
    converses: ClassVar[bool] = False
    """It goes through a task's follow-ups, turn by turn in one conversation."""
    solo: ClassVar[bool] = False
    """It is for one agent: an evaluation has each trained policy work it alone."""
    templates: ClassVar[tuple[str, ...] | None] = None
    """The prompt templates it may fill in beside `question`, by name; None: any. A run goes on only if they are as
    they were."""

    instead: ClassVar[str] = ""
    """What to write in the file where an engine cannot do what is needed."""

    @property
    def needs(self) -> frozenset[str]:
        """What the engines of the agents must be able to do, see `engines.base.Capability`."""
        return frozenset()

    @property
    def label(self) -> str:
        """The society's name in reports and in the keys of its episodes."""
        return self.kind

    @property
    def embedders(self) -> tuple[str, ...]:
        """The embedders that it asks for, by name."""
        return ()

    def expand(self) -> tuple[Self, ...]:
        """One config per society that this one stands for."""
        return (self,)


class MachineSomConfig(ProtocolConfig):
    """MachineSoM (arXiv 2310.02124): a round of independent answers, then one thinking pattern per round for all."""

    symmetric = True
    templates = ("debate", "reflect")

    kind: Literal["machinesom"] = "machinesom"
    strategy: tuple[Pattern, ...] | Literal["all"] = Field(default=("debate", "reflect", "debate"))
    """The pattern of each round after the first (1 to 5), or `all`: every strategy of `rounds` rounds in one run."""
    rounds: int = Field(3, ge=1, le=5)
    """How long the strategies are; only read with `strategy: all`."""
    history: History = "full"
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
    """One agent answers once, or goes through a conversation with the user of a benchmark that has one."""

    converses = True
    solo = True
    templates = ()

    kind: Literal["single"] = "single"


class SelfConsistencyConfig(ProtocolConfig):
    """One agent answers many times, majority wins (arXiv 2203.11171).

    The samples are journalled once; reports give the exact expected accuracy of any number of them, and compare at the
    society's own cost.
    """

    solo = True
    templates = ()

    kind: Literal["self_consistency"] = "self_consistency"
    samples: int = Field(16, ge=1, le=1024)
    decision: DecisionConfig = DecisionConfig()


class ConsensusConfig(Config):
    """When a society counts as agreed."""

    similarity: float = Field(0.95, ge=-1, le=1)
    """The least cosine between any two replies."""
    spread: float = Field(0.1, ge=0)
    """The most that contributions may lie apart."""


class SelfOrgConfig(ProtocolConfig):
    """SelfOrg (arXiv 2510.00685): agents rewire who reads whom by similarity and contribution, round by round.

    `mode` fills in what is not given: `paper` as the article describes it, `release` as its public code does.
    """

    model_config = ConfigDict(defer_build=True)

    templates = ("selforg_lead", "selforg_peers")

    kind: Literal["selforg"] = "selforg"
    mode: Literal["paper", "release"] = "paper"
    rounds: int = Field(2, ge=1, le=20)
    """How often agents answer again, at most."""
    contribution: Annotated[KindConfig, OneOf("contribution")] = Field(default="psi")  # type: ignore[assignment]
    """What an agent contributes, from the embeddings alone. `release`: softmax_psi."""
    embedder: str = "minilm"
    """Turns replies into vectors: a built-in name (`coterie ls embedders`), a hub id or a folder."""
    edges: Literal["descent", "tilt"] = "descent"
    """`descent`: from higher to lower contribution. `tilt` (release): by similarity, tilted towards contribution."""
    threshold: float = Field(0.75, ge=-1, le=1)
    """The least cosine between two replies for an edge."""
    top_k: int | None = Field(None, ge=1)
    """The most peers that an agent reads; null is all. `release`: 2."""
    cut: Literal["rise", "lightest"] = "rise"
    """Which edge of a cycle goes: the one from weak to strong, or (release) the one of least weight."""
    isolated: Literal["refine", "keep"] = "refine"
    """What agents do that read nobody, the leader apart: look over their reply, or (release) keep it."""
    graph: Literal["contribution", "random"] = "contribution"
    """`random`, a control: each DAG that contributions make is replaced by one with as many edges, drawn at random."""
    reform: bool = True
    """Rewire after every round; else once, after the first answers."""
    consensus: ConsensusConfig | None = ConsensusConfig()
    """Stop after a round in which all agree; null never stops early."""
    answer: Literal["centroid", "strongest"] = "centroid"
    """The society's answer: the reply nearest to the weighted centroid, or that of the highest contribution."""
    fallback: bool = True
    """An agent whose last reply holds no answer stands with its last one that does; neither source says anything."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_mode(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("mode") == "release":
            return {**_RELEASE, **data}
        return data

    @property
    def label(self) -> str:
        return f"selforg-{self.mode}" + ("-random" if self.graph == "random" else "")

    @property
    def embedders(self) -> tuple[str, ...]:
        return (self.embedder,)


_RELEASE = {"contribution": "softmax_psi", "edges": "tilt", "top_k": 2, "cut": "lightest", "isolated": "keep"}
