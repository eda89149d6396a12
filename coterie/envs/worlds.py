"""Worlds from their configs."""

from __future__ import annotations

import difflib
import importlib
import itertools
import json
import pkgutil
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coterie.envs.cores import count_cores
from coterie.errors import ConfigError, EnvironmentMissing
from coterie.types import WorldSpec

if TYPE_CHECKING:
    from coterie.envs.config import PettingZooConfig, QuadSwarmConfig
    from coterie.envs.pettingzoo import PettingZooWorld
    from coterie.types import World

_DRONES = 512
"""In a part: enough that a policy is asked for many actions at a time."""
_MOST_PARTS = 16


def make_swarm(config: QuadSwarmConfig, seed: int, first_env: int = 0, device: str = "cpu") -> World:
    """Quadrotor swarms, on a CPU in parts of about 512 drones: as many as the config makes, not the machine.

    Args:
        config: The world.
        seed: Of all episodes.
        first_env: Index of the first environment, where these are a shard of more.
        device: Where the policy is. On a GPU the swarms are, too, if they can be: see `VecSwarm`.
    """
    from coterie.envs.joined import JoinedWorld
    from coterie.envs.swarm.training import SwarmWorld
    from coterie.envs.swarm.world import fits_gpu

    made, envs = config.build(), config.num_envs
    if device == "cuda" and fits_gpu(made):
        return SwarmWorld(made, envs, seed, first_env=first_env, device=device)
    parts = min(max(envs * made.num_drones // _DRONES, 1), envs, _MOST_PARTS)
    if parts == 1:
        return SwarmWorld(made, envs, seed, first_env=first_env)
    edges = [envs * part // parts for part in range(parts + 1)]
    worlds = [
        SwarmWorld(made, high - low, seed, first_env=first_env + low, threads=1)
        for low, high in itertools.pairwise(edges)
    ]
    return JoinedWorld(worlds, threads=min(parts, count_cores()))


def make_pettingzoo(config: PettingZooConfig, seed: int, first_env: int = 0) -> PettingZooWorld:
    """Copies of a `ParallelEnv`; `first_env` as in `make_swarm`.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    try:
        from coterie.envs.pettingzoo import PettingZooWorld
    except ModuleNotFoundError as missing:
        package = config.id.partition(".")[0]
        absent = [name for name in dict.fromkeys(("pettingzoo", "gymnasium", package)) if not find_spec(name)]
        what = f"the packages {', '.join(absent)} are" if len(absent) > 1 else f"the package {missing.name} is"
        remedy = " ".join(["pip install", *(name.replace("_", "-") for name in absent or [str(missing.name)])])
        raise EnvironmentMissing(f"{what} not installed", where="env.kind", remedy=remedy) from missing
    return PettingZooWorld(_maker(config.id, dict(config.params)), config.num_envs, seed, first_env=first_env)


def spec_of_pettingzoo(config: PettingZooConfig) -> WorldSpec:
    """What the agents of a `ParallelEnv` see and do: a copy is made to look at it, once for the same environment.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    key = config.id, json.dumps(dict(config.params), sort_keys=True, default=str)
    if key not in _specs:
        world = make_pettingzoo(config.model_copy(update={"num_envs": 1}), 0)
        world.close()
        _specs[key] = world.spec
    return _specs[key]


_specs: dict[tuple[str, str], WorldSpec] = {}


def _maker(name: str, params: dict[str, Any]) -> Callable[[], Any]:
    make = getattr(_import(name), "parallel_env", None)
    if make is None:
        raise ConfigError(f"{name} has no parallel_env", where="env.id",
                          remedy="name a module with PettingZoo's parallel interface")  # fmt: skip

    def made() -> Any:
        try:
            return make(**params)
        except Exception as cause:  # of somebody else's environment: anything
            given = ", ".join(f"{name}={value!r}" for name, value in params.items())
            raise ConfigError(
                f"parallel_env({given}) fails: {type(cause).__name__}: {cause}", where="env.params",
                remedy=f"give what {name}.parallel_env takes",
            ) from cause  # fmt: skip

    return made


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        absent = str(missing.name)
        if name != absent and not name.startswith(f"{absent}."):
            raise _not_installed(absent, "env.id", f", which {name} needs") from missing
        package, _, last = absent.rpartition(".")
        if not package:
            raise _not_installed(absent, "env.id") from missing
        known = _modules(package)
        near = difflib.get_close_matches(last, known, 1)
        remedy = f"did you mean {package}.{near[0]}?" if near else f"{package} has: {', '.join(known) or 'none'}"
        raise ConfigError(f"{package} has no module {last}", where="env.id", remedy=remedy) from missing
    except Exception as cause:  # of somebody else's module: anything
        raise ConfigError(f"{name} cannot be imported: {type(cause).__name__}: {cause}", where="env.id") from cause


def _modules(package: str) -> list[str]:
    path = getattr(importlib.import_module(package), "__path__", ())
    return sorted(module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_"))


def _not_installed(name: str, where: str, needed: str = "") -> EnvironmentMissing:
    package = name.partition(".")[0]
    return EnvironmentMissing(
        f"the package {package}{needed} is not installed", where=where,
        remedy=f"pip install {package.replace('_', '-')}" + ("" if needed else ", or mend the name"),
    )  # fmt: skip
