"""What must hold between the sections of a world's experiment file; see `rules` for what both functions are for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coterie.config.rules import Mismatch
from coterie.config.schema import ExperimentConfig, WorldConfig
from coterie.errors import ConfigError, CoterieError
from coterie.types import WorldSpec

_EXECUTORS = ("local", "ray")
_OF_EPISODES = ("episodes", "replicas", "engine_cpus", "engine_gpus")
_OF_SOCIETIES = tuple(name for name in ExperimentConfig.model_fields if name not in WorldConfig.model_fields)


def find_world_mismatches(data: Mapping[str, Any]) -> list[Mismatch]:
    """What is wrong between sections, in data that may be wrong in any other way too."""
    message = "belongs to a society (a file with `benchmark`); a world (a file with `env`) has none"
    return [Mismatch((name,), message, is_key=True) for name in _OF_SOCIETIES if name in data]


def check_world_config(config: WorldConfig) -> list[Mismatch]:
    """Rules that need the whole config."""
    found = [*_fitting_executor(config), *_filled_shards(config)]
    if (spec := _spec(config)) is not None:
        found += [*_fitting_policy(config, spec), *_whole_teams(config, spec)]
    return found


def _fitting_executor(config: WorldConfig) -> Iterator[Mismatch]:
    executor = config.executor
    if executor.kind not in _EXECUTORS:
        message = f"a world is trained by {' or '.join(_EXECUTORS)}, not by {executor.kind}"
        yield Mismatch(("executor",), message)
        return
    for name, field in type(executor).model_fields.items():
        if name in _OF_EPISODES and getattr(executor, name) != field.default:
            yield Mismatch(("executor", name), "is for societies: a world has no engines, nor episodes to be kept open")


def _filled_shards(config: WorldConfig) -> Iterator[Mismatch]:
    shards, envs = getattr(config.learning, "shards", None), getattr(config.env, "num_envs", None)
    if isinstance(shards, int) and isinstance(envs, int) and shards > envs:
        yield Mismatch(("learning", "shards"), f"{shards} shards cannot be cut from {envs} environments")


def _spec(config: WorldConfig) -> WorldSpec | None:
    """What a policy has to fit; None where the world does not say before it is made, or refused its config."""
    try:
        spec: WorldSpec | None = getattr(config.env, "spec", lambda: None)()
    except CoterieError:
        return None
    return spec


def _fitting_policy(config: WorldConfig, spec: WorldSpec) -> Iterator[Mismatch]:
    try:
        getattr(config.policy, "check", lambda spec: None)(spec)
    except ConfigError as error:
        path = tuple(error.where.split(".")) if error.where.startswith("policy") else ("policy",)
        yield Mismatch(path, "; ".join(filter(None, (error.what, error.remedy))))


def _whole_teams(config: WorldConfig, spec: WorldSpec) -> Iterator[Mismatch]:
    size = getattr(config.learning, "minibatch", None)
    if getattr(config.learning, "central", False) and isinstance(size, int) and size < spec.num_agents:
        team = f"a team of {spec.num_agents}, which the critic of {config.learning.kind} sees whole"
        yield Mismatch(("learning", "minibatch"), f"{size} is less than {team}; give at least {spec.num_agents}")
