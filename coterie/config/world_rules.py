"""What must hold between the sections of a world's experiment file; see `rules` for what both functions are for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from coterie.config.drafts import Draft, tell
from coterie.config.problems import Mismatch
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


@dataclass(frozen=True)
class _Sections:
    """The parts of a world. What is absent in one of them, or None, is wrong in itself: no rule can read it."""

    env: Any = None
    policy: Any = None
    learning: Any = None
    executor: Any = None
    credit: Any = None

    @cached_property
    def spec(self) -> WorldSpec | None:
        """What a policy has to fit; None where the world does not say before it is made, or refused its config."""
        try:
            spec: WorldSpec | None = getattr(self.env, "spec", lambda: None)()
        except (CoterieError, AttributeError):
            return None
        return spec


def check_sections(drafts: Mapping[str, Draft]) -> list[Mismatch]:
    """Rules between parts, given by section; one that would read a value which is wrong in itself is left out."""
    sections = _Sections(**{name.partition(".")[0]: draft.config for name, draft in drafts.items()})
    rules: tuple[Callable[[_Sections], Iterator[Mismatch]], ...] = (
        _known_executor, _executor_of_worlds, _filled_shards, _enough_exploration, _fitting_policy, _whole_teams,
        _simulated_worlds,
    )  # fmt: skip
    return [found for rule in rules for found in tell(partial(rule, sections), drafts.values())]


def _known_executor(world: _Sections) -> Iterator[Mismatch]:
    if world.executor is not None and world.executor.kind not in _EXECUTORS:
        message = f"a world is trained by {' or '.join(_EXECUTORS)}, not by {world.executor.kind}"
        yield Mismatch(("executor",), message)


def _executor_of_worlds(world: _Sections) -> Iterator[Mismatch]:
    given = vars(world.executor) if world.executor is not None and world.executor.kind in _EXECUTORS else {}
    for name in _OF_EPISODES:
        if name in given and given[name] != type(world.executor).model_fields[name].default:
            yield Mismatch(("executor", name), "is for societies: a world has no engines, nor episodes to be kept open")


def _filled_shards(world: _Sections) -> Iterator[Mismatch]:
    shards, envs = getattr(world.learning, "shards", None), getattr(world.env, "num_envs", None)
    if isinstance(shards, int) and isinstance(envs, int) and shards > envs > 0:
        yield Mismatch(("learning", "shards"), f"{shards} shards cannot be cut from {envs} environments")


def _enough_exploration(world: _Sections) -> Iterator[Mismatch]:
    first, least = getattr(world.policy, "initial_std", None), getattr(world.learning, "min_std", None)
    is_discrete = world.spec is not None and world.spec.action == "discrete"
    if isinstance(first, int | float) and isinstance(least, int | float) and first < least and not is_discrete:
        remedy = "give a greater one, or a smaller min_std"
        yield Mismatch(("policy", "initial_std"), f"{first:g} is less than learning.min_std of {least:g}; {remedy}")


def _fitting_policy(world: _Sections) -> Iterator[Mismatch]:
    if world.spec is None:
        return
    try:
        getattr(world.policy, "check", lambda spec: None)(world.spec)
    except ConfigError as error:
        path = tuple(error.where.split(".")) if error.where.startswith("policy") else ("policy",)
        yield Mismatch(path, "; ".join(filter(None, (error.what, error.remedy))))


def _whole_teams(world: _Sections) -> Iterator[Mismatch]:
    size, spec = getattr(world.learning, "minibatch", None), world.spec
    is_central = getattr(world.learning, "central", False)
    sees_teams = is_central or getattr(world.credit, "has_critic", False)
    if spec is not None and sees_teams and isinstance(size, int) and size < spec.num_agents:
        kind = (world.learning if is_central else world.credit).kind
        team = f"a team of {spec.num_agents}, which the critic of {kind} sees whole"
        yield Mismatch(("learning", "minibatch"), f"{size} is less than {team}; give at least {spec.num_agents}")


def _simulated_worlds(world: _Sections) -> Iterator[Mismatch]:
    asks = getattr(world.credit, "asks_simulator", False)
    if asks and world.env is not None and not getattr(world.env, "simulates", False):
        message = f"{world.credit.kind} asks what would have happened otherwise, which {world.env.kind} cannot tell"
        yield Mismatch(("credit", "agent"), f"{message}; take equal or attention")
