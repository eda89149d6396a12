"""What registered parts have to say against their config beyond its types, at the place where it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.problems import Problem
from coterie.config.tree import Node
from coterie.errors import ConfigError, CoterieError

_SECTION = "benchmark"


def check_benchmark(root: Node, data: Mapping[str, Any], base: Path) -> list[Problem]:
    """Have the benchmark look at its own parameters, if its config is valid in itself; see `Benchmark`.

    Without a network: a benchmark whose `path` is null reads from a hub, and is left alone. What the machine lacks is
    for the run to say.
    """
    config = _typed(data.get(_SECTION))
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


def place(error: ConfigError, root: Node) -> Problem:
    """An error whose `where` begins with a path such as `benchmark.params.size`; without one it is the benchmark's."""
    found = re.match(rf"{_SECTION}(\.\w+)*", error.where)
    path = tuple(found[0].split(".")) if found else (_SECTION,)
    message = "; ".join(filter(None, (error.what, error.remedy)))
    if rest := error.where[len(found[0]) if found else 0 :].strip(": "):
        message += f" ({rest})"
    return Problem(root.nearest(path)[1].culprit, path, message)


def _typed(section: Any) -> KindConfig | None:
    """The benchmark's config, if it is valid whatever else is wrong in the file."""
    section = {"kind": section} if isinstance(section, str) else section
    kind = section.get("kind") if isinstance(section, Mapping) else None
    if kind not in registry.names(_SECTION):
        return None
    try:
        config: KindConfig = registry.load(registry.get(_SECTION, str(kind)).config).model_validate(section)
    except ValidationError:
        return None
    return config
