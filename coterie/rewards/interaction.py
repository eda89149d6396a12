"""Rewards that come of discussion alone: agents solve, evaluate each other's solutions, and score the evaluations.

Source: CoMAS (arXiv 2510.08529, equations 6 to 8). With a score t of 1, 2 or 3

    solution (t - 1) / 2        evaluation (3 - t) / 2        scoring 0

so that solution and evaluation share 1. A score that cannot be read is no number: the scoring gets -1, the other two 0.

The article's ablations leave out evaluations, or scorings. It does not say what the judge who is left gets. Here it
takes the reward of the one who is missing: without evaluations the scoring is paid what the solution is not, without
scorings the evaluation is paid for its format. These are the incentives to what the article reports (its section
4.3.1): judges that grow ever stricter, and agents that endorse each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from coterie.errors import ConfigError
from coterie.rewards.base import WorkedEpisode
from coterie.rewards.judge import LEAST_RIGHT, Judgement, is_decided, read_judgements
from coterie.rewards.votes import Ballot
from coterie.types import Turn

if TYPE_CHECKING:
    from coterie.rewards.config_rewards import InteractionConfig

# In the `extra` of episodes that ended at a limit of their own: what was judged before is not known.
_CUT_SHORT = "cut_short"


def worth(score: int | None) -> float:
    """What a score gives to a solution, (t - 1) / 2; 0 if it could not be read. Its opponent gets the rest of 1."""
    return 0.0 if score is None else (score - 1) / 2


class Interaction:
    """A turn that stands in several judgements gets the mean: a solution is worth what its evaluations leave of it."""

    def __init__(self, config: InteractionConfig) -> None:
        self.config = config

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """As `Reward.score`.

        Raises:
            ConfigError: agents of this episode did not judge each other.
        """
        extra = episode.outcome.extra
        if "judgements" not in extra and _CUT_SHORT not in extra:
            raise ConfigError(
                "the reward `interaction` finds no judgements in an episode", where=f"task {episode.task.id}",
                remedy="use it with a protocol whose agents score each other, such as `comas`, and `baselines: []`",
            )  # fmt: skip
        given: dict[str, list[float]] = {}
        for judgement in read_judgements(episode.outcome):
            for key, reward in self._rewards(judgement, episode):
                given.setdefault(key, []).append(reward)
        return {key: fmean(rewards) for key, rewards in given.items()}

    def _rewards(self, judgement: Judgement, episode: WorkedEpisode) -> Iterator[tuple[str, float]]:
        pays = judgement.score is not None or self.config.unread == "zero"
        if pays:
            yield judgement.solution, worth(judgement.score)
        if judgement.evaluation and judgement.scoring:
            if self.config.check_evaluations and not _says_something(episode.turns[judgement.evaluation]):
                yield judgement.evaluation, self.config.failed
            elif pays:
                yield judgement.evaluation, _rest(judgement.score)
        judging = self._judging(judgement, episode)
        if judging is not None:
            yield judgement.judge, judging

    def _judging(self, judgement: Judgement, episode: WorkedEpisode) -> float | None:
        """What the turn gets that is to give the score; None where there is nothing that it could agree with."""
        if judgement.score is None or not judgement.is_read:
            return self.config.failed
        if self.config.scorer == "format":
            return 0.0 if judgement.evaluation else _rest(judgement.score)
        is_right = _is_right(judgement, episode) if self.config.scorer == "verdict" else _wins(judgement, episode)
        return None if is_right is None else float((judgement.score >= LEAST_RIGHT) == is_right)


def _rest(score: int | None) -> float:
    return 0.0 if score is None else 1 - worth(score)


def _is_right(judgement: Judgement, episode: WorkedEpisode) -> bool | None:
    verdict = episode.verdicts.get(judgement.solution)
    return verdict.correct if verdict is not None and is_decided(verdict) else None


def _wins(judgement: Judgement, episode: WorkedEpisode) -> bool | None:
    """Whether a solution gives the answer that the other agents gave most; None without such an answer."""
    turn = episode.turns[judgement.solution]
    label = Ballot.of(episode, "episode").label(turn, "other_agents")
    return None if label is None else turn.answer == label


def _says_something(turn: Turn) -> bool:
    return turn.finish != "length" and any(map(str.isalnum, turn.text))
