"""Which tasks an iteration of a training works, and how often."""

from collections import Counter

import pytest

from coterie.errors import ConfigError
from coterie.orchestration.sittings import draw, iteration_of, split_tasks, task_of
from coterie.types import Task

TASKS = [Task(f"t-{number}", "?") for number in range(5)]


def worked(iteration, size, copies=1, seed=0):
    return [sitting.id for sitting in draw(TASKS, iteration, size, copies, seed)]


def test_every_epoch_has_each_task_once_in_an_order_of_its_own():
    found = [task_of(one) for iteration in range(1, 11) for one in worked(iteration, 2)]
    epochs = [found[begin : begin + 5] for begin in range(0, 20, 5)]
    assert all(sorted(epoch) == [task.id for task in TASKS] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1 and worked(3, 2) == worked(3, 2) != worked(3, 2, seed=1)


def test_a_task_sits_as_often_as_it_has_copies_and_knows_its_iteration():
    found = worked(3, 2, copies=4)
    assert len(set(found)) == 8 and {iteration_of(one) for one in found} == {3}
    assert sorted(Counter(map(task_of, found)).values()) == [4, 4]


def test_tasks_that_come_round_again_in_an_iteration_sit_anew():
    found = worked(1, 12, copies=2)
    assert len(set(found)) == 24
    assert sorted(Counter(map(task_of, found)).values()) == [4, 4, 4, 6, 6]


def test_the_last_tasks_are_held_out_and_not_all_of_them():
    trained, kept = split_tasks(TASKS, 2)
    assert [task.id for task in (*trained, *kept)] == [task.id for task in TASKS] and len(kept) == 2
    assert split_tasks(TASKS, 0) == (TASKS, [])
    with pytest.raises(ConfigError, match="5 of 5 tasks are held out"):
        split_tasks(TASKS, 5)
