"""A society's training: iterations of episodes, learning and publication.

An iteration's turns are journalled as they are said. What was learnt becomes a fact together with the checkpoint that
holds it, in one commit after the checkpoint is whole on disk. So a run that is killed goes on from its last checkpoint;
turns that were said since then are found in the journal, and learnt from again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from coterie.config.load import Loaded
from coterie.errors import LearningError
from coterie.experiments.folder import RunFolder
from coterie.experiments.leaving import finished, in_thread
from coterie.experiments.monitoring.display import Display
from coterie.experiments.monitoring.tally import Audience, Deaf, Meter, Watcher
from coterie.experiments.records.training import (
    check_checkpoint,
    finite,
    last_checkpoint,
    read_checkpoints,
    write_checkpoint,
)
from coterie.experiments.records.updates import make_update
from coterie.experiments.society_attempt import Attempt
from coterie.experiments.training.society_memory import check_plan, plan_memory
from coterie.journal import Fact, Journal, Note
from coterie.orchestration import checkpoints, replay
from coterie.orchestration.executor import Executor
from coterie.orchestration.harvest import EarnedTurn, PlayedEpisode, earn, gather, read_episode
from coterie.orchestration.jobs import Job
from coterie.orchestration.pool import Learning
from coterie.orchestration.sittings import grader_of
from coterie.orchestration.society_metrics import describe_iteration
from coterie.orchestration.society_trainer import PolicyUpdate, SocietyTrainer
from coterie.orchestration.step_values import Valuer
from coterie.orchestration.team_credit import Shared, TeamCredit, describe_credit
from coterie.orchestration.training_spec import find_device
from coterie.rewards.judge import calibrate, read_canaries
from coterie.types import Grader, Weights

# KL of the engine's from the learner's log-probabilities, per token: bfloat16 on both sides stays well below.
_ALARM = 0.01
# Of canaries: above, judges pay for nothing more than they withhold.
_FOOLED = 0.5


def tell_crowding(ranks: int | Mapping[str, int], device: str, cores: int) -> str:
    """That a learner's processes outnumber the cores they are to run on; empty where they do not."""
    most = max(ranks.values(), default=1) if isinstance(ranks, Mapping) else ranks
    if device != "cpu" or most <= cores:
        return ""
    return f"learning.ranks: {most} processes share {cores} cores, which slows them down; {cores} are the most of use"


