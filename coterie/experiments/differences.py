"""Where several nested values are not the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def differences(path: str, values: Sequence[Any]) -> Iterator[Row]:
    """Rows of `path` and `values` (None where one lacks it): every leaf that is not the same in all of `values`."""
    parts = [{} if value is None else value for value in values]
    if any(parts) and all(isinstance(part, dict) for part in parts):
        for key in sorted({key for part in parts for key in part}):
            yield from differences(f"{path}.{key}" if path else str(key), [part.get(key) for part in parts])
    elif all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        for i, items in enumerate(zip(*values, strict=True)):
            yield from differences(f"{path}[{i}]", items)
    elif any(value != values[0] for value in values):
        yield {"path": path, "values": list(values)}


def within_kinds(rows: Sequence[Row]) -> list[Row]:
    """Without the fields of parts that are not even of one kind, unless parts of the same kind differ in them."""
    kinds = {row["path"]: row["values"] for row in rows if row["path"].endswith(".kind")}
    return [row for row in rows if all(tells(row["values"], kind) for kind in _above(row["path"], kinds))]


def _above(path: str, kinds: Mapping[str, Sequence[Any]]) -> list[Sequence[Any]]:
    """The kinds of the parts to which a field belongs, where these are not the same."""
    return [values for other, values in kinds.items() if other != path and path.startswith(other.removesuffix("kind"))]


def tells(values: Sequence[Any], kinds: Sequence[Any]) -> bool:
    """Whether parts of the same kind differ in these values."""
    pairs = list(zip(kinds, values, strict=True))
    return any(kind == other and value != another for kind, value in pairs for other, another in pairs)
