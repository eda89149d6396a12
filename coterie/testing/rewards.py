"""What rewards and advantage estimators owe their users. Plugin authors run the checks on theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coterie.rewards.advantage import AdvantageEstimator, RewardedTurn
from coterie.rewards.base import Reward, WorkedEpisode
from coterie.types import Outcome, Place, Task, Turn, Verdict


def check_reward(reward: Reward) -> None:
    """Score a small episode twice: right, wrong, unparsed, judged by others, and a turn that nobody judged.

    Raises:
        AssertionError: naming the property that fails.
    """
    episode = _episode()
    values = dict(reward.score(episode))
    assert values == dict(reward.score(episode)), "the same episode is worth something else the second time"
    strangers = values.keys() - episode.turns.keys()
    assert not strangers, f"turns that are not in the episode are rewarded: {sorted(strangers)}"
    assert all(math.isfinite(value) for value in values.values()), "a reward is not finite"


def check_advantage(estimator: AdvantageEstimator) -> None:
    """Estimate small batches: of no turn, one, equal ones, different ones, in another order, and twice over.

    Raises:
        AssertionError: naming the property that fails.
    """
    turns = [_rewarded(i, reward=i * 7 % 11 / 4) for i in range(48)]
    for batch in ([], turns[:1], [replace(turn, reward=0.1) for turn in turns], turns):
        _check_batch(estimator, batch)
    memory = dict(estimator.estimate(turns, {}).memory)
    again = estimator.estimate([*turns[::-1], *turns], {})
    assert memory == dict(again.memory), "the memory depends on the order of turns, or on one that stands there twice"
    for key, value in estimator.estimate(turns, memory).advantages.items():
        same = estimator.estimate([*turns[::-1], *turns], memory).advantages[key]
        assert np.array_equal(value, same), f"what {key} gets depends on the order of turns, or on one that comes twice"


def _check_batch(estimator: AdvantageEstimator, batch: Sequence[RewardedTurn]) -> None:
    found = estimator.estimate(batch, {})
    sizes = {key: value.shape for key, value in found.advantages.items()}
    assert sizes == {turn.key: (turn.num_tokens,) for turn in batch}, "not one advantage for each token of each turn"
    assert all(np.isfinite(value).all() for value in found.advantages.values()), "an advantage is not finite"
    assert all(map(math.isfinite, found.memory.values())), "the memory is not finite"


def _rewarded(i: int, reward: float) -> RewardedTurn:
    """At least two turns share each policy, agent, role, group and round."""
    agent, role, values = f"agent-{i % 2}", ("answer", "evaluate", "score")[i % 3], (0.25 * (i % 7),) * (1 + i % 5)
    place = f"task-{i // 24}", i // 12 % 2
    return RewardedTurn(f"{i:02}", "base", agent, role, *place, reward, num_tokens=len(values), values=values)


def _episode() -> WorkedEpisode:
    said = {"ann": "4", "bob": "5", "cleo": None, "ann again": "5", "bob again": "4"}
    turns = {key: _turn(key, answer) for key, answer in said.items()}
    verdicts = {key: Verdict(answer, answer == "4") for key, answer in said.items()}
    judging = "bob evaluate", "cleo score", "cleo evaluate", "ann score", "ann judge"
    judged = {key: _turn(key, None) for key in judging}
    judgements = [
        {"solution": "ann", "evaluation": "bob evaluate", "scoring": "cleo score", "score": 3},
        {"solution": "bob", "evaluation": "cleo evaluate", "scoring": "ann score", "score": None},
    ]
    rounds = {"ann": "ann", "bob": "bob", "cleo": "cleo"}, {"ann": "ann again", "bob": "bob again", "cleo": "cleo"}
    outcome = Outcome("4", rounds, extra={"judgements": judgements}, turns=(*turns, *judged))
    return WorkedEpisode(Task("sum", "What is 2 + 2?"), outcome, turns | judged, verdicts, Verdict("4", correct=True))


def _turn(key: str, answer: str | None) -> Turn:
    seat, _, purpose = key.partition(" ")
    is_second = purpose == "again"
    place = Place("sum", int(is_second), seat, purpose="answer" if is_second or not purpose else purpose)
    policy = "large" if seat == "ann" else "base"
    return Turn(key, place, policy, 0, (), f"Answer: {answer}", answer, "stop", 9, 3)
