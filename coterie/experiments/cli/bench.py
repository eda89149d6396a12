"""`coterie bench`: how fast kernels are on this machine, against what one would write without them."""

from __future__ import annotations

import json
from typing import Any

import typer

from coterie.experiments.cli.options import refuse

_OF_MECHANISMS = ("option", "lengths", "causal")
_OF_KERNELS = ("tokens", "agents")

bench = typer.Typer(help="Measure kernels on this machine.", no_args_is_help=True, rich_markup_mode=None)


@bench.callback()
def _group() -> None:
    """Measure kernels on this machine."""


@bench.command()
def attention(
    context: typer.Context,
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda, cuda:1, ..."),
    repeats: int = typer.Option(5, "--repeats", min=1, help="Times that each is measured; medians are shown."),
    tokens: int = typer.Option(2048, "--tokens", min=128, help="Length of the sequence whose statistics are taken."),
    agents: int = typer.Option(16384, "--agents", min=16, help="Agents that attend to 16 neighbours each."),
    mechanism: str = typer.Option(
        "", "--mechanism", metavar="NAME", help="Time this one of `coterie ls attention` against dense SDPA instead."
    ),
    option: list[str] = typer.Option([], "-o", metavar="OPTION=VALUE", help="Of the mechanism, such as window=1024."),
    lengths: str = typer.Option("512,1024,2048,4096,8192", "--lengths", help="Tokens at which it is timed."),
    causal: bool = typer.Option(False, "--causal", help="Both see only what stands before."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON: a list of kernels, of a mechanism one object."),
) -> None:
    """Compare the attention core with eager PyTorch. Exit code 1: a kernel computes something else."""
    if mechanism:
        instead = "leave it out; --lengths says at how many tokens a mechanism is timed"
        refuse(context, _OF_KERNELS, "with --mechanism this changes nothing", instead)
    else:
        refuse(context, _OF_MECHANISMS, "without --mechanism this changes nothing", "name one, or leave it out")
    from coterie.agents.engines import process

    process.prepare()
    import torch

    from coterie.attention.bench import compare
    from coterie.experiments.cli.bench_mechanism import race
    from coterie.experiments.memory import tell_memory

    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else _check(device)
    if mechanism:
        raise typer.Exit(race(mechanism, option, lengths, where, repeats, causal=causal, as_json=as_json))
    rows = []
    try:
        with tell_memory("the comparison", where=f"--tokens {tokens}, --agents {agents}", remedy="give smaller ones"):
            for row in compare(where, repeats, tokens, agents):
                rows.append(row)
                if not as_json:
                    print(_line(row), flush=True)
    finally:  # What was measured is printed, whatever ended it.
        if as_json:
            print(json.dumps([_as_dict(row) for row in rows], indent=2))
    raise typer.Exit(0 if all(row.is_correct for row in rows) else 1)


def _check(device: str) -> str:
    import torch

    from coterie.errors import ConfigError, EnvironmentMissing

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as cause:
        what = str(cause).splitlines()[0]
        if "device string" in what or "Expected one of" in what:
            raise ConfigError(f"there is no such device: {what}", where=f"--device {device}") from cause
        raise EnvironmentMissing(
            f"this device does not work here: {what}", where=f"--device {device}", remedy="use --device cpu"
        ) from cause
    return device


def _line(row: Any) -> str:
    verdict = f"{row.ratio:5.1f}x" if row.is_correct else "WRONG "
    times = f"{row.milliseconds:9.2f} ms, {row.rival} {row.rival_milliseconds:9.2f} ms"
    return f"{verdict}  {row.name:<22} {row.size:<24} {times}, error {row.error:.0e}"


def _as_dict(row: Any) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(row), "ratio": row.ratio, "is_correct": row.is_correct}
