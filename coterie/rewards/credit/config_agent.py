"""Configs of agent credit. Imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from coterie.config.base import KindConfig
from coterie.rewards.config import MAX_ENUMERATED


class AgentCreditConfig(KindConfig):
    """What every rule has: the team reward that is shared."""

    replays: ClassVar[bool] = False
    """It works episodes once more, without some agents: it wants `determinism: exact`."""
    reads_attention: ClassVar[bool] = False
    """It reads the policies' attention, which their learners do: it wants all of them to be trained."""
    max_agents: ClassVar[int | None] = None
    right: float = 1.0
    """The team reward of an episode whose answer is right."""
    wrong: float = 0.0
    """The team reward of any other episode."""
    own: float = Field(0.0, ge=0)
    """Weight of what `rewards` give a turn, which is added to its share; 0: it earns its share alone."""


class EqualCreditConfig(AgentCreditConfig):
    """Shares the team reward equally among the agents that spoke, and each agent's part among its turns."""

    kind: Literal["equal"] = "equal"


class AttentionFlowConfig(AgentCreditConfig):
    """Shares the team reward by the policies' attention to each other's words, back from the answer."""

    reads_attention: ClassVar[bool] = True
    kind: Literal["attention"] = "attention"
    layers: int = Field(5, ge=1)
    """How many layers are read, evenly spaced in the middle third of the model."""
    sinks: int = Field(4, ge=0)
    """How many first tokens of a prompt are left out, as they get attention for nothing."""
    per_token: bool = True
    """Attention counts per token, so that long messages do not weigh more; else all of it counts."""


class PsiCreditConfig(AgentCreditConfig):
    """Shares the team reward by how near each agent's last word is to all (SelfOrg's psi); sees no verdict."""

    kind: Literal["psi"] = "psi"
    embedder: str = "minilm"
    """Turns replies into vectors: a built-in name (`coterie ls embedders`), a hub id or a folder."""


class ReplayCreditConfig(AgentCreditConfig):
    """What rules by replays have."""

    replays: ClassVar[bool] = True
    draws: int = Field(4, ge=1)
    """How often each replay is drawn; fewer than 4 say little."""


class LeaveOneOutCreditConfig(ReplayCreditConfig):
    """Shares by what the team's result owes to each agent: replays without it. One more per episode than agents."""

    kind: Literal["leave_one_out"] = "leave_one_out"


class ShapleyCreditConfig(ReplayCreditConfig):
    """Shares by Shapley values of the team's result: replays of all 2^N coalitions of N agents."""

    max_agents: ClassVar[int | None] = MAX_ENUMERATED
    kind: Literal["shapley"] = "shapley"


class CounterfactualCreditConfig(ReplayCreditConfig):
    """Shares by what the result owes to an agent's messages, against others that it might have said (COMA)."""

    kind: Literal["counterfactual"] = "counterfactual"
