"""Text from agents is untrusted: this module makes it safe to show, to a terminal or to another agent."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coterie.types import Split

PYTHON = ("", "python", "py", "python3")
"""The languages that a block of Python may be given, none among them."""

# ESC sequences (CSI, OSC with its terminator, and two-byte forms), before lone control characters.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
# A doctest's prompt stays, as code may pass through here; it does not stand alone on its line, as a closing mark does.
_MARKS = re.compile(r"^([ \t]*>>>(?= \S))|(<{3,}|>{3,})", re.MULTILINE)
# Words that chat templates of some model family end turns with. An engine disarms those of its own model; what stands
# between agents may be read by a model of any.
_CONTROL = re.compile(
    r"(<)(?=[|\uff5c][^<>|\uff5c\n]{1,60}[|\uff5c]>|/?s>|(?:start|end)_of_turn>|[be]os>)|(\[)(?=/?INST\])"
)
_FENCED = re.compile(r"<<<\n(.*)\n>>>", re.DOTALL)
_BLOCK = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+.-]*)[^`]*$")
# A step ends where the text so far ends like this, before something else begins.
_ENDS: dict[Split, re.Pattern[str]] = {
    "paragraph": re.compile(r"\n[ \t]*\n\s*$"),
    "line": re.compile(r"\n\s*$"),
    "sentence": re.compile(r"[.!?]\s+$|\n\s*$"),
}
_TAIL = 64
_KEEP = {"\n", "\t"}
_BROKEN = "\ufffd"
_MAX_SHOWN = 20_000


def clean(text: str) -> str:
    """Remove escape sequences, control, format (bidi, zero-width) and surrogate characters; keep newlines and tabs."""
    bare = _ESCAPES.sub("", text)
    return "".join(c for c in bare if c in _KEEP or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))


def for_terminal(text: str, limit: int = _MAX_SHOWN) -> str:
    """`clean` text for a terminal, at most `limit` characters."""
    shown = clean(text)
    return shown if len(shown) <= limit else shown[:limit] + f" [... {len(shown) - limit} characters more]"


def join_pieces(pieces: Iterable[str]) -> str:
    """A reply from its pieces: a character that the end of one cuts in two is whole in the next one."""
    joined = ""
    for piece in pieces:
        joined = joined.rstrip(_BROKEN) + piece
    return joined


def fence(text: str, limit: int = 4_000) -> str:
    """Peer text as it may stand inside another agent's prompt: cleaned, capped, and between marks it cannot close.

    Control tokens that are spelled out (`<|im_end|>` and the like) are broken up.
    """
    bare = _CONTROL.sub(r"\g<0> ", clean(text))
    body = _MARKS.sub(lambda run: run[1] or " ".join(run[2]), bare).strip()
    if len(body) > limit:
        body = body[:limit] + " [cut]"
    return f"<<<\n{body}\n>>>"


def unfence(text: str) -> str:
    """What stands between the marks of `fence`; a text without them as it is."""
    match = _FENCED.fullmatch(text)
    return match[1] if match else text


def blocks(lines: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """The blocks of code in a reply, fenced by ``` or ~~~; one that is not closed goes on to the end.

    Yields:
        Of each the indices of its first line and of the one after its last, and its language in lower case, or "".
    """
    opening, language, start = "", "", 0
    for index, line in enumerate([*lines, ""]):
        match = _BLOCK.match(line)
        if not opening and match:
            opening, language, start = match[1], match[2].lower(), index + 1
        elif opening and (line.strip().startswith(opening) or index == len(lines)):
            yield start, index, language
            opening = ""


def number_steps(pieces: Sequence[str], split: Split) -> list[int]:
    """The step of a reply that each of its tokens is in, counted from 0.

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
