"""What engines that compute here want of their process: its environment, and silence while a model loads."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator

_ENVIRONMENT = {
    # Two threads that spin at every barrier stop each other as soon as anything else wants a core (14 ms instead of
    # 0.5 ms for a small matrix product), and threads that sleep at once lose a seventh on quiet cores (79 instead of 92
    # tokens/s). So they spin for some microseconds, then sleep (91 tokens/s). Read once, when torch is imported.
    "GOMP_SPINCOUNT": "20000",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def prepare() -> None:
    """Set the environment variables that torch and vLLM read, where the user has not. Before torch is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def captured_stderr() -> Iterator[Callable[[], str]]:
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
