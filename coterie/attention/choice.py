"""A mechanism of the literature as a person names it: its word, and options that differ from the published ones.

Imports torch when a mechanism is first looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, ConfigDict, ValidationError

from coterie import registry
from coterie.config.base import Config, KindConfig
from coterie.config.mirror import mirrors, restore
from coterie.config.problems import Mismatch, nearest
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.attention.mechanisms.base import Options


class MechanismConfig(KindConfig):
    """One of `coterie ls attention`, with its own options beside `kind`; see docs/attention.md."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """What is given beside `kind`."""
        return dict(self.model_extra or {})

    def faults(self) -> Iterator[Mismatch]:
        """An unknown word or option, or a value that does not fit."""
        yield from find_faults(self.kind, self.options)

    def build(self) -> Options:
        """The mechanism.

        Raises:
            ConfigError: The first of `faults`.
        """
        return choose(self.kind, self.options)


Choice = Annotated[MechanismConfig, BeforeValidator(lambda given: {"kind": given} if isinstance(given, str) else given)]
"""Type of a field; the bare word is short for the published options."""


def choose(kind: str, options: Mapping[str, Any]) -> Options:
    """The mechanism registered as `kind`, with its options checked as fields of an experiment file are.

    Raises:
        ConfigError: There is no such mechanism or option, or a value does not fit it.
    """
    for fault in find_faults(kind, options):
        meant = nearest(fault.name, fault.known)
        listed = f"known: {', '.join(fault.known)}" if fault.known else ""
        raise ConfigError(fault.message, remedy=f"did you mean {meant}? {listed}" if meant else listed)
    mechanism = registry.impl("attention", kind)
    chosen: Options = restore(mechanism, _mirror(mechanism).model_validate(options))
    return chosen


def find_faults(kind: str, options: Mapping[str, Any]) -> Iterator[Mismatch]:
    """What is wrong with them, by path."""
    known = tuple(registry.names("attention"))
    if kind not in known:
        yield Mismatch(("kind",), f"there is no attention {kind!r}", kind, known)
        return
    mechanism = registry.impl("attention", kind)
    config = _mirror(mechanism)
    try:
        restore(mechanism, config.model_validate(options))
    except ValidationError as wrong:
        for error in wrong.errors():
            # The option and a place in its tuple; between them stand members of a union, which nobody wrote.
            path = (error["loc"][0], *(step for step in error["loc"][1:] if isinstance(step, int)))
            if error["type"] == "extra_forbidden":
                message = f"{kind} has no option {path[0]!r}" + ("" if config.model_fields else "; it has none at all")
                yield Mismatch(path, message, str(path[0]), tuple(config.model_fields), is_key=True)
            else:
                yield Mismatch(path, f"{path[0]} of {kind} is {error['input']!r}: {error['msg']}")
    except ValueError as wrong:
        yield Mismatch((), str(wrong))


def _mirror(mechanism: type) -> type[Config]:
    return mirrors(mechanism)(type(f"{mechanism.__name__}Config", (Config,), {"__module__": __name__}))
