"""The schema by path: which type stands where, and what may be written there."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from coterie import registry
from coterie.config.base import OneOf
from coterie.config.schema import ExperimentConfig, FileConfig, WorldConfig
from coterie.config.tree import Node, Path

OF_SOCIETIES = ("benchmark", "protocol", "seats")
"""Sections by which a file with `learning` is told to be of a society."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A location of pydantic's in terms of the file: the path, the type there, and the type that holds it.

    A type is None where the schema says nothing more.
    """

    path: Path
    kind: Any
    parent: Any


def file_model(root: Node) -> type[FileConfig]:
    """What kind of file this is: of a world where it has `env`, or `learning` and nothing of a society."""
    sections = dict(root.children()).keys()
    is_world = "env" in sections or ("learning" in sections and not sections & set(OF_SOCIETIES))
    return WorldConfig if is_world else ExperimentConfig


def locate(loc: tuple[int | str, ...], root: Node, model: type[BaseModel] | None = None) -> Spot:
    """Where a location of pydantic's is in the file; `model` is that of a file that describes no experiment.

    Locations also hold tags and labels of unions, which are no keys of the file.
    """
    kind: Any = model or file_model(root)
    parent: Any = None
    path: Path = ()
    for index, step in enumerate(loc):
        if (wanted := one_of(kind)) is not None:
            kind = _config_of(wanted.kind, step)
        elif len(options := _alternatives(kind)) > 1:
            kind = next((option for option in options if _is_labelled(option, step)), None)
        elif step == "[key]":
            continue
        elif kind is not None or index == len(loc) - 1 or step in dict(root.nearest(path)[1].children()):
            path, parent, kind = (*path, step), kind, _below(kind, step)
    return Spot(as_written(path, root), kind, parent)


def as_written(path: Path, root: Node) -> Path:
    """Where the value at `path` of a config is in its file, which may hold it in a short form.

    `policy:` is short for `policies: {default: ...}`, and a rule's name or config as `credit:` for its `token`.
    """
    sections = dict(root.children())
    if path[:2] == ("policies", "default") and "policies" not in sections:
        return ("policy", *path[2:])
    if path[:2] == ("credit", "token") and "token" not in dict(sections["credit"].children()):
        return ("credit", *path[2:])
    return path


def takes_any_name(model: type[FileConfig], path: Path) -> bool:
    """Whether the value at `path` is a mapping whose keys a person chooses."""
    return get_origin(_bare(_at(model, path))) is dict


def may_be_kind(model: type[FileConfig], path: Path) -> bool:
    """Whether the value at `path` holds a registered part, or lies inside one."""
    kind = _at(model, path)
    return kind is None or one_of(kind) is not None


def keys(kind: Any) -> list[str]:
    """The keys that a mapping of this type may have."""
    options = _alternatives(kind)
    model = _model(options[0]) if len(options) == 1 else None
    fields = list(model.model_fields) if model else []
    if model is None or not issubclass(model, FileConfig):
        return fields
    return [*fields, "extends", *(["policy"] if model is ExperimentConfig else [])]


def choices(kind: Any) -> list[str]:
    """The values of a Literal, alone or among alternatives."""
    if get_origin(_bare(kind)) is Literal:
        return [str(choice) for choice in get_args(_bare(kind))]
    options = _alternatives(kind)
    return [choice for option in options for choice in choices(option)] if options != [kind] else []


def one_of(kind: Any) -> OneOf | None:
    """The `OneOf` that marks this type, if it holds a registered part."""
    options = _alternatives(kind)
    extras = get_args(options[0])[1:] if len(options) == 1 and get_origin(options[0]) is Annotated else ()
    return next((item for item in extras if isinstance(item, OneOf)), None)


def default_kind(model: type[FileConfig], path: Path) -> str | None:
    """The name of the part that stands at `path` if the file says nothing there."""
    parent = _model(_at(model, path[:-1]))
    field = parent.model_fields.get(str(path[-1])) if parent else None
    return field.default if field and isinstance(field.default, str) and one_of(_type_of(field)) else None


def _at(model: type[FileConfig], path: Path) -> Any:
    kind: Any = model
    for step in path:
        kind = _below(kind, step)
    return kind


def _below(kind: Any, step: str | int) -> Any:
    """The type at `step` inside `kind`."""
    options = _alternatives(kind)
    bare = _bare(options[0]) if len(options) == 1 else None
    if model := _model(bare):
        field = model.model_fields.get(str(step))
        return _type_of(field) if field else None
    arguments = get_args(bare)
    if get_origin(bare) is dict:
        return arguments[1]
    if get_origin(bare) in (tuple, list) and isinstance(step, int):
        is_fixed = arguments[-1] is not Ellipsis and step < len(arguments)
        return arguments[step if is_fixed else 0]
    return None


def _type_of(field: FieldInfo) -> Any:
    wanted = next((item for item in field.metadata if isinstance(item, OneOf)), None)
    return Annotated[field.annotation, wanted] if wanted else field.annotation


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _alternatives(kind: Any) -> list[Any]:
    """What a union offers besides None; anything else offers itself."""
    bare = _bare(kind)
    is_union = get_origin(bare) in (Union, types.UnionType)
    return [option for option in get_args(bare) if option is not type(None)] if is_union else [kind]


def _is_labelled(option: Any, label: str | int) -> bool:
    """Whether pydantic calls this alternative of a union `label`."""
    if model := _model(option):
        return label == model.__name__ or any(field.default == label for field in model.model_fields.values())
    bare = _bare(option)
    name = getattr(get_origin(bare) or bare, "__name__", "")
    return bool(name) and str(label).lower().startswith(name.lower())


def _config_of(kind: str, name: str | int) -> Any:
    entry = next((entry for entry in registry.entries(kind) if entry.name == name), None)
    return registry.load(entry.config) if entry else None


def _model(kind: Any) -> type[BaseModel] | None:
    bare = _bare(kind)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None
