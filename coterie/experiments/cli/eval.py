"""`coterie eval`: how good a trained policy is, also in worlds it was never trained in."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from coterie.errors import ConfigError

T = TypeVar("T")


def eval(
    context: typer.Context,
    run: str = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    checkpoint: str = typer.Option("last", "--checkpoint", metavar="WHICH", help="last or best."),
    scenario: str = typer.Option("", "--scenario", metavar="A,B,...", help="Scenarios; default: as trained."),
    density: str = typer.Option("", "--density", metavar="X,Y,...", help="Shares of cells with an obstacle: 0.2,0.8."),
    drones: str = typer.Option("", "--drones", metavar="M,N,...", help="How many fly together: 8,16,32."),
    episodes: int = typer.Option(100, "--episodes", min=1, help="In each combination of these."),
    seed: int = typer.Option(0, "--seed", min=0, help="Of the episodes."),
    deterministic: bool = typer.Option(
        True, "--deterministic/--stochastic", help="The likeliest action, or one drawn as in training."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print report/evaluation.json instead."),
) -> None:
    """Fly a trained policy: success, collisions, distance and flight time, with intervals over episodes."""
    scenarios = _split("--scenario", scenario, str, "names, such as o_random,mix")
    densities = _split("--density", density, _share, "numbers from 0 to 1, such as 0.2,0.8")
    counts = _split("--drones", drones, _count, "whole numbers, such as 8,16,32")
    from coterie.agents.engines import process

    process.prepare()
    from coterie.experiments.evaluation import evaluate
    from coterie.experiments.evaluation_worlds import Conditions
    from coterie.experiments.folder import RunFolder

    conditions = Conditions(scenarios, densities, counts, episodes, seed, deterministic, checkpoint)
    folder = RunFolder.find(Path(run))
    found = evaluate(folder, conditions, command=shlex.join(["coterie", *context.obj]), say=_say)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from rich.console import Console

    from coterie.experiments.report.evaluation_terminal import print_evaluation

    print_evaluation(found, Console())
    print(f"numbers: {folder.report / 'evaluation.json'}")


def _split(option: str, given: str, read: Callable[[str], T], form: str) -> tuple[T, ...]:
    try:
        found = tuple(read(word.strip()) for word in given.split(",")) if given else ()
    except ValueError:
        raise ConfigError(f"cannot read {given!r}", where=option, remedy=f"give {form}") from None
    if len(set(found)) < len(found):
        raise ConfigError(f"{given!r} names something twice", where=option, remedy="name each once")
    return found


def _share(word: str) -> float:
    value = float(word)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _count(word: str) -> int:
    value = int(word)
    if value < 1:
        raise ValueError
    return value


def _say(line: str) -> None:
    from coterie import text

    print(text.for_terminal(line), file=sys.stderr)
