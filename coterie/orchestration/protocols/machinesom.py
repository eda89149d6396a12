"""MachineSoM (Zhang et al., ACL 2024, arXiv 2310.02124): traits, thinking patterns, strategies.

Round 0: everybody answers alone. Each further round has one pattern for all: in *debate* an agent reads what the others
answered in the round before and answers again; in *reflect* it goes over its own last answer. All agents of a round
speak at once. Strategies with a common prefix share its turns, since a turn's key names no strategy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.orchestration.decisions import decide
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config import MachineSomConfig
from coterie.text import fence
from coterie.types import Edge, Message, Messages, Outcome, Task, Turn


class MachineSom:
    """One strategy, worked by any number of agents."""

    def __init__(self, config: MachineSomConfig) -> None:
        if config.strategy == "all":
            raise ValueError("expand the config first: a protocol runs one strategy")
        self.config = config
        self.strategy = config.strategy

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        prompts = {agent.name: opening(agent, task) for agent in agents}
        turns = await self._round(0, agents, prompts, ask)
        rounds, edges = [turns], list[Edge]()
        for number, pattern in enumerate(self.strategy, start=1):
            if pattern == "debate":
                edges += [Edge(number, a.name, b.name) for a in agents for b in agents if a is not b]
            prompts = {
                agent.name: self._follow_up(agent, task, prompts[agent.name], turns, pattern) for agent in agents
            }
            turns = await self._round(number, agents, prompts, ask)
            rounds.append(turns)
        answers = [{name: turn.answer for name, turn in turns.items()} for turns in rounds]
        answer, reason = decide(self.config.decision, answers, task.id, ask.seed)
        keys = tuple({name: turn.key for name, turn in turns.items()} for turns in rounds)
        return Outcome(answer, keys, tuple(edges), reason)

    async def _round(
        self, number: int, agents: Sequence[Agent], prompts: Mapping[str, Messages], ask: Ask
    ) -> dict[str, Turn]:
        turns = await asyncio.gather(*(ask(agent, prompts[agent.name], round=number) for agent in agents))
        return {agent.name: turn for agent, turn in zip(agents, turns, strict=True)}

    def _follow_up(
        self, agent: Agent, task: Task, before: Messages, turns: Mapping[str, Turn], pattern: str
    ) -> Messages:
        past = before if self.config.history == "full" else opening(agent, task)
        own = Message("assistant", turns[agent.name].text)
        if pattern == "reflect":
            request = template("reflect").fill()
        else:
            others = [fence(turn.text) for name, turn in turns.items() if name != agent.name]
            request = template("debate").fill(peers="\n".join(others))
        return (*past, own, Message("user", request))
