"""What must hold between the sections of a society's file that has `study`."""

from __future__ import annotations

from collections.abc import Iterator

from coterie.config.problems import Mismatch
from coterie.config.schema import ExperimentConfig

_MAX_COALITIONS = 10
"""Agents whose coalitions are replayed: 1024, each several times."""


def check_study(config: ExperimentConfig) -> list[Mismatch]:
    """Rules that need the whole config."""
    rules = _alone, _common_randomness, _countable, _told_apart, _in_messages, _readable
    return [mismatch for rule in rules for mismatch in rule(config)] if config.study else []


def _alone(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.learning is not None:
        yield Mismatch(("study",), "stands beside `learning`: policies that are studied stay as they are", is_key=True)
    if config.baselines:
        yield Mismatch(("baselines",), "are not for a study, which looks at the seats' societies alone", is_key=True)


def _common_randomness(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.determinism != "exact":
        message = "compares replays that draw the same tokens, which needs `determinism: exact`"
        yield Mismatch(("study",), message, is_key=True)


def _countable(config: ExperimentConfig) -> Iterator[Mismatch]:
    agents = sum(seat.count for seat in config.seats)
    if agents < 2:
        yield Mismatch(("seats",), "a study compares agents with each other, and there is only one")
    if config.study and config.study.shapley and agents > _MAX_COALITIONS:
        message = f"{agents} agents have too many coalitions to replay each ({_MAX_COALITIONS} agents at most)"
        yield Mismatch(("study", "shapley"), f"{message}; 0 leaves Shapley values out")


def _told_apart(config: ExperimentConfig) -> Iterator[Mismatch]:
    seen = {_label(society) for society in getattr(config.protocol, "expand", lambda: (config.protocol,))()}
    for index, protocol in enumerate(config.study.protocols if config.study else ()):
        for label in map(_label, getattr(protocol, "expand", lambda p=protocol: (p,))()):
            if label in seen:
                yield Mismatch(("study", "protocols", index), f'there is another society called "{label}"')
            seen.add(label)


def _label(society: object) -> str:
    return str(getattr(society, "label", getattr(society, "kind", "")))


def _in_messages(config: ExperimentConfig) -> Iterator[Mismatch]:
    for protocol in (config.protocol, *(config.study.protocols if config.study else ())):
        if "shared_cache" in getattr(protocol, "needs", ()):
            message = "what agents read of each other in one cache stands in no message, so its worth cannot be studied"
            yield Mismatch(("study",), f"{message}; use {protocol.kind} with another granularity", is_key=True)


def _readable(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.study is None or "attention" not in config.study.measures:
        return
    for name in sorted({seat.policy for seat in config.seats} & config.policies.keys()):
        engine = config.policies[name].engine
        if "weights" not in getattr(engine, "capabilities", frozenset()):
            message = f"the attention of the engine {engine.kind} cannot be read; set `study.measures: [psi]`"
            yield Mismatch(("policies", name, "engine"), message)
        if config.policies[name].adapter:
            message = "the attention of a policy with an adapter is not read; set `study.measures: [psi]`"
            yield Mismatch(("policies", name, "adapter"), message)
