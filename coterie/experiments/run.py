"""A run of a society: what is measured in it, and the whole life of an attempt."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from coterie import registry
from coterie.agents.embedders import fingerprint
from coterie.agents.prompts import template, template_names
from coterie.agents.seats import Agent, expand
from coterie.config.load import Loaded
from coterie.config.references import check_secrets
from coterie.config.schema import ExperimentConfig
from coterie.envs.benchmarks.base import Benchmark
from coterie.errors import ConfigError, Interrupted
from coterie.experiments.continuation import (
    Ending,
    check_unchanged,
    lasting,
    open_journal,
    resumable,
    save_resolved,
)
from coterie.experiments.folder import RunFolder
from coterie.experiments.monitoring.display import Display
from coterie.experiments.monitoring.tally import Audience, Standing, Watcher
from coterie.experiments.monitoring.trackers import Trackers
from coterie.experiments.society_attempt import Attempt, mark_finished
from coterie.journal import Fact, Journal
from coterie.orchestration.jobs import Job
from coterie.orchestration.protocols.config import ProtocolConfig
from coterie.orchestration.sittings import draw, split_tasks
from coterie.sandbox import is_unsafe_code_allowed
from coterie.types import Grader


@dataclass(frozen=True, slots=True)
class Society:
    """One thing that is measured in a run: a protocol with its agents."""

    label: str
    protocol: ProtocolConfig
    agents: tuple[Agent, ...]
    is_baseline: bool


def societies(config: ExperimentConfig) -> list[Society]:
    """The societies of a run: those the protocol stands for, then the baselines."""
    seats = expand(config.seats)
    solo = (Agent("solo", config.seats[0].policy),)
    tested = config.protocol, *(config.study.protocols if config.study else ())
    found = {p.label: Society(p.label, p, seats, False) for protocol in tested for p in _protocols(protocol)}
    for protocol in (p for b in config.baselines for p in _protocols(b)):
        # The protocol under test may be a default baseline too; then it is the seats' society that is measured.
        found.setdefault(protocol.label, Society(protocol.label, protocol, solo, True))
    return list(found.values())


def _protocols(config: Any) -> Sequence[ProtocolConfig]:
    expanded: Sequence[ProtocolConfig] = config.expand()
    return expanded


def facts_of(loaded: Loaded, benchmark: str, tasks: int) -> dict[str, Any]:
    """The payload of the fact `run`: everything that the other facts follow from, and what the run is to do.

    It names the societies with their agents, so that a report needs no plugin to read a journal.
    """
    assert isinstance(loaded.config, ExperimentConfig)
    config = lasting(loaded.config)
    # Limits of a task, unlike those of the run, decide how its episodes end.
    limits = loaded.config.budget.model_dump(include={"task_tokens", "task_calls"}, exclude_none=True)
    config |= {"budget": limits} if limits else {}
    found = [
        {"label": s.label, "is_baseline": s.is_baseline, "agents": [dataclasses.asdict(a) for a in s.agents]}
        for s in societies(loaded.config)
    ]
    names = [name for s in societies(loaded.config) for name in s.protocol.embedders]
    if (study := loaded.config.study) and "psi" in study.measures:
        names.append(study.embedder)
    if (credit := loaded.config.credit) and (embedder := getattr(credit.agent, "embedder", "")):
        names.append(embedder)
    embedders = {name: fingerprint(name) for name in names}
    vectors = {"embedders": embedders} if embedders else {}
    unsafe = {"unsafe_code": "allowed"} if is_unsafe_code_allowed() else {}
    return {
        "config": config, "templates": _template_hashes(loaded.config), "plugins": dict(loaded.plugins),
        "benchmark": benchmark, "tasks": tasks, "societies": found, **vectors, **unsafe,
    }  # fmt: skip


def _template_hashes(config: ExperimentConfig) -> dict[str, str]:
    """SHA-256 of each template that the run's protocols may fill in. Words of personas stand with the agents."""
    wanted = {"question"}
    for society in societies(config):
        templates = society.protocol.templates
        wanted.update(template_names() if templates is None else templates)
    for probe in config.probes:
        wanted.update(getattr(probe, "templates", ()))
    return {name: template(name).hash for name in sorted(wanted)}


