"""The steps of a reply, by the text of its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from coterie.types import Split

# A step ends where the text so far ends like this, before something else begins.
_ENDS: dict[Split, re.Pattern[str]] = {
    "paragraph": re.compile(r"\n[ \t]*\n\s*$"),
    "line": re.compile(r"\n\s*$"),
    "sentence": re.compile(r"[.!?]\s+$|\n\s*$"),
}
_TAIL = 64


def number_steps(pieces: Sequence[str], split: Split) -> list[int]:
    """The step that each token is in, counted from 0.

    Tokens are never cut: a step begins with the first token that starts after the end of the one before. What ends a
    step, with all space after it, is part of it.

    Args:
        pieces: The text of each token.
        split: What ends a step.
    """
    steps, current, text = list[int](), 0, ""
    for piece in pieces:
        if piece.strip() and text.strip() and _ENDS[split].search(text[-_TAIL:]):
            current, text = current + 1, ""
        steps.append(current)
        text += piece
    return steps
