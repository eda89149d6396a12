"""Rewards from votes: the answer that most agents give stands in for the truth, which nobody asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from coterie.rewards.base import WorkedEpisode
from coterie.types import Turn

if TYPE_CHECKING:
    from coterie.rewards.config_rewards import CoRlConfig, TtrlConfig

Voters = Literal["other_policies", "other_agents", "all"]


def majority(answers: Iterable[str | None]) -> str | None:
    """The most frequent answer; None if there is none, or a tie. Replies without an answer do not vote."""
    counts = Counter(answer for answer in answers if answer is not None)
    most = max(counts.values(), default=0)
    winners = [answer for answer, count in counts.items() if count == most]
    return winners[0] if len(winners) == 1 else None


@dataclass(frozen=True, slots=True)
class Ballot:
    """The answers of an episode that vote with each other; of a reply in pieces only the last piece."""

    turns: Sequence[Turn]
    over: Literal["round", "episode"]

    @classmethod
    def of(cls, episode: WorkedEpisode, over: Literal["round", "episode"]) -> Ballot:
        """All answers that an episode's agents gave to its task."""
        begun = {turn.continues for turn in episode.turns.values()}
        whole = [t for t in episode.turns.values() if t.place.purpose == "answer" and t.key not in begun]
        return cls(whole, over)

    def label(self, turn: Turn, voters: Voters) -> str | None:
        """The majority of those who vote on an answer; None without one."""
        together = (t for t in self.turns if self.over == "episode" or t.place.round == turn.place.round)
        return majority(t.answer for t in together if _may_vote(t, turn, voters))

    def rewards(self, voters: Voters) -> dict[str, float]:
        """1 for each answer that is its label, 0 for each that is not; nothing where there is no label."""
        labels = [(turn, self.label(turn, voters)) for turn in self.turns]
        return {turn.key: float(turn.answer == label) for turn, label in labels if label is not None}


class CoRl:
    """Agreement with the majority of the others: who errs alone is not its own witness."""

    def __init__(self, config: CoRlConfig) -> None:
        self.config = config

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """As `Reward.score`; without others, or where they tie, an answer gets nothing."""
        return Ballot.of(episode, self.config.over).rewards(self.config.voters)


class Ttrl:
    """Agreement with the majority of all."""

    def __init__(self, config: TtrlConfig) -> None:
        self.config = config

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """As `Reward.score`; where there is a tie, answers get nothing."""
        return Ballot.of(episode, self.config.over).rewards("all")


def _may_vote(voter: Turn, turn: Turn, voters: Voters) -> bool:
    if voters == "other_policies":
        return voter.policy != turn.policy
    return voters == "all" or voter.place.seat != turn.place.seat