def execute(loaded: Loaded, folder: RunFolder, display: Display) -> Ending:
    """One attempt at a run, from engine start to the last commit.

    Raises:
        InvalidConfig: the benchmark refused its config.
        ResumeError: the run was started with something else, or its journal or a checkpoint is in use, damaged or gone.
        CoterieError: the attempt failed; what was committed is kept, `coterie resume` goes on.
    """
    config = loaded.config
    assert isinstance(config, ExperimentConfig)
    check_secrets(config.model_dump(mode="json"))
    display.say(f"preparing the tasks of {config.benchmark.kind}")
    benchmark = make_benchmark(loaded)
    jobs = planned(config, benchmark)
    facts = facts_of(loaded, benchmark.fingerprint(), len({job.task.id for job in jobs}))
    with open_journal(folder) as journal:
        with resumable():
            check_unchanged(journal, facts, config)
            if journal.get("run") is None:
                journal.commit([Fact("run", "run", facts)])
            is_over = _is_over(config, journal, jobs)
            standing = Standing.read(journal, max_tokens=config.budget.tokens, max_calls=config.budget.calls)
        if is_over:
            display.say("nothing to do: the run is finished")
            mark_finished(folder, journal)
            return Ending("finished", "", journal.digest(), 0.0)
        with Trackers(config.track, folder.path, facts["config"], display.say) as trackers:
            save_resolved(folder, loaded)
            observer = Audience(display, trackers)
            make = _attempt_of(config)
            attempt = make(loaded, folder, journal, benchmark.grader(), display, observer)
            trackers.begin(standing)
            try:
                ending = asyncio.run(attempt.run(standing, jobs))
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise Interrupted(
                    "the run was stopped at once", where=str(folder.path), remedy=f"go on: coterie resume {folder.path}"
                ) from None
            trackers.status = ending.status
        return ending


def _attempt_of(config: ExperimentConfig) -> Callable[[Loaded, RunFolder, Journal, Grader, Display, Watcher], Attempt]:
    if config.study is not None:
        from coterie.experiments.study.attempt import StudyAttempt

        return StudyAttempt
    if config.learning is not None:
        from coterie.experiments.training.society import TrainingAttempt  # imports torch

        return TrainingAttempt
    return Attempt


def make_benchmark(loaded: Loaded) -> Benchmark:
    """The benchmark of an experiment.

    Raises:
        InvalidConfig: it refused its config.
    """
    config = loaded.config
    assert isinstance(config, ExperimentConfig)
    try:
        made: Benchmark = registry.impl("benchmark", config.benchmark.kind)(config.benchmark, config.seed, loaded.base)
    except ConfigError as error:
        raise loaded.place(error) from None
    return made


def planned(config: ExperimentConfig, benchmark: Benchmark) -> list[Job]:
    """All episodes of a run: task by task or, of a training, sitting by sitting."""
    tasks = benchmark.tasks()
    if config.learning is not None:
        learning: Any = config.learning
        train, _ = split_tasks(tasks, learning.held_out)
        size, copies = learning.tasks, learning.episodes_per_task
        tasks = [t for number in range(learning.iterations) for t in draw(train, number + 1, size, copies, config.seed)]
    return [Job(s.label, task, s.agents, s.protocol, config.seed) for task in tasks for s in societies(config)]


def owed(config: ExperimentConfig, benchmark: Benchmark, journal: Journal) -> list[Job]:
    """The episodes that are not in the journal yet, in order."""
    return [job for job in planned(config, benchmark) if journal.get(job.key) is None]


def _is_over(config: ExperimentConfig, journal: Journal, jobs: Sequence[Job]) -> bool:
    if config.learning is not None:
        return journal.count("update") == int(cast(Any, config.learning).iterations)
    if config.study is not None:
        return journal.get("study") is not None
    return all(journal.get(job.key) is not None for job in jobs)
