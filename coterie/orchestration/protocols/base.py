"""What a protocol is: a coroutine that says who speaks when, to whom."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.types import Message, Messages, Outcome, Task, Turn


class Ask(Protocol):
    """The only door to a model: journalled, budgeted, batched over everything that waits, and memoised.

    The same question at the same place is one turn, whichever society asks it.
    """

    @property
    def seed(self) -> int:
        """The experiment's seed, for counted draws (`coterie.rng`) that a protocol makes itself."""
        ...

    def __call__(
        self, agent: Agent, prompt: Messages, *, round: int, repeat: int = 0, purpose: str = "answer"
    ) -> Awaitable[Turn]: ...


class SocietyProtocol(Protocol):
    """Implementations are built as `impl(config)` and hold no state between episodes.

    `run` may await nothing but `ask` (and asyncio.gather over it), so that it can be replayed from the journal.
    """

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome: ...


def opening(agent: Agent, task: Task) -> Messages:
    """The first prompt: who the agent is, and the question.

    A number is read from any reply; answers of other types need a format, so there a solved example comes first.
    """
    example = "" if task.answer_type == "number" or not task.example else f"{task.example}\n\n"
    text = template("question").fill(question=task.question, example=example)
    return (*agent.preamble(), Message("user", text))
