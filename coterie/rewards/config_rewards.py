"""Configs of the rewards that come of what agents do with each other. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from coterie.rewards.config import RewardConfig


class InteractionConfig(RewardConfig):
    """Rewards from scores that agents give: solution and evaluation share 1 (CoMAS, arXiv 2510.08529).

    `preset` fills in what is not given: `faithful` as published, `improved` where what cannot be read costs its author
    alone, evaluations have to say something, and scores are paid for agreeing with the other solvers' majority.
    """

    of_judgements = True

    kind: Literal["interaction"] = "interaction"
    preset: Literal["faithful", "improved"] = "faithful"
    failed: float = Field(-1.0, le=0)
    """For a scoring whose score cannot be read."""
    unread: Literal["zero", "nothing"] = "zero"
    """What its solution and its evaluation then get: 0, as published, or nothing at all."""
    scorer: Literal["format", "verdict", "majority"] = "format"
    """For a score that can be read: 0 (`format`, as published), or 1 or 0 as it agrees with the benchmark's verdict,
    or with the majority of the other solvers' answers; nothing where there is no such thing."""
    check_evaluations: bool = False
    """An evaluation without a word, or cut at its longest, gets `failed`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        return {**_IMPROVED, **data} if isinstance(data, dict) and data.get("preset") == "improved" else data


_IMPROVED = {"unread": "nothing", "scorer": "majority", "check_evaluations": True}


class VoteConfig(RewardConfig):
    """What rewards by votes have."""

    over: Literal["round", "episode"] = "round"
    """Answers of one round vote, or all of the episode's."""


class CoRlConfig(VoteConfig):
    """Rewards 1 for the answer that most of the others gave, else 0 (Co-RL, arXiv 2608.17253)."""

    kind: Literal["co_rl"] = "co_rl"
    voters: Literal["other_policies", "other_agents"] = "other_policies"
    """Who the others are: agents of other policies, as published, or any other agents."""


class TtrlConfig(VoteConfig):
    """Rewards 1 for the answer that most gave, the own one counted, else 0 (TTRL, arXiv 2504.16084)."""

    kind: Literal["ttrl"] = "ttrl"


class MaporlConfig(RewardConfig):
    """The verdict R, shaped by the mean Q of the verdicts before: R + alpha * change (MAPoRL, arXiv 2502.18439)."""

    kind: Literal["maporl"] = "maporl"
    alpha: float = Field(0.5, ge=0)
    """Weight of the change."""
    form: Literal["quality", "margin"] = "quality"
    """The change: QR - (1 - Q)(1 - R), or R - Q."""
    past: Literal["all", "own"] = "all"
    """Whose earlier rounds are in Q: everybody's, as in a debate, or the agent's own."""
    beta: float = Field(0.0, ge=0)
    """Weight of the verdict on the society's answer, added to every answer's reward."""
