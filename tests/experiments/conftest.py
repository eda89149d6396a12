"""Runs made by hand, through the functions that real runs write their journals with."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import coterie
from coterie.agents.seats import Agent
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.updates import Update, make_update
from coterie.journal import Fact, Journal, Note
from coterie.orchestration import records
from coterie.orchestration.jobs import Job, Performed
from coterie.orchestration.pool import PolicySpec
from coterie.orchestration.protocols.config import MachineSomConfig, SingleConfig
from coterie.orchestration.turns import turn_key
from coterie.types import Edge, Message, Outcome, Place, Sample, Sampling, Task, Turn, Verdict

POLICY = PolicySpec("default", "engine-0", Sampling())
PAIR = (Agent("calm", "default", "You listen."), Agent("bold", "default"))
SOLO = (Agent("solo", "default"),)
SOCIETIES = {"debate": PAIR, "single": SOLO}


@dataclass(frozen=True)
class Event:
    """A finished episode with its turns and their verdicts."""

    job: Job
    turns: tuple[Turn, ...]
    verdicts: tuple[Verdict, ...]
    outcome: Outcome
    verdict: Verdict


def make_turn(agent: Agent, task: Task, round: int, answer: str | None, text: str | None = None) -> Turn:
    place = Place(task.id, round, agent.name)
    prompt = (*agent.preamble(), Message("user", f"{task.question} (round {round})"))
    said = text if text is not None else f"The answer is {answer}."
    return Turn(turn_key(place, POLICY, prompt), place, "default", 0, prompt, said, answer, "stop", 10, 4,
                token_ids=(1, 2, 3, 4))  # fmt: skip


def make_event(society: str, number: int, *, is_right: bool, text: str | None = None, ending: str = "") -> Event:
    """Two rounds of two agents in `debate`, one turn in `single`; a wrong answer is an unparsed one."""
    task = Task(f"sum-{number:04d}{ending}", f"What is {number} + 1?")
    agents, rounds = SOCIETIES[society], 2 if society == "debate" else 1
    answer = str(number + 1) if is_right else None
    table = [{a.name: make_turn(a, task, r, answer, text) for a in agents} for r in range(rounds)]
    turns = tuple(turn for row in table for turn in row.values())
    verdict = Verdict(answer, is_right)
    protocol = MachineSomConfig(strategy=("debate",)) if society == "debate" else SingleConfig()
    outcome = Outcome(
        answer, tuple({name: t.key for name, t in row.items()} for row in table),
        tuple(Edge(1, a.name, b.name) for a in agents for b in agents if rounds > 1 and a is not b),
        "majority", {}, tuple(t.key for t in turns),
    )  # fmt: skip
    return Event(Job(society, task, agents, protocol), turns, (verdict,) * len(turns), outcome, verdict)


def write_event(journal: Journal, event: Event) -> None:
    for turn, verdict in zip(event.turns, event.verdicts, strict=True):
        done = Performed(turn, Sample(turn.text, "stop", 10, 4), 0.5)
        facts = [records.turn_fact(turn), records.verdict_fact(turn, verdict)]
        journal.commit(facts, [records.sample_note(done, "host", 0)])
    journal.commit([records.episode_fact(event.job, event.outcome, event.verdict)])


def run_fact(num_tasks: int) -> Fact:
    societies = [
        {"label": label, "is_baseline": label == "single", "agents": [dataclasses.asdict(a) for a in agents]}
        for label, agents in SOCIETIES.items()
    ]
    return Fact("run", "run", {"config": {"name": "trial", "seed": 0}, "tasks": num_tasks, "societies": societies})


TINY: dict[str, Any] = {
    "name": "tiny", "seed": 1, "checkpoint_every": 2,
    "env": {"kind": "quad_swarm_v0", "num_envs": 4, "num_drones": 2, "num_neighbours": 1, "seconds": 0.3,
            "obstacles": {}, "replay": {"before": 0.1, "every": 0.05, "floor_limit": None}},
    "policy": {"kind": "attention", "preset": "micro"},
    "learning": {"kind": "ippo", "agent_steps": 640, "rollout": 16, "minibatch": 64, "epochs": 1},
}  # fmt: skip
"""A training of five iterations, with a checkpoint after the second, the fourth and the last."""


@pytest.fixture(scope="session")
def make_tiny() -> Callable[[], dict[str, Any]]:
    """Makes configs of a tiny training, to be changed as you like."""
    return lambda: copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny training that is finished. It stays as it is: copy what you damage."""
    return coterie.run(TINY, runs=tmp_path_factory.mktemp("trained")).folder


@pytest.fixture
def events() -> list[Event]:
    """Four tasks worked by both societies: `debate` has 3 of 4 right, `single` 1 of 4."""
    rights = {"debate": (True, True, True, False), "single": (True, False, False, False)}
    return [make_event(s, i, is_right=right[i]) for i in range(4) for s, right in rights.items()]


