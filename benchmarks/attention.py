"""Neighbour attention, forward and backward, against the gather form: eager, and compiled by torch.

Agents at random places in a square, each with its 16 nearest neighbours, 32 numbers per row, with distances. The same
graph twice: agents sorted along a Morton curve, and numbered at random. Gradients of q, k, v and slope.

All methods take turns in one run, since a machine's speed drifts; ratios are of medians. Correct first: outputs and
gradients of every method agree with the gather form in float64.

On a GPU: how near to the least bytes that must be moved, at the copy bandwidth measured in the same run. Passes are
timed twice: in a queue, as in a training, where the GPU always has work, and alone, from an idle GPU to an idle GPU,
which adds what the host does before the first kernel and after the last. Both shares are told.

    python benchmarks/attention.py [--device cpu|cuda] [--agents 100000] [--rounds 7] [--threads 2]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.spatial import cKDTree
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from _common import save, save_gpu, spread, timed

from coterie.attention.neighbor import neighbor_attention
from coterie.attention.topology import Topology

SLOTS = 16
SHAPES = ((1, 32), (4, 8))
TARGETS = {
    "sorted": {"forward and backward, eager": 6.0, "forward and backward, compiled": 4.0, "forward, best": 1.0},
    "random": {"forward and backward, compiled": 1.5},
}


class Inputs(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    slope: Tensor
    distance: Tensor
    topology: Topology
    grad: Tensor


Method = Callable[[Inputs], Tensor]


@functools.cache
def nearest(agents: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, and each agent's nearest neighbours and their distances."""
    positions = torch.rand(agents, 2, generator=torch.Generator().manual_seed(0))
    distance, index = cKDTree(positions.numpy()).query(positions.numpy(), SLOTS + 1, workers=-1)
    return positions, torch.from_numpy(index[:, 1:]), torch.from_numpy(distance[:, 1:]).float() * agents**0.5


def graph(agents: int, is_sorted: bool, device: str) -> tuple[Topology, Tensor]:
    """Nearest neighbours and their distances."""
    positions, index, reach = nearest(agents)
    topology = Topology(index)
    if is_sorted:
        topology = topology.sort_by(positions)
        reach = reach[topology.order]
    return topology.to(device), reach.to(device)


def inputs(agents: int, heads: int, width: int, is_sorted: bool, device: str, dtype: torch.dtype) -> Inputs:
    topology, distance = graph(agents, is_sorted, device)
    draw = torch.Generator().manual_seed(1)
    q, k, v, grad = (torch.randn(agents, heads, width, generator=draw).to(device, dtype) for _ in range(4))
    slope = torch.linspace(0.5, 1, heads, device=device)
    return Inputs(*(x.requires_grad_() for x in (q, k, v, slope)), distance.to(dtype), topology, grad)


def ours(given: Inputs) -> Tensor:
    return neighbor_attention(
        given.q, given.k, given.v, given.topology, distance=given.distance, slope=given.slope
    )[0]  # fmt: skip


def gather_form(q: Tensor, k: Tensor, v: Tensor, index: Tensor, distance: Tensor, slope: Tensor) -> Tensor:
    """What one writes without a kernel. Every slot holds a neighbour, so that it needs no mask."""
    scores = (q[:, None] * k[index]).sum(-1) * q.shape[-1] ** -0.5 - distance[:, :, None] * slope
    return (scores.softmax(1)[..., None] * v[index]).sum(1)


def gathers(form: Callable[..., Tensor], index: Tensor) -> Method:
    return lambda given: form(given.q, given.k, given.v, index, given.distance, given.slope)


def step(method: Method, given: Inputs) -> tuple[Tensor, ...]:
    """Forward and backward."""
    o = method(given)
    return o, *torch.autograd.grad(o, given[:4], given.grad.to(o.dtype))


