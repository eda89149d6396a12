"""`coterie validate`: every error in experiment files, and nothing started."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from coterie import text
from coterie.errors import CoterieError


def validate(
    paths: list[Path] = typer.Argument(..., metavar="FILE...", help="Experiment files."),
    overrides: list[str] = typer.Option([], "--override", "-o", metavar="PATH=VALUE", help="Set a field: seed=3."),
    as_json: bool = typer.Option(False, "--json", help="Print the errors as JSON."),
) -> None:
    """Check experiment files; every error with its line."""
    failures = {str(path): _failure(path, overrides) for path in paths}
    if as_json:
        print(json.dumps([_row(path, failure) for path, failure in failures.items()], indent=2))
    else:
        for path, failure in failures.items():
            _print(path, failure)
    code = max(failure.exit_code if failure else 0 for failure in failures.values())
    raise typer.Exit(code)


def _failure(path: Path, overrides: list[str]) -> CoterieError | None:
    from coterie.config.load import load

    try:
        load(path, overrides)
    except CoterieError as error:
        return error
    return None


def _print(path: str, failure: CoterieError | None) -> None:
    if failure is None:
        print(f"ok {text.clean(path)}")
    else:
        print(text.clean(str(failure)), file=sys.stderr)


def _row(path: str, failure: CoterieError | None) -> dict[str, Any]:
    from coterie.config.problems import InvalidConfig

    errors: list[dict[str, Any]] = []
    if isinstance(failure, InvalidConfig):
        errors = [problem.as_dict() for problem in failure.problems]
    elif failure is not None:
        errors = [{"message": failure.what, "where": failure.where, "remedy": failure.remedy, "code": failure.code}]
    return {"file": path, "ok": failure is None, "errors": errors}
