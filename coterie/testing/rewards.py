"""What every reward owes its users. Plugin authors run `check_reward` on theirs."""

from __future__ import annotations

import math

from coterie.rewards.base import Reward, WorkedEpisode
from coterie.types import Outcome, Place, Task, Turn, Verdict


def check_reward(reward: Reward) -> None:
    """Score a small episode twice: right, wrong, unparsed, and a turn that nobody judged.

    Raises:
        AssertionError: naming the property that fails.
    """
    episode = _episode()
    values = dict(reward.score(episode))
    assert values == dict(reward.score(episode)), "the same episode is worth something else the second time"
    strangers = values.keys() - episode.turns.keys()
    assert not strangers, f"turns that are not in the episode are rewarded: {sorted(strangers)}"
    assert all(math.isfinite(value) for value in values.values()), "a reward is not finite"


def _episode() -> WorkedEpisode:
    said = {"ann": "4", "bob": "5", "cleo": None, "judge": None}
    turns = {name: _turn(name, answer) for name, answer in said.items()}
    verdicts = {name: Verdict(said[name], said[name] == "4") for name in ("ann", "bob", "cleo")}
    outcome = Outcome("4", ({"ann": "ann", "bob": "bob", "cleo": "cleo"},), turns=tuple(turns))
    return WorkedEpisode(Task("sum", "What is 2 + 2?"), outcome, turns, verdicts, Verdict("4", correct=True))


def _turn(name: str, answer: str | None) -> Turn:
    purpose = "judge" if name == "judge" else "answer"
    return Turn(name, Place("sum", 0, name, purpose=purpose), "base", 0, (), f"Answer: {answer}", answer, "stop", 9, 3)
