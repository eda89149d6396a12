"""What a reward is: numbers for the turns of an episode, given when it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from coterie.types import Outcome, Task, Turn, Verdict


@dataclass(frozen=True, slots=True)
class WorkedEpisode:
    """A finished episode as rewards see it: verdicts as typed answers, no gold.

    `turns` and `verdicts` are by turn key; a turn that is no answer to the task has no verdict. `verdict` is the one on
    the society's answer.
    """

    task: Task
    outcome: Outcome
    turns: Mapping[str, Turn]
    verdicts: Mapping[str, Verdict]
    verdict: Verdict


class Reward(Protocol):
    """Built as `impl(config)`; a pure function of the episode, so that a resumed run gives the same."""

    def score(self, episode: WorkedEpisode) -> Mapping[str, float]:
        """Reward by turn key, finite; turns left out get none."""
        ...
