"""From an experiment file to its typed config, or to every error in it at once.

    files -> tree (`sources`, `yaml`) -> `-o` (`overrides`) -> `${env:}` (`references`)
      -> `plugins` -> `rules` and pydantic (`explain`) -> config

Until the tree is whole, every step adds its problems to one list; nothing is started before the list is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coterie import registry
from coterie.config.explain import explain
from coterie.config.overrides import apply
from coterie.config.plugins import import_installed, import_named
from coterie.config.problems import InvalidConfig, Problem, unknown
from coterie.config.references import replace_env
from coterie.config.rules import Mismatch, check, find_mismatches
from coterie.config.schema import ExperimentConfig, PolicyConfig
from coterie.config.sources import Sources
from coterie.config.tree import Mark, Node, from_python
from coterie.errors import PluginError

_built_for: tuple[registry.Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid experiment, and what it was made of.

    Attributes:
        config: Every field, defaults filled in. Secrets stand in it as `${secret:NAME}`.
        base: The folder that relative paths start from.
        source_files: SHA-256 of each file read, by its path.
        plugins: SHA-256 of each plugin, by its name.
    """

    config: ExperimentConfig
    base: Path
    source_files: Mapping[str, str]
    plugins: Mapping[str, str]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Loaded:
    """Load an experiment file.

    Args:
        path: A YAML file.
        overrides: `a.b=c` texts, applied in order after all that the file extends.

    Raises:
        ConfigError: its text lists every problem with file, line, column and path.
        PluginError: a plugin is broken.
    """
    sources = Sources()
    root = sources.read(Path(path))
    return _finish(root, sources, overrides, Path(path).resolve().parent)


def loads(data: Mapping[str, Any] | ExperimentConfig, overrides: Sequence[str] = (), base: str | Path = ".") -> Loaded:
    """Load an experiment given as a mapping, or check one built in Python.

    Like `load`; relative paths start from the folder `base`, and places in messages are just `config`.
    """
    if isinstance(data, ExperimentConfig):
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
    for model in (PolicyConfig, ExperimentConfig):
        model.model_rebuild(force=True)
    _built_for = parts


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of experiment files, with the parts of every installed plugin."""
    import_installed()
    rebuild()
    schema = ExperimentConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Coterie experiment"}


def _finish(root: Node, sources: Sources, overrides: Sequence[str], base: Path) -> Loaded:
    if not sources.is_whole:
        _refuse(sources.problems)
    problems = [*sources.problems, *apply(root, overrides), *replace_env(root)]
    plugins = _import_plugins(root, base)
    rebuild()
    config, more = _validate(root)
    _refuse([*problems, *more])
    assert config is not None
    return Loaded(config, base, dict(sources.hashes), plugins)


def _validate(root: Node) -> tuple[ExperimentConfig | None, list[Problem]]:
    data = root.plain()
    problems = _place(find_mismatches(data), root)
    try:
        config = ExperimentConfig.model_validate(data)
    except ValidationError as error:
        return None, [*problems, *explain(error.errors(include_url=False), root)]
    return config, [*problems, *_place(check(config), root)]


def _place(mismatches: Iterable[Mismatch], root: Node) -> list[Problem]:
    return [_place_one(mismatch, root.nearest(mismatch.path)[1].mark) for mismatch in mismatches]


def _place_one(mismatch: Mismatch, mark: Mark) -> Problem:
    if mismatch.known:
        return unknown(mark, mismatch.path, mismatch.message, mismatch.name, mismatch.known)
    return Problem(mark, mismatch.path, mismatch.message)


def _import_plugins(root: Node, base: Path) -> dict[str, str]:
    """Import what the file names; what is no list of texts is left for validation to find."""
    imports = dict(root.children()).get("imports", Node([], root.mark))
    named = [item for _, item in imports.children() if isinstance(item.value, str)]
    hashes = import_installed()
    for item in named:
        try:
            hashes[str(item.value)] = import_named(str(item.value), base)
        except PluginError as error:
            raise PluginError(error.what, where=f"{item.mark} ({error.where})", remedy=error.remedy) from error
    return hashes


def _refuse(problems: Sequence[Problem]) -> None:
    """Raise what there is to say, once for each value: the first step that complains knows best."""
    if problems:
        first = {(problem.mark, problem.path): problem for problem in reversed(problems)}
        raise InvalidConfig(sorted(first.values(), key=_order))


def _order(problem: Problem) -> tuple[bool, str, int, int]:
    return not problem.mark.line, problem.mark.source, problem.mark.line, problem.mark.column
