"""From an experiment file to its typed config, or to every error in it at once.

    files -> tree (`sources`, `yaml`) -> `-o` (`overrides`) -> `${env:}` (`references`)
      -> `plugins` -> `rules`, pydantic (`explain`) and what parts say of themselves (`parts`) -> config

Every step adds its problems to one list; nothing is started before the list is empty. A step that lacks something
because of an earlier problem (a file, a plugin) leaves out what may only follow from that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from coterie import registry
from coterie.config.base import holds_parts
from coterie.config.explain import explain
from coterie.config.grid import SECTION, Point, check_grid, expand
from coterie.config.overrides import Overrides, apply
from coterie.config.parts import check_benchmark, check_world, draft_world, place
from coterie.config.plugins import import_installed, import_named
from coterie.config.problems import InvalidConfig, Mismatch, Problem
from coterie.config.references import replace_env
from coterie.config.rules import check, find_mismatches
from coterie.config.schema import (
    CreditConfig,
    ExperimentConfig,
    FileConfig,
    PolicyConfig,
    StudyConfig,
    WorldConfig,
    WorldCreditConfig,
)
from coterie.config.shape import OF_SOCIETIES, as_written, file_model
from coterie.config.sharing import shared_path, with_own_policies
from coterie.config.sources import Sources
from coterie.config.tree import Mark, Node, from_python
from coterie.config.world_rules import check_sections, find_world_mismatches
from coterie.errors import ConfigError, PluginError

_built_for: tuple[registry.Entry, ...] = ()
# Types of pydantic's errors that may only follow from a file, or a plugin, that is not there.
_MISSES_A_FILE = ("missing", "union_tag_not_found", "too_short")
_MISSES_A_PART = ("union_tag_invalid",)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid experiment, and what it was made of.

    Attributes:
        config: Every field, defaults filled in. Secrets stand in it as `${secret:NAME}`.
        base: The folder that relative paths start from.
        source_files: SHA-256 of each file read, by its path.
        plugins: SHA-256 of each plugin, by its name.
        root: The tree that it was read from.
        points: The experiments of its `sweep:`; none without one.
    """

    config: ExperimentConfig | WorldConfig
    base: Path
    source_files: Mapping[str, str]
    plugins: Mapping[str, str]
    root: Node = field(repr=False)
    points: tuple[Point, ...] = ()

    @property
    def caution(self) -> str:
        """What is allowed and misleads whoever reads the results, with place and remedy; empty: nothing."""
        if not isinstance(self.config, WorldConfig):
            return ""
        caution = getattr(self.config.env, "caution", None)  # A plugin's world need not know of it.
        return str(caution()) if caution else ""

    def at(self, point: Point) -> Loaded:
        """One experiment of the sweep."""
        return replace(self, config=point.config, root=point.root, points=())

    def check_single(self) -> None:
        """Refuse a sweep where one experiment is wanted.

        Raises:
            InvalidConfig: there is a section `sweep`.
        """
        if self.points:
            node = self.root.nearest((SECTION,))[1]
            what = f"describes {len(self.points)} experiments: run them with `coterie sweep`"
            raise InvalidConfig([Problem(node.key or node.mark, (SECTION,), what)])

    def place(self, error: ConfigError, section: str = "benchmark") -> InvalidConfig:
        """What a part said against its config only when it was made, at the place where that is written."""
        return InvalidConfig([place(error, self.root, section)])


def load(path: str | Path, overrides: Overrides = ()) -> Loaded:
    """Load an experiment file.

    Args:
        path: A YAML file.
        overrides: `a.b=c` texts, or values by path, applied in order after all that the file extends.

    Raises:
        InvalidConfig: its text lists every problem with file, line, column and path.
    """
    sources = Sources()
    root = sources.read(Path(path))
    return _finish(root, sources, overrides, Path(path).resolve().parent)


def loads(data: Mapping[str, Any] | FileConfig, overrides: Overrides = (), base: str | Path = ".") -> Loaded:
    """Load an experiment given as a mapping, or check one built in Python.

    Like `load`; relative paths start from the folder `base`, and places in messages are just `config`.
    """
    if isinstance(data, FileConfig):
        data = data.model_dump()
    sources = Sources()
    root = sources.extend(from_python(data, Mark("config")), Path(base))
    return _finish(root, sources, overrides, Path(base).resolve())


