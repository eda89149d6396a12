"""Threads for networks so small that torch's own, which share every single operation, would wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def single_threaded() -> Iterator[None]:
    """In here each operation of torch keeps to the thread that calls it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Threads:
    """As many as torch has at first, so that `OMP_NUM_THREADS` counts here too.

    What is worked does not depend on how many there are: whoever uses them cuts work into parts of a fixed size, and
    puts results together in order.
    """

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results in order; the first error, if any, after all have ended."""
        parts = list(items)
        if self.count == 1 or len(parts) < 2:
            return [work(part) for part in parts]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="learner")
        futures = [self._pool.submit(work, part) for part in parts]
        wait(futures)
        return [future.result() for future in futures]
