"""A study: a society's episodes, each replayed without its agents, and what measures say of them that need no replay.

Episodes come first, then all replays at once, so that batches are full, then the measures. Everything is a fact by key,
so a study that was stopped goes on with what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from coterie.config.load import Loaded
from coterie.config.schema import StudyConfig
from coterie.errors import CoterieError
from coterie.experiments.folder import RunFolder
from coterie.experiments.monitoring.display import Display
from coterie.experiments.monitoring.tally import Watcher
from coterie.experiments.society_attempt import Attempt
from coterie.experiments.study.measures import Cast, make_measure
from coterie.journal import Fact, Journal
from coterie.orchestration import replay
from coterie.orchestration.executor import Executor
from coterie.orchestration.harvest import read_episode
from coterie.orchestration.jobs import Job
from coterie.orchestration.sittings import grader_of
from coterie.orchestration.supervisor import Observer
from coterie.types import Grader, Outcome, Turn, Verdict

DONE = "study"
"""The fact that ends a study."""
_AT_ONCE = 8
"""Episodes that are measured together, and journalled together."""


class StudyAttempt(Attempt):
    """An attempt at a study, to its end, to a limit, or to a person's Ctrl-C.

    Args:
        loaded: An experiment with `study`.
        folder: Its run folder.
        journal: Open for writing.
        grader: Of the benchmark.
        display: Where a person looks.
        observer: Told of every commit; of replays, of their turns alone.
    """

    def __init__(
        self, loaded: Loaded, folder: RunFolder, journal: Journal, grader: Grader, display: Display, observer: Watcher
    ) -> None:
        super().__init__(loaded, folder, journal, grader_of(grader, replay.task_of), display, observer)
        assert self.config.study is not None
        self.study = self.config.study

    async def work(self, executor: Executor, jobs: Sequence[Job]) -> None:
        """Work all episodes, replay them, and measure."""
        await super().work(executor, list(replay.missing(self.journal, jobs)))
        if not self.stopped:
            await self._replay(executor, jobs)
        if not self.stopped:
            await asyncio.to_thread(self._measure, jobs)
        if not self.stopped:
            replays = {fact.key for fact in self.journal.facts("replay")}
            self.journal.commit([Fact(DONE, DONE, {"episodes": len(jobs), "replays": len(replays)})])

    async def _replay(self, executor: Executor, jobs: Sequence[Job]) -> None:
        wanted = list(replay.missing(self.journal, replays_of(self.journal, self.study, jobs)))
        self.display.say(f"replaying {len(jobs)} episodes: {len(wanted)} replays")
        await self.work_replays(executor, wanted, _Counter(self.observer, self.display, len(wanted)))

    def _measure(self, jobs: Sequence[Job]) -> None:
        """All measures, always of the same episodes at once: the last bits may depend on what goes through together."""
        parts = [jobs[begin : begin + _AT_ONCE] for begin in range(0, len(jobs), _AT_ONCE)]
        for name in self.study.measures:
            owed = [part for part in parts if any(replay.missing(self.journal, part, measure_key(name)))]
            if not owed:
                continue
            self.display.say(f"measuring {name} in {sum(map(len, owed))} episodes")
            measure = make_measure(name, self._cast())
            for part in owed:
                if self.stopped:
                    return
                found = measure(part, [read_episode(self.journal, job, ()) for job in part])
                key = measure_key(name)
                self.journal.commit(Fact(key(job), "measure", row) for job, row in zip(part, found, strict=True))

    def _cast(self) -> Cast:
        names = {seat.policy for seat in self.config.seats}
        policies = {name: policy for name, policy in self.policies.items() if name in names}
        return Cast(policies, self.staff.engines, self.config.device, self.study.embedder)


def measure_key(name: str) -> Callable[[Job], str]:
    """Where what a measure says of an episode stands."""
    return lambda job: f"measure/{name}/{job.society}/{job.task.id}"


def replays_of(journal: Journal, study: StudyConfig, jobs: Sequence[Job]) -> Iterator[Job]:
    """All replays of finished episodes, in the order of these; some more than once."""
    tasks = list(dict.fromkeys(job.task.id for job in jobs))
    place = {task: number for number, task in enumerate(tasks)}
    for job in jobs:
        played, number = read_episode(journal, job, ()), place[job.task.id]
        # All coalitions have those of leave-one-out among them.
        kinds = ["shapley" if number < study.shapley else "leave_one_out"]
        kinds += ["counterfactual"] if number < study.counterfactual else []
        for kind in kinds:
            for masks, draws in replay.needed(kind, len(job.agents), study.draws):
                yield from replay.plan(job, played, masks, draws)


class _Counter:
    """Tells of the turns of replays, and how many of these are done; replays are no episodes of the run."""

    def __init__(self, observer: Observer, display: Display, total: int) -> None:
        self._observer, self._display, self._total, self._done = observer, display, total, 0

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        """Pass it on."""
        self._observer.on_turn(turn, verdict)

    def on_episode(self, job: Job, outcome: Outcome, verdict: Verdict) -> None:
        """Say it at each tenth."""
        self._done += 1
        if self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            self._display.say(f"{self._done}/{self._total} replays")

    def on_failure(self, error: CoterieError) -> None:
        """Pass it on."""
        self._observer.on_failure(error)
