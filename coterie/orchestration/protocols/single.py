"""One agent, one answer: the baseline of baselines."""

from __future__ import annotations

from collections.abc import Sequence

from coterie.agents.seats import Agent
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config import SingleConfig
from coterie.types import Outcome, Task


class Single:
    """The first agent answers once; the same turn as the first sample of self-consistency."""

    def __init__(self, config: SingleConfig) -> None:
        self.config = config

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        agent = agents[0]
        turn = await ask(agent, opening(agent, task), round=0)
        return Outcome(turn.answer, ({agent.name: turn.key},), decision="the only answer")
