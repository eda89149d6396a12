"""The command `coterie`: one module per verb, and the one boundary where errors become exit codes.

A verb's module holds a function (or a Typer app) of the verb's name, and imports nothing heavy before it is called.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

import typer

from coterie import text
from coterie.errors import CoterieError

VERBS = (
    "init", "validate", "run", "sweep", "resume", "status", "report", "compare", "eval", "study", "log",
    "inspect-attention", "inspect-credit", "bench", "schema", "ls", "doctor",
)  # fmt: skip

app = typer.Typer(
    name="coterie",
    help="Run, train and measure groups of agents.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(version("coterie"))
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    """Run, train and measure groups of agents."""


def _add(verb: str) -> None:
    name = verb.replace("-", "_")
    command = getattr(importlib.import_module(f"coterie.experiments.cli.{name}"), name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=verb)
    else:
        app.command(verb)(command)


for _verb in VERBS:
    _add(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; work that was left to itself ends with the process there.

    0 done, 1 failed, 2 bad config or usage, 3 the machine lacks something, 4 cannot resume, 130 interrupted. A named
    error is printed as it is; any other keeps its traceback. Neither shows a secret.
    """
    code = _perform(list(sys.argv[1:] if arguments is None else arguments))
    if code:  # Work that is left where it is was stopped, or failed.
        from coterie.experiments.leaving import leave

        return leave(code)
    return 0


def _perform(given: list[str]) -> int:
    try:
        app(given, prog_name="coterie", obj=given)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except CoterieError as error:
        print(_safe(str(error)), file=sys.stderr)
        return error.exit_code
    except Exception:
        print(_safe(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


def _safe(message: str) -> str:
    from coterie.config.references import redact

    return text.clean(redact(message))
