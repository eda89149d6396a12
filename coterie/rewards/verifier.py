"""The verifiable reward: what the grader says of each answer."""

from __future__ import annotations

from collections.abc import Mapping

from coterie.rewards.base import WorkedEpisode
from coterie.rewards.config import VerifierConfig
from coterie.rewards.judge import is_decided
from coterie.types import Verdict


class Verifier:
    """Each answer on its own merit, whatever the society made of it."""

    def __init__(self, config: VerifierConfig) -> None:
        self.config = config

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """As `Reward.score`; an answer whose verdict nobody knows gets nothing."""
        return {key: self._value(verdict) for key, verdict in episode.verdicts.items() if is_decided(verdict)}

    def _value(self, verdict: Verdict) -> float:
        if not verdict.is_parsed:
            return self.config.unparsed
        return self.config.right if verdict.correct else self.config.wrong
