"""By which turns to learn from are told apart."""

from __future__ import annotations

from typing import Literal

Attribute = Literal["policy", "agent", "role", "group", "round"]
ATTRIBUTES: tuple[Attribute, ...] = ("policy", "agent", "role", "group", "round")
"""All of them, in the order in which they stand in keys."""
