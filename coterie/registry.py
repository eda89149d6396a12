"""What can be named in a YAML file: a table of strings.

A registration holds import paths, not objects, so listing and validating import nothing heavy. Built-in parts are
registered by `<package>/registrations.py`; plugins by modules named under `imports:` or by entry points of the group
`coterie`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from coterie.errors import ConfigError, PluginError

KINDS = (
    "engine", "model", "embedder", "persona", "protocol", "probe", "reward", "contribution", "advantage",
    "token_credit", "agent_credit", "world_credit", "loss", "benchmark", "env", "policy", "learner", "attention",
    "executor", "tracker",
)  # fmt: skip
_BUILTIN = ("agents", "envs", "rewards", "attention", "orchestration", "experiments", "testing")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered part. `config` and `impl` are `module:attribute` strings; `origin` says who registered it."""

    kind: str
    name: str
    impl: str
    config: str
    summary: str
    origin: str


_entries: dict[tuple[str, str], Entry] = {}
_origin = "coterie"
_builtins_loaded = False


def register(kind: str, name: str, *, impl: str, config: str = "", summary: str) -> None:
    """Make `name` usable wherever a YAML file expects a `kind`.

    Args:
        kind: One of `KINDS`.
        name: The word that stands in YAML.
        impl: `module:attribute` of the implementation, imported on first use.
        config: `module:Class` of a pydantic model, for kinds that take fields.
        summary: One line for `coterie ls`.

    Raises:
        PluginError: unknown kind, malformed path, or a name that another origin has taken.
    """
    if kind not in KINDS:
        raise PluginError(
            f"there is no kind {kind!r} to register", where=_origin, remedy=f"use one of {', '.join(KINDS)}"
        )
    for path in filter(None, (impl, config)):
        if path.count(":") != 1:
            raise PluginError(f"{path!r} is not of the form module:attribute", where=_origin)
    entry = Entry(kind, name, impl, config, summary, _origin)
    known = _entries.get((kind, name))
    if known is not None and known != entry:
        raise PluginError(
            f"the {kind} {name!r} is registered twice",
            where=f"{known.origin} and {_origin}",
            remedy="rename one of them",
        )
    _entries[kind, name] = entry


class origin:
    """Context in which registrations are marked as coming from `name`; an error takes them back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        global _origin
        _load_builtins()
        self.before = dict(_entries)
        self.outer, _origin = _origin, self.name

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        global _origin
        _origin = self.outer
        if kind is not None:
            _entries.clear()
            _entries.update(self.before)


def _load_builtins() -> None:
    global _builtins_loaded
    if _builtins_loaded:
        return
    _builtins_loaded = True
    for package in _BUILTIN:
        module = f"coterie.{package}.registrations"
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            if missing.name not in (module, f"coterie.{package}"):
                raise


def entries(kind: str) -> list[Entry]:
    """All registered parts of one kind, by name."""
    _load_builtins()
    return sorted((e for e in _entries.values() if e.kind == kind), key=lambda e: e.name)


def names(kind: str) -> list[str]:
    """The names of all registered parts of one kind."""
    return [entry.name for entry in entries(kind)]


def get(kind: str, name: str) -> Entry:
    """The entry of that name.

    Raises:
        ConfigError: no such name; lists the known ones.
    """
    _load_builtins()
    try:
        return _entries[kind, name]
    except KeyError:
        known = ", ".join(names(kind)) or "none"
        raise ConfigError(f"there is no {kind} {name!r}", remedy=f"known: {known}") from None


def load(path: str) -> Any:
    """Import the object at `module:attribute`."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as cause:
        raise PluginError(
            f"cannot load {path}: {cause}", remedy="check the registration and its dependencies"
        ) from cause


def impl(kind: str, name: str) -> Any:
    """The implementation registered as `kind` `name`, imported now."""
    return load(get(kind, name).impl)
