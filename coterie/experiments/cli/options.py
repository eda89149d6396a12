"""Options that several verbs take."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from coterie.errors import ConfigError

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


def refuse(context: typer.Context, names: Collection[str], what: str, remedy: str = "leave it out") -> None:
    """Refuse those parameters among `names` that were given: an option that would change nothing is a mistake.

    Raises:
        ConfigError: `what`, at the options.
    """
    sources = {p.opts[0]: context.get_parameter_source(str(p.name)) for p in context.command.params if p.name in names}
    given = [option for option, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if given:
        raise ConfigError(what, where=", ".join(given), remedy=remedy)
