"""Questions of the user's own: any file of rows, or any dataset on the hub, with its columns named in YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from coterie.envs import answers, latex
from coterie.envs.benchmarks.base import Item, ItemBenchmark, multiple_choice
from coterie.envs.benchmarks.config import CustomConfig
from coterie.envs.benchmarks.hub import Hub
from coterie.envs.benchmarks.rows import Row, find, items, load_hub, read
from coterie.errors import ConfigError


class Custom(ItemBenchmark):
    """One question for each row."""

    def __init__(self, config: CustomConfig, seed: int, base: Path) -> None:
        self._config = config
        rows = _rows(config, base)
        _check_columns(config, rows[0])
        super().__init__("custom", items(rows, self._item, config, "custom"))

    def judge(self, item: Item, answer: str) -> bool:
        """Equal in canonical form, or (`grader: math`) for math-verify in a process of its own."""
        return super().judge(item, answer) or (self._config.grader == "math" and latex.agree(item.gold, answer))

    def _item(self, row: Row) -> Item:
        fields, kind, example = self._config.fields, self._config.answer_type, self._config.example
        question, name = row.text(fields.question).strip(), _scalar(row, fields.id) if fields.id else ""
        choices = _choices(row, fields.choices) if fields.choices else ()
        if kind == "choice":
            made = multiple_choice(question, choices, _position(row, fields.answer, choices), example)
            return Item(made.question, made.gold, kind, made.choices, example, id=name)
        gold = row.number(fields.answer) if kind == "number" else _scalar(row, fields.answer)
        if answers.canonical(gold, kind, choices) is None:
            raise row.refuse(f"`{fields.answer}` is no {kind}")
        return Item(question, gold, kind, choices, example, id=name)


def _rows(config: CustomConfig, base: Path) -> list[Row]:
    if config.path is not None:
        return read(find(base / config.path, "rows.jsonl"))
    assert config.hub is not None, "the config sees to this"
    hub = config.hub
    rows = load_hub(Hub(hub.id, hub.revision, hub.split, hub.config), "a file of rows")
    if not rows:
        raise ConfigError(f"the split {hub.split} of {hub.id} has no rows", where="benchmark.hub.split")
    return rows


def _check_columns(config: CustomConfig, row: Row) -> None:
    columns = list(row.fields)
    for field, column in config.fields.model_dump(exclude_none=True).items():
        if column not in columns:
            close = difflib.get_close_matches(column, columns, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"the rows have no column {column!r}", where=f"benchmark.fields.{field}",
                              remedy=f"{hint}columns: {', '.join(columns)}")  # fmt: skip


def _scalar(row: Row, column: str) -> str:
    """A text or number as text."""
    value = row.fields.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return row.text(column).strip()


def _choices(row: Row, column: str) -> tuple[str, ...]:
    choices = tuple(choice.strip() for choice in row.texts(column))
    if not 2 <= len(choices) <= len(answers.LETTERS):
        raise row.refuse(f"`{column}` holds {len(choices)} options, not 2 to {len(answers.LETTERS)}")
    return choices


def _position(row: Row, column: str, choices: tuple[str, ...]) -> int:
    """Where in `choices` the gold answer stands, whichever way the row says it."""
    value: Any = row.fields.get(column)
    if isinstance(value, int) and not isinstance(value, bool):
        found = {value} & set(range(len(choices)))
    else:
        text = row.text(column).strip()
        letter = text.strip("().")
        found = {i for i, choice in enumerate(choices) if choice == text}
        found |= {i for i in range(len(choices)) if letter == answers.LETTERS[i]}
    if len(found) != 1:
        what = "is none of the options" if not found else "may mean more than one of the options"
        raise row.refuse(f"`{column}` {what}")
    return found.pop()
