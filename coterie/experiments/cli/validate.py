"""`coterie validate`: every error in experiment files, and nothing started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from coterie import text

if TYPE_CHECKING:
    from coterie.config.load import Loaded
    from coterie.config.problems import InvalidConfig


def validate(
    paths: list[Path] = typer.Argument(..., metavar="FILE...", help="Experiment files."),
    overrides: list[str] = typer.Option([], "--override", "-o", metavar="PATH=VALUE", help="Set a field: seed=3."),
    as_json: bool = typer.Option(False, "--json", help="Print the errors as JSON."),
) -> None:
    """Check experiment files; every error with its line."""
    checked = {str(path): _check(path, overrides) for path in paths}
    if as_json:
        rows = [
            {"file": path, "ok": not failure, "errors": [p.as_dict() for p in failure.problems] if failure else []}
            for path, (_, failure) in checked.items()
        ]
        print(json.dumps(rows, indent=2))
    else:
        for path, (loaded, failure) in checked.items():
            _print(path, loaded, failure)
    raise typer.Exit(2 if any(failure for _, failure in checked.values()) else 0)


def _check(path: Path, overrides: list[str]) -> tuple[Loaded | None, InvalidConfig | None]:
    from coterie.config.load import load
    from coterie.config.problems import InvalidConfig

    try:
        return load(path, overrides), None
    except InvalidConfig as error:
        return None, error


def _print(path: str, loaded: Loaded | None, failure: InvalidConfig | None) -> None:
    if loaded is None:
        print(text.clean(str(failure)), file=sys.stderr)
        return
    print(f"ok {text.clean(path)}")
    if loaded.caution:
        print(f"        {text.clean(loaded.caution)}")
