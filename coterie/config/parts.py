"""What registered parts have to say against their config beyond its types, at the place where it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie import registry
from coterie.config.base import KindConfig
from coterie.config.drafts import Draft, make_draft, tell
from coterie.config.problems import Problem, unknown
from coterie.config.tree import Node
from coterie.errors import ConfigError, CoterieError

_SECTION = "benchmark"
_OF_WORLDS = {"env": "env", "policy": "policy", "learning": "learner", "executor": "executor"}


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


def draft_world(data: Mapping[str, Any]) -> dict[str, Draft]:
    """The parts of a world by section, as far as their values are right."""
    given = {"executor": "local", **data}
    drafts = {section: make_draft(kind, given.get(section)) for section, kind in _OF_WORLDS.items()}
    if isinstance(credit := data.get("credit"), Mapping):
        drafts["credit.agent"] = make_draft("world_credit", credit.get("agent"))
    return drafts


def check_world(root: Node, drafts: Mapping[str, Draft]) -> list[Problem]:
    """What the parts of a world say against their own values, beyond types and limits.

    A config with `faults` tells all that does not need a value which is wrong in itself; one with `build` the first, if
    there is no such value.
    """
    problems = []
    for section, draft in drafts.items():
        for fault in tell(getattr(draft.config, "faults", tuple), [draft]):
            if any(fault.path[: len(wrong)] == wrong for wrong in draft.wrong):
                continue
            path = (*section.split("."), *fault.path)
            mark = root.nearest(path)[1].culprit
            known = unknown(mark, path, fault.message, fault.name, fault.known)
            problems.append(known if fault.known else Problem(mark, path, fault.message))
        if draft.is_whole and not hasattr(draft.config, "faults"):
            problems += _refused(draft.config, root, section)
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
