"""Prompt templates: text files beside this module, filled in one pass, and hashed into the runs that may use them.

Fields are `$name`. Filling is a single pass, so text that an agent wrote cannot smuggle in further fields.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Template:
    """A named prompt text with `$fields`."""

    name: str
    text: str

    def fill(self, **fields: str) -> str:
        """The text with every field replaced. Raises KeyError for a missing field."""
        return string.Template(self.text).substitute(fields).strip()

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def template(name: str) -> Template:
    """The template in `<name>.txt`."""
    return Template(name, (resources.files(__name__) / f"{name}.txt").read_text("utf-8"))


def template_names() -> tuple[str, ...]:
    """The names of all templates, sorted."""
    files = [file.name for file in resources.files(__name__).iterdir() if file.name.endswith(".txt")]
    return tuple(sorted(file.removesuffix(".txt") for file in files))
