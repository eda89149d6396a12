"""A training run: one attempt, from the last checkpoint to the end, to a limit, or to a person's Ctrl-C.

Iterations become facts together with the checkpoint that holds their outcome, in one commit after the checkpoint is
whole on disk. So a run that is killed at any moment goes on from its last checkpoint, and what it does again then was
never said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coterie.agents.engines import process
from coterie.config.load import Loaded
from coterie.config.references import check_secrets, redact
from coterie.config.schema import WorldConfig
from coterie.errors import Interrupted, ResumeError, WorkerLost
from coterie.experiments import provenance
from coterie.experiments.continuation import (
    CIRCUMSTANCES,
    Ending,
    check_unchanged,
    is_marked_finished,
    lasting,
    open_journal,
    resumable,
    save_resolved,
    why_ended,
)
from coterie.experiments.folder import GOING, RunFolder, write_json
from coterie.experiments.monitoring.display_training import TrainingDisplay
from coterie.experiments.monitoring.trackers import Feed
from coterie.experiments.monitoring.training_tally import Step, metrics_of
from coterie.experiments.records.training import (
    Checkpoint,
    TrainingRecord,
    check_checkpoint,
    finite,
    read_training,
    score_of,
    write_checkpoint,
)
from coterie.experiments.training import assembly
from coterie.experiments.training.world_memory import check_memory, tell_memory
from coterie.journal import Fact, Journal, Note
from coterie.orchestration.training_spec import find_device

if TYPE_CHECKING:
    from coterie.orchestration.trainer import IterationRecord, Trainer

# Seconds between two writes of STATUS.json while the run goes.
_EVERY = 1.0


def facts_of(loaded: Loaded) -> dict[str, Any]:
    """The payload of the fact `run`: everything that the other facts follow from."""
    return {"config": lasting(loaded.config), "plugins": dict(loaded.plugins)}


def train(loaded: Loaded, folder: RunFolder, display: TrainingDisplay) -> Ending:
    """One attempt at a training run.

    Raises:
        InvalidConfig: the world or the policy refused its config.
        ResumeError: the run was started with something else, or its journal or checkpoint is in use, damaged or gone.
        CoterieError: the attempt failed; the last checkpoint is kept, `coterie resume` goes on from there.
    """
    config = loaded.config
    assert isinstance(config, WorldConfig)
    check_secrets(config.model_dump(mode="json"))
    process.prepare()
    with open_journal(folder) as journal:
        with resumable():
            begun = journal.get("run")
            loaded = assembly.settle_shards(loaded, begun)
            facts = facts_of(loaded)
            check_unchanged(journal, facts, loaded.config)
            if begun is None:
                journal.commit([Fact("run", "run", facts)])
            record = read_training(journal)
        attempt = _Attempt(loaded, folder, journal, record, display)
        try:
            return attempt.begin(Feed(config.track, folder.path, facts["config"], display.say))
        except KeyboardInterrupt:
            remedy = f"coterie resume {folder.path}" if folder.status.exists() else "start it again: nothing was kept"
            raise Interrupted("the run was stopped at once", where=str(folder.path), remedy=remedy) from None


class _Attempt:
    """One attempt: everything in this thread, one thing after the other."""

    def __init__(
        self, loaded: Loaded, folder: RunFolder, journal: Journal, record: TrainingRecord, display: TrainingDisplay
    ) -> None:
        assert isinstance(loaded.config, WorldConfig)
        self.loaded, self.config, self.folder, self.journal = loaded, loaded.config, folder, journal
        self.record, self.display = record, display
        self.number = 1 + sum(1 for _ in journal.notes("attempt"))
        self.started = self.begun = self.written = time.monotonic()
        self.is_iterating = self.is_interrupted = False
        self.iterations, self.agent_steps = len(record.iterations), record.agent_steps
        self.pending: list[dict[str, Any]] = []
        self.best, self.unscored = record.best, record.unscored

    def begin(self, feed: Feed) -> Ending:
        """Whatever is to be done, from the making of the world."""
        if self.record.is_complete:
            self.display.say("nothing to do: the training is finished")
            self._tell_missing()
            if not is_marked_finished(self.folder):
                self.number -= 1
                self.write_status("finished")
            return Ending("finished", "", self.record.digest, 0.0)
        with self._stops(), tell_memory():
            # What this machine lacks is said before the world is made, which may take a minute.
            if self.config.executor.kind == "local" and find_device(self.config.device) == "cpu":
                check_memory(self.config)
            self.display.say(f"the policy learns on {assembly.place_of(self.config)}")
            if self.loaded.caution:
                self.display.say(self.loaded.caution)
            self.display.say(assembly.preparation_of(self.config))
            crew = assembly.make_crew(self.loaded, self._on_loss)
            try:
                trainer = assembly.make_trainer(self.loaded, crew)
                feed.open()
                return self._run(trainer, feed)
            finally:
                crew.close()

    def _tell_missing(self) -> None:
        """Say if the checkpoint that the training ended with is not there any more."""
        if self.record.last is None:
            return
        try:
            check_checkpoint(self.folder, self.record.last)
        except ResumeError as error:
            self.display.say(f"but {error.what}: {error.where}")

    def _on_loss(self, lost: WorkerLost) -> None:
        self.display.say(f"{redact(lost.what)}; another does its part")
        self.note("failure", {"code": lost.code, "what": redact(lost.what), "where": redact(lost.where)})

    def _run(self, trainer: Trainer, feed: Feed) -> Ending:
        save_resolved(self.folder, self.loaded)
        self.note("attempt", self._circumstances(trainer))
        self.note("executor", trainer.crew.describe())
        self.write_status("starting")
        try:
            self._load(trainer)
            reason = self._iterate(trainer, feed)
            status = "stopped" if reason else "finished"
        except BaseException as error:
            status, reason = why_ended(error)
            raise
        finally:
            seconds = time.monotonic() - self.started
            end = {"number": self.number, "status": status, "reason": reason, "seconds": seconds}
            self.note("attempt-end", end)
            self.write_status(status, reason)
            feed.close({"status": status, "agent_steps": self.agent_steps})
        return Ending(status, reason, self.journal.digest(), seconds)

    def _load(self, trainer: Trainer) -> None:
        """Put the trainer where the journal ends."""
        last = self.record.last
        if last is None:
            return
        check_checkpoint(self.folder, last)
        trainer.load(self.folder.checkpoints / last.name)
        self.display.say(f"going on after iteration {last.iteration}")

    def _iterate(self, trainer: Trainer, feed: Feed) -> str:
        """Iterations to the end, or to where they have to stop, and why: empty at the end."""
        self.begun = time.monotonic()
        self.display.begin(self.record, self.config.budget.seconds)
        self.is_iterating, seconds = True, 0.0
        while not trainer.is_done:
            if reason := self._reason_to_stop(seconds):
                if self.pending:
                    self._commit(trainer, is_due=False)
                return reason
            seconds = self._take_step(trainer, feed)
            if trainer.is_done or trainer.iteration % self.config.checkpoint_every == 0:
                self._commit(trainer, is_due=True)
        return ""

    def _reason_to_stop(self, next_seconds: float) -> str:
        if self.is_interrupted:
            return "interrupted"
        limit = self.config.budget.seconds
        if limit is not None and time.monotonic() - self.begun + next_seconds > limit:
            return f"the run's budget of {limit:g} seconds is spent"
        return ""

    def _take_step(self, trainer: Trainer, feed: Feed) -> float:
        """One iteration, told to all who listen; how long it took."""
        start, before = time.monotonic(), dataclasses.asdict(trainer.timings)
        facts = _facts(trainer.iterate())
        seconds = time.monotonic() - start
        parts = {name: value - before[name] for name, value in dataclasses.asdict(trainer.timings).items()}
        self.pending.append(facts)
        self.unscored.append(facts)
        self.iterations, self.agent_steps = facts["iteration"], facts["agent_steps"]
        self.note("iteration", {"seconds": seconds, **parts, **_glance(facts)}, _key(facts))
        step = Step(facts, seconds, parts)
        self.display.on_iteration(step)
        feed.send(metrics_of(step), self.agent_steps)
        if time.monotonic() - self.written >= _EVERY:
            # A glance that cannot be written is no reason to end a run; the last one is written at the end.
            with contextlib.suppress(OSError):
                self.write_status("running")
        return seconds

    def _commit(self, trainer: Trainer, *, is_due: bool) -> None:
        """Keep what was learnt, and say it: first the checkpoint, whole on disk, then the facts that lead to it."""
        start = time.monotonic()
        checkpoint = write_checkpoint(self.folder, trainer.iteration, trainer.save)
        folder = self.folder.checkpoints / checkpoint.name
        facts = [Fact(_key(row), "iteration", row) for row in self.pending]
        if is_due:
            facts[-1].payload["checkpoint"] = checkpoint.hash
        size = sum(file.stat().st_size for file in folder.iterdir())
        telemetry = {"seconds": time.monotonic() - start, "bytes": size, "due": is_due}
        note = {"iteration": checkpoint.iteration, "sha256": checkpoint.hash, **telemetry}
        self.journal.commit(facts, [Note("checkpoint", checkpoint.name, note)])
        self.pending = []
        if is_due:
            self._rank(checkpoint)
        self._prune(checkpoint)

    def _rank(self, checkpoint: Checkpoint) -> None:
        score, self.unscored = score_of(self.unscored), []
        if score is not None and (self.best is None or score > self.best[1]):
            self.best = checkpoint, score

    def _prune(self, last: Checkpoint) -> None:
        from coterie.orchestration import checkpoints

        checkpoints.prune(self.folder.checkpoints, {last.name, *([self.best[0].name] if self.best else [])})

    @contextlib.contextmanager
    def _stops(self) -> Iterator[None]:
        """While inside, Ctrl-C and SIGTERM stop the run: between iterations in order, otherwise at once."""

        def interrupt(*_: object) -> None:
            if self.is_interrupted or not self.is_iterating:
                raise KeyboardInterrupt
            self.is_interrupted = True
            self.display.say("stopping after this iteration; once more stops at once")

        before = {}
        with contextlib.suppress(ValueError):
            # Not in a thread other than the main one, as in a notebook.
            before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _circumstances(self, trainer: Trainer) -> dict[str, Any]:
        import torch

        config = json.loads(self.config.model_dump_json(include=set(CIRCUMSTANCES)))
        return {
            "number": self.number, "versions": provenance.versions(), "hardware": provenance.hardware(),
            "threads": torch.get_num_threads(), **config, "device": str(trainer.learner.device),
            "start": time.monotonic() - self.started,
        }  # fmt: skip

    def note(self, kind: str, payload: dict[str, Any], key: str = "") -> None:
        self.journal.commit(notes=[Note(kind, key or str(self.number), payload)])

    def write_status(self, status: str, reason: str = "") -> None:
        self.written = time.monotonic()
        written = {
            "status": status, "reason": reason, "attempt": self.number, "iterations": self.iterations,
            "agent_steps": self.agent_steps,
        }  # fmt: skip
        write_json(self.folder.status, written if status in GOING else {**written, "digest": self.journal.digest()})


def _facts(record: IterationRecord) -> dict[str, Any]:
    """A record as JSON holds it: what is no number, such as a share of nothing, is null."""
    return {name: finite(value) for name, value in dataclasses.asdict(record).items()}


def _key(facts: Mapping[str, Any]) -> str:
    return f"iteration/{facts['iteration']:08d}"


def _glance(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of iterations that are no facts yet."""
    return {name: facts[name] for name in ("iteration", "agent_steps", "episodes", "reward", "metrics")}
