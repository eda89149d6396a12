"""Sums of signed terms, worked column by column, with the faults that people make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Stream = np.random.Generator
Terms = tuple[int, ...]

FAMILIES: dict[tuple[int, int], float] = {(4, 2): 0.65, (3, 2): 0.15, (5, 2): 0.04, (2, 2): 0.08, (2, 1): 0.08}
"""Numbers of terms and of their digits, and how often each is taught."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How somebody errs; each number is a probability.

    Attributes:
        slip: A step's result is wrong, and the steps after it build on it.
        sign: Tens and units of unlike signs are added as if both had the sign of the tens.
        harmless: One step of the working is written wrong, but the next one builds on the right result.
    """

    slip: float
    sign: float
    harmless: float = 0.0


SOLVER = Faults(slip=0.03, sign=0.4, harmless=0.03)
SHOWN = Faults(slip=0.10, sign=0.5, harmless=0.03)
"""Of solutions that are to be judged: as many are wrong as of the trained model's own. Were there fewer, copying what
is shown would do instead of working it again."""
CHECKER = Faults(slip=0.01, sign=0.15)


@dataclass(frozen=True, slots=True)
class Column:
    """The digits of one place: `5-7+9`, the steps `5-7=-2, -2+9=7`, and the value 7."""

    name: str
    digits: str
    steps: str
    value: int


@dataclass(frozen=True, slots=True)
class Working:
    """A sum as somebody worked it.

    Attributes:
        columns: Units, and tens if a term has any.
        joined: The columns put together, such as `60-4`; empty for units alone.
        slip: The harmless one, in words; empty if there is none.
    """

    columns: tuple[Column, ...]
    joined: str
    answer: int
    slip: str = ""


def draw_terms(stream: Stream) -> Terms:
    """The terms of a new sum, drawn as reasoning-gym's `chain_sum` does: the first one is never negative."""
    sizes = list(FAMILIES)
    count, digits = sizes[int(stream.choice(len(sizes), p=list(FAMILIES.values())))]
    return draw_sum(stream, count, digits)


def draw_sum(stream: Stream, count: int, digits: int) -> Terms:
    """As `draw_terms`, of so many terms of so many digits."""
    low = 0 if digits == 1 else 10 ** (digits - 1)
    sizes = stream.integers(low, 10**digits, count)
    signs = [1, *stream.choice([1, -1], count - 1)]
    return tuple(int(size * sign) for size, sign in zip(sizes, signs, strict=True))


def work(terms: Terms, faults: Faults, stream: Stream) -> Working:
    """Add the terms place by place, with faults."""
    places = [("Units", 1), ("Tens", 10)][: 1 if all(abs(term) < 10 for term in terms) else 2]
    wrong = stream.random() < faults.harmless and len(terms) > 2
    at = int(stream.integers(len(places))) if wrong else -1
    columns, slips = [], [""]
    for index, (name, size) in enumerate(places):
        digits = [(1 if term >= 0 else -1) * (abs(term) // size % 10) for term in terms]
        column, slip = _add(name, digits, faults.slip, index == at, stream)
        columns.append(column)
        slips.append(slip)
    if len(columns) == 1:
        return Working(tuple(columns), "", columns[0].value, max(slips))
    joined, answer = _join(columns[0].value, columns[1].value, faults, stream)
    return Working(tuple(columns), joined, answer, max(slips))


def _add(name: str, digits: Sequence[int], slip: float, is_harmless: bool, stream: Stream) -> tuple[Column, str]:
    steps, value, said = [], digits[0], ""
    at = int(stream.integers(1, len(digits) - 1)) if is_harmless else 0
    for index, digit in enumerate(digits[1:], start=1):
        step = f"{value}{digit:+d}"
        value = _err(value + digit, stream) if stream.random() < slip else value + digit
        shown = value
        if index == at:
            shown = _err(value, stream)
            said = f"{step} is {value}, not {shown}"
        steps.append(f"{step}={shown}")
    shown_digits = str(digits[0]) + "".join(f"{digit:+d}" for digit in digits[1:])
    return Column(name, shown_digits, ", ".join(steps), value), said


def _err(value: int, stream: Stream) -> int:
    """Something else in its place: mostly one more or less, at times the wrong sign or another ten."""
    kind = stream.random()
    if kind < 0.2 and value:
        return -value
    return value + int(stream.choice([-1, 1])) * (10 if kind > 0.85 else 1)


def _join(units: int, tens: int, faults: Faults, stream: Stream) -> tuple[str, int]:
    answer = 10 * tens + units
    if units * tens < 0 and stream.random() < faults.sign:
        answer = 10 * tens - units
    elif stream.random() < faults.slip:
        answer = _err(answer, stream)
    return f"{10 * tens}{units:+d}", answer
