"""What a benchmark is, and the base class that most of them are a few lines on top of."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from coterie.envs import answers
from coterie.errors import ConfigError, GradingTimeout
from coterie.types import Grader, Task, Verdict


@runtime_checkable
class Benchmark(Protocol):
    """A fixed list of tasks and the grader that knows their gold answers.

    An implementation is constructed as `(config, seed, base)`: its own config, the experiment's seed, and the folder
    that relative paths in the config start from. Constructing it twice with the same arguments, in any process, gives
    the same tasks. No task holds a gold answer, and no `repr` shows one.

    The constructor refuses parameters by a ConfigError whose `where` is their path (`benchmark.params.size`). Before a
    run, and by `coterie validate`, an implementation is constructed to find these errors, unless its config has a
    `path` that is null (it reads from a hub then). Where constructing takes long, a class method
    `check(config, seed, base)` stands in for it.
    """

    def tasks(self) -> list[Task]:
        """All tasks in order; their ids are unique and sort in this order."""
        ...

    def grader(self) -> Grader:
        """The only way to the gold answers."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 (hex) over tasks and gold answers: two benchmarks that share it ask and accept the same."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold answer, as a benchmark is built from. `gold` may be empty where only `judge` decides.

    `answer_type`, `choices`, `example`, `follow_ups` and `features` are those of `types.Task`. `example` must not
    depend on `gold`. `also` are further right answers. `id`, if there is one, ends the task's id; it need not be
    unique.
    """

    question: str
    gold: str = field(repr=False)
    answer_type: str = "number"
    choices: tuple[str, ...] = ()
    example: str = ""
    also: tuple[str, ...] = field(default=(), repr=False)
    id: str = ""
    follow_ups: tuple[str, ...] = ()
    features: tuple[tuple[str, str], ...] = ()


def refuse_unknown(what: str, name: str, known: Iterable[str], where: str) -> None:
    """Refuse a name that is none of the known ones, with those close to it, else all; `what` says what there is not.

    Raises:
        ConfigError: it is none of them.
    """
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}"
        raise ConfigError(f"{what} {name!r}", where=where, remedy=hint)


def multiple_choice(question: str, options: Sequence[str], gold: int, example: str = "") -> Item:
    """An item that shows its options below the question as (A), (B), ...; `gold` is a position in them."""
    shown = [f"({letter}) {option}" for letter, option in zip(answers.LETTERS, options, strict=False)]
    return Item("\n".join([question, *shown]), answers.LETTERS[gold], "choice", tuple(options), example)


class ItemBenchmark:
    """A benchmark from a list of items. Subclasses pass the list, and override `judge` if equality is not enough.

    Args:
        name: First part of every task id; letters, digits, `_`, `.`.
        items: In order.
    """

    def __init__(self, name: str, items: Sequence[Item]) -> None:
        width = max(4, len(str(len(items) - 1)))
        self._items = {f"{name}-{i:0{width}d}-{_suffix(item)}": item for i, item in enumerate(items)}

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return [
            Task(key, i.question, i.answer_type, i.choices, i.example, i.follow_ups, i.features)
            for key, i in self._items.items()
        ]

    def grader(self) -> Grader:
        """A grader by `judge`."""
        return ItemGrader(self, self._items)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the items."""
        rows = [
            [key, item.question, item.gold, item.answer_type, item.choices, item.example, *item.also, *_talk(item)]
            for key, item in self._items.items()
        ]
        return _digest(json.dumps(rows))

    def judge(self, item: Item, answer: str) -> bool:
        """Whether a parsed answer is right. `answer` is untrusted text; never evaluate it.

        Raises:
            GradingTimeout: by what was to find out; the grader counts the answer as wrong, and says why.
        """
        golds = (item.gold, *item.also)
        return any(answer == answers.canonical(gold, item.answer_type, item.choices) for gold in golds)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._items)} tasks>"


class NumberBenchmark(ItemBenchmark):
    """Items answered by a number: right if it is at most `tolerance` from a gold one."""

    tolerance: ClassVar[float] = 1e-6

    def judge(self, item: Item, answer: str) -> bool:
        """Exact arithmetic on plain numbers; anything else has to equal the gold answer."""
        golds = (item.gold, *item.also)
        return super().judge(item, answer) or any(answers.is_close(gold, answer, self.tolerance) for gold in golds)


class ItemGrader:
    """Grades by a benchmark's `judge`; equal answers to a task are judged once."""

    def __init__(self, benchmark: ItemBenchmark, items: Mapping[str, Item]) -> None:
        self._benchmark, self._items = benchmark, items
        self._known: dict[tuple[str, str], Verdict] = {}

    def grade(self, task_id: str, answer: str | None) -> Verdict:
        """Judge a parsed answer; None is never correct. Raises KeyError for an unknown task."""
        item = self._items[task_id]
        if answer is None:
            return Verdict(None, correct=False)
        place = (task_id, answer)
        if place not in self._known:
            self._known[place] = self._judge(item, answer)
        return self._known[place]

    def _judge(self, item: Item, answer: str) -> Verdict:
        try:
            return Verdict(answer, self._benchmark.judge(item, answer))
        except GradingTimeout:
            return Verdict(answer, correct=False, timed_out=True)

    def __repr__(self) -> str:
        return f"<grader of {len(self._items)} tasks>"


def _talk(item: Item) -> list[tuple[Any, ...]]:
    """What few items have."""
    return [item.follow_ups, item.features] if item.follow_ups or item.features else []


def _suffix(item: Item) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", item.id)[:40] or _digest(item.question)[:8]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
