"""Sittings: a task as it is worked once in a training, in one iteration, by one of several copies of the society.

Turns are keyed by their task, and so is what is drawn for them. A sitting is a task of its own, so that an agent that
meets a question again draws anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, islice

from coterie import rng
from coterie.errors import ConfigError
from coterie.types import Grader, Messages, ModelGrader, Task, Verdict


def sit(task: Task, iteration: int, copy: int) -> Task:
    """The task of one sitting; `iteration` counts from 1, `copy` from 0."""
    return replace(task, id=f"{task.id}@{iteration:06d}.{copy}")


def task_of(sitting: str) -> str:
    """The id of the task that was worked."""
    return sitting.rpartition("@")[0]


def iteration_of(sitting: str) -> int:
    """In which iteration it was worked."""
    return int(group_of(sitting).rpartition("@")[2])


def group_of(sitting: str) -> str:
    """What the copies of a task in one iteration have in common."""
    return sitting.rpartition(".")[0]


def split_tasks(tasks: Sequence[Task], held_out: int) -> tuple[Sequence[Task], Sequence[Task]]:
    """The tasks that are trained on, and the last `held_out`, which are kept for evaluation.

    Raises:
        ConfigError: there would be nothing to train on.
    """
    if held_out >= len(tasks):
        raise ConfigError(
            f"{held_out} of {len(tasks)} tasks are held out, which leaves none to train on",
            where="learning.held_out", remedy="raise the benchmark's limit, or hold fewer out",
        )  # fmt: skip
    return tasks[: len(tasks) - held_out], tasks[len(tasks) - held_out :]


def draw(tasks: Sequence[Task], iteration: int, size: int, copies: int, seed: int) -> list[Task]:
    """The sittings of an iteration: `size` tasks, each `copies` times.

    The tasks are gone through in epochs, each in an order of its own; an iteration goes on where the last one ended.
    """
    begin = (iteration - 1) * size
    epochs = count(begin // len(tasks))
    order = (int(i) for epoch in epochs for i in rng.stream(seed, "sittings", epoch).permutation(len(tasks)))
    chosen = islice(order, begin % len(tasks), begin % len(tasks) + size)
    # A small benchmark may come round more than once in an iteration: then there are more copies.
    seen: dict[int, int] = {}
    found = []
    for index in chosen:
        first = seen.get(index, 0)
        seen[index] = first + copies
        found += [sit(tasks[index], iteration, copy) for copy in range(first, first + copies)]
    return found


class SittingGrader:
    """Judges sittings as the grader judges their tasks; `read` gives the task of a sitting, both by their ids."""

    def __init__(self, grader: Grader, read: Callable[[str], str] = task_of) -> None:
        self._grader, self._task_of = grader, read

    def grade(self, task_id: str, answer: str | None) -> Verdict:
        """As `types.Grader.grade`."""
        return self._grader.grade(self._task_of(task_id), answer)


class ModelSittingGrader(SittingGrader):
    """The same where a model judges."""

    def __init__(self, grader: ModelGrader, read: Callable[[str], str] = task_of) -> None:
        super().__init__(grader, read)
        self._model = grader

    @property
    def judge(self) -> str:
        """As `types.ModelGrader.judge`."""
        return self._model.judge

    def judge_prompt(self, task_id: str, answer: str) -> Messages:
        """As `types.ModelGrader.judge_prompt`."""
        return self._model.judge_prompt(self._task_of(task_id), answer)

    def read_judgement(self, answer: str, said: str) -> Verdict:
        """As `types.ModelGrader.read_judgement`."""
        return self._model.read_judgement(answer, said)


def grader_of(grader: Grader, read: Callable[[str], str] = task_of) -> SittingGrader:
    """A grader for sittings, or for whatever else `read` gives the task of."""
    return ModelSittingGrader(grader, read) if isinstance(grader, ModelGrader) else SittingGrader(grader, read)
