"""What replies are worth at the beginnings of their steps: the mean of what they earn that go on from there.

A reply that no reward gives anything, such as one whose judges cannot be read, is left out of the mean.

Every value is one of replays: the episode is worked again with a turn of it given up to the step, and drawn anew from
there; the turns of later rounds are drawn anew, too. The rewards are those of the training, given to the turn that was
made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol, cast

from coterie import registry
from coterie.agents.engines.tokens import load_tokenizers
from coterie.config.schema import ExperimentConfig
from coterie.journal import Journal
from coterie.orchestration import replay
from coterie.orchestration.harvest import EarnedTurn, PlayedEpisode, read_episode, taught
from coterie.orchestration.jobs import Begun, Job
from coterie.orchestration.token_credit import Signals
from coterie.rewards.base import Reward, WorkedEpisode
from coterie.rewards.credit.values import SaidReply, StepValues, by_token, mean_values
from coterie.rewards.mixture import mix
from coterie.types import TokenIds, Turn


class Decoder(Protocol):
    """What tells the text of tokens, such as `ChatTokenizer`."""

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True)
class Valuer:
    """Has the values of replies at their steps replayed, and reads them.

    Attributes:
        rule: Which says where steps begin.
        draws: Replies that go on from each of these places.
        rewards: By name.
        weights: Of each reward in what a turn earns.
        decoders: By policy.
        mask_cut: Whether nothing is learnt from turns that were cut at their longest.
    """

    rule: StepValues
    draws: int
    rewards: Mapping[str, Reward]
    weights: Mapping[str, float]
    decoders: Mapping[str, Decoder]
    mask_cut: bool

    @classmethod
    def make(cls, experiment: ExperimentConfig, weights: Mapping[str, float]) -> Valuer | None:
        """As the section `credit` says; None if its rule for tokens needs no values.

        Raises:
            EnvironmentMissing: A tokenizer is missing.
        """
        config: Any = experiment.credit.token if experiment.credit is not None else None
        if not getattr(config, "replays", False):
            return None
        rewards = {one.kind: registry.impl("reward", one.kind)(one) for one in experiment.rewards}
        decoders = load_tokenizers({name: one.model for name, one in experiment.policies.items() if not one.frozen})
        rule, learning = registry.impl("token_credit", config.kind)(config), cast(Any, experiment.learning)
        return cls(rule, config.draws, rewards, weights, decoders, learning.mask_cut)

    def replays(
        self, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn]
    ) -> list[Job]:
        """Those that have to be in the journal before `value`."""
        stages = _stages(jobs, episodes)
        return [
            job
            for one in taught(earned, self.mask_cut)
            for begun in self._beginnings(one, self._number(one))
            for job in replay.begin(*stages[one.turn.key], one.turn, begun, self._draws)
        ]

    def value(
        self, journal: Journal, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn]
    ) -> list[EarnedTurn]:
        """The turns, with the signals `step`, `value` and `after` of those that are learnt from.

        Raises:
            JournalError: A replay is missing.
        """
        stages = _stages(jobs, episodes)
        known = {
            one.turn.key: self._signals(journal, *stages[one.turn.key], one) for one in taught(earned, self.mask_cut)
        }
        return [replace(one, signals=known.get(one.turn.key, {})) for one in earned]

    @property
    def _draws(self) -> range:
        return range(1, self.draws + 1)

    def _signals(self, journal: Journal, job: Job, played: PlayedEpisode, one: EarnedTurn) -> Signals:
        step = self._number(one)
        earned = [
            [self._earned(journal, replayed) for replayed in replay.begin(job, played, one.turn, begun, self._draws)]
            for begun in self._beginnings(one, step)
        ]
        return by_token(step, mean_values(earned, one.reward))

    def _earned(self, journal: Journal, job: Job) -> float | None:
        """What the turn was given that was drawn anew from within, if anything; 0 where the episode ended before it."""
        played = read_episode(journal, job, ())
        assert job.replay is not None
        made = [key for key, turn in played.turns.items() if job.replay.begins(turn.place)]
        worked = WorkedEpisode(job.task, played.outcome, played.turns, played.verdicts, played.verdict)
        given = mix({name: reward.score(worked) for name, reward in self.rewards.items()}, self.weights)
        return given.get(made[0]) if made else 0.0

    def _number(self, one: EarnedTurn) -> list[int]:
        decoder = self.decoders[one.turn.policy]
        ids = _ids(one.turn)
        pieces = {token: decoder.decode([token]) for token in set(ids)}
        return self.rule.number(SaidReply([pieces[token] for token in ids], one.logprobs))

    def _beginnings(self, one: EarnedTurn, step: Sequence[int]) -> Iterator[Begun]:
        """The reply before each of its steps, of which `step` tells the tokens; before the first it is empty."""
        ids, size = _ids(one.turn), 0
        for _, tokens in groupby(step):
            yield Begun(one.turn.place, self.decoders[one.turn.policy].decode(ids[:size]), ids[:size])
            size += len(list(tokens))


def _ids(turn: Turn) -> TokenIds:
    assert turn.token_ids is not None, "turns without tokens earn nothing"
    return turn.token_ids


def _stages(jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]) -> dict[str, tuple[Job, PlayedEpisode]]:
    """The episode of each turn, and its job."""
    return {key: (job, played) for job, played in zip(jobs, episodes, strict=True) for key in played.turns}
