"""Who attends to whom: lists of neighbours, and what is worth keeping about them between calls."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from coterie.attention.checks import check_device, check_dtype, check_finite, check_range, check_shape
from coterie.attention.kernels.neighbor_torch import Inverse

_INT32_MAX = 2**31 - 1


class Topology:
    """A directed graph of A queries that attend to K of M keys each, such as agents to their nearest neighbours.

    It keeps its own copy of the index, checked once, and works out what else kernels need when first asked. So one
    topology should serve all layers, heads and epochs for which the graph stays the same.

    Args:
        index: [A, K] int32 or int64, on any device: key of each slot, -1: none. A key that stands in a row twice counts
            twice.
        num_keys: M. By default the keys are the queries, M = A.

    Attributes:
        index: [A, K] int32, contiguous. Not to be written to.
        num_keys: M.
        order: [A] int64 or None: row r was row order[r] of the topology that this one was sorted from.

    Raises:
        ValueError: `index` has another shape or dtype, or holds a number outside -1 <= key < M; `num_keys` is negative.
    """

    def __init__(self, index: Tensor, num_keys: int | None = None) -> None:
        check_shape("index", index, "A K")
        check_dtype("index", index, torch.int32, torch.int64)
        self.num_keys = index.shape[0] if num_keys is None else num_keys
        if not 0 <= self.num_keys <= _INT32_MAX:
            raise ValueError(f"num_keys is {self.num_keys}, expected 0 <= num_keys < 2**31")
        check_range("index", index, -1, self.num_keys)
        self.index = index.detach().to(torch.int32, copy=True, memory_format=torch.contiguous_format)
        self.order: Tensor | None = None

    @property
    def num_queries(self) -> int:
        """A."""
        return self.index.shape[0]

    @property
    def num_neighbors(self) -> int:
        """K, slots per query."""
        return self.index.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the index lies."""
        return self.index.device

    def to(self, device: torch.device | str) -> Topology:
        """The same graph on another device; itself if it lies there."""
        index = self.index.to(device)
        if index is self.index:  # also where "cuda" stands for "cuda:0"
            return self
        moved = Topology(index, self.num_keys)
        moved.order = None if self.order is None else self.order.to(device)
        return moved

    @cached_property
    def inverse(self) -> Inverse:
        """The incoming edges of each key, which the backward pass reads: so there are no atomics in it."""
        if self.device.type == "cpu" and self.index.numel() <= _INT32_MAX:
            from coterie.attention.kernels.neighbor_numba import invert

            return Inverse(*invert(self.index, self.num_keys))
        keys, edges = torch.sort(self.index.flatten(), stable=True)
        bounds = torch.arange(self.num_keys + 1, dtype=keys.dtype, device=keys.device)
        small = edges.numel() <= _INT32_MAX
        return Inverse(torch.searchsorted(keys, bounds), edges.to(torch.int32) if small else edges)

    @cached_property
    def is_full(self) -> bool:
        """Whether no slot is empty, so that kernels need no masks. Waits for a GPU."""
        return not bool((self.index < 0).any())

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether every edge has its opposite, so that out-lists hold what in-lists hold. Waits for a GPU."""
        if self.num_keys != self.num_queries:
            return False
        present = self.index >= 0
        rows = torch.arange(self.num_queries, device=self.device)[:, None].expand_as(self.index)[present]
        keys = self.index[present].long()
        there, back = rows * self.num_keys + keys, keys * self.num_keys + rows
        return torch.equal(there.sort().values, back.sort().values)

    def permute(self, order: Tensor) -> Topology:
        """The same graph with queries and keys renumbered alike: row r of the new one is row order[r] of this one.

        Tensors that belong to it move with it: `q[order]`, `distance[order]`; `x[order] = o` moves outputs back.

        Raises:
            ValueError: The keys are not the queries, or `order` is no permutation of them.
        """
        if self.num_keys != self.num_queries:
            raise ValueError(f"num_keys is {self.num_keys}, expected the {self.num_queries} queries of index as keys")
        check_shape("order", order, "A", {"A": self.num_queries})
        check_dtype("order", order, torch.int64)
        check_device(index=self.index, order=order)
        check_range("order", order, 0, self.num_queries)
        # The last place stands for empty slots, which are read at -1.
        rank = torch.full((self.num_queries + 1,), -1, device=self.device)
        rank[order] = torch.arange(self.num_queries, device=self.device)
        if bool((rank[:-1] < 0).any()):
            raise ValueError("order holds a number twice, expected a permutation")
        permuted = Topology(rank[self.index[order].long()])
        permuted.order = order.clone()
        return permuted

    def sort_by(self, positions: Tensor) -> Topology:
        """The same graph with agents that are near each other near each other in memory too.

        A query then reads keys that queries just before it have read, which is worth more than any change of a kernel.
        The permutation is the new topology's `order`; it stays good for many steps of a moving swarm.

        Args:
            positions: [A, 2] or [A, 3], finite.
        """
        check_shape("positions", positions, "A P", {"A": self.num_queries})
        check_device(index=self.index, positions=positions)
        return self.permute(morton_order(positions))


def morton_order(positions: Tensor) -> Tensor:
    """The permutation that sorts points along a Morton (Z-order) curve, int64 [A].

    Source: G. M. Morton, "A computer oriented geodetic data base and a new technique in file sequencing", IBM, 1966.

    Args:
        positions: [A, 2] or [A, 3], floating-point and finite. The curve runs through 2^20 cells per axis.

    Raises:
        ValueError: Another shape or dtype; a position that is not finite.
    """
    bits = 20
    check_shape("positions", positions, "A P")
    if positions.shape[1] not in (2, 3):
        raise ValueError(f"positions has {positions.shape[1]} columns, expected 2 or 3")
    check_dtype("positions", positions, torch.float32, torch.float64, torch.bfloat16, torch.float16)
    check_finite("positions", positions)
    if positions.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=positions.device)
    places = positions.detach().double()
    places = places - places.amin(0)
    cells = (places * ((2**bits - 1) / places.amax().clamp_min(1e-300))).long()
    code = torch.zeros_like(cells[:, 0])
    for bit in range(bits):
        for axis in range(cells.shape[1]):
            code |= (cells[:, axis] >> bit & 1) << bit * cells.shape[1] + axis
    return code.argsort(stable=True)
