"""Trainings in worlds and of societies in one form, in which they are drawn and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.errors import ConfigError
from coterie.experiments.records.training import SCORES, TrainingRecord, is_of_world, read_training
from coterie.experiments.records.updates import curves, is_training, read_updates
from coterie.journal import Journal

if TYPE_CHECKING:
    from coterie.experiments.statistics.aggregates import Floats


@dataclass(frozen=True, slots=True)
class Kind:
    """What trainings have in common that can be compared.

    Attributes:
        name: What people call one.
        unit: What it uses, and is drawn over.
        task: The section of its file that says what is trained on.
        fact: The kind of the facts of its iterations.
        preferred: The metrics that are shown, as far as its iterations have them.
        scores: What says which is better: the first of these that there is.
    """

    name: str
    unit: str
    task: str
    fact: str
    preferred: tuple[str, ...]
    scores: tuple[str, ...]


WORLD = Kind(
    "a training in a world", "agent-steps", "env", "iteration",
    ("reward", "success", "collision", "distance_1s"), SCORES,
)  # fmt: skip
SOCIETY = Kind(
    "the training of a society", "generated tokens", "benchmark", "update",
    ("right/solver", "reward/answer", "reward/evaluate", "judge/youden", "learning/entropy"), ("right/solver",),
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """How one training went.

    Attributes:
        kind: Of what kind it is.
        facts: The fact `run`.
        digest: Of all facts.
        used: [T], what had been used of the kind's unit when each iteration ended; rising.
        weights: [T], how many episodes each iteration's metrics are means over.
        metrics: By name [T]; nan where there was nothing to measure.
        done: The share of what was planned.
        name: Of its folder, where it is told from others.
        held_out: Rows on what it taught, where it was evaluated; see `report.held_out`.
    """

    kind: Kind
    facts: Mapping[str, Any]
    digest: str
    used: Floats
    weights: Floats
    metrics: Mapping[str, Floats]
    done: float
    name: str = ""
    held_out: Sequence[Mapping[str, Any]] = ()

    @property
    def seed(self) -> int:
        """That it was begun with."""
        return int(self.facts["config"]["seed"])

    @property
    def amount(self) -> int:
        """What was used in all."""
        return int(self.used[-1]) if len(self.used) else 0


def kind_of(facts: Mapping[str, Any]) -> Kind | None:
    """Of the run with this fact `run`; None where nothing is trained."""
    return WORLD if is_of_world(facts) else SOCIETY if is_training(facts) else None


def read_one(journal: Journal) -> Training:
    """The training of an open journal, complete or not.

    Raises:
        ConfigError: It has not begun.
    """
    facts = journal.get("run")
    if not facts:
        raise ConfigError("a run has not begun: there is nothing to show", remedy="start it with `coterie resume`")
    if is_of_world(facts):
        return of_world(read_training(journal))
    updates = read_updates(journal)
    found = {curve.key: curve.values for curve in curves(updates)}
    return of_society(facts, journal.digest(), found, [update.facts["tokens"] for update in updates])


def of_world(record: TrainingRecord) -> Training:
    """From the record of one that has begun."""
    rows = record.iterations
    names = dict.fromkeys(name for row in rows for name in row["metrics"])
    return Training(
        WORLD, record.facts, record.digest,
        _floats([row["agent_steps"] for row in rows]), _floats([row["episodes"] for row in rows]),
        {name: _floats([row["metrics"].get(name) for row in rows]) for name in names},
        record.agent_steps / record.planned,
    )  # fmt: skip


def of_society(
    facts: Mapping[str, Any], digest: str, curves: Mapping[str, Sequence[float | None]], tokens: Sequence[float]
) -> Training:
    """From what is known of its iterations, which all have as many episodes.

    Args:
        facts: The fact `run`.
        digest: Of all facts.
        curves: Values by iteration, by key; see `updates.curves`.
        tokens: How many were generated in each iteration.
    """
    return Training(
        SOCIETY, facts, digest, np.cumsum(_floats(tokens)), np.ones(len(tokens)),
        {key: _floats(values) for key, values in curves.items()},
        len(tokens) / facts["config"]["learning"]["iterations"],
    )  # fmt: skip


def _floats(values: Sequence[float | None]) -> Floats:
    """None becomes nan."""
    return np.asarray(values, np.float64)
