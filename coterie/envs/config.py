"""Configs of the worlds. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from coterie.config.base import KindConfig
from coterie.config.mirror import arguments, mirrors, parts, restore
from coterie.config.rules import Mismatch
from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.scenarios import SCENARIOS
from coterie.errors import ConfigError


class EnvConfig(KindConfig):
    """What every world has."""

    num_envs: int = Field(256, ge=1, le=1_048_576)
    """Environments that are stepped at once."""


@mirrors(SwarmConfig)
class QuadSwarmConfig(EnvConfig):
    """Swarms of quadrotors; see `SwarmConfig` for its fields."""

    kind: Literal["quad_swarm_v0"] = "quad_swarm_v0"

    def build(self) -> SwarmConfig:
        """What the world is made of.

        Raises:
            ConfigError: a value is refused; `where` is its path.
        """
        return restore(SwarmConfig, self)

    def faults(self) -> Iterator[Mismatch]:
        """What is wrong with values whose types are right: in each part, and then between them."""
        given: dict[str, Any] = {name: getattr(self, name) for name in SwarmConfig.__dataclass_fields__}
        spoilt = set()
        for fault in (*self._unknown_scenarios(), *self._refused_parts()):
            spoilt.add(fault.path[0])
            yield fault
        for name, part in parts(SwarmConfig).items():
            if given[name] is not None:
                given[name] = _best(part) if name in spoilt else restore(part, given[name])
        if "scenario" in spoilt:
            given["scenario"] = "mix"
        try:
            SwarmConfig(**given)
        except ConfigError as error:
            fault = _mismatch(error)
            if fault.path[0] not in spoilt:
                yield fault

    def _unknown_scenarios(self) -> Iterator[Mismatch]:
        given: Any = getattr(self, "scenario")  # noqa: B009  # a field of the mirror
        for index, name in enumerate([given] if isinstance(given, str) else given):
            if name not in SCENARIOS and name != "mix":
                path = ("scenario",) if isinstance(given, str) else ("scenario", index)
                yield Mismatch(path, f'unknown scenario "{name}"', name, ("mix", *SCENARIOS))

    def _refused_parts(self) -> Iterator[Mismatch]:
        for name, part in parts(SwarmConfig).items():
            config = getattr(self, name)
            values = {} if config is None else arguments(part, config)
            for _ in range(len(values)):
                try:
                    part(**values)
                    break
                except ConfigError as error:
                    yield (fault := _mismatch(error))
                # Said once; what else there is to say shows without it.
                field = type(config).model_fields.get(str(fault.path[-1]))
                if field is None or field.is_required() or values[str(fault.path[-1])] == field.default:
                    break
                values[str(fault.path[-1])] = field.default


def _best(part: type) -> Any:
    """A part that refuses nothing; None where it has no defaults."""
    try:
        return part()
    except TypeError:
        return None


def _mismatch(error: ConfigError) -> Mismatch:
    message = "; ".join(filter(None, (error.what, error.remedy)))
    return Mismatch(tuple(error.where.split(".")), message)


class PettingZooConfig(EnvConfig):
    """Copies of any environment that has PettingZoo's parallel interface."""

    kind: Literal["pettingzoo"] = "pettingzoo"
    id: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    """The module whose `parallel_env` makes it, such as `mpe2.simple_spread_v3`."""
    params: Mapping[str, Any] = {}
    """What `parallel_env` is called with."""
    num_envs: int = Field(16, ge=1, le=4096)
    """Copies that are stepped one after the other."""
