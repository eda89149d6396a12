"""How training runs went: their metrics over agent-steps, with bands over seeds, and where they ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.errors import ConfigError
from coterie.experiments.aggregates import Band, Floats, stratified_band
from coterie.experiments.settings import sort_facts
from coterie.experiments.statistics import Estimate
from coterie.experiments.training_record import TrainingRecord

SHARES = ("success", "collision", "drone_collision", "obstacle_collision", "deadlock", "reached")
"""Metrics that are shares of drones: the same scale in every world."""
PREFERRED = ("reward", "success", "collision", "distance_1s")
"""What is shown of a training, as far as its episodes have it."""
_MOST_SHOWN = 4
_POINTS = 60
LAST_SHARE = 0.1
"""Share of the agent-steps, at the end, that the last values are means over."""


@dataclass(frozen=True)
class Group:
    """Runs of one algorithm on one task, which differ in nothing but their seed.

    Attributes:
        algorithm: What tells it from the other algorithms.
        task: What tells its world from the others.
        runs: Ordered by seed.
        steps: [P], agent-steps in the middle of each stretch.
        metrics: By name [runs, P], the mean over the episodes that ended in each stretch; nan before the first ended.
        last: By name [runs], the mean over the last tenth.
    """

    algorithm: str
    task: str
    runs: tuple[TrainingRecord, ...]
    steps: Floats
    metrics: Mapping[str, Floats]
    last: Mapping[str, Floats]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [int(run.facts["config"]["seed"]) for run in self.runs]

    def band(self, metric: str) -> Band:
        """Of one metric, over runs."""
        return stratified_band([self.metrics[metric]])


def learning_curves(records: Sequence[TrainingRecord], points: int = _POINTS) -> list[Group]:
    """Runs by task and algorithm, in the order given.

    All are cut to the agent-steps of the shortest and told in as many equal stretches, so that they can be compared.

    Args:
        records: At least one that has begun.
        points: At most so many stretches; fewer where a run has fewer iterations.

    Raises:
        ConfigError: A run has not begun.
    """
    if not all(record.facts for record in records):
        raise ConfigError("a run has not begun: there is nothing to show", remedy="start it with `coterie resume`")
    configs = [record.facts["config"] for record in records]
    tasks = _names([{"name": config["env"]["kind"], "env": config["env"]} for config in configs])
    rest = [{name: value for name, value in config.items() if name != "env"} for config in configs]
    algorithms = _names(rest)
    end = min(record.agent_steps for record in records)
    count = min([points, *(sum(row["agent_steps"] <= end for row in record.iterations) for record in records)])
    names = show_metrics(records)
    found: dict[tuple[str, str], list[TrainingRecord]] = {}
    for algorithm, task, record in zip(algorithms, tasks, records, strict=True):
        found.setdefault((algorithm, task), []).append(record)
    return [
        _group(*key, sorted(runs, key=lambda run: int(run.facts["config"]["seed"])), names, end, count)
        for key, runs in found.items()
    ]


def show_metrics(records: Iterable[TrainingRecord]) -> list[str]:
    """Names of the metrics that are shown: those preferred, or the first there are."""
    there = {name: None for record in records for row in record.iterations for name in row["metrics"]}
    preferred = [name for name in PREFERRED if name in there]
    others = sorted(there.keys() - PREFERRED) if len(preferred) < 2 else []
    return [*preferred, *others][:_MOST_SHOWN]


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    groups, _ = sort_facts([{"config": config} for config in configs], pool=True)
    names = [""] * len(configs)
    for label, indices in groups:
        for index in indices:
            names[index] = label
    return names


def _group(
    algorithm: str, task: str, runs: Sequence[TrainingRecord], names: Sequence[str], end: int, count: int
) -> Group:
    edges = np.linspace(0, end, count + 1)
    tail = np.asarray([end * (1 - LAST_SHARE), end])
    return Group(
        algorithm, task, tuple(runs), (edges[1:] + edges[:-1]) / 2,
        {name: np.stack([_fill(_means(run, name, edges)) for run in runs]) for name in names},
        {name: np.stack([_means(run, name, tail)[0] for run in runs]) for name in names},
    )  # fmt: skip


def _means(run: TrainingRecord, name: str, edges: Floats) -> Floats:
    """Means of a metric over the episodes that ended in each stretch ]edge, next edge]; nan where none did."""
    rows = [row for row in run.iterations if row["metrics"].get(name) is not None]
    steps = np.asarray([row["agent_steps"] for row in rows], np.float64)
    weights = np.asarray([row["episodes"] for row in rows], np.float64)
    values = np.asarray([row["metrics"][name] for row in rows], np.float64)
    place = np.searchsorted(edges, steps, "left") - 1
    inside = (place >= 0) & (place < len(edges) - 1)
    size = len(edges) - 1
    total = np.bincount(place[inside], weights[inside], size)
    sums = np.bincount(place[inside], (weights * values)[inside], size)
    means = np.full(size, np.nan)
    np.divide(sums, total, out=means, where=total > 0)
    return means


def _fill(values: Floats) -> Floats:
    """A stretch without an episode lies on the line between its neighbours; before the first there is nothing."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return values
    filled: Floats = np.interp(np.arange(len(values)), known, values[known])
    filled[: known[0]] = np.nan
    return filled


def last_values(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Rows of `label`, `runs`, `agent_steps` and `metrics`: estimates over the last tenth of the training.

    An algorithm on several tasks has a further row over all of them, its runs resampled within each task; of its
    metrics only shares, as others have another scale in each world.
    """
    rows = [_row(label(groups, group), [group]) for group in groups]
    by_algorithm: dict[str, list[Group]] = {}
    for group in groups:
        by_algorithm.setdefault(group.algorithm, []).append(group)
    over_all = [_row(f"{name}, all tasks", found) for name, found in by_algorithm.items() if len(found) > 1]
    return rows + [row for row in over_all if row["metrics"]]


def label(groups: Sequence[Group], group: Group) -> str:
    """What tells a group from the others."""
    algorithms, tasks = {one.algorithm for one in groups}, {one.task for one in groups}
    if len(tasks) == 1:
        return group.algorithm
    return group.task if len(algorithms) == 1 else f"{group.algorithm}, {group.task}"


def _row(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    metrics = {}
    for metric in [metric for metric in groups[0].last if len(groups) == 1 or metric in SHARES]:
        band = stratified_band([group.last[metric][:, None] for group in groups])
        metrics[metric] = Estimate(*(float(part[0]) for part in (band.value, band.low, band.high)))
    return {
        "label": name, "runs": sum(len(group.runs) for group in groups),
        "agent_steps": min(run.agent_steps for group in groups for run in group.runs),
        "metrics": {metric: found for metric, found in metrics.items() if math.isfinite(found.value)},
    }  # fmt: skip