@pytest.fixture
def make_run(tmp_path: Path, events: list[Event]) -> Iterator[Callable[..., RunFolder]]:
    """Makes a run folder below `runs/` of a folder of its own: `make_run(name, finished_episodes, status)`."""

    def make(name: str = "trial", episodes: int = 8, status: str = "finished", text: str | None = None) -> RunFolder:
        folder = RunFolder.create(tmp_path / "runs", name)
        folder.resolved.write_text("{}")
        attempt = {"number": 1, "budget": {"tokens": 1000, "calls": None}, "executor": {"kind": "local"}}
        with Journal.create(folder.journal) as journal:
            journal.commit([run_fact(4)], [Note("attempt", "1", attempt)])
            for event in events[:episodes]:
                write_event(journal, event)
            if text is not None:
                write_event(journal, make_event("single", 9, is_right=True, text=text))
            if status != "running":
                ending = {"number": 1, "status": status, "reason": "", "seconds": 2.5}
                journal.commit(notes=[Note("attempt-end", "1", ending)])
        state = {"status": status, "reason": "", "attempt": 1}
        folder.status.write_text(json.dumps(state))
        return folder

    yield make


def make_update_row(number: int, iterations: int, policies: tuple[str, ...] = ("ann", "bob")) -> dict[str, Any]:
    """What an iteration of a society's training left: solvers and judges get better from one to the next."""
    x = number / iterations
    role = {"turns": 8, "reward_std": 0.25, "tokens": 4.0, "cut": 0.125}
    learning = {"loss": 0.5, "entropy": 2.0 - x, "kl": 0.001, "mismatch_kl": 1e-6, "clipped": 0.0, "dropped": 0.0,
                "gradient_norm": 1.0, "tokens": 96.0}  # fmt: skip
    return {
        "iteration": number, "episodes": 4, "accuracy": 0.25 + x / 2, "turns": 24, "tokens": 96, "prompt_tokens": 240,
        "roles": {"answer": {**role, "reward": x}, "evaluate": {**role, "reward": 1 - x},
                  "score": {**role, "reward": -0.5}},
        "rewards": {"interaction": {"answer": x, "evaluate": 1 - x, "score": -0.5}},
        "solver": {"accuracy": x / 2, "parsed": 1.0, "reward": x, "reward_if_right": 0.75, "reward_if_wrong": 0.25,
                   "correlation": 0.5},
        "judge": {"rulings": 8, "right": [1, 1, 2], "wrong": [2, 1, 0], "base_rate": 0.5, "precision": 0.75,
                  "recall": 0.75, "youden": x / 2, "solver_reward": x, "correlation": 0.4, "unread": 0.125,
                  "own_evaluations": 0.0, "own_scores": 0.0, "unanswered_passed": None, "contradictions": None},
        "lag": 0, "memory": {}, "checkpoint": f"{number:064x}",
        "policies": {name: {"weights": f"{number:064x}", "learning": learning} for name in policies},
    }  # fmt: skip


def make_updates(iterations: int) -> list[Update]:
    note = {"rollout": 6.0, "learning": 3.0, "checkpoint": 0.25, "publication": 0.75, "tokens": 96}
    return [make_update(make_update_row(number, iterations), note) for number in range(1, iterations + 1)]


@pytest.fixture
def updates() -> Callable[[int], list[Update]]:
    """Makes so many iterations of a society's training."""
    return make_updates


LEARNING: dict[str, Any] = {
    "name": "school", "seed": 0, "determinism": "exact", "benchmark": {"kind": "sums", "limit": 4},
    "protocol": {"kind": "comas"}, "policies": {}, "checkpoint_every": 1,
    "learning": {"kind": "policy_gradient", "iterations": 8, "tasks": 2, "episodes_per_task": 2, "held_out": 2},
}  # fmt: skip


@pytest.fixture
def make_school(tmp_path: Path) -> Callable[..., RunFolder]:
    """Makes the run folder of a society's training of eight iterations: `make_school(iterations_done, status)`.

    Further arguments stand in its config.
    """

    def make(done: int = 8, status: str = "finished", text: str | None = None, **changes: Any) -> RunFolder:
        folder = RunFolder.create(tmp_path / "runs", "school")
        folder.resolved.write_text("{}")
        societies = [{"label": "debate", "is_baseline": False, "agents": [dataclasses.asdict(a) for a in PAIR]}]
        run = {"config": LEARNING | changes, "tasks": 32, "societies": societies, "benchmark": "f" * 64,
               "templates": {}, "plugins": {}}  # fmt: skip
        with Journal.create(folder.journal) as journal:
            journal.commit([Fact("run", "run", run)], [Note("attempt", "1", {"number": 1})])
            for number in range(1, done + 1):
                _write_iteration(journal, number, text)
            if status != "running":
                ending = {"number": 1, "status": status, "reason": "", "seconds": 100.0}
                journal.commit(notes=[Note("attempt-end", "1", ending)])
        folder.status.write_text(json.dumps({"status": status, "reason": "", "attempt": 1}))
        return folder

    return make


def _write_iteration(journal: Journal, number: int, text: str | None) -> None:
    """Two episodes on two tasks, and what was learnt from them."""
    for task in range(2):
        event = make_event("debate", task, is_right=task == 0, text=text, ending=f"@{number:06d}.0")
        write_event(journal, event)
    key = f"update/{number:06d}"
    note = {"rollout": 6.0, "learning": 3.0, "checkpoint": 0.25, "publication": 0.75, "tokens": 96}
    kept = Note("checkpoint", f"{number:08d}", {"iteration": number, "sha256": f"{number:064x}", "due": True})
    journal.commit([Fact(key, "update", make_update_row(number, 8))], [Note("iteration", key, note), kept])
