"""Counted randomness inside compiled code: Philox4x32-10 (Salmon et al. 2011), keyed by environment.

A number is a function of a 64-bit key and of four words that say what it is for, so neither the number of environments
nor the order in which they are worked can change it. Keys come from `coterie.rng`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from coterie import rng
from coterie.envs.swarm.compiling import OPTIONS, compiled, inlined

f4, u4, u8 = np.float32, np.uint32, np.uint64
_BUMP_0, _BUMP_1 = 0x9E3779B9, 0xBB67AE85
_LN_2, _PI_4 = math.log(2.0), math.pi / 4


def key(seed: int, env: int) -> NDArray[np.uint32]:
    """The two words that tell this seed's environment `env` from all others."""
    return rng.stream(seed, "swarm", env).integers(0, 1 << 32, 2, dtype=np.uint32)


@inlined
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    low, high = u8(c0) * u8(0xD2511F53), u8(c2) * u8(0xCD9E8D57)
    return u4(u4(high >> u8(32)) ^ c1 ^ k0), u4(high), u4(u4(low >> u8(32)) ^ c3 ^ k1), u4(low)


@inlined
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four words of 32 random bits."""
    # Written out, because a loop in here keeps loops around it from becoming vector code.
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(_BUMP_0)), u4(k1 + u4(_BUMP_1)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0x3C6EF372)), u4(k1 + u4(0x76CF5D0A)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0xDAA66D2B)), u4(k1 + u4(0x32370B8F)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0x78DDE6E4)), u4(k1 + u4(0xED9EBA14)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0x1715609D)), u4(k1 + u4(0xA9066899)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0xB54CDA56)), u4(k1 + u4(0x646E171E)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0x5384540F)), u4(k1 + u4(0x1FD5C5A3)))
    c0, c1, c2, c3 = _round(c0, c1, c2, c3, u4(k0 + u4(0xF1BBCDC8)), u4(k1 + u4(0xDB3D7428)))
    return _round(c0, c1, c2, c3, u4(k0 + u4(0x8FF34781)), u4(k1 + u4(0x96A522AD)))


@njit(cache=True, **OPTIONS)  # type: ignore[untyped-decorator]
def words(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """As `philox`, for Python."""
    return philox(u4(c0), u4(c1), u4(c2), u4(c3), k0, k1)


@inlined
def as_unit(word: Any) -> Any:
    """A float32 in (0, 1) from 32 bits: the middle of one of 2^24 equal parts."""
    return f4(np.int32(word >> u4(8))) * f4(2.0**-24) + f4(2.0**-25)


@inlined
def _log(x: Any) -> Any:
    # x = m 2^e with m in [sqrt 1/2, sqrt 2); log m is 2 artanh((m - 1) / (m + 1)), whose series ends soon.
    bits = f4(x).view(np.int32)
    e = np.int32(np.int32(bits - np.int32(0x3F3504F3)) >> np.int32(23))
    m = np.int32(bits - np.int32(e << np.int32(23))).view(np.float32)
    s = (m - f4(1)) / (m + f4(1))
    q = s * s
    series = f4(2) + q * (f4(2 / 3) + q * (f4(2 / 5) + q * (f4(2 / 7) + q * f4(2 / 9))))
    return f4(e) * f4(_LN_2) + s * series


@inlined
def _pair(word: Any, other: Any) -> Any:
    """Two normals by Box and Muller: the angle is 45 degrees in one of four quadrants, and up to 45 to either side."""
    radius = f4(math.sqrt(0.5)) * math.sqrt(f4(-2) * _log(as_unit(word)))
    x = f4(np.int32(u4(other >> u4(2)) & u4(0xFFFFFF))) * f4(2 * _PI_4 / 2**24) - f4(_PI_4)
    q = x * x
    sine = x * (f4(1) - q * (f4(1 / 6) - q * (f4(1 / 120) - q * f4(1 / 5040))))
    cosine = f4(1) - q * (f4(1 / 2) - q * (f4(1 / 24) - q * (f4(1 / 720) - q * f4(1 / 40320))))
    left = f4(1) - f4(2) * f4(np.int32(other & u4(1)))
    up = f4(1) - f4(np.int32(other & u4(2)))
    return left * radius * (cosine - sine), up * radius * (cosine + sine)


@inlined
def normals(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four standard normals."""
    w0, w1, w2, w3 = philox(u4(c0), u4(c1), u4(c2), u4(c3), k0, k1)
    z0, z1 = _pair(w0, w1)
    z2, z3 = _pair(w2, w3)
    return z0, z1, z2, z3


@compiled
def uniforms(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four numbers in (0, 1)."""
    w0, w1, w2, w3 = philox(u4(c0), u4(c1), u4(c2), u4(c3), k0, k1)
    return as_unit(w0), as_unit(w1), as_unit(w2), as_unit(w3)


@compiled
def gaussians(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """As `normals`, for code that is rarely run."""
    return normals(c0, c1, c2, c3, k0, k1)


@compiled
def below(count: Any, c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """An integer in [0, count)."""
    word, _, _, _ = philox(u4(c0), u4(c1), u4(c2), u4(c3), k0, k1)
    return np.int64((u8(word) * u8(count)) >> u8(32))
