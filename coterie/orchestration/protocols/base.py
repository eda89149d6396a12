"""What a protocol is: a coroutine that says who speaks when, to whom."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coterie.agents.prompts import template
from coterie.agents.seats import Agent
from coterie.envs import thoughts
from coterie.types import Message, Messages, Outcome, Sight, Task, Turn


class Ask(Protocol):
    """The only door to a model: journalled, budgeted, batched over everything that waits, and memoised.

    The same question at the same place is one turn, whichever society asks it.
    """

    @property
    def seed(self) -> int:
        """The experiment's seed, for counted draws (`coterie.rng`) that a protocol makes itself."""
        ...

    def __call__(
        self, agent: Agent, prompt: Messages, *, round: int, repeat: int = 0, purpose: str = "answer",
        said: Sequence[Turn] = (), choices: Sequence[str] = (),
    ) -> Awaitable[Turn]:  # fmt: skip
        """A turn of the agent.

        With `said` the reply goes on, token for token, after these turns of its own; its `answer` is read from them and
        the new text together. With `choices` the reply is one of these strings. These need an engine with `tokens` or
        `choices`: the config has to say so, see `ProtocolConfig.needs`.
        """
        ...

    def together(self, prompts: Mapping[Agent, Messages], *, round: int, sight: Sight) -> Awaitable[dict[str, Turn]]:
        """A turn of each agent, by name, said side by side: token by token, with this sight of each other's words.

        All agents have one policy, whose engine needs `shared_cache`: the config has to say so.
        """
        ...

    def embed(self, model: str, texts: Sequence[str]) -> Awaitable[NDArray[np.float32]]:
        """Vectors of texts, [len(texts), dim], rows of unit length; batched over everything that waits.

        `model` is a name that `embedders.load` knows.
        """
        ...


class SocietyProtocol(Protocol):
    """Implementations are built as `impl(config)` and hold no state between episodes.

    `run` may await nothing but `ask`, and tasks and gathers of such, so that it can be replayed from the journal.
    """

    async def run(self, task: Task, agents: Sequence[Agent], ask: Ask) -> Outcome: ...


def opening(agent: Agent, task: Task, note: str = "") -> Messages:
    """The first prompt: who the agent is, the question, and what else there is to say.

    A number is read from any reply; answers of other types need a format, so there a solved example comes first.
    Questions that want thought and response say so themselves, as each of their follow-ups does.
    """
    example = "" if task.answer_type == "number" or not task.example else f"{task.example}\n\n"
    is_complete = task.answer_type == thoughts.ANSWER_TYPE
    text = task.question if is_complete else template("question").fill(question=task.question, example=example)
    return (*agent.preamble(), Message("user", f"{text}\n\n{note}" if note else text))
