"""How functions of the world are compiled: three decorators over `numba.njit`.

Numba compiles what they decorate for a GPU, too, where a kernel of `cuda` calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

# Without nnan and ninf, which would let the compiler drop the test for numbers that are none. Without reference counts,
# which would keep loops over slices from becoming vector code: so nothing is allocated in here.
OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy", "nogil": True, "_nrt": False
}  # fmt: skip


def compiled(function: F) -> F:
    """Compile a function, called as one."""
    made: F = njit(**OPTIONS)(function)
    return made


def inlined(function: F) -> F:
    """Compile a function of numbers that becomes part of its callers: what a loop calls that is to be vector code."""
    made: F = njit(forceinline=True, **OPTIONS)(function)
    return made


def joined(function: F) -> F:
    """Compile a function as part of its callers only: what reads arrays for a loop that is to be vector code.

    By itself it would not know that an index is not negative. What is called is compiled again with each of its
    callers, so a long chain of them takes long.
    """
    made: F = njit(inline="always", **OPTIONS)(function)
    return made
