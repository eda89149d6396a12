"""Group Think (arXiv 2505.11107): thinkers read each other's unfinished work, message by message or token by token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.orchestration.decisions import decide
from coterie.orchestration.protocols.base import Ask, opening
from coterie.orchestration.protocols.config_debates import GroupThinkConfig
from coterie.orchestration.protocols.minutes import Minutes, show, speak
from coterie.text import join_pieces
from coterie.types import Message, Outcome, Task, Turn


class GroupThink:
    """All thinkers write a piece at once, then each goes on where it stopped, having read what the others have written.

    With `chunk` the others' words stand before the reply, and the reply goes on token for token. With `token` each sees
    the others' tokens as they come, in one cache. In both one thinker alone decodes as ever, and thinkers that do not
    see each other are independent samples.
    """

    def __init__(self, config: GroupThinkConfig) -> None:
        self.config = config

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome:
        minutes = Minutes()
        ways = {"turn": self._in_turns, "chunk": self._in_chunks, "token": self._in_tokens}
        standing = await ways[self.config.granularity](task, agents, minutes, ask)
        answer, reason = decide(self.config.decision, [*minutes.answers[:-1], standing], task.id, ask.seed)
        return minutes.conclude(answer, reason)

    async def _in_turns(
        self, task: Task, agents: Sequence[Agent], minutes: Minutes, ask: Ask
    ) -> Mapping[str, str | None]:
        """A piece without an answer does not take back the answer of an earlier one."""
        prompts = {agent: opening(agent, task) for agent in agents}
        turns, standing = dict[str, Turn](), dict[str, str | None]()
        for number in range(self.config.rounds):
            if self.config.visible:
                minutes.link(number, turns.values(), turns)
            turns = await speak(ask, prompts, round=number)
            minutes.note(number, turns)
            standing = {name: turn.answer or standing.get(name) for name, turn in turns.items()}
            for agent, prompt in prompts.items():
                said = {name: turn.text for name, turn in turns.items()}
                request = "\n".join((*self._meanwhile(agent, said), template("group_think_go_on").fill()))
                own = Message("assistant", turns[agent.name].text)
                prompts[agent] = (*prompt, own, Message("user", request))
        return standing

    async def _in_chunks(
        self, task: Task, agents: Sequence[Agent], minutes: Minutes, ask: Ask
    ) -> Mapping[str, str | None]:
        """A thinker whose reply has ended stays silent; its answer is read from all its chunks."""
        chunks: dict[str, list[Turn]] = {agent.name: [] for agent in agents}
        for number in range(self.config.rounds):
            active = [agent for agent in agents if not chunks[agent.name] or chunks[agent.name][-1].finish == "length"]
            if not active:
                break
            texts = {name: join_pieces(turn.text for turn in said) for name, said in chunks.items()} if number else {}
            if texts and self.config.visible:
                minutes.link(number, [said[-1] for said in chunks.values()], [agent.name for agent in active])
            turns = await asyncio.gather(
                *(
                    ask(a, opening(a, task, "\n".join(self._meanwhile(a, texts))), round=number, said=chunks[a.name])
                    for a in active
                )
            )
            for turn in turns:
                chunks[turn.place.seat] = [*chunks[turn.place.seat], turn]
            minutes.note(number, {turn.place.seat: turn for turn in turns})
        return minutes.answers[-1]

    async def _in_tokens(
        self, task: Task, agents: Sequence[Agent], minutes: Minutes, ask: Ask
    ) -> Mapping[str, str | None]:
        prompts = {agent: opening(agent, task) for agent in agents}
        turns = await ask.together(prompts, round=0, sight="all" if self.config.visible else "own")
        minutes.note(0, turns)
        if self.config.visible:
            minutes.link(0, turns.values(), turns)
        return minutes.answers[-1]

    def _meanwhile(self, agent: Agent, texts: Mapping[str, str]) -> list[str]:
        peers = [text for name, text in texts.items() if name != agent.name and self.config.visible]
        return [template("group_think_peers").fill(peers=show(peers))] if peers else []
