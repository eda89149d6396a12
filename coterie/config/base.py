"""The base of every config class, and `OneOf`: a field that takes any registered part of a kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from coterie import registry

_SCALARS = frozenset(("int", "float", "bool", "str"))
_MAY_BE_SECRET = object()

Secret = Annotated[str, _MAY_BE_SECRET]
"""Type of a field that may hold `${secret:NAME}`. The config keeps the reference; whoever uses the text calls
`references.resolve_secret` on the spot. Every other field refuses secrets."""


def _make_scalars_strict(schema: Any) -> None:
    """Pydantic's own strict mode would also refuse a list for a tuple and a string for a path."""
    if isinstance(schema, dict):
        if schema.get("type") in _SCALARS:
            schema["strict"] = True
        for value in schema.values():
            _make_scalars_strict(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            _make_scalars_strict(value)


class Config(BaseModel):
    """Typed, frozen, and closed: a field that nobody declared is an error.

    Scalars are strict: `true` is no number and `"3"` is text, while a list may fill a tuple. Numbers are finite.
    Only fields of the type `Secret` take `${secret:NAME}`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema

    @field_validator("*")
    @classmethod
    def _refuse_secrets(cls, value: Any, field: ValidationInfo) -> Any:
        if _MAY_BE_SECRET not in cls.model_fields[str(field.field_name)].metadata and _holds_secret(value):
            raise ValueError(
                "takes no secret, as it is kept in the run's records; write the text itself, or ${env:NAME}"
            )
        return value


def _holds_secret(value: Any) -> bool:
    if isinstance(value, str):
        return "${secret:" in value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(map(_holds_secret, children))


class KindConfig(Config):
    """Config of a registered part. Subclasses declare `kind: Literal["their_name"]` with that name as its default."""

    kind: str


class OneOf:
    """Annotation for a field that holds the config of any registered part of `kind`, told apart by its field `kind`.

    The bare name is short for a config with all defaults: `engine: vllm` means `engine: {kind: vllm}`. Those
    whose config class says otherwise than `having` do not count.
    """

    def __init__(self, kind: str, **having: object) -> None:
        self.kind, self.having = kind, having

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        configs = {entry.name: registry.load(entry.config) for entry in registry.entries(self.kind) if entry.config}
        choices = {name: handler.generate_schema(config) for name, config in configs.items() if self._fits(config)}
        if not choices:
            return core_schema.no_info_plain_validator_function(
                _refuse, json_schema_input_schema=core_schema.none_schema()
            )
        union = core_schema.tagged_union_schema(choices, discriminator="kind")
        names = core_schema.literal_schema(list(choices))
        return core_schema.no_info_before_validator_function(
            _expand, union, json_schema_input_schema=core_schema.union_schema([names, union])
        )

    def _fits(self, config: type[BaseModel]) -> bool:
        return all(getattr(config, name, value) == value for name, value in self.having.items())


def holds_parts(config: type[BaseModel]) -> bool:
    """Whether a config has a field that is a `OneOf`, so that its schema depends on what is registered."""
    return any(isinstance(note, OneOf) for field in config.model_fields.values() for note in field.metadata)


def _expand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _refuse(value: Any) -> Any:
    """Validate a field of a kind that has no parts."""
    context = {"discriminator": "'kind'", "tag": str(value), "expected_tags": "none"}
    raise PydanticKnownError("union_tag_invalid", context)
