"""`coterie eval`: what a training taught, in worlds and societies."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from coterie.errors import ConfigError
from coterie.experiments.cli.options import Shown, refuse

if TYPE_CHECKING:
    from rich.console import Console

    from coterie.experiments.folder import RunFolder

    Show = Callable[[dict[str, Any], Console], None]
T = TypeVar("T")


_OF_WORLDS = ("checkpoint", "scenario", "density", "drones", "episodes", "deterministic")
_OF_SOCIETIES = ("protocol", "limit", "samples", "temperature", "display")


def eval(
    context: typer.Context,
    run: str = typer.Argument(..., metavar="RUN", help="A run folder, the start of its name, or `latest`."),
    protocol: str = typer.Option("", "--protocol", metavar="A,B,...", help="Society: which; default: single,"
                                 "self_consistency,debate,autogen."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="Society: at most so many held-out tasks."),
    samples: int | None = typer.Option(None, "--samples", min=1, help="Society: of self_consistency."),
    temperature: float | None = typer.Option(None, "--temperature", min=0, help="Society; default: as trained."),
    display: Shown = "auto",
    checkpoint: str = typer.Option("last", "--checkpoint", metavar="WHICH", help="World: last or best."),
    scenario: str = typer.Option("", "--scenario", metavar="A,B,...", help="World: scenarios; default: as trained."),
    density: str = typer.Option("", "--density", metavar="X,Y,...", help="World: shares of cells with an obstacle."),
    drones: str = typer.Option("", "--drones", metavar="M,N,...", help="World: how many fly together: 8,16,32."),
    episodes: int = typer.Option(100, "--episodes", min=1, help="World: in each combination of these."),
    deterministic: bool = typer.Option(
        True, "--deterministic/--stochastic", help="World: the likeliest action, or one drawn as in training."
    ),
    seed: int | None = typer.Option(None, "--seed", min=0, help="Default: of a world 0, of a society as trained."),
    as_json: bool = typer.Option(False, "--json", help="Print report/evaluation.json instead."),
) -> None:  # fmt: skip
    """Measure what a training taught.

    Of a world: fly its policy, also in worlds it was never trained in. Of a society: its policies and the untrained
    ones on the tasks that the training held out, paired, under several protocols.
    """
    from coterie.experiments.attempt import load_resolved
    from coterie.experiments.folder import RunFolder

    folder, command = RunFolder.find(Path(run)), shlex.join(["coterie", *context.obj])
    config = load_resolved(folder).config
    if hasattr(config, "env"):
        refuse(context, _OF_SOCIETIES, "this is for the training of a society")
        scenarios = _split("--scenario", scenario, str, "names, such as o_random,mix")
        densities = _split("--density", density, _share, "numbers from 0 to 1, such as 0.2,0.8")
        counts = _split("--drones", drones, _count, "whole numbers, such as 8,16,32")
        conditions = (scenarios, densities, counts, episodes, seed or 0, deterministic, checkpoint)
        found, show = _fly(folder, conditions, command)
    else:
        refuse(context, _OF_WORLDS, "this is for the training of a world")
        protocols = _split("--protocol", protocol, str, "names, such as single,debate")
        found, show = _ask(folder, (protocols, limit, samples, temperature, seed), command, display)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from coterie.experiments.report.layout import make_console

    show(found, make_console())
    print(f"numbers: {folder.report / 'evaluation.json'}")


def _fly(folder: RunFolder, conditions: tuple[Any, ...], command: str) -> tuple[dict[str, Any], Show]:
    from coterie.agents.engines import process

    process.prepare()
    from coterie.experiments.evaluation.policy import evaluate
    from coterie.experiments.evaluation.worlds import Conditions
    from coterie.experiments.report.evaluation_terminal import print_evaluation

    return evaluate(folder, Conditions(*conditions), command=command, say=_say), print_evaluation


def _ask(folder: RunFolder, asked: tuple[Any, ...], command: str, display: str) -> tuple[dict[str, Any], Show]:
    from coterie.experiments.evaluation.cells import DEFAULT, Questions
    from coterie.experiments.evaluation.society import evaluate_society
    from coterie.experiments.monitoring.display import check_mode
    from coterie.experiments.report.society_evaluation_terminal import print_society_evaluation

    check_mode(display)
    protocols, *others = asked
    questions = Questions(protocols or DEFAULT, *others)
    found = evaluate_society(folder, questions, command=command, display=display, say=_say)
    return found, print_society_evaluation


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
