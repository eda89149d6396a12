"""Losses that mechanisms have of their own, for who trains them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_collecting = threading.local()
"""`losses`: of this thread, while it collects."""


@contextmanager
def auxiliary_losses() -> Iterator[list[Tensor]]:
    """The losses of all mechanisms that this thread calls within, weighted as their options say.

    Their sum is to be added to the mean loss of a training.
    """
    before, found = getattr(_collecting, "losses", None), list[Tensor]()
    _collecting.losses = found
    try:
        yield found
    finally:
        _collecting.losses = before


def add_loss(loss: Tensor) -> None:
    """To those that are collected, if any are."""
    losses = getattr(_collecting, "losses", None)
    if losses is not None:
        losses.append(loss)
