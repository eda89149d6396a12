"""One order of neighbours for all orders in which they may be observed."""

from __future__ import annotations

import torch
from torch import Tensor


def sort_neighbours(neighbours: Tensor) -> Tensor:
    """Slots [B, K, F] from near to far, empty ones last.

    The first three numbers of a slot are its place relative to oneself. Slots equally far are sorted by their numbers,
    so that the result does not depend on the order given.
    """
    if neighbours.shape[1] < 2:
        return neighbours
    place = find_places(neighbours.detach())
    return torch.zeros_like(neighbours).scatter(1, place[..., None].expand_as(neighbours), neighbours)


def find_places(neighbours: Tensor) -> Tensor:
    """Where each slot of [B, K, F] belongs: int64 [B, K]."""
    numbers = neighbours.permute(2, 1, 0).contiguous()  # rows last: long runs of equal work
    present = (numbers != 0).any(0)
    squares = numbers[:3] * numbers[:3]
    # A sum written out: reductions may add in another order in another batch.
    far = torch.where(present, sum(squares[1:], squares[0]), torch.inf)
    slots = present.shape[0]
    before = torch.ones(slots, slots, dtype=torch.bool, device=numbers.device).tril(-1)[..., None]
    for key in (*numbers.flip(0), far):
        one, other = key[:, None], key[None]
        before = (other < one) | ((other == one) & before)
    return before.sum(1).t()
