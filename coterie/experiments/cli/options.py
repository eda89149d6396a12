"""Options that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

Executor = Annotated[str, typer.Option("--executor", metavar="KIND", help="Short for -o executor.kind=KIND.")]
Shown = Annotated[str, typer.Option("--display", metavar="HOW", help="auto, rich, plain or none.")]
Page = Annotated[bool, typer.Option("--report/--no-report", help="Write the HTML report at the end.")]
Unsafe = Annotated[bool, typer.Option("--allow-unsafe-code", help="Run model-written code even where nothing "
                                      "isolates it; needed on resume where a run was started so.")]  # fmt: skip
Overrides = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="PATH=VALUE", help="Set a field: budget.tokens=9000.")
]


def settle(overrides: list[str] | None, executor: str, unsafe: bool) -> list[str]:
    """The overrides with `--executor` among them; from here on unsafe code is allowed if it was asked for."""
    from coterie.sandbox import allow_unsafe_code

    if unsafe:
        allow_unsafe_code(True)
    return [*(overrides or []), *([f"--executor={executor}"] if executor else [])]
