"""Constrained decoding for engines that draw their own tokens: a reply is one of a few strings."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from coterie.types import TokenIds


class Choices:
    """Which tokens may come next.

    Args:
        spelt: Each choice as token ids; none: everything may come.
        ends: The ids that end a reply; they tell a choice from a longer one that begins with it.
    """

    def __init__(self, spelt: Sequence[TokenIds], ends: Collection[int]) -> None:
        self._spelt, self._ends = tuple(spelt), tuple(sorted(ends))

    def allowed(self, ids: Sequence[int]) -> tuple[int, ...]:
        """What may follow these ids of a reply; nothing if it is over."""
        said = tuple(ids)
        longer = {
            choice[len(said)] for choice in self._spelt if len(choice) > len(said) and choice[: len(said)] == said
        }
        return (*sorted(longer), *(self._ends if longer and said in self._spelt else ()))

    def is_over(self, ids: Sequence[int]) -> bool:
        """Whether a reply is one of the choices, and no other begins with it."""
        return bool(self._spelt) and not self.allowed(ids)

    def mask(self, logits: Tensor, replies: Sequence[Sequence[int]]) -> Tensor:
        """The logits [B, V] with -inf for what may not come; rows whose reply is over stay as they are."""
        if not self._spelt:
            return logits
        masked = logits.clone()
        for row, ids in enumerate(replies):
            if may := self.allowed(ids):
                masked[row] = torch.full_like(logits[row], -torch.inf)
                masked[row, list(may)] = logits[row, list(may)]
        return masked
