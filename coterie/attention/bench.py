"""A small benchmark of this machine: each kernel against what one would write without it, correct first, then timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from coterie.attention.neighbor import neighbor_attention
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import attention_statistics, attention_with_lse
from coterie.attention.topology import Topology

LIMIT = 1e-4
"""Largest difference to the rival, relative to its largest value, in float32."""

Work = Callable[[], list[Tensor]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One kernel and one rival on the same inputs."""

    name: str
    size: str
    rival: str
    milliseconds: float
    """Median of the kernel."""
    rival_milliseconds: float
    error: float
    """Largest difference, relative to the rival's largest value."""

    @property
    def ratio(self) -> float:
        """How many times faster than the rival."""
        return self.rival_milliseconds / self.milliseconds

    @property
    def is_correct(self) -> bool:
        """Whether kernel and rival agree."""
        return self.error <= LIMIT


def compare(device: str = "cpu", repeats: int = 5, tokens: int = 2048, agents: int = 16384) -> Iterator[Comparison]:
    """Measure every kernel in float32; kernel and rival take turns.

    Args:
        device: Where.
        repeats: How many times each; the first, untimed call of each is the check.
        tokens: T of the attention statistics; the rival holds 8 maps of T x T.
        agents: A of the neighbour attention, rounded down to a square.
    """
    yield _measure(*_statistics(tokens, device), repeats)
    side = max(int(agents**0.5), 4)
    lattice, shuffled = _lattice(side, device), torch.randperm(side**2, generator=_seeded()).to(device)
    yield _measure("neighbor, sorted ids", *_neighbors(lattice), repeats)
    yield _measure("neighbor, random ids", *_neighbors(shuffled[lattice]), repeats)


def _measure(name: str, size: str, rival: str, ours: Work, theirs: Work, repeats: int) -> Comparison:
    pairs = list(zip(ours(), theirs(), strict=True))
    error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    device = pairs[0][0].device
    seconds = [(time_once(ours, device), time_once(theirs, device)) for _ in range(repeats)]
    median, their_median = (1e3 * statistics.median(column) for column in zip(*seconds, strict=True))
    return Comparison(name, size, rival, median, their_median, error)


def time_once(work: Work, device: torch.device) -> float:
    """Seconds of one call, what it started on a GPU included."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _statistics(length: int, device: str) -> tuple[str, str, str, Work, Work]:
    """WAAD and FAI as the credit rules read them, the log-sum-exp given."""
    q, k = (torch.randn(1, 8, length, 64, generator=_seeded()).to(device) for _ in range(2))
    _, lse = attention_with_lse(q, k, k)
    which = StatisticsRequest(waad=10, fai=(10, 100))
    at = torch.arange(length, device=device)
    behind = at[:, None] - at
    queries = (length - 10 - at).clamp(1, 91)

    def ours() -> list[Tensor]:
        found = attention_statistics(q, k, lse, which)
        assert found.waad is not None and found.fai is not None
        return [found.waad, found.fai]

    def theirs() -> list[Tensor]:
        map_ = (q @ k.mT * 64**-0.5).masked_fill(behind < 0, -torch.inf).softmax(-1)
        banded = map_ * ((behind >= 10) & (behind <= 100))
        return [(map_ * behind.clamp(0, 10)).sum(-1), banded.sum(-2) / queries]

    return "stats, WAAD and FAI", f"T={length} H=8 d=64", "eager map", ours, theirs


def _neighbors(index: Tensor) -> tuple[str, str, Work, Work]:
    """Forward and backward."""
    topology = Topology(index)
    agents, slots = index.shape
    draw = _seeded()
    q, k, v, grad = (torch.randn(agents, 4, 8, generator=draw).to(index.device).requires_grad_() for _ in range(4))

    def ours() -> list[Tensor]:
        o, _ = neighbor_attention(q, k, v, topology)
        return [o.detach(), *torch.autograd.grad(o, (q, k, v), grad.detach())]

    def theirs() -> list[Tensor]:
        shares = (torch.einsum("ahd,akhd->ahk", q, k[index]) * 8**-0.5).softmax(-1)
        o = torch.einsum("ahk,akhd->ahd", shares, v[index])
        return [o.detach(), *torch.autograd.grad(o, (q, k, v), grad.detach())]

    return f"A={agents} K={slots} H=4 d=8", "gather in eager PyTorch", ours, theirs


def _lattice(side: int, device: str) -> Tensor:
    """[A, 16]: the 4 x 4 block around each point of a square lattice that is a torus, in row-major order."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    steps = [(y, x) for y in range(-2, 2) for x in range(-2, 2)]
    found = [(row + y) % side * side + (column + x) % side for y, x in steps]
    return torch.stack([each.flatten() for each in found], -1).to(device)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
