"""Randomness is counted, not drawn: every number is a function of a seed and of logical coordinates.

No global generator is used anywhere, so the order in which things happen cannot change what they draw.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Coordinate = str | int


def _key(seed: int, coordinates: tuple[Coordinate, ...]) -> NDArray[np.uint64]:
    # Length-prefixed fields: ("ab", "c") and ("a", "bc") must not meet.
    digest = hashlib.sha256(f"{seed}".encode())
    for coordinate in coordinates:
        field = f"{type(coordinate).__name__}:{coordinate}".encode()
        digest.update(len(field).to_bytes(4, "little") + field)
    return np.frombuffer(digest.digest()[:16], dtype=np.uint64)


def stream(seed: int, *coordinates: Coordinate) -> np.random.Generator:
    """A generator of its own for these coordinates (Philox, keyed by SHA-256 of seed and coordinates)."""
    return np.random.Generator(np.random.Philox(key=_key(seed, coordinates)))


def uniforms(seed: int, *coordinates: Coordinate, count: int) -> NDArray[np.float64]:
    """The first `count` uniforms in [0, 1) at these coordinates; a longer call begins with the same numbers."""
    return stream(seed, *coordinates).random(count)


def derive(seed: int, *coordinates: Coordinate) -> int:
    """A 31-bit seed for a library that wants one integer."""
    return int(_key(seed, coordinates)[0] & 0x7FFFFFFF)
