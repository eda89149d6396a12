"""A protocol played by hand: every reply is a function of its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from coterie import registry
from coterie.agents.seats import Agent
from coterie.envs import answers
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.types import Message, Messages, Outcome, Place, Task, Turn

TASK = Task("sum", "What is 3 + 4?")


@dataclass
class Script:
    """The `ask` of one episode; keeps what was asked."""

    reply: Callable[[Place], str]
    seed: int = 0
    finish: str = "stop"
    asked: dict[Place, str] = field(default_factory=dict)
    """By place the prompt as one text, in the order of the calls."""
    turns: dict[str, Turn] = field(default_factory=dict)
    """By key what was replied."""

    async def __call__(
        self, agent: Agent, prompt: Messages, *, round: int, repeat: int = 0, purpose: str = "answer",
        said: Sequence[Turn] = (), choices: Sequence[str] = (),
    ) -> Turn:  # fmt: skip
        place = Place(TASK.id, round, agent.name, repeat, purpose)
        assert place not in self.asked, f"{place} is asked twice"
        own = (Message("assistant", "".join(turn.text for turn in said)),) if said else ()
        self.asked[place] = "\n".join(f"{m.role}: {m.content}" for m in (*prompt, *own))
        text = self.reply(place)
        assert not choices or text in choices
        answer = answers.parse("".join(turn.text for turn in said) + text, "number") if purpose == "answer" else None
        turn = Turn(str(place), place, agent.policy, 0, prompt, text, answer, self.finish, 1, 1)
        self.turns[turn.key] = turn
        return turn

    def places(self, purpose: str = "answer") -> list[tuple[int, str]]:
        """Round and seat of every call for a purpose."""
        return [(place.round, place.seat) for place in self.asked if place.purpose == purpose]

    def prompt(self, round: int, seat: str, purpose: str = "answer") -> str:
        return next(t for p, t in self.asked.items() if (p.round, p.seat, p.purpose) == (round, seat, purpose))


Perform = Callable[..., tuple[Outcome, Script]]


@pytest.fixture
def perform() -> Perform:
    """`perform(config, reply, "ann bob", seed, finish)` plays one episode."""

    def run(
        config: ProtocolConfig,
        reply: Callable[[Place], str],
        names: str = "ann bob cleo",
        seed: int = 0,
        finish: str = "stop",
    ) -> tuple[Outcome, Script]:
        agents: Sequence[Agent] = [Agent(name, "base", f"You are {name}.") for name in names.split()]
        protocol, script = registry.impl("protocol", config.kind)(config), Script(reply, seed, finish)
        return asyncio.run(protocol.run(TASK, agents, script)), script

    return run
