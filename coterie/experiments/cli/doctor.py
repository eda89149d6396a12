"""`coterie doctor`: what this machine can do, and what is in the way."""

from __future__ import annotations

import json

import typer

from coterie import text


def doctor(as_json: bool = typer.Option(False, "--json", help="Print the checks as JSON.")) -> None:
    """Check what this machine can run. Exit code 3: something needed is missing."""
    import dataclasses

    from coterie.experiments.checks import run_checks

    checks = run_checks()
    if as_json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(text.clean(f"{check.level:<4}  {check.name:<{width}}  {check.detail}"))
            if check.remedy:
                print(text.clean(f"{'':<{width + 8}}what to do: {check.remedy}"))
    raise typer.Exit(3 if any(check.level == "fail" for check in checks) else 0)
