"""Configs of the advantage estimators. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coterie.config.base import Config, KindConfig
from coterie.rewards.keys import Attribute

Lasting = Literal["policy", "agent", "role", "round"]


class AdvantageConfig(KindConfig):
    """What every estimator has."""

    by: tuple[Attribute, ...] = ("policy", "role")
    """Turns are compared with those that share all of these; none: with all."""


class ReinforcePlusPlusConfig(AdvantageConfig):
    """Rewards less penalties to come, whitened over all tokens of a key (REINFORCE++, arXiv 2501.03262)."""

    kind: Literal["reinforce++"] = "reinforce++"
    epsilon: float = Field(1e-8, ge=0)
    """Added to the standard deviation."""


class ReinforcePlusPlusBaselineConfig(AdvantageConfig):
    """Rewards less their group's mean, then whitened (REINFORCE++-baseline, arXiv 2501.03262)."""

    kind: Literal["reinforce++_baseline"] = "reinforce++_baseline"
    within: tuple[Attribute, ...] = ("policy", "role", "group")
    """The mean is taken over turns that share all of these, and `by`; a turn alone gets 0, outside the whitening."""
    epsilon: float = Field(1e-8, ge=0)
    """Added to the standard deviation."""


class CriticConfig(Config):
    """What expects how much a reply is going to earn: a linear head on the policy's last hidden states."""

    learning_rate: float = Field(0.05, gt=0, le=1)
    """Of its AdamW, which is otherwise as the policy's: about what a value moves by in a step, in units of reward."""
    clip: float | None = Field(0.5, gt=0)
    """How far a value may go in one update from what it was, in units of the reward; null: no limit."""
    weight: float = Field(0.0, ge=0)
    """How much of its gradient goes on into the policy's own weights; 0: it learns what the policy sees anyway."""


class GaeConfig(AdvantageConfig):
    """Generalised advantages by a critic, whitened over all tokens of a key (PPO, arXiv 1506.02438, 1707.06347)."""

    kind: Literal["gae"] = "gae"
    discount: float = Field(1.0, ge=0, le=1)
    """Gamma, by token."""
    trace: float = Field(1.0, ge=0, le=1)
    """Lambda: 1 is what came of a reply less what was expected, 0 what a token changed of what is expected."""
    epsilon: float = Field(1e-8, ge=0)
    """Added to the standard deviation."""
    critic: CriticConfig = CriticConfig()
    """Learns beside each policy."""


class GroupConfig(AdvantageConfig):
    """Estimators that compare the replies to one prompt."""

    by: tuple[Attribute, ...] = ("policy", "role", "group")
    """Turns are compared with those that share all of these; none: with all."""


class GrpoConfig(GroupConfig):
    """Rewards less their group's mean, by its standard deviation (GRPO, arXiv 2402.03300)."""

    kind: Literal["grpo"] = "grpo"
    epsilon: float = Field(1e-6, ge=0)
    """Added to the standard deviation."""


class DrGrpoConfig(GroupConfig):
    """Rewards less their group's mean (Dr. GRPO, arXiv 2503.20783)."""

    kind: Literal["dr_grpo"] = "dr_grpo"


class RlooConfig(GroupConfig):
    """Rewards less the mean of the others of their group (RLOO, arXiv 2402.14740)."""

    kind: Literal["rloo"] = "rloo"


class DrMasConfig(GroupConfig):
    """GRPO for each agent by itself (Dr. MAS, arXiv 2602.08847); there an agent has one role."""

    kind: Literal["dr_mas"] = "dr_mas"
    by: tuple[Attribute, ...] = ("agent", "role", "group")
    """Turns are compared with those that share all of these; none: with all."""
    epsilon: float = Field(1e-6, ge=0)
    """Added to the standard deviation."""


class AtGrpoConfig(GroupConfig):
    """GRPO for each agent and turn by itself (AT-GRPO, arXiv 2510.11062); there an agent has one role."""

    kind: Literal["at_grpo"] = "at_grpo"
    by: tuple[Attribute, ...] = ("agent", "role", "group", "round")
    """Turns are compared with those that share all of these; none: with all."""
    epsilon: float = Field(1e-6, ge=0)
    """Added to the standard deviation."""


class RaeConfig(AdvantageConfig):
    """Rewards less a running mean of their key's (role-conditioned advantages of SPIRAL, arXiv 2506.24119)."""

    kind: Literal["rae"] = "rae"
    by: tuple[Lasting, ...] = ("policy", "role")
    """Turns share a running mean with those that share all of these, over all updates; a group lasts for one."""
    decay: float = Field(0.95, ge=0, lt=1)
    """How much of the running mean each reward leaves."""
