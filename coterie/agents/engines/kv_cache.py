"""Keys and values of a batch that is decoded token by token: room for what comes, and none for replies that are over.

transformers' `DynamicLayer` copies all it holds for each token that it adds. On a CPU that is a third of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 64
"""Tokens that a layer has room for when it has just grown."""
_CROWD = 0.75
"""Rows that are over leave the batch when no more than this share of it goes on."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]  # untyped
    """Holds the same numbers as a `DynamicLayer`, as the front of longer tensors."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add [B, heads, new, D] each; all that is held, [B, heads, held + new, D] each."""
        if not self.is_initialized:
            super().update(key_states, value_states, *args, **kwargs)
            return self.keys, self.values
        held = self.keys.shape[-2]
        size = held + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < size:
            self._room = _extend(self.keys, size + _ROOM), _extend(self.values, size + _ROOM)
        for room, new in zip(self._room, (key_states, value_states), strict=True):
            room[..., held:size, :] = new
        self.keys, self.values = (room[..., :size, :] for room in self._room)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only keep some rows of the batch."""
        super().batch_select_indices(indices)
        self._room = None


def make_roomy(cache: Any) -> None:
    """Have the plain layers of a model's cache keep room; layers of other kinds stay as they are."""
    for layer in getattr(cache, "layers", ()):
        if type(layer) is DynamicLayer:
            layer.__class__ = RoomyLayer


def can_drop(cache: Any) -> bool:
    """Whether rows may be dropped: all layers hold keys and values, and nothing but them."""
    layers = getattr(cache, "layers", ())
    return bool(layers) and all(type(layer) is RoomyLayer for layer in layers)


def drop(cache: Any, are_over: Sequence[bool]) -> list[int]:
    """Have rows that are over leave the cache, where that is worth it and can be done; the rows that stay."""
    kept = [number for number, is_over in enumerate(are_over) if not is_over]
    if not kept or len(kept) > _CROWD * len(are_over) or not can_drop(cache):
        return list(range(len(are_over)))
    cache.batch_select_indices(torch.tensor(kept, device=cache.layers[0].keys.device))
    return kept


def _extend(held: Tensor, size: int) -> Tensor:
    room = torch.empty(*held.shape[:-2], size, held.shape[-1], dtype=held.dtype, device=held.device)
    room[..., : held.shape[-2], :] = held
    return room
