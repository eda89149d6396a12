"""How trainings went: their metrics over what they used, with bands over seeds, and where they ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.experiments.comparison.settings import sort_facts
from coterie.experiments.comparison.trainings import Kind, Training
from coterie.experiments.statistics.aggregates import Band, Floats, stratified_band
from coterie.experiments.statistics.inference import Estimate

SHARES = ("success", "collision", "drone_collision", "obstacle_collision", "deadlock", "reached", "right/solver")
"""Metrics that are shares, of drones or of solutions: the same scale in every task."""
_MOST_OTHERS = 4
_POINTS = 60
LAST_SHARE = 0.1
"""Share of what was used, at the end, that the last values are means over."""
_TINY = 1e-9
"""Fewer episodes than these are none, but what is left of subtracting sums."""


@dataclass(frozen=True)
class Group:
    """Runs of one algorithm on one task, which differ in nothing but their seed.

    Attributes:
        algorithm: What tells it from the other algorithms.
        task: What tells its world, or its benchmark, from the others.
        runs: Ordered by seed.
        used: [P], what had been used in the middle of each stretch.
        metrics: By name [runs, P], the mean over the episodes of each stretch; nan before the first ended.
        last: By name [runs], the mean over the last tenth.
    """

    algorithm: str
    task: str
    runs: tuple[Training, ...]
    used: Floats
    metrics: Mapping[str, Floats]
    last: Mapping[str, Floats]

    @property
    def kind(self) -> Kind:
        """Of all runs."""
        return self.runs[0].kind

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.seed for run in self.runs]

    def band(self, metric: str) -> Band:
        """Of one metric, over runs."""
        return stratified_band([self.metrics[metric]])


def learning_curves(runs: Sequence[Training], points: int = _POINTS) -> list[Group]:
    """Runs by task and algorithm, in the order given.

    All are cut to what the shortest has used and told in as many equal stretches, so that they can be compared.

    Args:
        runs: At least one, all of one kind, with an iteration each.
        points: At most so many stretches; fewer where a run has fewer iterations.
    """
    configs, section = [run.facts["config"] for run in runs], runs[0].kind.task
    tasks = _names([{"name": config[section]["kind"], section: config[section]} for config in configs])
    algorithms = _names([{name: value for name, value in config.items() if name != section} for config in configs])
    end = min(run.amount for run in runs)
    # The last iteration of a longer run may have begun before the cut.
    count = min([points, *(int(np.searchsorted(run.used, end)) + 1 for run in runs)])
    names = show_metrics(runs)
    found: dict[tuple[str, str], list[Training]] = {}
    for algorithm, task, run in zip(algorithms, tasks, runs, strict=True):
        found.setdefault((algorithm, task), []).append(run)
    return [_group(*key, sorted(mine, key=lambda run: run.seed), names, end, count) for key, mine in found.items()]


def show_metrics(runs: Sequence[Training]) -> list[str]:
    """Names of the metrics that are shown: those preferred, or the first there are."""
    there = {name for run in runs for name in run.metrics}
    preferred = [name for name in runs[0].kind.preferred if name in there]
    others = sorted(there - set(preferred)) if len(preferred) < 2 else []
    return [*preferred, *others][: max(_MOST_OTHERS, len(preferred))]


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    groups, _ = sort_facts([{"config": config} for config in configs], pool=True)
    names = [""] * len(configs)
    for label, indices in groups:
        for index in indices:
            names[index] = label
    return names


def _group(algorithm: str, task: str, runs: Sequence[Training], names: Sequence[str], end: int, count: int) -> Group:
    edges = np.linspace(0, end, count + 1)
    tail = np.asarray([end * (1 - LAST_SHARE), end])
    return Group(
        algorithm, task, tuple(runs), (edges[1:] + edges[:-1]) / 2,
        {name: np.stack([_fill(_means(run, name, edges)) for run in runs]) for name in names},
        {name: np.stack([_means(run, name, tail)[0] for run in runs]) for name in names},
    )  # fmt: skip


def _means(run: Training, name: str, edges: Floats) -> Floats:
    """Means of a metric over the episodes of each stretch between two edges; nan where there are none.

    The episodes of an iteration are taken to have ended evenly over what it used.
    """
    values = run.metrics.get(name, np.full(len(run.used), np.nan))
    known = np.isfinite(values)
    total = _spread(run.used, np.where(known, run.weights, 0.0), edges)
    sums = _spread(run.used, np.where(known, run.weights * values, 0.0), edges)
    means = np.full(len(edges) - 1, np.nan)
    np.divide(sums, total, out=means, where=total > _TINY)
    return means


def _spread(used: Floats, amounts: Floats, edges: Floats) -> Floats:
    """How much of the iterations' amounts [T] falls between each two edges: [P]."""
    begun, so_far = np.concatenate([[0.0], used]), np.concatenate([[0.0], np.cumsum(amounts)])
    return np.diff(np.interp(edges, begun, so_far))


def _fill(values: Floats) -> Floats:
    """A stretch without an episode lies on the line between its neighbours; before the first there is nothing."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return values
    filled: Floats = np.interp(np.arange(len(values)), known, values[known])
    filled[: known[0]] = np.nan
    return filled


def last_values(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Rows of `label`, `runs`, `amount` and `metrics`: estimates over the last tenth of the training.

    An algorithm on several tasks has a further row over all of them, its runs resampled within each task; of its
    metrics only shares, as others have another scale in each.
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
        "amount": min(run.amount for group in groups for run in group.runs),
        "metrics": {metric: found for metric, found in metrics.items() if math.isfinite(found.value)},
    }  # fmt: skip
