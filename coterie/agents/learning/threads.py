"""Threads for networks so small that torch's own, which share every single operation, would wait for each other."""

from __future__ import annotations

import threading
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


_here = threading.local()


class Threads:
    """As many as torch has at first, so that `OMP_NUM_THREADS` counts here too.

    What is worked does not depend on how many there are: whoever uses them cuts work into parts of a fixed size, and
    puts results together in order.
    """

    def __init__(self) -> None:
        self.count = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def at_once(self, count: int) -> int:
        """How many of so many parts are worked at the same time, from here."""
        return 1 if getattr(_here, "is_taken", False) else max(min(self.count, count), 1)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results in order; the first error, if any, after all have ended. Inside of such work: one after the other."""
        parts = list(items)
        if self.at_once(len(parts)) == 1:
            return [work(part) for part in parts]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "learner", initializer=_take)
        futures = [self._pool.submit(work, part) for part in parts]
        wait(futures)
        return [future.result() for future in futures]


def _take() -> None:
    # torch tells a new thread how many it may use when it is first asked, which a matrix product alone does not do:
    # MKL would work the first ones with all cores, and round them otherwise than those that follow.
    torch.get_num_threads()
    # Who waited in a pool's thread for work of the same pool could wait for ever.
    _here.is_taken = True
