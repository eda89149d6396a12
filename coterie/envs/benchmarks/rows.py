"""Rows of benchmark data, from a file or from the hub at a pinned revision; every row knows where it stands."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coterie import rng
from coterie.envs import answers
from coterie.envs.benchmarks.config import RowsConfig
from coterie.envs.benchmarks.hub import Hub, fetch
from coterie.errors import ConfigError, EnvironmentMissing

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Row:
    """One row. Its readers raise a `ConfigError` that names the place, what was expected, and the columns there are."""

    where: str
    fields: Mapping[str, Any] = field(repr=False)

    def text(self, column: str) -> str:
        """A text that is not blank."""
        value = self.fields.get(column)
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(f"`{column}` is no text")
        return value

    def number(self, column: str) -> str:
        """A number, or a text that is nothing but one, in canonical form."""
        value = self.fields.get(column)
        text = str(value).replace(",", "") if isinstance(value, str | int | float) and value is not True else ""
        found = answers.canonical(text, "number") if answers.is_number(text) else None
        if found is None:
            raise self.refuse(f"`{column}` is no number")
        return found

    def texts(self, column: str, count: int | None = None) -> tuple[str, ...]:
        """A list of texts, of this length if one is given."""
        value = self.fields.get(column)
        is_list = isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value)
        if not is_list or count not in (None, len(value or ())):
            raise self.refuse(f"`{column}` is no list of {'' if count is None else f'{count} '}texts")
        return tuple(value or ())

    def one_of(self, column: str, known: Sequence[str]) -> str:
        """One of the known texts."""
        value = self.fields.get(column)
        if not isinstance(value, str) or value not in known:
            raise self.refuse(f"`{column}` is none of {', '.join(known)}")
        return value

    def refuse(self, what: str) -> ConfigError:
        """The error to raise about this row."""
        columns = ", ".join(map(str, self.fields))
        return ConfigError(f"a row of the benchmark cannot be used: {what}", where=self.where,
                           remedy=f"mend the row or leave it out (its columns: {columns})")  # fmt: skip


def load(config: RowsConfig, base: Path, file: str, hub: Hub | None = None) -> list[Row]:
    """The rows of `config.path`, a file or a folder that has `file`; without a path those of `hub`.

    Raises:
        ConfigError: nothing there, or not readable as rows.
        EnvironmentMissing: the hub cannot be reached.
    """
    if config.path is None:
        assert hub is not None, "a benchmark without a hub dataset requires `path`"
        return load_hub(hub, f"a file or a folder with {file}")
    return read(find(base / config.path, file))


def find(path: Path, file: str) -> Path:
    """`path` itself if it is a file, else `file` in that folder."""
    found = path / file if path.is_dir() else path
    if not found.is_file():
        raise ConfigError(f"there is no file {found.resolve()}", where="benchmark.path",
                          remedy=f"point `path` at a file, or at a folder with {file}")  # fmt: skip
    return found


def read(file: Path, header: Sequence[str] | None = None) -> list[Row]:
    """The rows of a file: CSV by its name, else a JSON list, an object with the list `examples`, or JSON lines.

    Args:
        file: In UTF-8; `.gz` is unpacked.
        header: Names of the columns of a CSV file whose first line is a row already.
    """
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as cause:
        raise ConfigError(f"cannot read the benchmark's file: {cause}", where=_at(file)) from cause
    is_csv = ".csv" in file.suffixes[-2:]
    rows = list(_csv_rows(text, file, header) if is_csv else _json_rows(text, file))
    if not rows:
        raise ConfigError("the benchmark's file has no rows", where=_at(file))
    return rows


def load_hub(hub: Hub, alternative: str) -> list[Row]:
    """The rows of a dataset on the hub, or in its local cache; `alternative` says what `path` could hold instead.

    Raises:
        EnvironmentMissing: it cannot be loaded.
    """
    try:
        rows = fetch(hub)
    except Exception as cause:
        raise EnvironmentMissing(
            f"cannot load {hub.id} from the hub: {type(cause).__name__}: {cause}", where="benchmark",
            remedy=f"connect to the network, or set `path` to {alternative}, "
            "or use `kind: reasoning_gym`, which needs no network",
        ) from cause  # fmt: skip
    return [Row(f"benchmark: {hub.id}@{hub.revision[:8]}, row {number}", row) for number, row in enumerate(rows, 1)]


def pick(rows: Sequence[_Item], config: RowsConfig, *coordinates: str) -> list[_Item]:
    """The rows that `config` asks for: shuffled by its seed at these coordinates, then cut to its limit."""
    if config.shuffle is not None:
        rows = [rows[i] for i in rng.stream(config.shuffle, *coordinates).permutation(len(rows))]
    return list(rows[: config.limit])


def items(rows: Sequence[Row], make: Callable[[Row], _Item], config: RowsConfig, *coordinates: str) -> list[_Item]:
    """`make` of every row, also of those that are not picked: a damaged file is found out at once; then `pick`."""
    return pick([make(row) for row in rows], config, *coordinates)


def _at(file: Path, place: str = "") -> str:
    return f"benchmark.path: {file}{place}"


def _json_rows(text: str, file: Path) -> Iterator[Row]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and isinstance(whole.get("examples"), list):
        whole = whole["examples"]
    if isinstance(whole, list):
        for number, row in enumerate(whole, 1):
            yield _row(row, _at(file, f", row {number}"))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as cause:
                raise ConfigError(f"not a line of JSON: {cause}", where=_at(file, f":{number}")) from cause
            yield _row(row, _at(file, f":{number}"))


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise ConfigError(f"a row is an object with named columns, not {type(value).__name__}", where=where)
    return Row(where, value)


def _csv_rows(text: str, file: Path, header: Sequence[str] | None) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = list(header or ())
    line = 1
    try:
        for cells in reader:
            if not names:
                names = cells
            elif cells:
                if len(cells) != len(names):
                    raise ConfigError(f"{len(cells)} cells where {len(names)} are expected: {', '.join(names)}",
                                      where=_at(file, f":{line}"))  # fmt: skip
                yield Row(_at(file, f":{line}"), dict(zip(names, cells, strict=True)))
            line = reader.line_num + 1
    except csv.Error as cause:
        raise ConfigError(f"not a line of CSV: {cause}", where=_at(file, f":{line}")) from cause
