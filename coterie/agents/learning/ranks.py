"""Processes that hold a model together: each has a part of every tensor, and works its share of the micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coterie.agents.learning.packing import MicroBatch


class Ranks:
    """One process, which holds all of it and does everything."""

    rank, size = 0, 1

    def shard(self, teacher: nn.Module, layers: Sequence[nn.Module]) -> None:
        """Keep a part of the weights only; layers are put together one after the other when they are needed."""

    def sum(self, numbers: Tensor) -> Tensor:
        """Over all processes."""
        return numbers

    def share(self, batches: Sequence[MicroBatch]) -> Iterator[tuple[MicroBatch, bool]]:
        """What this process works, and whether it counts: all work equally often, as they put layers together."""
        for start in range(0, len(batches), self.size):
            number = start + self.rank
            yield batches[number if number < len(batches) else start], number < len(batches)


class ProcessGroup(Ranks):
    """The processes of `torch.distributed`'s default group (FSDP2: Zhao et al. 2023, arXiv 2304.11277)."""

    def __init__(self) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def shard(self, teacher: nn.Module, layers: Sequence[nn.Module]) -> None:
        from torch.distributed.fsdp import fully_shard

        for part in (*layers, teacher):
            sharded: Any = fully_shard(part)
            # The sum of gradients is wanted, not their mean: weights of tokens know of all processes' tokens.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)

    def sum(self, numbers: Tensor) -> Tensor:
        torch.distributed.all_reduce(numbers)
        return numbers


def whole(tensor: Tensor) -> Tensor:
    """All of it, put together from the processes, which all have to ask; without gradient."""
    kept: Any = tensor.detach()
    found: Tensor = kept.full_tensor() if hasattr(kept, "full_tensor") else kept
    return found


def part_of(tensor: Tensor, model: Any) -> Tensor:
    """A copy of what this process holds of a whole tensor, as it holds its part of `model`, of the same shape."""
    placed = tensor.to(model.device, copy=True)
    if not hasattr(model, "device_mesh"):
        return placed
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(placed, model.device_mesh, model.placements, src_data_rank=None)
