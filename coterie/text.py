"""Text from agents is untrusted: this module makes it safe to show, to a terminal or to another agent."""

from __future__ import annotations

import re
import unicodedata

# ESC sequences (CSI, OSC with its terminator, and two-byte forms), before lone control characters.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
_MARKS = re.compile(r"<{3,}|>{3,}")
_KEEP = {"\n", "\t"}
_MAX_SHOWN = 20_000


def clean(text: str) -> str:
    """Remove escape sequences, control, format (bidi, zero-width) and surrogate characters; keep newlines and tabs."""
    bare = _ESCAPES.sub("", text)
    return "".join(c for c in bare if c in _KEEP or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))


def for_terminal(text: str, limit: int = _MAX_SHOWN) -> str:
    """`clean` text for a terminal, at most `limit` characters."""
    shown = clean(text)
    return shown if len(shown) <= limit else shown[:limit] + f" [... {len(shown) - limit} characters more]"


def fence(text: str, limit: int = 4_000) -> str:
    """Peer text as it may stand inside another agent's prompt: cleaned, capped, and between marks it cannot close."""
    body = _MARKS.sub(lambda run: " ".join(run[0]), clean(text)).strip()
    if len(body) > limit:
        body = body[:limit] + " [cut]"
    return f"<<<\n{body}\n>>>"
