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
class SteppedTurn:
    """A turn that is learnt from, and what has to be known to value its steps.

    Attributes:
        earned: What it was given.
        step: The step of each of its tokens, T.
        replays: Of each step, the replays that go on from where it begins.
    """

    earned: EarnedTurn
    step: Sequence[int]
    replays: Sequence[Sequence[Job]]


@dataclass(frozen=True, slots=True)
class Valuer:
    """Says which replays tell the values of replies at their steps, and reads them.

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
    def make(
        cls, experiment: ExperimentConfig, rewards: Mapping[str, Reward], weights: Mapping[str, float]
    ) -> Valuer | None:
        """As the section `credit` says; None if its rule for tokens needs no values.

        Raises:
            EnvironmentMissing: A tokenizer is missing.
        """
        config: Any = experiment.credit.token if experiment.credit is not None else None
        if not getattr(config, "replays", False):
            return None
        decoders = load_tokenizers({name: one.model for name, one in experiment.policies.items() if not one.frozen})
        rule, learning = registry.impl("token_credit", config.kind)(config), cast(Any, experiment.learning)
        return cls(rule, config.draws, rewards, weights, decoders, learning.mask_cut)

    def step_through(
        self, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn]
    ) -> list[SteppedTurn]:
        """The turns that are learnt from; their replays have to be in the journal before `value`."""
        stages = {key: (job, played) for job, played in zip(jobs, episodes, strict=True) for key in played.turns}
        return [self._step_through(*stages[one.turn.key], one) for one in taught(earned, self.mask_cut)]

    def _step_through(self, job: Job, played: PlayedEpisode, one: EarnedTurn) -> SteppedTurn:
        step, draws = self._number(one), range(1, self.draws + 1)
        begun = self._beginnings(one, step)
        return SteppedTurn(one, step, [replay.begin(job, played, one.turn, each, draws) for each in begun])

    def value(self, journal: Journal, earned: Sequence[EarnedTurn], stepped: Sequence[SteppedTurn]) -> list[EarnedTurn]:
        """The turns, with the signals `step`, `value` and `after` of those that are learnt from.

        Raises:
            JournalError: A replay is missing.
        """
        known = {one.earned.turn.key: self._signals(journal, one) for one in stepped}
        return [replace(one, signals=known.get(one.turn.key, {})) for one in earned]

    def _signals(self, journal: Journal, one: SteppedTurn) -> Signals:
        given = [[self._earned(journal, replayed) for replayed in replays] for replays in one.replays]
        return by_token(one.step, mean_values(given, one.earned.reward))

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
