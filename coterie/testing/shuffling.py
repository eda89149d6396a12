"""The control of who reads whom: agents are shown what was said on another task."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import cast

from coterie.agents.engines.base import Engine
from coterie.journal import Journal
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Staff
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.pool import LocalClient
from coterie.orchestration.worker import Worker
from coterie.text import fence
from coterie.types import EncodedPrompt, Messages, Place, Sample, Sampling

FENCED = re.compile(r"<<<.*?>>>", re.DOTALL)


class ShufflingExecutor(LocalExecutor):
    """Runs a society of scripted agents whose prompts show, in place of every fenced text, one of another task.

    The journal holds the prompts as they were asked for.

    Args:
        staff: On engines that take messages.
        past: A journal of the same tasks, two or more; what was said there on one task is shown on the one before it.
    """

    def __init__(self, staff: Staff, past: Journal) -> None:
        super().__init__(LocalConfig(), staff)
        said: dict[str, list[str]] = {}
        for fact in past.facts("turn"):
            said.setdefault(fact.payload["place"]["task"], []).append(fence(fact.payload["text"]))
        tasks = sorted(said)
        self._shown = {task: said[other] for task, other in zip(tasks, (*tasks[1:], tasks[0]), strict=True)}

    def _hire(self) -> Worker:
        clients = {name: [_Shuffled(engine, self._shown)] for name, engine in self._engines.items()}
        return Worker(self.staff.policies, clients, self.staff.limits, self.config.deadline)


class _Shuffled(LocalClient):
    def __init__(self, engine: Engine, shown: Mapping[str, Sequence[str]]) -> None:
        super().__init__(engine)
        self._shown = shown

    async def generate(
        self, prompts: Sequence[EncodedPrompt], sampling: Sampling, keys: Sequence[Place]
    ) -> list[Sample]:
        shuffled = [replace(p, prompt=self._shuffle(p, key)) for p, key in zip(prompts, keys, strict=True)]
        return await super().generate(shuffled, sampling, keys)

    def _shuffle(self, prompt: EncodedPrompt, place: Place) -> Messages:
        others = cycle(self._shown[place.task])
        return tuple(
            m if m.role == "assistant" else replace(m, content=FENCED.sub(lambda _: next(others), m.content))
            for m in cast(Messages, prompt.prompt)
        )
