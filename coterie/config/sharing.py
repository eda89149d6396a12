"""Who shares a policy, and `sharing: agent`, with which every agent has one of its own, called after it."""

from __future__ import annotations

from collections import Counter

from coterie.config.schema import ExperimentConfig, PolicyConfig, SeatConfig
from coterie.config.tree import Path


def split_policies(config: ExperimentConfig) -> set[str]:
    """Policies of which every agent is to have a copy: those that several act by, and that are trained."""
    if getattr(config.learning, "sharing", "policy") != "agent":
        return set()
    users = Counter(seat.policy for seat in config.seats for _ in seat.agents)
    return {name for name, policy in config.policies.items() if users[name] > 1 and not policy.frozen}


def with_own_policies(config: ExperimentConfig) -> ExperimentConfig:
    """The society as its `learning` wants it: with `sharing: agent` agents have copies of policies that they share.

    A judge keeps the policy as it began. With a name that is taken nothing is copied: the rules refuse it.
    """
    split = split_policies(config)
    seats: list[SeatConfig] = []
    own: dict[str, PolicyConfig] = {}
    for seat in config.seats:
        if seat.policy in split:
            seats += [seat.model_copy(update={"name": name, "policy": name, "count": 1}) for name in seat.agents]
            own |= dict.fromkeys(seat.agents, config.policies[seat.policy])
        else:
            seats.append(seat)
    kept = {name: policy for name, policy in config.policies.items() if name not in split}
    if (judge := getattr(config.benchmark, "judge", None)) in split:
        kept[judge] = config.policies[judge].model_copy(update={"frozen": True})
    names = [seat.name for seat in seats]
    if own.keys() & kept.keys() or len(set(names)) < len(names):
        return config
    return config.model_copy(update={"seats": tuple(seats), "policies": kept | own})


def shared_path(path: Path, config: ExperimentConfig) -> Path:
    """The path of a value of `with_own_policies(config)` in `config`."""
    shared_by = {name: seat.policy for seat in config.seats for name in seat.agents}
    if path[:1] == ("policies",) and len(path) > 1 and path[1] not in config.policies:
        return ("policies", shared_by[str(path[1])], *path[2:])
    return path