class TrainingAttempt(Attempt):
    """An attempt at a training, from the last checkpoint to the end, to a limit, or to a person's Ctrl-C.

    Args:
        loaded: An experiment with `learning`.
        folder: Its run folder.
        journal: Open for writing.
        grader: Of the benchmark.
        display: Where a person looks.
        observer: Told of every commit.
    """

    def __init__(
        self, loaded: Loaded, folder: RunFolder, journal: Journal, grader: Grader, display: Display, observer: Watcher
    ) -> None:
        lora = cast(Any, loaded.config).learning.lora
        learning = Learning(None if lora is None else lora.rank)
        self.audience, self.meter = observer, Meter()
        everybody = Audience(observer, self.meter)
        super().__init__(loaded, folder, journal, grader_of(grader), display, everybody, learning)
        self.trained = [name for name, policy in self.config.policies.items() if not policy.frozen]
        self.weights = {config.kind: float(getattr(config, "weight", 1.0)) for config in self.config.rewards}
        self.published = folder.path / "published"
        self.pending: list[Fact] = []
        self.team: TeamCredit | None = None
        self.valuer: Valuer | None = None

    def check_room(self) -> None:
        """Refuse what does not fit into this machine's memory; on a cluster every actor has its own."""
        if self.config.executor.kind == "local":
            self.display.say("working out what engines and learners take of the memory")
            device = find_device(self.config.device)
            self.display.say(check_plan(plan_memory(self.config, self.staff.engines, device), device))
            if crowding := tell_crowding(getattr(self.config.learning, "ranks", 1), device, os.cpu_count() or 1):
                self.display.say(crowding)

    async def work(self, executor: Executor, jobs: Sequence[Job]) -> None:
        """Iterate over jobs, which are those of all iterations in order."""
        if not getattr(self.config.learning, "held_out", 0):
            self.display.say("no tasks are held out (learning.held_out), so `coterie eval` will have none to ask")
        where = f"{executor.config.kind}, device: {self.config.device}"
        self.display.say(f"starting learners of {len(self.trained)} policies ({where})")
        await executor.sleep()
        trainer = await in_thread(SocietyTrainer.make, self.config, self.config.device, executor)
        self._load(trainer)
        self.team = await in_thread(TeamCredit.make, self.config, self.weights, trainer.learners)
        self.valuer = await in_thread(Valuer.make, self.config, self.judge.rewards, self.weights)
        self.display.say("publishing the first weights to the engines")
        await self._publish(executor, trainer)
        size = len(jobs) // trainer.iterations
        while not trainer.is_done and not self.stopped:
            begin = trainer.iteration * size
            await self._iterate(executor, trainer, jobs[begin : begin + size])
        await self._commit(trainer, is_due=False)

    def _load(self, trainer: SocietyTrainer) -> None:
        """Put the trainer where the journal ends."""
        checkpoint = last_checkpoint(read_checkpoints(self.journal))
        if checkpoint is None:
            return
        check_checkpoint(self.folder, checkpoint)
        trainer.load(self.folder.checkpoints / checkpoint.name)
        self.display.say(f"going on after iteration {checkpoint.iteration}")

    async def _iterate(self, executor: Executor, trainer: SocietyTrainer, jobs: Sequence[Job]) -> None:
        started, before = time.monotonic(), self.meter.tokens
        await super().work(executor, [job for job in jobs if self.journal.get(job.key) is None])
        if self.stopped:
            return
        rolled, tokens = time.monotonic(), self.meter.tokens - before
        episodes = [read_episode(self.journal, job, self.weights) for job in jobs]
        await self._heed_canaries(trainer, episodes)
        shared = await self._share(executor, jobs, episodes)
        if shared is None:
            return
        earned = await self._value(executor, jobs, episodes, self._gather(episodes, shared))
        if earned is None:
            return
        credited = time.monotonic()
        await executor.sleep()
        updates = await in_thread(trainer.learn, earned)
        learnt = time.monotonic()
        row = await self._keep(trainer, episodes, earned, updates, shared)
        self._warn(updates)
        kept = time.monotonic()
        if not (trainer.is_done or self.stopped):
            await self._publish(executor, trainer)
        ended = time.monotonic()
        note = {"rollout": rolled - started, "credit": credited - rolled, "learning": learnt - credited,
                "checkpoint": kept - learnt, "publication": ended - kept, "tokens": tokens}  # fmt: skip
        self.journal.commit(notes=[Note("iteration", _key(trainer.iteration), note), *trainer.take_notes()])
        self.audience.on_update(make_update(row, note))

    async def _heed_canaries(self, trainer: SocietyTrainer, episodes: Sequence[PlayedEpisode]) -> None:
        """Say it where judges pay for null answers, or end there, before anything is learnt from what they say."""
        canaries = [one for episode in episodes for one in read_canaries(episode.outcome)]
        score, limit = calibrate((), canaries).rates()["canary_score"], cast(Any, self.config.learning).canary_limit
        if score is None or score <= (_FOOLED if limit is None else limit):
            return
        what = f"agents score null answers {score:.2g} on average, of {len(canaries)} canaries (0 is right, 1 the most)"
        remedy = "pay for verdicts too (`rewards`), or have other policies judge"
        if limit is None:
            self.display.say(f"{what}: solvers can be paid for nothing; {remedy}")
        else:
            await self._commit(trainer, is_due=False)
            raise LearningError(f"{what}, more than {limit:g}", where="learning.canary_limit", remedy=remedy)

    async def _share(
        self, executor: Executor, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode]
    ) -> Sequence[Shared] | None:
        """Shares of the team reward, where there is a rule; what it has to see replayed is replayed before.

        None: the attempt was stopped meanwhile.
        """
        if self.team is None:
            return []
        await self._replay(executor, jobs, self.team.replays(jobs, episodes))
        if self.stopped:
            return None
        await executor.sleep()
        return await in_thread(self.team.share, self.journal, jobs, episodes)

    async def _value(
        self, executor: Executor, jobs: Sequence[Job], episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn]
    ) -> Sequence[EarnedTurn] | None:
        """The turns, with what they are worth at their steps where token credit asks for it; None as of `_share`."""
        if self.valuer is None:
            return earned
        stepped = await in_thread(self.valuer.step_through, jobs, episodes, earned)
        await self._replay(executor, jobs, [job for one in stepped for replays in one.replays for job in replays])
        return None if self.stopped else await in_thread(self.valuer.value, self.journal, earned, stepped)

    async def _replay(self, executor: Executor, jobs: Sequence[Job], replays: Sequence[Job]) -> None:
        """Work the replays of which the journal has nothing yet."""
        wanted = list(replay.missing(self.journal, replays))
        if wanted:
            self.display.say(f"replaying {len(jobs)} episodes: {len(wanted)} replays")
            await self.work_replays(executor, wanted, Deaf(self.audience, self.meter))

    def _gather(self, episodes: Sequence[PlayedEpisode], shared: Sequence[Shared]) -> list[EarnedTurn]:
        """What is learnt from: shares of team rewards, or else what turns were given themselves."""
        if self.team is None:
            return gather(self.journal, episodes, self.weights, self.trained)
        return earn(self.journal, [one.episode for one in shared], [one.rewards for one in shared], self.trained)

    def _warn(self, updates: Mapping[str, PolicyUpdate]) -> None:
        """Say it where engine and learner disagree on what the same tokens were worth."""
        for name, update in updates.items():
            if (apart := update.learning.get("mismatch_kl", 0.0)) > _ALARM:
                what = f"policy {name}: engine and learner are {apart:.2g} nats per token apart (more than {_ALARM:g})"
                self.display.say(f"{what}; take the same dtype for both, or see learning.correction")

    async def _keep(
        self, trainer: SocietyTrainer, episodes: Sequence[PlayedEpisode], earned: Sequence[EarnedTurn],
        updates: Mapping[str, PolicyUpdate], shared: Sequence[Shared],
    ) -> dict[str, Any]:  # fmt: skip
        row: dict[str, Any] = {
            "iteration": trainer.iteration, **describe_iteration(episodes, earned, trainer.iteration - 1),
            "policies": {name: dataclasses.asdict(update) for name, update in updates.items()},
            "memory": dict(trainer.memory), **({"credit": describe_credit(shared)} if shared else {}),
        }  # fmt: skip
        self.pending += [one.fact for one in shared]
        self.pending.append(Fact(_key(trainer.iteration), "update", finite(row)))
        if trainer.is_done or trainer.iteration % self.config.checkpoint_every == 0:
            await self._commit(trainer, is_due=True)
        return row

    async def _commit(self, trainer: SocietyTrainer, *, is_due: bool) -> None:
        """Keep what was learnt since the last checkpoint, if anything was, also where the run is stopped at once."""
        if self.pending:
            await finished(self._write(trainer, is_due))

    async def _write(self, trainer: SocietyTrainer, is_due: bool) -> None:
        """First the checkpoint, whole on disk, then the facts that lead to it."""
        checkpoint = await asyncio.to_thread(write_checkpoint, self.folder, trainer.iteration, trainer.save)
        if is_due:
            self.pending[-1].payload["checkpoint"] = checkpoint.hash
        note = {"iteration": checkpoint.iteration, "sha256": checkpoint.hash, "due": is_due}
        self.journal.commit(self.pending, [Note("checkpoint", checkpoint.name, note)])
        self.pending = []
        await asyncio.to_thread(checkpoints.prune, self.folder.checkpoints, {checkpoint.name})

    async def _publish(self, executor: Executor, trainer: SocietyTrainer) -> None:
        """Have the engines generate with what was learnt."""
        folders = await in_thread(trainer.export, self.published)
        version = trainer.iteration
        weights = [
            (self.policies[name].engine, Weights(str(path), self.policies[name].adapter, version))
            for name, path in folders.items()
        ]
        self.policies |= {name: replace(self.policies[name], version=version) for name in folders}
        await executor.publish(self.policies, weights)
        for folder in self.published.iterdir():
            if folder not in folders.values():
                await asyncio.to_thread(shutil.rmtree, folder)


def _key(iteration: int) -> str:
    return f"update/{iteration:06d}"
