"""Configs with the fields, the defaults and the words of plain dataclasses, so that these stand in one place only."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, Field, create_model

from coterie.config.base import Config

Part = TypeVar("Part")
Base = TypeVar("Base", bound=Config)
_hints = cache(get_type_hints)  # which reads each annotation anew: for a swarm, a millisecond
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def mirrors(part: type) -> Callable[[type[Base]], type[Base]]:
    """Decorates a config: it gets the fields of a dataclass besides its own; dataclasses among them are mirrored too.

    Types are checked as in every config; ranges are left to the dataclass, which `restore` makes. A part that may be
    None takes the word `off` for it. What the dataclass's docstring says under `Attributes:` describes the fields.
    """
    hints, words = _hints(part), _descriptions(part)
    fields = {
        field.name: (_type(hints[field.name]), Field(description=words.get(field.name), **_default(field)))
        for field in dataclasses.fields(part)
    }

    def decorate(base: type[Base]) -> type[Base]:
        made: type[Base] = create_model(  # type: ignore[call-overload]
            base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields
        )
        return made

    return decorate


@cache
def _mirror(part: type) -> type[Config]:
    """A config that is nothing but the mirror of a dataclass."""
    summary = (inspect.getdoc(part) or "").partition("\n\n")[0]
    return mirrors(part)(type(f"{part.__name__}Config", (Config,), {"__module__": part.__module__, "__doc__": summary}))


def restore(part: type[Part], config: BaseModel) -> Part:
    """The dataclass that a mirroring config stands for, with all that it has to say against its values."""
    return part(**arguments(part, config))


def arguments(part: type, config: BaseModel) -> dict[str, Any]:
    """What a dataclass is made of: the config's fields, those that mirror a dataclass restored."""
    hints = _hints(part)
    return {
        field.name: restore(_part(hints[field.name]), value) if isinstance(value, BaseModel) else value
        for field in dataclasses.fields(part)
        for value in (getattr(config, field.name),)
    }


@cache
def parts(part: type) -> Mapping[str, type]:
    """The fields of a dataclass that hold dataclasses, and which."""
    hints = _hints(part)
    named = ((field.name, _find_part(hints[field.name])) for field in dataclasses.fields(part))
    return {name: found for name, found in named if found is not None}


def _find_part(hint: Any) -> type | None:
    return next((o for o in _options(hint) if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def _part(hint: Any) -> Any:
    found = _find_part(hint)
    assert found is not None
    return found


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _type(hint: Any) -> Any:
    """The hint with mirrored dataclasses in it."""
    found = _find_part(hint)
    if found is None:
        return hint
    config: Any = _mirror(found)
    is_optional = type(None) in _options(hint)
    if not is_optional:
        return config
    return Annotated[config | None, BeforeValidator(_switch, json_schema_input_type=config | Literal["off"] | None)]


def _switch(value: Any) -> Any:
    return None if value == "off" else value


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if default is dataclasses.MISSING:
        return {}
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        values = {inner.name: getattr(default, inner.name) for inner in dataclasses.fields(default)}
        return {"default": _mirror(type(default))(**values)}
    return {"default": default}


def _descriptions(part: type) -> dict[str, str]:
    _, _, listed = (inspect.getdoc(part) or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(listed)}
