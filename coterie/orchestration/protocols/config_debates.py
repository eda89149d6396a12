"""Configs of the protocols in which agents argue. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from coterie.orchestration.protocols.config import DecisionConfig, ProtocolConfig


class DebateConfig(ProtocolConfig):
    """Multi-agent debate (Du et al., arXiv 2305.14325); published with 3 agents and 2 rounds."""

    agents = (2, None)
    symmetric = True
    templates = ("debate",)

    kind: Literal["debate"] = "debate"
    rounds: int = Field(2, ge=1, le=20)
    """How often everybody answers; the first time alone."""
    decision: DecisionConfig = DecisionConfig()


class MadConfig(ProtocolConfig):
    """MAD (Liang et al., arXiv 2305.19118): two sides argue, a judge decides; published with 3 rounds."""

    agents = (3, 3)
    templates = (
        "mad_affirmative", "mad_judge", "mad_levels", "mad_moderate", "mad_negative", "mad_reply",
    )  # fmt: skip

    kind: Literal["mad"] = "mad"
    rounds: int = Field(3, ge=1, le=20)
    """How often both sides speak, at most."""
    disagreement: Literal[0, 1, 2, 3] = 2
    """What the sides are told: 0 seek agreement, 1 disagree on most points, 2 find the truth, 3 disagree on all."""
    early_end: bool = True
    """The judge is asked after every round but the last, and ends the debate where one side is clearly right."""


class GroupThinkConfig(ProtocolConfig):
    """Group Think (arXiv 2505.11107): thinkers see each other's unfinished work.

    The article interleaves tokens (`granularity: token`); its studies have up to 4 thinkers.
    """

    symmetric = True
    templates = ("group_think_go_on", "group_think_peers")
    instead = "engine: transformers` or `granularity: turn"

    kind: Literal["group_think"] = "group_think"
    granularity: Literal["turn", "chunk", "token"] = "turn"
    """`turn`: a piece is a message, and its writer is told to go on. `chunk`: the reply goes on token for token.
    `token`: replies grow side by side, a token at a time, in one cache (engine `transformers`, one policy for all)."""
    rounds: int = Field(3, ge=1, le=1000)
    """How many pieces of at most `sampling.max_tokens` each thinker writes; with `chunk` until it ends by itself. With
    `token` there is one."""
    visible: bool = True
    """Thinkers see each other; without it they are independent samples."""
    decision: DecisionConfig = DecisionConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_in_rounds(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("granularity") == "token":
            return {"rounds": 1, **data}
        return data

    @model_validator(mode="after")
    def _has_one_piece(self) -> Self:
        if self.granularity == "token" and self.rounds != 1:
            raise ValueError("with `granularity: token` each thinker writes one piece: leave `rounds` out")
        return self

    @property
    def needs(self) -> frozenset[str]:
        return _NEEDS[self.granularity]


_NEEDS: Mapping[str, frozenset[str]] = {
    "turn": frozenset(), "chunk": frozenset({"tokens"}), "token": frozenset({"tokens", "shared_cache"})
}  # fmt: skip
