"""Training runs in the form that marl-eval reads: environment, task, algorithm, seed, step (arXiv 2209.10485)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coterie.experiments.learning_curves import Group


def as_marl_eval(groups: Sequence[Group]) -> dict[str, Any]:
    """The JSON of some groups, which `learning_curves` has cut to equal lengths, as marl-eval wants them.

    Each step holds one value per metric, the mean over the episodes that ended there; steps before every run had one
    are left out. `absolute_metrics` are means over the last tenth of the training.
    """
    kept = _complete(groups)
    found: dict[str, Any] = {}
    for group in groups:
        env = str(group.runs[0].facts["config"]["env"]["kind"])
        runs = found.setdefault(env, {}).setdefault(group.task, {}).setdefault(group.algorithm, {})
        for index, seed in enumerate(group.seeds):
            name = f"seed_{seed}"
            runs[f"{name}_{index}" if name in runs else name] = _run(group, index, kept)
    return found


def _complete(groups: Sequence[Group]) -> list[int]:
    """Points at which every run has every metric."""
    there = [np.isfinite(values).all(0) for group in groups for values in group.metrics.values()]
    return [int(point) for point in np.flatnonzero(np.logical_and.reduce(there))] if there else []


def _run(group: Group, index: int, kept: Sequence[int]) -> dict[str, Any]:
    steps: dict[str, Any] = {
        f"step_{number}": {
            "step_count": round(float(group.steps[point])),
            **{name: [float(values[index, point])] for name, values in group.metrics.items()},
        }
        for number, point in enumerate(kept)
    }
    last = {name: [float(values[index])] for name, values in group.last.items() if np.isfinite(values[index])}
    return {**steps, "absolute_metrics": last}
