"""Training runs side by side: the last tenth of each, with intervals over seeds, and their learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from coterie.errors import ConfigError
from coterie.experiments.aggregates import Floats, improvement, permutation_test
from coterie.experiments.learning_curves import Group, label, last_values, learning_curves
from coterie.experiments.settings import sort_facts
from coterie.experiments.statistics import Estimate, holm
from coterie.experiments.training_record import SCORES, TrainingRecord, is_of_world
from coterie.experiments.updates import is_training

Row = dict[str, Any]


def check_same_kind(facts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are training runs.

    Raises:
        ConfigError: some are, and some are not, or some are trainings of societies.
    """
    if name := next((found["config"]["name"] for found in facts if is_training(found)), None):
        raise ConfigError(
            f"{name} is the training of a society, whose episodes are of ever other policies",
            remedy="compare what the policies do on held-out tasks: coterie eval, then name runs in RUN/evaluations",
        )
    are_trainings = [is_of_world(found) for found in facts]
    if any(are_trainings) and not all(are_trainings):
        name = facts[are_trainings.index(True)]["config"]["name"]
        raise ConfigError(
            f"{name} is a training in a world, others are runs of societies",
            remedy="compare trainings with trainings, societies with societies",
        )
    return all(are_trainings)


def contrast_trainings(records: Sequence[TrainingRecord], names: Sequence[str] = ()) -> tuple[Row, list[Group]]:
    """What several trainings show beside each other, JSON-able, and the curves to be drawn.

    Runs that differ in nothing but their seed are repeats of one setting. All numbers are of the last tenth of the
    `agent_steps` that all runs have: `rows` hold `label`, `runs`, `seeds` and `metrics` (value, low and high over
    seeds) of each setting, `runs` those of each run, and `pairs` how probable it is that a run of one setting is above
    one of another, with the p-value of a permutation test, and that corrected for all pairs.

    Args:
        records: Of runs with at least one iteration.
        names: Of their folders; by default those of the experiments.

    Raises:
        ConfigError: a run has not begun, or has no iteration yet.
    """
    for record in records:
        if not record.iterations:
            name = record.facts["config"]["name"] if record.facts else "a run"
            raise ConfigError(f"{name} has no iteration yet", remedy="go on with it: `coterie resume`")
    groups = learning_curves(records)
    _, differing = sort_facts([record.facts for record in records], pool=True)
    rows = [{**row, "metrics": {n: asdict(e) for n, e in row["metrics"].items()}} for row in last_values(groups)]
    for row, group in zip(rows, groups, strict=False):
        row["seeds"] = group.seeds
    called = dict(zip(map(id, records), names or [record.facts["config"]["name"] for record in records], strict=True))
    pairs = list(_pairs(groups))
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
    return {
        "agent_steps": min(record.agent_steps for record in records), "rows": rows,
        "runs": [_run(groups, group, index, called) for group in groups for index in range(len(group.runs))],
        "pairs": pairs, "differences": differing,
    }, groups  # fmt: skip


def _run(groups: Sequence[Group], group: Group, index: int, names: Mapping[int, str]) -> Row:
    run = group.runs[index]
    return {
        "label": label(groups, group), "seed": group.seeds[index], "name": names[id(run)], "digest": run.digest,
        "agent_steps": run.agent_steps, "planned": run.planned,
        "metrics": {metric: float(values[index]) for metric, values in group.last.items()},
    }  # fmt: skip


def _pairs(groups: Sequence[Group]) -> Iterator[Row]:
    """Every two algorithms, the better first, over the tasks that both were trained in."""
    by_name: dict[str, dict[str, Group]] = {}
    for group in groups:
        by_name.setdefault(group.algorithm, {})[group.task] = group
    metric = next((name for name in SCORES if name in groups[0].last), None)
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
