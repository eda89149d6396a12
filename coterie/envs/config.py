"""Configs of the worlds. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, replace
from dataclasses import Field as PartField
from typing import Any, ClassVar, Literal, TypeVar, cast

from pydantic import Field

from coterie.config.base import Config, KindConfig
from coterie.config.mirror import mirrors, parts, restore
from coterie.config.problems import Mismatch
from coterie.config.tree import Path
from coterie.envs import parallel
from coterie.envs.swarm.config import CHECKS, GRACE, SwarmConfig
from coterie.envs.swarm.scenarios import SCENARIOS
from coterie.errors import ConfigError, CoterieError
from coterie.types import WorldSpec

_LEAST, _MOST = 1e-12, 1e12
_MOST_TICKS = 2**31 - 1
_UNKNOWN: Any = object()
Part = TypeVar("Part")


class EnvConfig(KindConfig):
    """What every world has."""

    simulates: ClassVar[bool] = False
    """Whether it can tell what would have happened otherwise; see `envs.swarm.counterfactuals`."""
    first_use: ClassVar[str] = ""
    """What takes time where it is made for the first time, in words."""
    num_envs: int = Field(256, ge=1, le=1_048_576)
    """Environments that are stepped at once."""

    def caution(self) -> str:
        """What is allowed and misleads whoever reads the results, with place and remedy; empty: nothing."""
        return ""


@mirrors(SwarmConfig)
class QuadSwarmConfig(EnvConfig):
    """Swarms of quadrotors; see `SwarmConfig` for its fields."""

    simulates: ClassVar[bool] = True
    first_use: ClassVar[str] = "a swarm's kernels are compiled at their first use, for about a minute"
    kind: Literal["quad_swarm_v0"] = "quad_swarm_v0"

    def build(self) -> SwarmConfig:
        """What the world is made of.

        Raises:
            ConfigError: a value is refused; `where` is its path.
        """
        return restore(SwarmConfig, self)

    def caution(self) -> str:
        seconds = self.build().seconds
        if seconds > GRACE:
            return ""
        ignored = f"contacts in the first {GRACE:g} s of an episode are no collisions"
        return f"env.seconds: {ignored}, so episodes of {seconds:g} s have none; give more seconds to count them"

    def spec(self) -> WorldSpec:
        """What a policy has to fit, whatever else is wrong with the world.

        Raises:
            ConfigError: a value is refused that this follows from.
        """
        world: SwarmConfig = _unchecked(SwarmConfig, self, {fault.path for fault in self.faults()})
        try:
            spec = world.spec
        except (AttributeError, TypeError):
            spec = None
        if spec is None or spec.num_agents is _UNKNOWN:
            raise ConfigError("the world is refused", where="env", remedy="see `coterie validate`")
        return spec

    def faults(self) -> Iterator[Mismatch]:
        """What is wrong with values whose types are right, in each part, and then between them.

        Nothing is said that would need a value that is absent (see `drafts`), or refused by itself.
        """
        found = [*self._unknown_scenarios(), *self._refused_parts()]
        found += [fault for fault in self._uncountable() if not _is_told(fault.path, {one.path for one in found})]
        yield from found
        yield from _between(self, _absent(self, SwarmConfig) | {fault.path for fault in found})

    def _uncountable(self) -> Iterator[Mismatch]:
        """Numbers with which the world, whose own have 32 bits, cannot count."""
        given = {name: value for name, value in vars(self).items() if name in SwarmConfig.__dataclass_fields__}
        for path, value in _numbers(given, ()):
            if value and not _LEAST <= abs(value) <= _MOST:
                what = "large" if abs(value) > _MOST else "small"
                yield Mismatch(path, f"{value:g} is too {what} to compute with; keep between {_LEAST:g} and {_MOST:g}")

    def _unknown_scenarios(self) -> Iterator[Mismatch]:
        given: Any = vars(self).get("scenario", ())
        for index, name in enumerate([given] if isinstance(given, str) else given):
            if name not in SCENARIOS and name != "mix":
                path = ("scenario",) if isinstance(given, str) else ("scenario", index)
                yield Mismatch(path, f'unknown scenario "{name}"', name, ("mix", *SCENARIOS))

    def _refused_parts(self) -> Iterator[Mismatch]:
        for name, part in parts(SwarmConfig).items():
            if (config := vars(self).get(name)) is not None:
                yield from _refusals(part, vars(config))


def _refusals(part: type, given: Mapping[str, Any]) -> Iterator[Mismatch]:
    """All that a dataclass says against values: what it refused first is replaced, so that it can say the next."""
    replacements = {name: _default(field) for name, field in part.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    values = {**replacements, **given}
    for _ in values:
        try:
            part(**values)
            return
        except ConfigError as error:
            yield (fault := _mismatch(error))
        name = str(fault.path[-1])
        if name not in values or values[name] == replacements[name]:
            return
        values[name] = replacements[name]


def _default(field: PartField[Any]) -> Any:
    """What a field holds if nothing is said; of one that must be given, a number that nobody refuses."""
    return 1 if field.default is MISSING else field.default


def _between(config: Config, wrong: set[Path]) -> Iterator[Mismatch]:
    """What the world says against its own values and what does not go together, beyond those that are wrong."""
    for check in (*CHECKS, _check_ticks):
        try:
            check(_unchecked(SwarmConfig, config, wrong))
        except ConfigError as error:
            fault = _mismatch(error)
            if not _is_told(fault.path, wrong):
                yield fault
                wrong = {*wrong, fault.path}
        except (AttributeError, TypeError):
            if not wrong:
                raise


def _check_ticks(swarm: SwarmConfig) -> None:
    if swarm.ticks > _MOST_TICKS:
        raise ConfigError(
            f"an episode has {swarm.ticks:.3g} ticks, and the world counts to {_MOST_TICKS:.3g}", where="seconds",
            remedy="give fewer seconds, or a lower control_hz",
        )  # fmt: skip


def _is_told(path: Path, wrong: Collection[Path]) -> bool:
    return any(path[: len(other)] == other[: len(path)] for other in wrong)


def _absent(config: Config, part: type) -> set[Path]:
    """The fields of a dataclass that a draft of its mirror lacks, also inside its parts."""
    given = vars(config)
    found: set[Path] = {(name,) for name in part.__dataclass_fields__ if name not in given}  # type: ignore[attr-defined]
    for name, inner in parts(part).items():
        if isinstance(given.get(name), Config):
            found |= {(name, *path) for path in _absent(given[name], inner)}
    return found


def _unchecked(part: type[Part], config: Config, wrong: Collection[Path]) -> Part:
    """A dataclass that refuses nothing; whoever reads a value that is wrong in itself fails."""
    values, held = dict[str, Any](), parts(cast(type, part))
    for name, value in vars(config).items():
        below = [path[1:] for path in wrong if path[0] == name]
        if name in held and isinstance(value, Config) and () not in below:
            values[name] = _unchecked(held[name], value, below)
        elif name in part.__dataclass_fields__:  # type: ignore[attr-defined]
            values[name] = _UNKNOWN if below else value
    unknown = dict.fromkeys(part.__dataclass_fields__, _UNKNOWN)  # type: ignore[attr-defined]
    lenient = type(part.__name__, (part,), {"__post_init__": lambda self: None})
    made: Part = lenient(**unknown | values)
    return made


def _numbers(value: Any, path: Path) -> Iterator[tuple[Path, float]]:
    """All numbers in a config's data, with their paths."""
    if isinstance(value, Config):
        value = vars(value)
    if isinstance(value, dict | list | tuple):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, (*path, step))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


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
        return parallel.spec_of(self.id, self.params)

    def faults(self) -> Iterator[Mismatch]:
        """Why there is no such environment."""
        try:
            self.spec()
        except CoterieError as error:
            fault = _mismatch(error)
            yield replace(fault, path=fault.path[1:])
