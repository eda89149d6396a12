"""How functions of the world are compiled: three decorators over `numba.njit`, and its options for what Python calls.

Only compiled code can call what they decorate. Numba compiles it for a GPU, too, where a kernel of `cuda` calls it.
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
# Python's way into a function is compiled with it, and once more with each that calls it: a sixth of all the time.
_NOT_FROM_PYTHON = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """Compile a function, called as one."""
    made: F = njit(**_NOT_FROM_PYTHON)(function)
    return made


def inlined(function: F) -> F:
    """Compile a function of numbers that becomes part of its callers: what a loop calls that is to be vector code."""
    made: F = njit(forceinline=True, **_NOT_FROM_PYTHON)(function)
    return made


def joined(function: F) -> F:
    """Compile a function as part of its callers only: what reads arrays for a loop that is to be vector code.

    By itself it would not know that an index is not negative. What is called is compiled again with each of its
    callers, so a long chain of them takes long.
    """
    made: F = njit(inline="always", **_NOT_FROM_PYTHON)(function)
    return made
