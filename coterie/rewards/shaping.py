"""Verdicts shaped by what was said before, so that agents gain by mending and lose by spoiling (MAPoRL)."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from coterie.rewards.base import WorkedEpisode
from coterie.rewards.judge import is_decided
from coterie.types import Turn

if TYPE_CHECKING:
    from coterie.rewards.config_rewards import MaporlConfig


def quality(reward: float, before: float) -> float:
    """QR - (1 - Q)(1 - R): a right answer gains as those before were right, a wrong one loses as they were wrong."""
    return before * reward - (1 - before) * (1 - reward)


def margin(reward: float, before: float) -> float:
    """R - Q: what was gained on those before."""
    return reward - before


class Maporl:
    """R + alpha * change, plus beta times the verdict on the society's answer.

    R is 1 for a right answer, else 0, and Q the mean R of earlier rounds; without any the change is 0.

    Source: MAPoRL (arXiv 2502.18439), whose incentives MARTI writes as these two forms.
    """

    def __init__(self, config: MaporlConfig) -> None:
        self.config = config
        self._change = {"quality": quality, "margin": margin}[config.form]

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """As `Reward.score`; an answer whose verdict nobody knows gets nothing, and is in no Q."""
        known = {key: verdict for key, verdict in episode.verdicts.items() if is_decided(verdict)}
        final = self.config.beta * float(episode.verdict.correct)
        rewards = {key: float(verdict.correct) for key, verdict in known.items()}
        return {
            key: reward + self.config.alpha * self._shape(episode, rewards, key) + final
            for key, reward in rewards.items()
        }

    def _shape(self, episode: WorkedEpisode, rewards: Mapping[str, float], key: str) -> float:
        turn = episode.turns[key]
        before = [reward for other, reward in rewards.items() if self._precedes(episode.turns[other], turn)]
        return self._change(rewards[key], fmean(before)) if before else 0.0

    def _precedes(self, earlier: Turn, turn: Turn) -> bool:
        is_past = earlier.place.round < turn.place.round
        return is_past and (self.config.past == "all" or earlier.place.seat == turn.place.seat)
