"""A mechanism of the literature as a person names it: its word, and options that differ from the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from coterie import registry
from coterie.config.base import Config
from coterie.config.mirror import mirrors, restore
from coterie.config.problems import nearest
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.attention.mechanisms.base import Options


def choose(kind: str, options: Mapping[str, Any]) -> Options:
    """The mechanism registered as `kind`, with its options checked as fields of an experiment file are.

    Raises:
        ConfigError: There is no such mechanism or option, or a value does not fit it.
    """
    known = registry.names("attention")
    if kind not in known:
        remedy = _instead(kind, known, "`coterie ls attention` shows all")
        raise ConfigError(f"there is no attention {kind!r}", remedy=remedy)
    mechanism: type[Options] = registry.impl("attention", kind)
    config = mirrors(mechanism)(type(f"{mechanism.__name__}Config", (Config,), {"__module__": __name__}))
    try:
        return restore(mechanism, config.model_validate(options))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            fields = list(config.model_fields)
            listed = f"its options: {', '.join(fields)}" if fields else "it has no options"
            raise ConfigError(f"{kind} has no option {name!r}", remedy=_instead(name, fields, listed)) from None
        raise ConfigError(f"{name} of {kind} is {options[name]!r}: {first['msg']}") from None
    except ValueError as wrong:
        raise ConfigError(str(wrong)) from None


def _instead(name: str, known: list[str], listed: str) -> str:
    meant = nearest(name, known)
    return f"did you mean {meant}? {listed}" if meant else listed
