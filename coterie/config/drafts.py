"""Sections of a file as far as they are right, so that all that can be said of them is said in one go."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.tree import Path

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Draft:
    """The config of a part.

    Attributes:
        config: Values whose types or limits are wrong are absent: to read one is an AttributeError. None: the part is
            unknown, or lacks a value that it cannot do without.
        wrong: The paths of those values.
    """

    config: KindConfig | None
    wrong: frozenset[Path] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is absent."""
        return self.config is not None and not self.wrong


def make_draft(kind: str, section: Any) -> Draft:
    """The draft of a section of a file that holds a registered part, given as plain data."""
    section = {"kind": section} if isinstance(section, str) else section
    name = section.get("kind") if isinstance(section, dict) else None
    if name not in registry.names(kind):
        return Draft(None)
    model: type[KindConfig] = registry.load(registry.get(kind, str(name)).config)
    wrong: set[Path] = set()
    while True:
        try:
            config = model.model_validate(_without(section, wrong))
        except ValidationError as error:
            found = {_written(one["loc"], section) for one in error.errors(include_url=False)} - wrong
            if not found or () in found:
                return Draft(None)
            wrong |= found
        else:
            for path in wrong:
                _forget(config, path)
            return Draft(config, frozenset(wrong))


def tell(rule: Callable[[], Iterable[T]], drafts: Iterable[Draft]) -> Iterator[T]:
    """What a rule finds in drafts: all, or what it finds before it comes to an absent value."""
    try:
        yield from rule()
    except (AttributeError, TypeError):
        if all(draft.is_whole for draft in drafts):
            raise


def _written(loc: tuple[int | str, ...], section: Any) -> Path:
    """Where pydantic's location is in the data: keys that are there. Labels of unions are none, and lists are whole."""
    path: Path = ()
    for step in loc:
        if not isinstance(section, dict):
            break
        if step in section:
            path, section = (*path, step), section[step]
    return path


def _without(section: Any, wrong: Collection[Path], path: Path = ()) -> Any:
    if not isinstance(section, dict):
        return section
    return {
        name: _without(value, wrong, (*path, name)) for name, value in section.items() if (*path, name) not in wrong
    }


def _forget(config: KindConfig, path: Path) -> None:
    """Take out the default that has stepped in."""
    holder: Any = config
    for step in path[:-1]:
        holder = vars(holder).get(str(step)) if isinstance(holder, BaseModel) else None
    if isinstance(holder, BaseModel):
        vars(holder).pop(str(path[-1]), None)
