"""Conformance of a benchmark: what every implementation must keep, so that protocols and reports may rely on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from coterie.envs import answers
from coterie.envs.benchmarks.base import Benchmark
from coterie.types import Grader, Task

# A shorter answer ("Yes", "x + 1") may stand in a question by right, or in an example by chance.
_TELLING = 12


def check_benchmark(build: Callable[[], Benchmark], gold: Callable[[Task], str]) -> None:
    """Assert the contract of `Benchmark`.

    Args:
        build: Constructs the benchmark; called twice.
        gold: A right answer to a task, from a source of its own (solve the question, or read the file).

    Raises:
        AssertionError: says which promise is broken, by which task.
    """
    first, second = build(), build()
    assert isinstance(first, Benchmark), "lacks one of: tasks, grader, fingerprint"
    tasks = first.tasks()
    assert tasks, "has no tasks"
    assert tasks == second.tasks(), "two constructions give different tasks"
    assert first.fingerprint() == second.fingerprint(), "two constructions give different fingerprints"
    ids = [task.id for task in tasks]
    assert len(set(ids)) == len(ids), "task ids are not unique"
    assert ids == sorted(ids), "task ids do not sort in the order of the tasks"
    grader = first.grader()
    assert _refuses_unknown(grader), "an unknown task id is no KeyError"
    for task in tasks:
        _check_task(task, gold(task), grader)


def _refuses_unknown(grader: Grader) -> bool:
    try:
        grader.grade("no such task", "1")
    except KeyError:
        return True
    return False


def _check_task(task: Task, gold: str, grader: Grader) -> None:
    assert type(task) is Task, f"{task.id}: a subclass of Task could carry the gold answer"
    assert task.answer_type in answers.ANSWER_TYPES, f"{task.id}: unknown answer type {task.answer_type!r}"
    assert task.question not in task.example, f"{task.id}: the example is the task itself"
    fields = [field for f in dataclasses.fields(task) if f.name != "choices" for field in _texts(getattr(task, f.name))]
    assert gold not in fields, f"{task.id}: a field of the task is the gold answer"
    if task.answer_type in ("text", "exact", "math") and len(gold) >= _TELLING:
        leaks = [field for field in fields if gold.casefold() in field.casefold()]
        assert not leaks, f"{task.id}: a field of the task holds the gold answer"
    right = answers.canonical(gold, task.answer_type, task.choices)
    assert right is not None, f"{task.id}: its gold answer is not read as {task.answer_type}"
    reply = f"Answer:\n{gold}" if "\n" in gold else f"Answer: {gold}"
    assert answers.parse(reply, task.answer_type, task.choices) == right, f"{task.id}: its gold answer is not parsed"
    assert grader.grade(task.id, right).correct, f"{task.id}: the grader refuses the gold answer"
    assert not grader.grade(task.id, None).correct, f"{task.id}: an unparsed reply is judged right"
    for mutant in _mutants(right, task):
        verdict = grader.grade(task.id, mutant)
        assert verdict.answer == mutant, f"{task.id}: the verdict is on another answer"
        assert not verdict.correct, f"{task.id}: the grader accepts {mutant!r}"


def _texts(field: str | tuple[Any, ...]) -> Iterator[str]:
    """The text of a field of a task, or all texts in it."""
    if isinstance(field, str):
        yield field
    else:
        for part in field:
            yield from _texts(part)


def _mutants(right: str, task: Task) -> Iterator[str]:
    if task.answer_type == "number":
        wrong = (f"1{right.lstrip('-')}", f"7{right.lstrip('-')}", f"-{right}" if right[0] != "-" else right[1:])
        yield from (m for m in wrong if answers.canonical(m, "number") != right)
    elif task.answer_type == "choice":
        yield from (letter for letter in "ABCDE"[: len(task.choices) or 5] if letter != right)
    elif task.answer_type == "math":
        yield from (f"{right}+1", f"{right},{right}+7")
    else:
        yield from (f"not {right}", f"{right} {right}", "?")
