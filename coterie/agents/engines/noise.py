"""Keeps what libraries print while they load a model away from the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Send file descriptor 2 to a temporary file meanwhile; the yielded function gives its end, for error messages.

    C++ code writes there directly, so Python's own redirection does not reach it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: _tail(file.fileno())
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def _tail(descriptor: int, size: int = 4_000) -> str:
    end = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, max(end - size, 0)).decode(errors="replace")
