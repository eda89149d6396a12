"""Configs of the worlds. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from coterie.config.base import KindConfig
from coterie.config.mirror import arguments, mirrors, parts, restore
from coterie.config.rules import Mismatch
from coterie.config.tree import Path
from coterie.envs.swarm.config import SwarmConfig
from coterie.envs.swarm.scenarios import SCENARIOS
from coterie.errors import ConfigError, CoterieError
from coterie.types import WorldSpec

_LEAST, _MOST = 1e-12, 1e12
_MOST_TICKS = 2**31 - 1


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

    def spec(self) -> WorldSpec:
        """What a policy has to fit.

        Raises:
            ConfigError: a value is refused.
        """
        return self.build().spec

    def faults(self) -> Iterator[Mismatch]:
        """What is wrong with values whose types are right: in each part, and then between them."""
        given: dict[str, Any] = {name: getattr(self, name) for name in SwarmConfig.__dataclass_fields__}
        spoilt = set()
        for fault in (*self._unknown_scenarios(), *self._refused_parts()):
            spoilt.add(fault.path[0])
            yield fault
        uncountable = [fault for fault in self._uncountable() if fault.path[0] not in spoilt]
        yield from uncountable
        spoilt |= {fault.path[0] for fault in uncountable}
        for name, part in parts(SwarmConfig).items():
            if given[name] is not None:
                given[name] = _best(part) if name in spoilt else restore(part, given[name])
        if "scenario" in spoilt:
            given["scenario"] = "mix"
        yield from (fault for fault in _between(given) if fault.path[0] not in spoilt)

    def _uncountable(self) -> Iterator[Mismatch]:
        """Numbers with which the world, whose own have 32 bits, cannot count."""
        for path, value in _numbers(self.model_dump(exclude={"kind", "num_envs"}), ()):
            if value and not _LEAST <= abs(value) <= _MOST:
                what = "large" if abs(value) > _MOST else "small"
                yield Mismatch(path, f"{value:g} is too {what} to compute with; keep between {_LEAST:g} and {_MOST:g}")

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


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    """All numbers in a config's data, with their paths."""
    if isinstance(value, dict | list | tuple):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, (*path, step))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _between(given: Mapping[str, Any]) -> Iterator[Mismatch]:
    """What is wrong between values that are right in themselves."""
    try:
        made = SwarmConfig(**given)
    except ConfigError as error:
        yield _mismatch(error)
        return
    if made.ticks > _MOST_TICKS:
        ticks = f"an episode has {made.ticks:.3g} ticks, and the world counts to {_MOST_TICKS:.3g}"
        yield Mismatch(("seconds",), f"{ticks}; give fewer seconds, or a lower control_hz")


def _best(part: type) -> Any:
    """A part that refuses nothing; None where it has no defaults."""
    try:
        return part()
    except TypeError:
        return None


def _mismatch(error: CoterieError) -> Mismatch:
    message = "; ".join(filter(None, (error.what, error.remedy)))
    return Mismatch(tuple(filter(None, error.where.split("."))), message)


class PettingZooConfig(EnvConfig):
    """Copies of any environment that has PettingZoo's parallel interface."""

    kind: Literal["pettingzoo"] = "pettingzoo"
    id: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
    """The module whose `parallel_env` makes it, such as `mpe2.simple_spread_v3`."""
    params: Mapping[str, Any] = {}
    """What `parallel_env` is called with."""
    num_envs: int = Field(16, ge=1, le=4096)
    """Copies that are stepped one after the other."""

    def spec(self) -> WorldSpec:
        """What a policy has to fit: one copy of the environment is made to look at it.

        Raises:
            EnvironmentMissing: a package is not installed.
            ConfigError: the module does not make such an environment; `where` is its path.
        """
        from coterie.envs.worlds import spec_of_pettingzoo

        return spec_of_pettingzoo(self)

    def faults(self) -> Iterator[Mismatch]:
        """Why there is no such environment."""
        try:
            self.spec()
        except CoterieError as error:
            fault = _mismatch(error)
            yield replace(fault, path=fault.path[1:])
