"""What registered parts have to say against their config beyond its types, at the place where it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.problems import Problem, unknown
from coterie.config.tree import Node
from coterie.errors import ConfigError, CoterieError

_SECTION = "benchmark"
_OF_WORLDS = {"env": "env", "policy": "policy", "learning": "learner"}


def check_benchmark(root: Node, data: Mapping[str, Any], base: Path) -> list[Problem]:
    """Have the benchmark look at its own parameters, if its config is valid in itself; see `Benchmark`.

    Without a network: a benchmark whose `path` is null reads from a hub, and is left alone. What the machine lacks is
    for the run to say.
    """
    config = _typed(_SECTION, data.get(_SECTION))
    if config is None or getattr(config, "path", "") is None:
        return []
    seed = data.get("seed", 0)
    try:
        made = registry.impl(_SECTION, config.kind)
        getattr(made, "check", made)(config, seed if isinstance(seed, int) else 0, base)
    except ConfigError as error:
        return [place(error, root)]
    except CoterieError:
        return []
    except Exception as bug:
        what = f"the benchmark {config.kind} cannot be made: {type(bug).__name__}: {bug}"
        return [Problem(root.nearest((_SECTION,))[1].mark, (_SECTION,), what)]
    return []


def check_world(root: Node, data: Mapping[str, Any]) -> list[Problem]:
    """What the parts of a world say against their own values, each if its config is valid in itself.

    A config with `faults` tells them all, one with `build` the first.
    """
    problems = []
    for section, kind in _OF_WORLDS.items():
        config = _typed(kind, data.get(section))
        for fault in getattr(config, "faults", tuple)():
            path = (section, *fault.path)
            mark = root.nearest(path)[1].culprit
            known = unknown(mark, path, fault.message, fault.name, fault.known)
            problems.append(known if fault.known else Problem(mark, path, fault.message))
        if not hasattr(config, "faults"):
            problems += _refused(config, root, section)
    return problems


def _refused(config: KindConfig | None, root: Node, section: str) -> list[Problem]:
    try:
        getattr(config, "build", tuple)()
    except ConfigError as error:
        return [place(error, root, section)]
    return []


def place(error: ConfigError, root: Node, section: str = _SECTION) -> Problem:
    """An error whose `where` begins with a path such as `benchmark.params.size`; without one it is the section's."""
    found = re.match(rf"{section}(\.\w+)*", error.where)
    path = tuple(found[0].split(".")) if found else (section,)
    message = "; ".join(filter(None, (error.what, error.remedy)))
    if rest := error.where[len(found[0]) if found else 0 :].strip(": "):
        message += f" ({rest})"
    return Problem(root.nearest(path)[1].culprit, path, message)


def _typed(kind: str, section: Any) -> KindConfig | None:
    """A part's config, if it is valid whatever else is wrong in the file."""
    section = {"kind": section} if isinstance(section, str) else section
    name = section.get("kind") if isinstance(section, Mapping) else None
    if name not in registry.names(kind):
        return None
    try:
        config: KindConfig = registry.load(registry.get(kind, str(name)).config).model_validate(section)
    except ValidationError:
        return None
    return config