def check(name: str, found: tuple[Tensor, ...], exact: tuple[Tensor, ...], limit: float) -> None:
    for part, x, y in zip(("o", "q", "k", "v", "slope"), found, exact, strict=True):
        error = float((x.detach().double() - y).abs().max() / y.abs().max())
        # The slope's is a sum of millions of terms of either sign, of which next to nothing may be left.
        assert error <= limit * (100 if part == "slope" else 1), f"{name}: {part} has the relative error {error:.1e}"


def exact(given: Inputs, index: Tensor) -> tuple[Tensor, ...]:
    wide = given._replace(
        **{name: getattr(given, name).detach().double().requires_grad_() for name in ("q", "k", "v", "slope")},
        distance=given.distance.double(),
    )
    return tuple(x.detach() for x in step(gathers(gather_form, index), wide))


def take_turns(
    methods: dict[str, Method], given: Inputs, rounds: int, device: str
) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {name: {"forward": [], "forward and backward": []} for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            with torch.no_grad():
                found[name]["forward"].append(timed(lambda method=method: method(given), device))
            found[name]["forward and backward"].append(timed(lambda method=method: step(method, given), device))
    return found


def compare(agents: int, heads: int, width: int, ids: str, rounds: int, device: str) -> dict[str, Any]:
    """All methods on one graph."""
    torch._dynamo.reset()
    given = inputs(agents, heads, width, ids == "sorted", device, torch.float32)
    index = given.topology.index.long()
    compiled = torch.compile(gather_form, dynamic=False)
    methods: dict[str, Method] = {
        "neighbor": ours,
        "eager": gathers(gather_form, index),
        "compiled": gathers(compiled, index),
    }
    reference = exact(given, index)
    for name, method in methods.items():
        check(name, step(method, given), reference, 1e-5)
        with torch.no_grad():
            method(given)
    times = take_turns(methods, given, rounds, device)
    medians = {name: {what: statistics.median(ms) for what, ms in rows.items()} for name, rows in times.items()}
    mine = medians["neighbor"]
    ratios = {f"{what}, {name}": medians[name][what] / mine[what] for what in mine for name in ("eager", "compiled")}
    ratios["forward, best"] = min(medians[name]["forward"] for name in ("eager", "compiled")) / mine["forward"]
    row = {
        "ids": ids, "agents": agents, "heads": heads, "width": width, "neighbours": SLOTS, "device": device,
        "ms": {name: {what: spread(ms) for what, ms in rows.items()} for name, rows in times.items()},
        "rival / ours": {name: round(ratio, 2) for name, ratio in ratios.items()},
        "inverse, ms": round(timed(lambda: Topology(given.topology.index).inverse, device), 2),
    }  # fmt: skip
    if device == "cpu":
        row["reached"] = {name: ratios[name] >= target for name, target in TARGETS[ids].items()}
    print(ids, heads, width, row["rival / ours"], file=sys.stderr, flush=True)
    return row


def bound_bytes(agents: int, width: int, size: int) -> dict[str, dict[str, int]]:
    """Bytes of one head: `compulsory` reads every tensor once, `gathered` every neighbour's rows from memory."""
    row, edge = width * size, SLOTS * (4 + size)
    forward = {"compulsory": 4 * row + edge + 4, "gathered": 2 * row + edge + 4 + 2 * SLOTS * row}
    by_query = {"compulsory": 6 * row + edge + 8, "gathered": 4 * row + edge + 8 + 2 * SLOTS * row}
    by_key = {"compulsory": 6 * row + edge + 16, "gathered": 4 * row + edge + 16 + SLOTS * (2 * row + 8)}
    backward = {name: by_query[name] + by_key[name] for name in by_query}
    return {
        "forward": {n: agents * x for n, x in forward.items()},
        "backward": {n: agents * x for n, x in backward.items()},
    }


def bandwidth() -> float:
    """Bytes per second that a copy of 4 GB reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.float32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / (min(timed(lambda: target.copy_(source), "cuda") for _ in range(10)) * 1e-3)


def queued(work: Callable[[], object], rounds: int) -> list[float]:
    """Milliseconds from the end of one call's work to the end of the next's, while the host runs ahead."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(rounds + 2)]
    for mark in marks:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) for first, second in zip(marks[1:], marks[2:], strict=False)]


