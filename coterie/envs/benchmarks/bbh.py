"""BIG-Bench Hard: 27 tasks of BIG-bench (Suzgun et al., arXiv 2210.09261; MIT licence)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from coterie.envs import answers
from coterie.envs.benchmarks.base import Item, ItemBenchmark, refuse_unknown
from coterie.envs.benchmarks.bbh_tasks import TASKS, TaskForm
from coterie.envs.benchmarks.config import BbhConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, find, load_hub, pick, read

_REVISION = "982bb89fd79532a8ac676a61fc42eb1aeec63f99"
_OPTION = re.compile(r"^\(([A-Z])\) ?(.*)$", re.MULTILINE)


class Bbh(ItemBenchmark):
    """The rows of one task, or of all in alphabetical order; only `input` and `target` are read, so no canary is."""

    def __init__(self, config: BbhConfig, seed: int, base: Path) -> None:
        found = [_item(row, name) for name in _choose(config.task) for row in _rows(name, config, base)]
        super().__init__(f"bbh_{config.task}", pick(found, config, "bbh", config.task))

    def judge(self, item: Item, answer: str) -> bool:
        """Lists of words and of brackets are compared item by item, however they are separated."""
        glue = TASKS[item.id].glue
        if glue is None:
            return super().judge(item, answer)
        return _join(glue, answer) == _join(glue, item.gold)


def _join(glue: str, text: str) -> str:
    return glue.join(filter(None, re.split(r"[\s,;]+", text.casefold())))


def _choose(task: str) -> list[str]:
    refuse_unknown("BIG-Bench Hard has no task", task, ["all", *TASKS], "benchmark.task")
    return list(TASKS) if task == "all" else [task]


def _rows(name: str, config: BbhConfig, base: Path) -> list[Row]:
    if config.path is None:
        return load_hub(Hub("lukaemon/bbh", _REVISION, "test", name), f"a folder with {name}.json")
    return read(find(base / config.path, f"{name}.json"))


def _item(row: Row, name: str) -> Item:
    form, question, target = TASKS[name], row.text("input").strip(), row.text("target").strip()
    if form.answer_type == "choice":
        return _choice(row, question, target, form, name)
    if answers.canonical(target, form.answer_type, form.labels) is None:
        raise row.refuse(f"`target` is no answer of {name}: {' or '.join(form.labels) or form.answer_type}")
    return Item(question, target, form.answer_type, form.labels, form.example, id=name)


def _choice(row: Row, question: str, target: str, form: TaskForm, name: str) -> Item:
    found = _OPTION.findall(question)
    letters, options = [letter for letter, _ in found], tuple(option.strip() for _, option in found)
    if not found or letters != list(answers.LETTERS[: len(letters)]):
        raise row.refuse("`input` has no options (A), (B), ... below each other")
    golds = [target.strip("()")] if target.strip("()") in letters else list(_pieces(target, letters, options))
    if not golds:
        raise row.refuse("`target` is none of the options")
    return Item(question, golds[0], "choice", options, form.example, tuple(golds[1:]), id=name)


def _pieces(target: str, letters: list[str], options: tuple[str, ...]) -> Iterator[str]:
    """The letters of neighbouring options that make up the target.

    In three published rows the options were cut at their commas, and the target is the text of a whole one. The reader
    of such a question cannot know which piece is meant: each of them is right.
    """
    for start in range(len(options)):
        for end in range(start + 1, len(options) + 1):
            if ", ".join(options[start:end]) == target:
                yield from letters[start:end]
                return
