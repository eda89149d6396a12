"""pydantic's errors in our words, each at the place where the value was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from coterie import registry
from coterie.config.problems import Problem, got, unknown
from coterie.config.schema import NAME_PATTERN
from coterie.config.shape import Spot, choices, keys, locate, one_of
from coterie.config.tree import Node

_EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text", "path_type": "a path",
    "tuple_type": "a list", "list_type": "a list", "set_type": "a list", "dict_type": "a mapping",
    "model_type": "a mapping", "model_attributes_type": "a mapping", "none_required": "nothing",
}  # fmt: skip
_LIMITS = {
    "greater_than": ("greater than", "gt"), "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"), "less_than_equal": ("at most", "le"),
    "multiple_of": ("a multiple of", "multiple_of"),
}  # fmt: skip
_UNKNOWN, _MISSING = "unknown key", "is required, and missing"
_EITHER = f"{_MISSING}; a file has `benchmark` (a society), or `env` with `policy` and `learning` (a world)"
_OF_WORLDS = {"env", "learning"}


def explain(errors: Iterable[ErrorDetails], root: Node, model: type[BaseModel] | None = None) -> list[Problem]:
    """One problem for each thing that is wrong; what the alternatives of a union say is one.

    `model` is that of a file that describes no experiment.
    """
    placed = [(locate(error["loc"], root, model), error) for error in errors if not _is_echo(error)]
    below = {spot.path[:length] for spot, _ in placed for length in range(len(spot.path))}
    # If an alternative of a union got further inside the value, it is the one that was meant.
    placed = [(spot, error) for spot, error in placed if _alternative(error) is None or spot.path not in below]
    problems = [
        problem
        for _, group in groupby(placed, key=lambda pair: pair[0].path)
        for problem in _explain_all(list(group), root)
    ]
    # A misspelt required key is one mistake, not two.
    meant = {(*problem.path[:-1], problem.hint) for problem in problems if problem.message == _UNKNOWN}
    missing = (_MISSING, _EITHER)
    return [problem for problem in problems if problem.message not in missing or problem.path not in meant]


def _is_echo(error: ErrorDetails) -> bool:
    """Whether a list is called too short only because its items were wrong."""
    context = error.get("ctx", {})
    return error["type"] == "too_short" and len(error["input"]) >= context["min_length"]


def _alternative(error: ErrorDetails) -> str | None:
    """What a union's alternative, or a single type, would have taken; None if the error is no matter of type."""
    if error["type"] == "literal_error":
        values = str(error["ctx"]["expected"]).replace("'", '"').replace(" or ", ", ")
        return f"one of {values}" if "," in values else values
    return _EXPECTED.get(error["type"])


def _explain_all(errors: list[tuple[Spot, ErrorDetails]], root: Node) -> list[Problem]:
    """The problems at one path."""
    expected = [_alternative(error) for _, error in errors]
    if not all(expected):
        return [_explain(spot, error, root) for spot, error in errors]
    spot, value = errors[0][0], errors[0][1]["input"]
    known = [choice for spot, _ in errors for choice in choices(spot.kind)]
    message = f"expected {' or '.join(dict.fromkeys(filter(None, expected)))}, got {got(value)}"
    return [unknown(root.nearest(spot.path)[1].mark, spot.path, message, str(value), known)]


def _explain(spot: Spot, error: ErrorDetails, root: Node) -> Problem:
    kind, path, value = error["type"], spot.path, got(error["input"])
    node = root.nearest(path)[1]
    is_key = kind == "extra_forbidden" or error["loc"][-1:] == ("[key]",)
    mark = node.key or node.mark if is_key else node.mark
    if kind == "extra_forbidden":
        return unknown(mark, path, _UNKNOWN, str(path[-1]), keys(spot.parent))
    if kind == "missing":
        is_unclear = path == ("benchmark",) and not _OF_WORLDS & dict(root.children()).keys()
        return Problem(mark, path, _EITHER if is_unclear else _MISSING)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _explain_kind(spot, error, root)
    mark = node.culprit if kind == "value_error" and not is_key else mark
    return Problem(mark, path, _describe(kind, error.get("ctx", {}), error["msg"], value))


def _explain_kind(spot: Spot, error: ErrorDetails, root: Node) -> Problem:
    wanted = one_of(spot.kind)
    kind = wanted.kind if wanted else "kind"
    known = registry.names(kind) if wanted else []
    value, path = error["input"], spot.path
    taken, node = root.nearest(path)
    if isinstance(value, Mapping):
        # Otherwise the part is a default or was written as a bare name.
        path = (*path, "kind") if taken == path and isinstance(node.value, dict) else path
        value = value.get("kind")
    mark = root.nearest(path)[1].mark
    if value is None:
        return Problem(mark, path, _MISSING, known=tuple(known))
    problem = unknown(mark, path, f"unknown {kind} {got(value)}", str(value), known)
    if kind == "token_credit" and value in registry.names("agent_credit"):
        return replace(problem, hint=f"credit: {{agent: {value}}}")
    return problem


def _describe(kind: str, context: Mapping[str, Any], message: str, value: str) -> str:
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"must be {words} {context[key]}, got {value}"
    if kind.endswith(("too_short", "too_long")):
        unit = "characters" if kind.startswith("string") else "items"
        if kind.endswith("short"):
            return f"needs at least {context['min_length']} {unit if context['min_length'] > 1 else unit[:-1]}"
        return f"may have at most {context['max_length']} {unit}, got {value}"
    if kind == "string_pattern_mismatch" and context["pattern"] == NAME_PATTERN:
        return f"expected a name (letters and digits, inside also _ . -; at most 64), got {value}"
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", message))
    return f"{message[:1].lower()}{message[1:]}, got {value}"
