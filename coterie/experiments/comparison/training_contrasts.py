"""Trainings side by side: the last tenth of each, with intervals over seeds, and their learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from coterie.errors import ConfigError
from coterie.experiments.comparison.learning_curves import Group, label, last_values, learning_curves
from coterie.experiments.comparison.settings import sort_facts
from coterie.experiments.comparison.trainings import WORLD, Training, kind_of
from coterie.experiments.statistics.aggregates import Floats, improvement, permutation_test
from coterie.experiments.statistics.inference import Estimate, holm

Row = dict[str, Any]


def check_same_kind(facts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are trainings.

    Raises:
        ConfigError: They are not all of one kind.
    """
    kinds = [kind_of(found) for found in facts]
    if other := next((index for index, kind in enumerate(kinds) if kind != kinds[0]), None):
        said = [
            f"{facts[i]['config']['name']} is {kind.name if (kind := kinds[i]) else 'a society that is not trained'}"
            for i in (0, other)
        ]
        raise ConfigError(
            f"runs of different kinds: {', '.join(said)}",
            remedy="compare each kind by itself; what a society was taught tell the runs that `coterie eval` left in "
            "RUN/evaluations",
        )
    return bool(kinds) and kinds[0] is not None


def check_same_worlds(runs: Sequence[Training]) -> None:
    """Refuse trainings of which no two were in one world: rewards of different worlds say nothing of each other.

    Raises:
        ConfigError: They are such.
    """
    worlds = [(env["kind"], env.get("id")) for run in runs if run.kind is WORLD for env in [run.facts["config"]["env"]]]
    if len(worlds) > 1 and len(set(worlds)) == len(worlds):
        said = [f"{run.facts['config']['name']} in {id or kind}" for run, (kind, id) in zip(runs, worlds, strict=True)]
        raise ConfigError(
            f"the runs were trained in different worlds, whose rewards do not compare: {', '.join(said)}",
            remedy="compare runs of one world; each run's own report tells how it did",
        )


def contrast_trainings(runs: Sequence[Training]) -> tuple[Row, list[Group]]:
    """What several trainings show beside each other, JSON-able, and the curves to be drawn.

    Runs that differ in nothing but their seed are repeats of one setting. All numbers are of the last tenth of the
    `amount`, of `unit`, that all runs have used: `rows` hold `label`, `runs`, `seeds` and `metrics` (value, low and
    high over seeds) of each setting, `runs` those of each run and what it taught (`held_out`), and `pairs` how probable
    it is that a run of one setting is above one of another, with the p-value of a permutation test, and that corrected
    for all pairs.

    Args:
        runs: Of one kind, each with at least one iteration.

    Raises:
        ConfigError: A run has no iteration yet.
    """
    if waiting := next((run for run in runs if not len(run.used)), None):
        name = waiting.facts["config"]["name"]
        raise ConfigError(f"{name} has no iteration yet", remedy="go on with it: `coterie resume`")
    groups = learning_curves(runs)
    _, differing = sort_facts([run.facts for run in runs], pool=True)
    rows = [{**row, "metrics": {n: asdict(e) for n, e in row["metrics"].items()}} for row in last_values(groups)]
    for row, group in zip(rows, groups, strict=False):
        row["seeds"] = group.seeds
    pairs = list(_pairs(groups))
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return {
        "amount": min(run.amount for run in runs), "unit": runs[0].kind.unit, "rows": rows,
        "runs": [_run(groups, group, index) for group in groups for index in range(len(group.runs))],
        "pairs": pairs, "differences": differing,
    }, groups  # fmt: skip


def _run(groups: Sequence[Group], group: Group, index: int) -> Row:
    run = group.runs[index]
    return {
        "label": label(groups, group), "seed": run.seed, "name": run.name or run.facts["config"]["name"],
        "digest": run.digest, "amount": run.amount, "done": run.done,
        "metrics": {metric: float(values[index]) for metric, values in group.last.items()},
        "held_out": list(run.held_out),
    }  # fmt: skip


def _pairs(groups: Sequence[Group]) -> Iterator[Row]:
    """Every two algorithms, the better first, over the tasks that both were trained in."""
    by_name: dict[str, dict[str, Group]] = {}
    for group in groups:
        by_name.setdefault(group.algorithm, {})[group.task] = group
    metric = next((name for name in groups[0].kind.scores if name in groups[0].last), None)
    for (first, ours), (second, theirs) in combinations(by_name.items(), 2):
        tasks = [task for task in ours if task in theirs and metric is not None]
        left, right = ([side[task].last[str(metric)] for task in tasks] for side in (ours, theirs))
        if not tasks or not all(np.isfinite(values).all() for values in (*left, *right)):
            continue
        found = improvement(left, right)
        if found.value < 0.5:
            first, second = second, first
            found = Estimate(1 - found.value, 1 - found.high, 1 - found.low)
        tests = {"p": permutation_test(left, right), "least_p": _least_p(left, right)}
        yield {"metric": metric, "label": first, "against": second, **asdict(found), **tests}


def _least_p(ours: Sequence[Floats], theirs: Sequence[Floats]) -> float:
    """The p-value where every run of one is above every run of the other: no test of so many runs gives less."""
    return min(2 / math.prod(math.comb(len(a) + len(b), len(a)) for a, b in zip(ours, theirs, strict=True)), 1.0)
