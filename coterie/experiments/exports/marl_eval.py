"""Trainings in the form that marl-eval reads: environment, task, algorithm, seed, step (arXiv 2209.10485)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.experiments.comparison.learning_curves import Group


def as_marl_eval(groups: Sequence[Group]) -> dict[str, Any]:
    """The JSON of some groups, which `learning_curves` has cut to equal lengths, as marl-eval wants them.

    Each step holds one value per metric that every run has, the mean over the episodes that ended there; steps before
    every run had one are left out. `absolute_metrics` are means over the last tenth of the training.
    """
    names = [name for name in groups[0].metrics if all(np.isfinite(g.metrics[name]).any(1).all() for g in groups)]
    kept = _complete(groups, names)
    found: dict[str, Any] = {}
    for group in groups:
        env = str(group.runs[0].facts["config"][group.kind.task]["kind"])
        runs = found.setdefault(env, {}).setdefault(group.task, {}).setdefault(group.algorithm, {})
        for index, seed in enumerate(group.seeds):
            name = f"seed_{seed}"
            runs[f"{name}_{index}" if name in runs else name] = _run(group, index, names, kept)
    return found


def _complete(groups: Sequence[Group], names: Sequence[str]) -> list[int]:
    """Points at which every run has each of these metrics."""
    there = [np.isfinite(group.metrics[name]).all(0) for group in groups for name in names]
    return [int(point) for point in np.flatnonzero(np.logical_and.reduce(there))] if there else []


def _run(group: Group, index: int, names: Sequence[str], kept: Sequence[int]) -> dict[str, Any]:
    steps: dict[str, Any] = {
        f"step_{number}": {
            "step_count": round(float(group.used[point])),
            **{name: [float(group.metrics[name][index, point])] for name in names},
        }
        for number, point in enumerate(kept)
    }
    last = {name: [float(values[index])] for name, values in group.last.items() if np.isfinite(values[index])}
    return {**steps, "absolute_metrics": last}
