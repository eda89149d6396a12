"""Training runs side by side: the last tenth of each, with intervals over seeds, and their learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from coterie.errors import ConfigError
from coterie.experiments.learning_curves import Group, last_values, learning_curves
from coterie.experiments.settings import sort_facts
from coterie.experiments.training_record import TrainingRecord, is_of_world

Row = dict[str, Any]


def check_same_kind(facts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are training runs.

    Raises:
        ConfigError: some are, and some are not.
    """
    are_trainings = [is_of_world(found) for found in facts]
    if any(are_trainings) and not all(are_trainings):
        name = facts[are_trainings.index(True)]["config"]["name"]
        raise ConfigError(
            f"{name} is a training in a world, others are runs of societies",
            remedy="compare trainings with trainings, societies with societies",
        )
    return all(are_trainings)


def contrast_trainings(records: Sequence[TrainingRecord]) -> tuple[Row, list[Group]]:
    """What several trainings show beside each other, JSON-able, and the curves to be drawn.

    Runs that differ in nothing but their seed are repeats of one setting. `rows` hold `label`, `runs`, `seeds`,
    `agent_steps` and `metrics`: value, low and high over seeds, each run by the last tenth of the steps that all have.

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
    digests = [{"seed": record.facts["config"]["seed"], "digest": record.digest} for record in records]
    return {"rows": rows, "runs": digests, "differences": differing}, groups
