"""What must hold between the sections of an experiment file.

`find_mismatches` looks at the bare data, so that it speaks also when something else in the file is wrong;
`check` looks at a config whose parts are all valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.learning_rules import check_learning, find_foreign_learner
from coterie.config.problems import Mismatch, got
from coterie.config.schema import SOCIETIES, ExperimentConfig, expand_shorthands
from coterie.config.study_rules import check_study


def find_mismatches(data: Mapping[str, Any], *, is_whole: bool = True, knows_parts: bool = True) -> list[Mismatch]:
    """What is wrong between sections, in data that may be wrong in any other way too.

    Without `is_whole` a file is missing, so what is not there is no mistake; without `knows_parts` a plugin is.
    """
    of_worlds = [*find_foreign_learner(data, "society"), *_policy_of_worlds(data)]
    data = expand_shorthands(dict(data))
    seats = [(i, s) for i, s in enumerate(_list(data.get("seats"))) if isinstance(s, Mapping)]
    found = [*of_worlds, *_two_ways(data), *_no_seats(data), *_same_names(seats)]
    found += _unknown_policies(seats, data.get("policies")) if is_whole else ()
    return [*found, *(_unknown_personas(seats) if knows_parts else ())]


def check(config: ExperimentConfig) -> list[Mismatch]:
    """Rules that need the whole config, each a function that yields what breaks it."""
    rules = (
        _exact_without_clock, _exact_with_seeded_engines, _replies_that_fit, _enough_agents, _countable_agents,
        _able_engines, _one_cache, _able_protocols, _known_judge, _societies_once, _parts_once,
        _judged_episodes, _other_policies,
    )  # fmt: skip
    return [*(mismatch for rule in rules for mismatch in rule(config)), *check_learning(config), *check_study(config)]


def _policy_of_worlds(data: Mapping[str, Any]) -> Iterator[Mismatch]:
    policy = data.get("policy")
    message = "is a policy of worlds (files with `env`); that of a society has engine, model and sampling"
    if isinstance(policy, str) and policy in registry.names("policy"):
        yield Mismatch(("policy",), f"{policy} {message}")
    elif isinstance(policy, Mapping) and "kind" in policy:
        yield Mismatch(("policy", "kind"), f"{got(policy['kind'])} {message}", is_key=True)


def _two_ways(data: Mapping[str, Any]) -> Iterator[Mismatch]:
    # A lone `policy` has become `policies` by now.
    if "policy" in data and "policies" in data:
        message = "stands beside `policies`: move it there under a name of its own, or keep only one of the two"
        yield Mismatch(("policy",), message, is_key=True)


def _no_seats(data: Mapping[str, Any]) -> Iterator[Mismatch]:
    seats, societies = data.get("seats"), tuple(SOCIETIES)
    if isinstance(seats, str):
        yield Mismatch(("seats",), f'unknown society "{seats}"', seats, societies)
    elif "seats" in data and not isinstance(seats, list):
        example = "[{name: calm, count: 3}]"
        message = f"expected a list of seats such as {example}, or one of {', '.join(societies)}; got {got(seats)}"
        yield Mismatch(("seats",), message)


def _unknown_policies(seats: list[tuple[int, Any]], policies: Any) -> Iterator[Mismatch]:
    if not isinstance(policies, Mapping) or not policies:
        return
    for index, seat in seats:
        name = seat.get("policy", "default")
        if isinstance(name, str) and name not in policies:
            is_named = "policy" in seat
            message = f'unknown policy "{name}"' if is_named else 'is required, as no policy is called "default"'
            yield Mismatch(("seats", index, "policy"), message, name if is_named else "", tuple(policies))


def _unknown_personas(seats: list[tuple[int, Any]]) -> Iterator[Mismatch]:
    known = tuple(registry.names("persona"))
    for index, seat in seats:
        persona = seat.get("persona")
        if not isinstance(persona, str) or not persona.strip() or re.search(r"\s", persona.strip()):
            continue
        if persona not in known:
            message = f'unknown persona "{persona}" (a persona of your own has at least two words)'
            yield Mismatch(("seats", index, "persona"), message, persona, known)


def _same_names(seats: list[tuple[int, Any]]) -> Iterator[Mismatch]:
    taken: dict[str, int] = {}
    for index, seat in seats:
        for name in _agents(seat):
            if taken.setdefault(name, index) != index:
                message = f'the name "{name}" is taken by seats[{taken[name]}]; give each seat its own, or use count'
                yield Mismatch(("seats", index, "name"), message)
                break


def _agents(seat: Mapping[str, Any]) -> list[str]:
    """The names of a seat and of the agents that will sit there."""
    name, count = seat.get("name"), seat.get("count", 1)
    if not isinstance(name, str):
        return []
    size = count if isinstance(count, int) and 1 < count <= 1000 else 0
    return [name, *(f"{name}-{number}" for number in range(1, size + 1))]


def _exact_without_clock(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.budget.seconds is not None and config.determinism == "exact":
        yield Mismatch(("budget", "seconds"), "ends a run at some moment, which cannot be exact; use tokens or calls")


def _exact_with_seeded_engines(config: ExperimentConfig) -> Iterator[Mismatch]:
    if config.determinism != "exact":
        return
    for name, policy in config.policies.items():
        if "seeded" not in getattr(policy.engine, "capabilities", frozenset()):
            message = f"the engine {policy.engine.kind} cannot draw counted tokens, which `determinism: exact` needs"
            yield Mismatch(("policies", name, "engine"), message)


def _enough_agents(config: ExperimentConfig) -> Iterator[Mismatch]:
    seated = sum(seat.count for seat in config.seats)
    for protocol in (config.protocol, *_studied(config)):
        if wanted := _misses(protocol, seated):
            yield Mismatch(("seats",), f"{protocol.kind} needs {wanted}, the seats hold {seated}")
    for index, baseline in enumerate(config.baselines):
        if wanted := _misses(baseline, 1):
            yield Mismatch(("baselines", index), f"{baseline.kind} needs {wanted}, a baseline has one")


def _studied(config: ExperimentConfig) -> tuple[KindConfig, ...]:
    """Protocols that the seats work beside the one that is named first."""
    return config.study.protocols if config.study else ()


def _misses(protocol: KindConfig, num_agents: int) -> str:
    """How many agents a protocol wants, in words; empty if it is content with `num_agents`."""
    fewest, most = getattr(protocol, "agents", (1, None))
    if num_agents >= fewest and (most is None or num_agents <= most):
        return ""
    count = f"{fewest}" if fewest == most else f"at least {fewest}" if num_agents < fewest else f"at most {most}"
    return f"{count} agents"


def _countable_agents(config: ExperimentConfig) -> Iterator[Mismatch]:
    contribution, seated = getattr(config.protocol, "contribution", None), sum(seat.count for seat in config.seats)
    most = getattr(contribution, "max_agents", seated)
    if isinstance(contribution, KindConfig) and seated > most:
        message = f"{contribution.kind} counts at most {most} agents, the seats hold {seated}; use permutation"
        yield Mismatch(("protocol", "contribution"), message)


def _replies_that_fit(config: ExperimentConfig) -> Iterator[Mismatch]:
    together = sum(seat.count for seat in config.seats)
    together = together if _share_a_cache(config) and getattr(config.protocol, "visible", True) else 1
    for name, policy in config.policies.items():
        context, longest = getattr(policy.engine, "context", None), policy.sampling.max_tokens
        if isinstance(context, int) and together * longest >= context:
            who, verb = (f"{together} replies", "leave") if together > 1 else ("a reply", "leaves")
            room = f"no room for a prompt in the engine's context of {context}"
            message = f"{who} of {longest} tokens {verb} {room}"
            yield Mismatch(("policies", name, "sampling", "max_tokens"), message)


def _able_engines(config: ExperimentConfig) -> Iterator[Mismatch]:
    asked = [(protocol, {seat.policy for seat in config.seats}) for protocol in (config.protocol, *_studied(config))]
    asked += [(baseline, {config.seats[0].policy}) for baseline in config.baselines]
    for protocol, policies in asked:
        needs: frozenset[str] = getattr(protocol, "needs", frozenset())
        for name in sorted(policies & config.policies.keys()):
            engine = config.policies[name].engine
            if missing := needs - getattr(engine, "capabilities", frozenset()):
                lacks = f"the engine {engine.kind} does not give {', '.join(sorted(missing))}"
                instead = f"; set `{remedy}`" if (remedy := getattr(protocol, "instead", "")) else ""
                yield Mismatch(("policies", name, "engine"), f"{lacks}, which {protocol.kind} needs here{instead}")


def _one_cache(config: ExperimentConfig) -> Iterator[Mismatch]:
    policies = list(dict.fromkeys(seat.policy for seat in config.seats))
    if _share_a_cache(config) and len(policies) > 1:
        message = f"{config.protocol.kind} needs one policy at all seats here, and these have {', '.join(policies)}"
        yield Mismatch(("seats",), message)


def _share_a_cache(config: ExperimentConfig) -> bool:
    return "shared_cache" in getattr(config.protocol, "needs", ())


def _societies_once(config: ExperimentConfig) -> Iterator[Mismatch]:
    """No baseline hides behind another society of its name; default ones give way to a protocol of their kind."""
    tested, seen = _expand(config.protocol), set[str]()
    for index, baseline in enumerate(config.baselines):
        for label, society in _expand(baseline).items():
            if label in seen:
                yield Mismatch(("baselines", index), f'the baseline "{label}" stands here twice')
            elif tested.get(label, society) != society and not _has_default_baselines(config):
                message = f'is called "{label}" like a society of the protocol, and is not the same: leave one out'
                yield Mismatch(("baselines", index), message)
            seen.add(label)


def _expand(protocol: KindConfig) -> dict[str, KindConfig]:
    """The societies that a protocol stands for, by label."""
    societies = getattr(protocol, "expand", lambda: (protocol,))()
    return {getattr(society, "label", society.kind): society for society in societies}


def _has_default_baselines(config: ExperimentConfig) -> bool:
    # By value: the config that a run is resumed from spells them out.
    kinds = ExperimentConfig.model_fields["baselines"].default
    return kinds == tuple(b.kind for b in config.baselines) and all(b == type(b)(kind=b.kind) for b in config.baselines)


def _able_protocols(config: ExperimentConfig) -> Iterator[Mismatch]:
    if not getattr(config.benchmark, "converses", False):
        return
    played = [(("protocol",), config.protocol), *((("baselines", i), b) for i, b in enumerate(config.baselines))]
    for path, protocol in played:
        if not getattr(protocol, "converses", False):
            remedy = "set `baselines: []`" if path[0] == "baselines" else "use single"
            message = f"{protocol.kind} cannot hold the conversations with a user of {config.benchmark.kind}; {remedy}"
            yield Mismatch(path, message)


def _known_judge(config: ExperimentConfig) -> Iterator[Mismatch]:
    judge = getattr(config.benchmark, "judge", None)
    if isinstance(judge, str) and judge not in config.policies:
        yield Mismatch(("benchmark", "judge"), f'unknown policy "{judge}"', judge, tuple(config.policies))


def _parts_once(config: ExperimentConfig) -> Iterator[Mismatch]:
    """Rewards and probes are told apart by their kinds."""
    for section, parts in (("rewards", config.rewards), ("probes", config.probes)):
        seen: set[str] = set()
        for index, part in enumerate(parts):
            if part.kind in seen:
                yield Mismatch((section, index), f'the {section[:-1]} "{part.kind}" stands here twice')
            seen.add(part.kind)


def _judged_episodes(config: ExperimentConfig) -> Iterator[Mismatch]:
    """Rewards of judgements have judgements, in every society."""
    played = config.protocol, *config.baselines
    silent = [protocol.kind for protocol in played if not getattr(protocol, "judges", False)]
    for index, reward in enumerate(config.rewards):
        if getattr(reward, "of_judgements", False) and silent:
            message = f"{reward.kind} rewards what agents judge of each other, and there is none of it in {silent[0]}"
            remedy = "use comas" if config.protocol.kind in silent else "set `baselines: []`"
            yield Mismatch(("rewards", index), f"{message}; {remedy}")


def _other_policies(config: ExperimentConfig) -> Iterator[Mismatch]:
    """Rewards by the votes of other policies have other policies."""
    seated = {seat.policy for seat in config.seats}
    for index, reward in enumerate(config.rewards):
        if getattr(reward, "voters", "") == "other_policies" and len(seated) == 1:
            message = f"{reward.kind} has answers judged by agents of other policies, and all seats have {min(seated)}"
            remedy = "give seats policies of their own (in a training: `sharing: agent`), or set `voters: other_agents`"
            yield Mismatch(("rewards", index), f"{message}; {remedy}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
