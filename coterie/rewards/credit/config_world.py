"""Configs of world credit: what of a team's reward each agent learns from. Imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from coterie.config.base import KindConfig


class WorldRuleConfig(KindConfig):
    """What every rule has."""

    has_critic: ClassVar[bool] = False
    """The learner trains a critic of the team's reward beside it."""
    asks_simulator: ClassVar[bool] = False
    """The world must tell what would have happened otherwise."""


class EqualConfig(WorldRuleConfig):
    """All agents of a team learn from the mean of what it earned."""

    kind: Literal["equal"] = "equal"


class DifferenceConfig(WorldRuleConfig):
    """What a team earned less what it would have earned had the agent done something else: difference rewards."""

    asks_simulator: ClassVar[bool] = True
    kind: Literal["difference"] = "difference"
    instead: Literal["removed", "hover"] = "removed"
    """What the agent does in the world that is compared with: it is not there, or it carries its own weight."""
    horizon: int = Field(1, ge=1, le=10_000)
    """Steps that are simulated; the others do what they did. More than 1: the mean difference, discounted."""
    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the steps, drawn, at which it is simulated. Between them the last one found is held, and corrected at
    the next, so that the mean over draws is right."""


class AttentionShareConfig(WorldRuleConfig):
    """A critic of the team's reward attends to its members; what each adds to the sum is its share."""

    has_critic: ClassVar[bool] = True
    kind: Literal["attention"] = "attention"
    heads: int = Field(4, ge=1, le=64)
    """Of the critic's attention."""
