"""`coterie ls`: what can be named in an experiment file."""

from __future__ import annotations

import json

import typer

from coterie import text
from coterie.errors import ConfigError

_ODD = {"attention": "attention", "policy": "policies", "loss": "losses"}


def ls(
    kind: str = typer.Argument("", metavar="[KIND]", help="engines, personas, protocols, ...; without it, the kinds."),
    as_json: bool = typer.Option(False, "--json", help="Print a list of objects with name and summary."),
) -> None:
    """List what is registered, by plugins too."""
    from coterie.config.plugins import import_installed

    import_installed()
    rows = _parts(kind) if kind else _kinds()
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(text.clean(f"{row['name']:<{width}}  {row['summary']}"))


def _parts(kind: str) -> list[dict[str, str]]:
    from coterie import registry
    from coterie.config.problems import nearest

    known = _plurals()
    found = next((name for name, plural in known.items() if kind in (name, plural)), None)
    if found is None:
        named = [plural for name, plural in known.items() if kind.removesuffix("s") in name.split("_")]
        meant = " or ".join(named) or nearest(kind, [*known, *known.values()])
        remedy = (f"did you mean {meant}? " if meant else "") + f"known: {', '.join(known.values())}"
        raise ConfigError(f"there is nothing of the kind {kind!r}", remedy=remedy)
    return [{"name": entry.name, "summary": entry.summary} for entry in registry.entries(found)]


def _kinds() -> list[dict[str, str]]:
    from coterie import registry

    return [{"name": plural, "summary": ", ".join(registry.names(kind))} for kind, plural in _plurals().items()]


def _plurals() -> dict[str, str]:
    """The kinds that have parts, and how they are listed."""
    from coterie import registry

    return {kind: _ODD.get(kind, f"{kind}s") for kind in registry.KINDS if registry.names(kind)}
