"""Curves in one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

_BLOCKS = "".join(map(chr, range(0x2581, 0x2589)))
"""From one eighth of a character's height to all of it."""
_GAP = " "


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Values as bars of eighths, scaled from their least to their greatest; a space where there is none.

    Args:
        values: In order; None and what is no number is a gap.
        width: At most so many characters: more values are averaged in equal stretches.
    """
    known = [None if value is None or not math.isfinite(value) else value for value in values]
    points = _shorten(known, width)
    there = [value for value in points if value is not None]
    if not there:
        return ""
    low, high = min(there), max(there)
    return "".join(_GAP if value is None else _block(value, low, high) for value in points)


def _block(value: float, low: float, high: float) -> str:
    # What never changes lies in the middle: at the bottom it would look like nothing.
    share = (value - low) / (high - low) if high > low else 0.4
    return _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)]


def _shorten(values: Sequence[float | None], width: int) -> list[float | None]:
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    stretches = [[v for v in values[a:b] if v is not None] for a, b in zip(edges, edges[1:], strict=False)]
    return [fmean(stretch) if stretch else None for stretch in stretches]
