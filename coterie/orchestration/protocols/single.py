"""One agent, one answer, or one conversation with a user: the baseline of baselines."""

from __future__ import annotations

from collections.abc import Sequence

from coterie.agents.seats import Agent
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config import SingleConfig
from coterie.types import Message, Outcome, Task


class Single:
    """The first agent answers once; the same turn as the first sample of self-consistency.

    Where the user has more to say, the agent answers each time, and its last answer counts; a round is one exchange.
    """

    def __init__(self, config: SingleConfig) -> None:
        self.config = config

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        agent, prompt = agents[0], opening(agents[0], task)
        turn = await ask(agent, prompt, round=0)
        rounds = [{agent.name: turn.key}]
        for number, said in enumerate(task.follow_ups, start=1):
            prompt = (*prompt, Message("assistant", turn.text), Message("user", said))
            turn = await ask(agent, prompt, round=number)
            rounds.append({agent.name: turn.key})
        decision = "the last answer" if task.follow_ups else "the only answer"
        return Outcome(turn.answer, tuple(rounds), decision=decision)
