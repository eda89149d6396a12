"""Worlds of the environments that modules of other packages make, by the module's name."""

from __future__ import annotations

import difflib
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coterie.errors import ConfigError, EnvironmentMissing
from coterie.types import WorldSpec

if TYPE_CHECKING:
    from coterie.envs.pettingzoo import PettingZooWorld


def make_world(name: str, params: Mapping[str, Any], num_envs: int, seed: int, first_env: int = 0) -> PettingZooWorld:
    """Copies of what the module's `parallel_env` makes of `params`; the rest as in `PettingZooWorld`.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    try:
        from coterie.envs.pettingzoo import PettingZooWorld
    except ModuleNotFoundError as missing:
        package = name.partition(".")[0]
        absent = [name for name in dict.fromkeys(("pettingzoo", "gymnasium", package)) if not find_spec(name)]
        what = f"the packages {', '.join(absent)} are" if len(absent) > 1 else f"the package {missing.name} is"
        remedy = " ".join(["pip install", *(name.replace("_", "-") for name in absent or [str(missing.name)])])
        raise EnvironmentMissing(f"{what} not installed", where="env.kind", remedy=remedy) from missing
    return PettingZooWorld(_maker(name, dict(params)), num_envs, seed, first_env=first_env)


def spec_of(name: str, params: Mapping[str, Any]) -> WorldSpec:
    """What the agents see and do: one copy is made to look at it, once for the same environment.

    Raises:
        EnvironmentMissing: A package is not installed.
        ConfigError: The module does not make such an environment.
    """
    key = name, json.dumps(dict(params), sort_keys=True, default=str)
    if key not in _specs:
        world = make_world(name, params, 1, 0)
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