def passes(given: Inputs, rounds: int) -> Iterator[tuple[str, list[float], list[float]]]:
    """Milliseconds of forward and of backward passes, in a queue and alone."""
    o = ours(given)

    def backward() -> object:
        return torch.autograd.grad(o, given[:4], given.grad, retain_graph=True)

    def forward() -> object:
        with torch.no_grad():
            return ours(given)

    for what, work in (("forward", forward), ("backward", backward)):
        yield what, queued(work, rounds), [timed(work, "cuda") for _ in range(rounds)]


def on_gpu(rounds: int, agents: int = 1_000_000, width: int = 32) -> dict[str, Any]:
    """The GPU's part of the result."""
    speed, rows = bandwidth(), []
    for ids, bound, target in (("random", "gathered", 0.6), ("sorted", "compulsory", 0.5)):
        for dtype in (torch.float32, torch.bfloat16):
            given = inputs(agents, 1, width, ids == "sorted", "cuda", dtype)
            limit = 1e-5 if dtype == torch.float32 else 1e-2
            check("neighbor", step(ours, given), exact(given, given.topology.index.long()), limit)
            for what, together, alone in passes(given, rounds):
                least = bound_bytes(agents, width, dtype.itemsize)[what][bound] / speed * 1e3
                share, share_alone = (least / statistics.median(ms) for ms in (together, alone))
                rows.append({
                    "ids": ids, "agents": agents, "heads": 1, "width": width, "neighbours": SLOTS,
                    "dtype": str(dtype).removeprefix("torch."), "pass": what, "ms": spread(together),
                    "alone, ms": spread(alone), "bound": bound, "bound, ms": round(least, 3), "target": target,
                    "share of bound": round(share, 3), "reached": share >= target,
                    "share of bound, alone": round(share_alone, 3), "reached alone": share_alone >= target,
                })  # fmt: skip
                print(*list(rows[-1].values())[5:], file=sys.stderr, flush=True)
            del given
    return {"copy, GB/s": round(speed / 1e9), "rows": rows, "many agents": many_agents()}


def many_agents(agents: int = 10_000_000) -> dict[str, Any]:
    """A ring of so many agents that offsets of rows do not fit into 32 bits: no crash, and the right output."""
    at = torch.arange(agents, device="cuda")[:, None]
    topology = Topology((at + torch.arange(1, SLOTS + 1, device="cuda")) % agents)
    q, k, v = (torch.randn(agents, 8, 32, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    o, _ = neighbor_attention(q, k, v, topology)
    torch.autograd.grad(o.sum(), (q, k, v))
    rows = slice(agents - 1000, agents)
    scores = (q[rows, None].float() * k[topology.index[rows].long()].float()).sum(-1) * 32**-0.5
    expected = (scores.softmax(1)[..., None] * v[topology.index[rows].long()].float()).sum(1)
    assert (o[rows].float() - expected).abs().max() < 1e-2 * expected.abs().max()
    return {"agents": agents, "heads": 8, "width": 32, "dtype": "bfloat16", "correct": True}


def on_cpu(agents: int, rounds: int, threads: int) -> dict[str, Any]:
    """The CPU's part of the result."""
    torch.set_num_threads(threads)
    return {
        "rivals": "the gather form with autograd: eager, and torch.compile", "threads": threads, "targets": TARGETS,
        "cpu": [compare(agents, *shape, ids, rounds, "cpu") for shape in SHAPES for ids in TARGETS],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.device == "cuda":
        save_gpu("attention_neighbor", on_gpu(options.rounds))
    else:
        save("attention_neighbor", on_cpu(options.agents, options.rounds, options.threads))
