"""What an iteration of a society's training was like: rewards by role, the truth beside them, cost. Facts only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coterie.orchestration.harvest import EarnedTurn, PlayedEpisode
from coterie.rewards.judge import calibrate, is_decided, read_canaries, read_rulings
from coterie.types import Turn

Row = dict[str, Any]


def describe_iteration(episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn], version: int) -> Row:
    """One row of numbers; None where there is nothing to count.

    `solver` compares the rewards of answers with the verdicts on them: what the society thought its solutions worth,
    and what they were (the judges' blind spot: with constant sums the mean over all roles says nothing). `judge` is how
    well agents judged each other, `lag` how many publications the oldest turn that was learnt from is behind.

    Args:
        episodes: Of the iteration.
        earned: What is learnt from.
        version: Of the weights that were published last before it was learnt from.
    """
    turns = [turn for episode in episodes for turn in episode.turns.values()]
    return {
        "episodes": len(episodes),
        "accuracy": mean(episode.verdict.correct for episode in episodes if is_decided(episode.verdict)),
        "turns": len(turns),
        "tokens": sum(turn.num_tokens for turn in turns),
        "prompt_tokens": sum(turn.num_prompt_tokens for turn in turns),
        "roles": _roles(turns, earned),
        "rewards": _rewards(episodes),
        "solver": _solver(episodes, earned),
        "judge": _judge(episodes),
        "lag": max((version - one.turn.policy_version for one in earned), default=0),
    }


def _roles(turns: Sequence[Turn], earned: Sequence[EarnedTurn]) -> dict[str, Row]:
    """By role, of all turns; a reward is the mean of those that are learnt from, `rewarded` of them."""
    rewards = {one.turn.key: one.reward for one in earned}
    roles = sorted({turn.place.purpose for turn in turns})
    return {role: _role([turn for turn in turns if turn.place.purpose == role], rewards) for role in roles}


def _role(turns: Sequence[Turn], rewards: Mapping[str, float]) -> Row:
    given = [rewards[turn.key] for turn in turns if turn.key in rewards]
    return {
        "turns": len(turns),
        "rewarded": len(given),
        "reward": mean(given),
        "reward_std": float(np.std(given)) if given else None,
        "tokens": mean(turn.num_tokens for turn in turns),
        "cut": mean(turn.finish == "length" for turn in turns),
    }


def _rewards(episodes: Sequence[PlayedEpisode]) -> dict[str, Mapping[str, float | None]]:
    """By the reward's kind and the role, the mean over all turns that were given one."""
    given: dict[str, dict[str, list[float]]] = {}
    for episode in episodes:
        for kind, values in episode.rewards.items():
            for key, value in values.items():
                given.setdefault(kind, {}).setdefault(episode.turns[key].place.purpose, []).append(value)
    return {kind: {role: mean(values) for role, values in sorted(roles.items())} for kind, roles in given.items()}


def _solver(episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn]) -> Row:
    verdicts = {k: verdict for e in episodes for k, verdict in e.verdicts.items() if is_decided(verdict)}
    rewards = {one.turn.key: one.reward for one in earned}
    right = [rewards[key] for key, verdict in verdicts.items() if key in rewards and verdict.correct]
    wrong = [rewards[key] for key, verdict in verdicts.items() if key in rewards and not verdict.correct]
    return {
        "accuracy": mean(verdict.correct for verdict in verdicts.values()),
        "parsed": mean(verdict.is_parsed for verdict in verdicts.values()),
        "reward": mean([*right, *wrong]),
        "reward_if_right": mean(right),
        "reward_if_wrong": mean(wrong),
        "correlation": _correlation(right, wrong),
    }


def _judge(episodes: Sequence[PlayedEpisode]) -> Row | None:
    """Rates, and how many right and wrong solutions, and canaries, got each of the scores 1, 2, 3."""
    rulings = [one for e in episodes for one in read_rulings(e.outcome, e.turns, e.verdicts)]
    if not rulings:
        return None
    found = calibrate(rulings, (one for e in episodes for one in read_canaries(e.outcome)))
    counts = {name: list(getattr(found, name)) for name in ("right", "wrong", "canaries")}
    return {"rulings": len(rulings), **counts, **found.rates()}


def _correlation(right: Sequence[float], wrong: Sequence[float]) -> float | None:
    """Of reward and truth; None where either does not vary."""
    rewards, truth = np.array([*right, *wrong]), np.array([1.0] * len(right) + [0.0] * len(wrong))
    if not right or not wrong or np.ptp(rewards) == 0:
        return None
    return float(np.corrcoef(rewards, truth)[0, 1])


def mean(values: Iterable[float]) -> float | None:
    """The mean; None of nothing."""
    found = [float(value) for value in values]
    return sum(found) / len(found) if found else None
