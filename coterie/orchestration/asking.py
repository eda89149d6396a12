"""The `ask` of one episode: what a protocol wants to know, put to the worker that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from coterie.agents.seats import Agent
from coterie.orchestration.budget import Ledger
from coterie.orchestration.embedding import Vectors
from coterie.orchestration.jobs import Job, TaskLimits
from coterie.orchestration.replay import place_of, say_nothing
from coterie.orchestration.turns import CANARY
from coterie.types import Messages, Place, Sight, Turn

if TYPE_CHECKING:
    from coterie.orchestration.worker import Worker


class Asker:
    """As `protocols.base.Ask`. The ledger is the episode's; its limits are not for what judges make of canaries."""

    def __init__(self, worker: Worker, job: Job, ledger: Ledger) -> None:
        self._worker, self._job, self._ledger, self.seed = worker, job, ledger, job.seed
        self._canaries = Ledger(TaskLimits())

    async def __call__(
        self, agent: Agent, prompt: Messages, *, round: int, repeat: int = 0, purpose: str = "answer",
        said: Sequence[Turn] = (), choices: Sequence[str] = (),
    ) -> Turn:  # fmt: skip
        place = place_of(self._job, Place(self._job.task.id, round, agent.name, repeat, purpose))
        if self._job.replay and agent.name in self._job.replay.hidden:
            return say_nothing(place, agent, prompt)
        ledger = self._canaries if purpose.startswith(CANARY) else self._ledger
        begun = self._job.replay.begun if self._job.replay and self._job.replay.begins(place) else None
        return await self._worker.ask(
            self._job.task, agent.policy, prompt, place, ledger, said, choices=choices, begun=begun
        )

    async def together(self, prompts: Mapping[Agent, Messages], *, round: int, sight: Sight) -> dict[str, Turn]:
        [policy] = {agent.policy for agent in prompts}
        asked = {
            place_of(self._job, Place(self._job.task.id, round, agent.name)): prompt
            for agent, prompt in prompts.items()
        }
        turns = await self._worker.ask_together(self._job.task, policy, asked, sight, self._ledger)
        return {turn.place.seat: turn for turn in turns}

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        return await self._worker.embedding.embed(model, texts)
