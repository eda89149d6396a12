"""What a scripted engine says: arithmetic with a chosen accuracy, swayed by what its peers said."""

from __future__ import annotations

import operator
import re
from collections import Counter
from fractions import Fraction

from coterie import rng
from coterie.testing.config import ScriptedConfig
from coterie.types import Messages, Place

_NUMBER = r"\d{1,18}(?:\.\d{1,18})?"
_LONGEST = 400
_EXPRESSION = re.compile(rf"(?<![\w.])-?{_NUMBER}(?:\s*[-+*/]\s*-?{_NUMBER})+")
_TERM = re.compile(rf"([-+*/]?)\s*(-?{_NUMBER})\s*")
_FENCED = re.compile(r"<<<(.*?)>>>", re.DOTALL)
_LAST_NUMBER = re.compile(rf"(-?{_NUMBER})\D*$")
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def compose(messages: Messages, config: ScriptedConfig, seed: int, place: Place) -> str:
    """The reply at `place`; a function of its arguments alone."""
    if config.replies:
        return config.replies[rng.derive(seed, "reply", str(place)) % len(config.replies)]
    if config.mode == "echo":
        return messages[-1].content
    return f"The answer is {_decide(messages, config, seed, place)}."


def _decide(messages: Messages, config: ScriptedConfig, seed: int, place: Place) -> str:
    conforms, errs, offset = rng.uniforms(seed, "answer", str(place), count=3)
    peers = majority(messages)
    if peers is not None and conforms < config.conformity:
        return peers
    right = solve(messages)
    return _show(right if errs < config.accuracy else right + 1 + int(offset * config.errors))


def majority(messages: Messages) -> str | None:
    """The most frequent last number between fences (the first seen on a tie), None if there is none."""
    fenced = [body for m in messages if m.role != "assistant" for body in _FENCED.findall(m.content)]
    answers = Counter(found[1] for body in fenced if (found := _LAST_NUMBER.search(body)))
    return answers.most_common(1)[0][0] if answers else None


def solve(messages: Messages) -> Fraction:
    """The value of the last arithmetic expression outside fences and the agent's own words.

    A prompt without one gets a number below 100 that depends on the first user message alone.
    """
    texts = [_FENCED.sub(" ", m.content) for m in messages if m.role != "assistant"]
    found = [e for text in texts for e in _EXPRESSION.findall(text)]
    values = (evaluate(e) for e in reversed(found) if len(e) <= _LONGEST)
    value = next((v for v in values if v is not None), None)
    if value is not None:
        return value
    question = next((m.content for m in messages if m.role == "user"), "")
    return Fraction(rng.derive(0, "question", _FENCED.sub(" ", question)) % 100)


def evaluate(expression: str) -> Fraction | None:
    """The value of a chain of numbers joined by + - * /, products first; None where it divides by zero."""
    total, product = Fraction(0), Fraction(0)
    for sign, digits in _TERM.findall(expression):
        number = Fraction(digits)
        if sign in ("*", "/"):
            if sign == "/" and number == 0:
                return None
            product = _OPERATIONS[sign](product, number)
        else:
            total, product = total + product, -number if sign == "-" else number
    return total + product


def _show(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.4f}"
