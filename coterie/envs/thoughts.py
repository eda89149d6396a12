"""Replies in two parts, what somebody thought and what it then said: the answer type `thought_and_response`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

ANSWER_TYPE = "thought_and_response"
MAX_REPLY = 40_000
"""Characters of a reply that are read; what is longer is cut, and so mostly unparsed."""

_THINK = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL | re.IGNORECASE)
_HEADED = re.compile(
    r"\s*[*_]{0,3}thought[*_]{0,3}[ ]?:[*_]{0,3}(.*?)\n[ *_]{0,4}response[*_]{0,3}[ ]?:[*_]{0,3}(.*)",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in its two parts."""

    thought: str
    response: str


def parse(text: str) -> str | None:
    """Both parts as one answer, JSON with the keys `thought` and `response`; None where `read_reply` finds none."""
    reply = read_reply(text)
    return None if reply is None else json.dumps({"thought": reply.thought, "response": reply.response})


def read_reply(text: str) -> Reply | None:
    """Thought and response; None (*unparsed*) if one of them is missing or empty.

    Read are a JSON object with these two keys (also inside other text), `<think>...</think>` followed by the response,
    and two paragraphs headed `Thought:` and `Response:`. Never raises on any text.
    """
    text = text[:MAX_REPLY]
    thought, response = _from_json(text) or _from_pattern(_THINK, text) or _from_pattern(_HEADED, text) or ("", "")
    return Reply(thought.strip(), response.strip()) if thought.strip() and response.strip() else None


def read_answer(answer: str) -> Reply:
    """Both parts of an answer that `parse` gave. As JSON it may be longer than what is read of a reply."""
    return Reply(**json.loads(answer))


def _from_json(text: str) -> tuple[str, str] | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0:
        return None
    try:
        found = json.loads(text[start : end + 1], strict=False)
    except (ValueError, RecursionError):
        return None
    thought, response = (found.get("thought"), found.get("response")) if isinstance(found, dict) else (None, None)
    return (thought, response) if isinstance(thought, str) and isinstance(response, str) else None


def _from_pattern(pattern: re.Pattern[str], text: str) -> tuple[str, str] | None:
    found = pattern.match(text)
    return (found[1], found[2]) if found else None
