"""LoRA on a CPU inside vLLM: all adapters in one product, of which each row keeps its own adapter's part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class _Factors(NamedTuple):
    """What S slots add to a layer of K parts, float32.

    Attributes:
        first: [in, K * S * rank].
        second: Of each part [S * rank, out].
    """

    first: Tensor
    second: Sequence[Tensor]


class JoinedAdapters(PunicaWrapperCPU):  # type: ignore[misc]  # untyped under the pydantic plugin
    """Two products per layer for all adapters of a batch.

    Ranks are small beside layers, so what is computed and thrown away costs less than a product per adapter. Factors
    are kept in float32 as long as their slots hold the same adapters: CPUs without bfloat16 take ten times as long for
    such products. vLLM 0.32 copies an adapter's factors for every token, and takes those of the last slot for requests
    that have no adapter (it indexes with -1).
    """

    _spoken: Tensor | None = None
    """Float32 [tokens, 1, S, 1], 1 where the token is spoken by the slot's adapter; None: nobody has one."""
    _sampled: Tensor | None = None
    """The same of the tokens that logits are made for."""
    _held: tuple[int | None, ...] = ()
    _factors: dict[int, _Factors] | None = None

    def update_metadata(self, mapping: Any, lora_index_to_id: list[int | None], *args: Any, **kwargs: Any) -> None:
        """Note which rows of the next batch belong to which slot."""
        super().update_metadata(mapping, lora_index_to_id, *args, **kwargs)
        self._spoken = _read(self.token_lora_indices, len(lora_index_to_id))
        self._sampled = _read(self.sampler_indices, len(lora_index_to_id))
        # Whoever is published again gets a new number, so the same numbers are the same weights.
        if self._factors is None or tuple(lora_index_to_id) != self._held:
            self._held, self._factors = tuple(lora_index_to_id), {}

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
        if self._spoken is not None:
            self._add(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, self._spoken)

    def add_lora_embedding(self, y: Tensor, x: Tensor, lora_b_stacked: Tensor, **_: Any) -> None:
        """Add to y [tokens, out] the second factor's product with x [tokens, rank]."""
        if self._spoken is not None and lora_b_stacked.any():
            parts = (x.float()[:, None] * self._spoken[:, 0]).flatten(1)
            y.add_(parts @ _widening(lora_b_stacked)[:, : y.shape[1]])

    def add_lora_logits(
        self, y: Tensor, x: Tensor, lora_a_stacked: Tensor, lora_b_stacked: Tensor, scale: float, **_: Any
    ) -> None:
        """Add to the logits y [requests, vocabulary] what adapters of the head make of x [requests, in]."""
        if self._sampled is not None and lora_b_stacked.any():
            size = min(y.shape[1], lora_b_stacked.shape[2])
            self._add(y, x, (lora_a_stacked,), (lora_b_stacked,), scale, (size,), self._sampled)

    def _add(
        self, y: Tensor, x: Tensor, first: Sequence[Tensor], second: Sequence[Tensor], scale: float,
        sizes: Sequence[int], is_by: Tensor,
    ) -> None:  # fmt: skip
        assert self._factors is not None
        factors = self._factors.get(id(second[0]))
        if factors is None:
            narrow = torch.cat([part[:, 0].flatten(0, 1) for part in first]).float().T.contiguous()
            factors = self._factors[id(second[0])] = _Factors(narrow, [_widening(part) for part in second])
        parts = (x.float() @ factors.first).view(len(x), len(first), len(first[0]), -1) * is_by
        if scale != 1:
            parts *= scale
        start = 0
        for part, widen, size in zip(parts.flatten(2).unbind(1), factors.second, sizes, strict=True):
            y[:, start : start + size].add_(part @ widen[:, :size])
            start += size


def join_adapters(worker: Any) -> None:
    """In a worker: let adapters be computed by `JoinedAdapters`, if it is a CPU's."""
    manager = worker.model_runner.lora_manager._adapter_manager
    for wrapper in manager.punica_wrapper_mapping.values():
        if type(wrapper) is PunicaWrapperCPU:
            wrapper.__class__ = JoinedAdapters
            # What is noted of a batch is not noted again for another of the same adapters.
            manager._last_mapping = None


def _read(slots: Tensor, count: int) -> Tensor | None:
    """From the slot of each row; -1: it has none."""
    is_by = slots[:, None] == torch.arange(count)
    return is_by.float()[:, None, :, None] if is_by.any() else None


def _widening(second: Tensor) -> Tensor:
    """Second factors [S, 1, out, rank] as [S * rank, out]."""
    return second[:, 0].transpose(1, 2).flatten(0, 1).float().contiguous()
