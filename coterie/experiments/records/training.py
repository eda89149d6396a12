"""A training run as its journal tells it: iterations, checkpoints, and where it is to go on.

Facts `iteration/NNNNNNNN` come in groups, each with the checkpoint that holds their outcome: an iteration whose weights
are lost with the process is no fact, and is done again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coterie.errors import EnvironmentMissing, ResumeError
from coterie.experiments.folder import RunFolder
from coterie.experiments.records.updates import flatten
from coterie.journal import Journal

Iteration = Mapping[str, Any]
"""`iteration`, `agent_steps`, `episodes`, `reward`, `metrics`, `learning`, `weights`; `checkpoint` if one was due."""
SCORES = ("success", "reward")
"""What says which checkpoint is best: the first of these that its episodes have."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was committed: after which iteration, and the SHA-256 of its `checkpoint.json`."""

    iteration: int
    hash: str

    @property
    def name(self) -> str:
        """Of its folder below `checkpoints/`."""
        return f"{self.iteration:08d}"


@dataclass(frozen=True)
class TrainingRecord:
    """All facts of a training run, complete or not, and its checkpoints.

    Attributes:
        facts: The fact `run`.
        digest: Of all facts.
        iterations: In order, without gaps.
        checkpoints: All that were committed, also those that were deleted since.
    """

    facts: Mapping[str, Any]
    digest: str
    iterations: Sequence[Iteration]
    checkpoints: Sequence[Checkpoint]

    @property
    def agent_steps(self) -> int:
        """Of all iterations."""
        return int(self.iterations[-1]["agent_steps"]) if self.iterations else 0

    @property
    def planned(self) -> int:
        """Agent-steps after which the training is over."""
        return int(self.facts["config"]["learning"]["agent_steps"]) if self.facts else 0

    @property
    def is_complete(self) -> bool:
        """Whether it is."""
        return bool(self.iterations) and self.agent_steps >= self.planned

    @property
    def last(self) -> Checkpoint | None:
        """From which a stopped run goes on."""
        return last_checkpoint(self.checkpoints)

    @cached_property
    def best(self) -> tuple[Checkpoint, float] | None:
        """Of the checkpoints that were due, that of the highest score, and the score; the first of equals."""
        found: tuple[Checkpoint, float] | None = None
        for group in self._groups:
            score = score_of(group)
            if "checkpoint" in group[-1] and score is not None and (found is None or score > found[1]):
                found = Checkpoint(group[-1]["iteration"], group[-1]["checkpoint"]), score
        return found

    @property
    def unscored(self) -> list[Iteration]:
        """The iterations after the last checkpoint that was due."""
        return list(self._groups[-1]) if self._groups and "checkpoint" not in self._groups[-1][-1] else []

    @cached_property
    def _groups(self) -> list[list[Iteration]]:
        """The iterations that lead to each checkpoint, and those since the last one."""
        groups: list[list[Iteration]] = []
        for row in self.iterations:
            if not groups or "checkpoint" in groups[-1][-1]:
                groups.append([])
            groups[-1].append(row)
        return groups


def read_training(journal: Journal) -> TrainingRecord:
    """Read all facts of an open journal."""
    iterations = [fact.payload for fact in journal.facts("iteration")]
    return TrainingRecord(journal.get("run") or {}, journal.digest(), iterations, read_checkpoints(journal))


def read_checkpoints(journal: Journal) -> list[Checkpoint]:
    """All that were committed, also those that were deleted since.

    They are notes: where a run was stopped is not a fact of it. Facts name those that were due.
    """
    notes = {note.key: note.payload for note in journal.notes("checkpoint")}
    return [Checkpoint(payload["iteration"], payload["sha256"]) for payload in notes.values()]


def last_checkpoint(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """From which a stopped run goes on."""
    return max(checkpoints, key=lambda checkpoint: checkpoint.iteration, default=None)


def write_checkpoint(folder: RunFolder, iteration: int, save: Callable[[Path], str]) -> Checkpoint:
    """Have `save` write what was learnt into its folder, which is whole or not there; it gives the SHA-256.

    Raises:
        EnvironmentMissing: the disk refused.
    """
    path = folder.checkpoints / Checkpoint(iteration, "").name
    try:
        return Checkpoint(iteration, save(path))
    except OSError as cause:
        raise EnvironmentMissing(
            f"cannot write a checkpoint: {cause.strerror}", where=str(path),
            remedy="make room, then go on from the one before it: coterie resume",
        ) from cause  # fmt: skip


def finite(value: Any) -> Any:
    """A fact as JSON holds it: what is no number, such as a share of nothing, is null."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_checkpoint(folder: RunFolder, checkpoint: Checkpoint) -> None:
    """Make sure that a checkpoint is there, and is the one that was journalled.

    Raises:
        ResumeError: it is not.
    """
    path = folder.checkpoints / checkpoint.name / "checkpoint.json"
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as cause:
        raise ResumeError(
            f"the checkpoint after iteration {checkpoint.iteration} cannot be read: {cause.strerror}",
            where=str(path), remedy="put it back, or start a new run",
        ) from cause  # fmt: skip
    if found != checkpoint.hash:
        raise ResumeError(
            f"the checkpoint after iteration {checkpoint.iteration} is not the one that was journalled",
            where=str(path), remedy="put that one back, or start a new run",
        )  # fmt: skip


def is_of_world(facts: Mapping[str, Any]) -> bool:
    """Whether the fact `run` is that of a training run."""
    return "env" in facts.get("config", {})


def score_of(iterations: Iterable[Iteration]) -> float | None:
    """How good the policy was in these iterations; None where no episode ended."""
    means = mean_metrics(iterations)
    return next((means[name] for name in SCORES if name in means), None)


def mean_metrics(iterations: Iterable[Iteration]) -> dict[str, float]:
    """Means of metrics over all episodes of several iterations, as far as the facts tell: weighted by episodes."""
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for row in iterations:
        for name, value in row["metrics"].items():
            if value is not None and math.isfinite(value):
                sums[name] = sums.get(name, 0.0) + value * row["episodes"]
                weights[name] = weights.get(name, 0.0) + row["episodes"]
    return {name: sums[name] / weight for name, weight in sorted(weights.items()) if weight}


def iteration_rows(journal: Journal) -> list[dict[str, Any]]:
    """One flat row per iteration, all with the same columns: `metrics.success`, `roles.answer.reward`, ..."""
    rows = [dict(flatten(fact.payload)) for kind in _KINDS for fact in journal.facts(kind)]
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in columns} for row in rows]


_KINDS = ("iteration", "update")
"""Of the facts of iterations: in a world, and in a society."""
