"""Some of the tasks of another benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coterie.config.load import loads
from coterie.config.problems import InvalidConfig
from coterie.envs.benchmarks.subset import Subset
from coterie.testing.sums import Sums


def subset(**fields: Any) -> Any:
    loaded = loads({
        "name": "part", "policy": {"model": "none", "engine": "scripted"}, "seats": [{"name": "a"}],
        "protocol": "single", "baselines": [],
        "benchmark": {"kind": "subset", "of": {"kind": "sums", "limit": 6}, **fields},
    })  # fmt: skip
    return loaded.config.benchmark  # type: ignore[union-attr]


def test_the_tasks_left_keep_their_ids_and_their_grader() -> None:
    config = subset(skip=2, limit=3)
    part, whole = Subset(config, 1, Path()), Sums(config.of, 1, Path())
    assert part.tasks() == whole.tasks()[2:5]
    task = part.tasks()[0]
    right = str(sum(map(int, task.question.removeprefix("What is ").rstrip("?").split(" + "))))
    assert part.grader().grade(task.id, right).correct


def test_other_tasks_are_another_benchmark() -> None:
    prints = {Subset(subset(skip=skip), 1, Path()).fingerprint() for skip in (0, 1, 1, 2)}
    assert len(prints) == 3


def test_a_subset_of_nothing_and_a_wrong_whole_are_told_at_their_place() -> None:
    with pytest.raises(InvalidConfig, match=r"benchmark\.skip"):
        subset(skip=6)
    with pytest.raises(InvalidConfig, match=r"benchmark\.of\.task .*chain_sum"):
        subset(of={"kind": "reasoning_gym", "task": "chain_smu"})
