"""What is wrong with an experiment file: single problems, and the error that shows all of them at once."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from coterie import text
from coterie.config.tree import Mark, Node, Path, show
from coterie.errors import ConfigError

_MAX_GOT = 60
_MAX_KNOWN = 40
_MAX_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it stands, the path of the value, what is wrong, and the names that would have been right."""

    mark: Mark
    path: Path
    message: str
    hint: str = ""
    """The known name that was probably meant."""
    known: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; line and column are null where the value came from an override."""
        return {
            "source": self.mark.source, "line": self.mark.line or None, "column": self.mark.column or None,
            "path": show(self.path), "message": self.message,
            "did_you_mean": self.hint or None, "known": list(self.known),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A value that does not fit the rest: its path, and what is wrong; for a name also the known ones."""

    path: Path
    message: str
    name: str = ""
    known: tuple[str, ...] = ()
    is_key: bool = False
    """It is the key that is wrong, not what stands behind it."""

    def placed(self, root: Node) -> Problem:
        """The problem, where the value or what is nearest to it is written."""
        node = root.nearest(self.path)[1]
        mark = node.key or node.mark if self.is_key else node.mark
        if self.known:
            return unknown(mark, self.path, self.message, self.name, self.known)
        return Problem(mark, self.path, self.message)


class InvalidConfig(ConfigError):
    """All problems of an experiment file; its text is one screen, a line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(render(self.problems))

    def __str__(self) -> str:
        return self.what

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


def render(problems: Sequence[Problem]) -> str:
    """The problems as text: places in one column, suggestions below, the count at the end."""
    width = max(len(str(problem.mark)) for problem in problems[:_MAX_SHOWN]) + 1
    lines = [line for problem in problems[:_MAX_SHOWN] for line in _lines(problem, width)]
    lines += [f"... and {len(problems) - _MAX_SHOWN} more"] * (len(problems) > _MAX_SHOWN)
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    return text.clean("\n".join([*lines, f"{count}, nothing was started."]))


def _lines(problem: Problem, width: int) -> list[str]:
    lines = [f"{str(problem.mark):<{width}}{'  '.join(filter(None, (show(problem.path), problem.message)))}"]
    known = f"known: {', '.join(problem.known[:_MAX_KNOWN])}" + (", ..." if len(problem.known) > _MAX_KNOWN else "")
    if problem.hint:
        lines.append(f'        did you mean "{problem.hint}"?' + (f"            ({known})" if problem.known else ""))
    elif problem.known:
        lines.append(f"        {known}")
    return [line.replace("\n", " ") for line in lines]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to `name`, or an empty string."""
    choices = list(known)
    folded = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), folded, 1)
    return folded[found[0]] if found else ""


def unknown(mark: Mark, path: Path, message: str, name: str, known: Iterable[str]) -> Problem:
    """A problem about a name that is none of the known ones."""
    names = tuple(sorted(known))
    return Problem(mark, path, message, nearest(name, names), names)


def got(value: Any) -> str:
    """A wrong value as it is quoted in a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str | int | float) else type(value).__name__
    return shown if len(shown) <= _MAX_GOT else shown[:_MAX_GOT] + "..."
