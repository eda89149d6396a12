"""What does not fit into the memory, of this machine or of its GPU, as one clear error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coterie.errors import EnvironmentMissing

# As torch says it, of a CPU and of a GPU.
_NO_MEMORY = ("can't allocate memory", "out of memory", "size calculation overflowed")


@contextlib.contextmanager
def tell_memory(what: str, *, where: str = "", remedy: str) -> Iterator[None]:
    """Say of an allocation that fails inside that `what` does not fit into the memory.

    Raises:
        EnvironmentMissing: One did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as cause:
        is_memory = isinstance(cause, MemoryError) or any(words in str(cause) for words in _NO_MEMORY)
        if not is_memory:
            raise
        said = str(cause).strip().splitlines() or ["no memory is left"]
        message = f"{what} does not fit into the memory: {said[0]}"
        raise EnvironmentMissing(message, where=where, remedy=remedy) from cause