def rebuild() -> None:
    """Make the schema know every part that is registered by now."""
    global _built_for
    parts = tuple(entry for kind in registry.KINDS for entry in registry.entries(kind))
    if parts == _built_for:
        return
    configs = {registry.load(entry.config) for entry in parts if entry.config}
    sections = PolicyConfig, CreditConfig, WorldCreditConfig, StudyConfig
    for model in (*(c for c in configs if holds_parts(c)), *sections, ExperimentConfig, WorldConfig):
        model.model_rebuild(force=True)
    _built_for = parts


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of experiment files, with the parts of every installed plugin."""
    import_installed()
    rebuild()
    mode: Literal["validation"] = "validation"
    of_societies = [{"required": [name]} for name in OF_SOCIETIES]
    found, definitions = models_json_schema([(ExperimentConfig, mode), (WorldConfig, mode)])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Coterie experiment",
        "if": {"anyOf": [{"required": ["env"]}, {"required": ["learning"], "not": {"anyOf": of_societies}}]},
        "then": found[WorldConfig, mode],
        "else": found[ExperimentConfig, mode],
        **definitions,
    }


def _finish(root: Node, sources: Sources, overrides: Overrides, base: Path) -> Loaded:
    # What an override would change in a file that could not be read is not known.
    set_fields = apply(root, overrides) if sources.is_whole else []
    problems = [*sources.problems, *set_fields, *replace_env(root)]
    plugins, broken = _import_plugins(root, base)
    rebuild()
    asked = dict[str, list[Problem]]()
    config, more = _validate(root, base, asked, is_whole=sources.is_whole, knows_parts=not broken)
    _refuse([*problems, *broken, *more])
    assert config is not None
    return Loaded(config, base, dict(sources.hashes), plugins, root, _expand(root, base, asked))


def _expand(root: Node, base: Path, asked: dict[str, list[Problem]]) -> tuple[Point, ...]:
    """Every experiment of a sweep, or every problem in any of them."""
    points, problems = [], check_grid(root)
    for settings, tree, unwritten in [] if problems else expand(root):
        config, more = _validate(tree, base, asked, is_whole=True, knows_parts=True)
        problems += [*unwritten, *more]
        if config is not None:
            points.append(Point(settings, config, tree))
    _refuse(problems)
    return tuple(points)


def _validate(
    root: Node, base: Path, asked: dict[str, list[Problem]], *, is_whole: bool, knows_parts: bool
) -> tuple[ExperimentConfig | WorldConfig | None, list[Problem]]:
    data = root.plain() if isinstance(root.value, dict) else {}
    if "env" in data and "benchmark" in data:
        message = "stands beside `benchmark`: a file is of a world (`env`) or of a society (`benchmark`), keep one"
        return None, _place([Mismatch(("env",), message, is_key=True)], root)
    model = file_model(root)
    if model is WorldConfig:
        problems = _place(find_world_mismatches(data), root)
        drafts = draft_world(data) if is_whole else {}
        problems += [*check_world(root, drafts), *_place(check_sections(drafts), root)]
    else:
        problems = _place(find_mismatches(data, is_whole=is_whole, knows_parts=knows_parts), root)
        problems += _ask_benchmark(root, data, base, asked) if is_whole else []
    try:
        config = model.model_validate(data)
    except ValidationError as error:
        follows = (_MISSES_A_FILE if not is_whole else ()) + (_MISSES_A_PART if not knows_parts else ())
        errors = [found for found in error.errors(include_url=False) if found["type"] not in follows]
        return None, [*problems, *explain(errors, root)]
    if isinstance(config, ExperimentConfig):
        shared, config = config, with_own_policies(config)
        problems += _place((replace(one, path=shared_path(one.path, shared)) for one in check(config)), root)
    assert isinstance(config, ExperimentConfig | WorldConfig)
    return config, problems


def _ask_benchmark(root: Node, data: dict[str, Any], base: Path, asked: dict[str, list[Problem]]) -> list[Problem]:
    """Once for all experiments of a file that have the same tasks: some benchmarks take seconds to answer."""
    tasks = json.dumps([data.get(name) for name in ("benchmark", "seed")], sort_keys=True, default=str)
    if tasks not in asked:
        asked[tasks] = check_benchmark(root, data, base)
    return asked[tasks]


def _place(mismatches: Iterable[Mismatch], root: Node) -> list[Problem]:
    return [replace(one, path=as_written(one.path, root)).placed(root) for one in mismatches]


def _import_plugins(root: Node, base: Path) -> tuple[dict[str, str], list[Problem]]:
    """Import what the file names; what is no list of texts is left for validation to find."""
    hashes, broken = dict[str, str](), list[Problem]()
    try:
        hashes |= import_installed()
    except PluginError as error:
        broken.append(Problem(Mark(error.where), (), _tell(error)))
    imports = dict(root.children()).get("imports", Node([], root.mark))
    for index, item in imports.children():
        if isinstance(item.value, str):
            try:
                hashes[item.value] = import_named(item.value, base)
            except PluginError as error:
                broken.append(Problem(item.mark, ("imports", index), f"{_tell(error)} ({error.where})"))
    return hashes, broken


def _tell(error: PluginError) -> str:
    return "; ".join(filter(None, (error.what, error.remedy)))


def _refuse(problems: Sequence[Problem]) -> None:
    """Raise what there is to say, once for each value: the first step that complains knows best."""
    if problems:
        first = {(problem.mark, problem.path): problem for problem in reversed(problems)}
        raise InvalidConfig(sorted(first.values(), key=_order))


def _order(problem: Problem) -> tuple[bool, str, int, int]:
    return not problem.mark.line, problem.mark.source, problem.mark.line, problem.mark.column
