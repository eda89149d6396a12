"""Self-consistency (Wang et al., arXiv 2203.11171): sample many answers of one agent, the majority wins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coterie.agents.seats import Agent
from coterie.orchestration.decisions import decide
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config import SelfConsistencyConfig
from coterie.types import Outcome, Task


class SelfConsistency:
    """`samples` independent answers of the first agent, told apart by `repeat`; they count as voters `name#i`."""

    def __init__(self, config: SelfConsistencyConfig) -> None:
        self.config = config

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        agent = agents[0]
        prompt = opening(agent, task)
        turns = await asyncio.gather(
            *(ask(agent, prompt, round=0, repeat=repeat) for repeat in range(self.config.samples))
        )
        answers = {f"{agent.name}#{i}": turn.answer for i, turn in enumerate(turns)}
        answer, reason = decide(self.config.decision, [answers], task.id, ask.seed)
        return Outcome(answer, ({name: turn.key for name, turn in zip(answers, turns, strict=True)},), decision=reason)
