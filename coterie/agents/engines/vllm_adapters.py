"""LoRA on a CPU inside vLLM: one product per adapter and layer, and none for requests without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

_Group = tuple[int, Tensor | slice]
"""A slot for an adapter, and the rows of a batch that speak by it."""


class GroupedAdapters(PunicaWrapperCPU):  # type: ignore[misc]  # untyped under the pydantic plugin
    """The rows of each adapter are multiplied together.

    vLLM 0.32 copies an adapter's factors for every token, and takes those of the last slot for requests that have no
    adapter (it indexes with -1).
    """

    _spoken: Sequence[_Group] = ()
    _sampled: Sequence[_Group] = ()

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Note which rows of the next batch belong to which slot."""
        super().update_metadata(*args, **kwargs)
        self._spoken = _groups(self.token_lora_indices)
        self._sampled = _groups(self.sampler_indices)

    def add_lora_linear(
        self,
        y: Tensor,
        x: Tensor,
        lora_a_stacked: tuple[Tensor, ...],
        lora_b_stacked: tuple[Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Add to y [tokens, out] what the adapters make of x [tokens, in], one part of the layer after the other."""
        for slot, rows in self._spoken:
            spoken, start = x[rows], 0
            for first, second, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                change = (spoken @ first[slot, 0].T) @ second[slot, 0].T
                _add(y[:, start : start + size], rows, change * scale if scale != 1 else change)
                start += size

    def add_lora_embedding(self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, **_: Any) -> None:
        """Add to y [tokens, out] the second factor's product with x [tokens, rank]."""
        for slot, rows in self._spoken:
            if lora_b_stacked[slot].any():
                _add(y, rows, x[rows] @ lora_b_stacked[slot, 0].T)

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
    ) -> None:
        """Add to the logits y [requests, vocabulary] what adapters of the head make of x [requests, in]."""
        for slot, rows in self._sampled:
            if lora_b_stacked[slot].any():
                change = (x[rows] @ lora_a_stacked[slot, 0].T) @ lora_b_stacked[slot, 0].T
                _add(y[:, : change.shape[1]], rows, change[:, : y.shape[1]] * scale)


def group_adapters(worker: Any) -> None:
    """In a worker: let adapters be computed by `GroupedAdapters`, if it is a CPU's."""
    manager = worker.model_runner.lora_manager._adapter_manager
    for wrapper in manager.punica_wrapper_mapping.values():
        if type(wrapper) is PunicaWrapperCPU:
            wrapper.__class__ = GroupedAdapters
            # What is noted of a batch is not noted again for another of the same adapters.
            manager._last_mapping = None


def _groups(slots: Tensor) -> list[_Group]:
    found: list[_Group] = []
    for slot in torch.unique(slots).tolist():
        if slot >= 0:
            rows = (slots == slot).nonzero().squeeze(1)
            first, last = int(rows[0]), int(rows[-1])
            found.append((slot, slice(first, last + 1) if last - first + 1 == len(rows) else rows))
    return found


def _add(y: Tensor, rows: Tensor | slice, change: Tensor) -> None:
    if isinstance(rows, slice):
        y[rows] += change
    else:
        y.index_add_(0, rows, change)
