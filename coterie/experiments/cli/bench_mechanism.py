"""`coterie bench attention --mechanism`: one mechanism against dense SDPA, length by length."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from coterie.config.problems import render
from coterie.config.tree import Mark
from coterie.config.yaml import parse_inline
from coterie.errors import ConfigError
from coterie.experiments.memory import tell_memory


def race(
    kind: str, options: Sequence[str], lengths: str, device: str, repeats: int, *, causal: bool, as_json: bool
) -> int:
    """Print a table, or JSON.

    Returns:
        The exit code; 1 where the mechanism computes something else than its formula.

    Raises:
        ConfigError: There is no such mechanism, option or length, or it has no causal form.
        EnvironmentMissing: A length does not fit into the memory; what was measured before is printed.
    """
    from coterie.attention.bench_mechanisms import Race
    from coterie.attention.choice import choose

    tokens = _lengths(lengths)
    mechanism = choose(kind, dict(map(_option, options)))
    try:
        contest = Race(mechanism, device, causal=causal)
    except ValueError as refusal:
        raise ConfigError(str(refusal), where=f"--mechanism {kind}") from None
    if not as_json:
        print(f"{kind}: {mechanism.about.title}\n{mechanism.about.cost}; {_verdict(contest)}\n{_HEAD}", flush=True)
    timings: list[Any] = []
    try:
        for length in tokens if contest.is_correct else ():
            place, remedy = f"--lengths {lengths}", "leave out this length and longer ones"
            with tell_memory(f"a sequence of {length} tokens", where=place, remedy=remedy):
                timings.append(contest.time(length, repeats))
            if not as_json:
                print(_row(timings[-1]), flush=True)
    finally:  # What was measured is told, whatever ended it.
        found = _crossovers(timings)
        if as_json:
            said = {"mechanism": kind, "options": dataclasses.asdict(mechanism), "device": device, "causal": causal}
            said |= {"error": contest.error, "is_correct": contest.is_correct}
            print(json.dumps(said | found | {"lengths": list(map(_as_dict, timings))}))
        elif timings:
            print("\n".join(f"{name}: {_since(since)}" for name, since in found.items()))
    return 0 if contest.is_correct else 1


def _lengths(given: str) -> list[int]:
    words = given.split(",")
    if not all(word.strip().isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"{given!r} are no lengths", where="--lengths", remedy="write numbers such as 512,2048,8192")
    return sorted({int(word) for word in words})


def _option(given: str) -> tuple[str, Any]:
    name, equals, value = given.partition("=")
    mark = Mark(f"-o {given}")
    if not equals:
        raise ConfigError("expected option=value", where=str(mark), remedy="write for example -o window=1024")
    node, problems = parse_inline(value, mark)
    if problems:
        raise ConfigError(render(problems))
    return name, node.plain()


def _verdict(contest: Any) -> str:
    says = "equals its formula" if contest.is_correct else "WRONG: does not equal its formula"
    return f"{says} at 512 tokens (largest difference {contest.error:.0e} of the largest value)"


_HEAD = "tokens   pairs    forward ms (dense)              with backward ms (dense)"


def _row(timing: Any) -> str:
    forward = f"{timing.forward:9.2f} ({timing.dense_forward:9.2f}) {timing.gain:5.1f}x"
    training = f"{timing.training:9.2f} ({timing.dense_training:9.2f}) {timing.training_gain:5.1f}x"
    return f"{timing.tokens:6d} {100 * timing.share:6.1f}%  {forward}   {training}"


def _as_dict(timing: Any) -> dict[str, Any]:
    return dataclasses.asdict(timing) | {"gain": timing.gain, "training_gain": timing.training_gain}


def _crossovers(timings: Sequence[Any]) -> dict[str, int | None]:
    """From which length on the mechanism is faster."""
    from coterie.attention.bench_mechanisms import crossover

    tokens = [t.tokens for t in timings]
    return {
        "forward": crossover(tokens, [t.gain for t in timings]),
        "with_backward": crossover(tokens, [t.training_gain for t in timings]),
    }


def _since(tokens: int | None) -> str:
    return f"faster than dense SDPA {'at none of these lengths' if tokens is None else f'from {tokens} tokens'}"
