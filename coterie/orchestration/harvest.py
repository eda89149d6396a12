"""What an iteration of a training left in the journal: turns of trained policies, with what each earned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coterie.errors import JournalError
from coterie.journal import Journal
from coterie.orchestration import records
from coterie.orchestration.jobs import Job
from coterie.rewards.mixture import mix
from coterie.types import Outcome, Turn, Verdict


@dataclass(frozen=True, slots=True)
class EarnedTurn:
    """A turn that was rewarded.

    Attributes:
        turn: What was said, T tokens.
        reward: What it earned.
        logprobs: That it was sampled with, float32 [T].
        signals: What replays told of its tokens, by name, [T] each.
    """

    turn: Turn
    reward: float
    logprobs: NDArray[np.float32]
    signals: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """A finished episode as it stands in the journal.

    Attributes:
        outcome: How it came about.
        verdict: On the society's answer.
        turns: All of them by key.
        verdicts: On turns that answer.
        rewards: By the reward's kind, then by turn.
    """

    outcome: Outcome
    verdict: Verdict
    turns: Mapping[str, Turn]
    verdicts: Mapping[str, Verdict]
    rewards: Mapping[str, Mapping[str, float]]


def read_episode(journal: Journal, job: Job, rewards: Collection[str]) -> PlayedEpisode:
    """A finished episode.

    Raises:
        JournalError: it is not finished.
    """
    payload = journal.get(job.key)
    if payload is None:
        raise JournalError(f"the episode {job.key!r} is not in the journal", where=str(journal.path))
    outcome = records.read_outcome(payload)
    turns = {key: records.read_turn(key, journal.get(key) or {}) for key in outcome.turns}
    judged = {key: journal.get(f"verdict/{key}") for key in turns}
    verdicts = {key: Verdict(**found) for key, found in judged.items() if found is not None}
    given = {name: journal.get(f"reward/{name}/{job.society}/{job.task.id}") or {"turns": {}} for name in rewards}
    verdict = records.read_episode_verdict(payload)
    return PlayedEpisode(outcome, verdict, turns, verdicts, {name: found["turns"] for name, found in given.items()})


def gather(
    journal: Journal, episodes: Sequence[PlayedEpisode], weights: Mapping[str, float], policies: Collection[str]
) -> list[EarnedTurn]:
    """The turns of these policies that were rewarded, in logical order.

    Args:
        journal: Which has the log-probabilities, among its notes.
        episodes: Of one iteration.
        weights: Of each reward in what is learnt from; a turn earns the weighted sum of what it was given.
        policies: Those that are trained.
    """
    return earn(journal, episodes, [mix(episode.rewards, weights) for episode in episodes], policies)


def earn(
    journal: Journal, episodes: Sequence[PlayedEpisode], rewards: Sequence[Mapping[str, float]],
    policies: Collection[str],
) -> list[EarnedTurn]:  # fmt: skip
    """The turns of these policies that earned something, in logical order; `rewards` of each episode by turn."""
    found = []
    for episode, given in zip(episodes, rewards, strict=True):
        for key, reward in given.items():
            turn = episode.turns[key]
            if turn.policy in policies and turn.token_ids:
                found.append(EarnedTurn(turn, reward, _logprobs(journal, turn)))
    return sorted(found, key=lambda earned: (earned.turn.place, earned.turn.key))


def taught(earned: Iterable[EarnedTurn], mask_cut: bool) -> list[EarnedTurn]:
    """Those that are learnt from: with `mask_cut` not the ones that were cut at their longest."""
    return [one for one in earned if not (mask_cut and one.turn.finish == "length")]


def _logprobs(journal: Journal, turn: Turn) -> NDArray[np.float32]:
    note = journal.last_note("sample", turn.key)
    values = note["logprobs"] if note else None
    if values is None or len(values) != turn.num_tokens:
        raise JournalError(
            "the log-probabilities of a turn are not in the journal", where=turn.key,
            remedy="train with an engine that gives them: vllm or transformers",
        )  # fmt: skip
    return np.asarray(values, np.float32)
