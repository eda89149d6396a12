"""Attention statistics without the map, against eager maps: time, and the largest tensor that is made.

Rival: the map by softmax in fp32, kept whole, from which the same numbers are summed: what code does that asks a model
for `output_attentions`. Ours is timed with the log-sum-exp given, as the forward pass of the model gives it, and with
the fused attention that computes it. All are timed in turn, in one run, since the speed of the machine drifts.

Correct first: every statistic is compared with the rival's before anything is timed.

On a GPU (`--device cuda`) the rival is the SDPA forward of the same layers, on which statistics ride. The larger share
of two is held against the target: in queues of their own, and what they add to a queue of forwards.

    python benchmarks/attention_stats.py [--tokens 4096] [--repeats 5] [--device cuda]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
from _results import save, save_gpu, spread, timed

from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import AttentionStatistics, attention_statistics, attention_with_lse

WINDOW, LOW, HIGH = 10, 10, 100
BANDED = StatisticsRequest(waad=WINDOW, fai=(LOW, HIGH))
WHOLE = StatisticsRequest(span=True, entropy=True, sink=1, waad=WINDOW, received=True, fai=(LOW, HIGH))
TARGET, GPU_TARGET = 10.0, 0.08


class Largest(TorchDispatchMode):
    """Remembers the most bytes that an operation's result held in memory."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.size = max([self.size, *sizes])
        return result


class Maps:
    """WAAD, FAI and, if asked for, the rest from whole maps; what depends on distance alone is made once."""

    def __init__(self, tokens: int) -> None:
        behind = torch.arange(tokens)[:, None] - torch.arange(tokens)
        self.is_future, self.distance = behind < 0, behind.clamp(min=0).float()
        self.capped = self.distance.clamp(max=WINDOW)
        self.horizon = ((behind >= LOW) & (behind <= HIGH)).float()
        self.later = torch.arange(tokens, 0, -1.0)

    def __call__(self, q: Tensor, k: Tensor, which: StatisticsRequest) -> AttentionStatistics:
        a = (q @ k.mT).mul_(q.shape[-1] ** -0.5).masked_fill_(self.is_future, -torch.inf).softmax(-1)
        found = {
            "waad": (a * self.capped).sum(-1),
            "fai": (a * self.horizon).sum(-2) / self.horizon.sum(0).clamp(min=1),
        }
        if which.span:
            found["span"] = (a * self.distance).sum(-1)
            found["entropy"] = torch.special.entr(a).sum(-1)
            found["sink"] = a[..., 0]
            found["received"] = a.sum(-2) / self.later
        return AttentionStatistics(**found)


def check(found: AttentionStatistics, expected: AttentionStatistics) -> float:
    """The largest error, relative to the largest value of the statistic. Raises AssertionError above 1e-4."""
    worst = 0.0
    for name in ("span", "entropy", "sink", "waad", "received", "fai"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        if mine is not None:
            worst = max(worst, float((mine - theirs).abs().max() / theirs.abs().max()))
            assert worst < 1e-4, f"{name} differs by {worst}"
    return worst


def interleave(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, one after the other, over and over; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            took = timed(call)
            if repeat:
                times[name].append(took)
    return times


def measure(tokens: int, repeats: int, heads: int = 8, depth: int = 64) -> dict[str, Any]:
    """WAAD and FAI, then all statistics, against maps, on the CPU."""
    draw = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, heads, tokens, depth, generator=draw) for _ in range(2))
    maps, (_, lse) = Maps(tokens), attention_with_lse(q, k, k)
    result: dict[str, Any] = {"tokens": tokens, "heads": heads, "head dimension": depth, "dtype": "float32"}
    for name, which in (("WAAD + FAI", BANDED), ("all", WHOLE)):
        error = check(attention_statistics(q, k, lse, which), maps(q, k, which))
        with Largest() as ours:
            attention_statistics(q, k, lse, which)
        with Largest() as theirs:
            maps(q, k, which)
        times = interleave(
            {
                "ours": lambda which=which: attention_statistics(q, k, lse, which),
                "ours with attention": lambda which=which: attention_statistics(q, k, None, which),
                "SDPA forward": lambda: attention_with_lse(q, k, k),
                "maps": lambda which=which: maps(q, k, which),
            },
            repeats,
        )
        median = {each: statistics.median(values) for each, values in times.items()}
        result[name] = {
            "ms": {each: spread(values) for each, values in times.items()},
            "maps / ours": round(median["maps"] / median["ours"], 1),
            "maps / ours with attention": round(median["maps"] / median["ours with attention"], 1),
            "share of an SDPA forward": round(median["ours"] / median["SDPA forward"], 3),
            "largest tensor MB": {"ours": round(ours.size / 1e6, 2), "maps": round(theirs.size / 1e6, 2)},
            "largest relative difference": error,
        }
    return result


class Layers:
    """Attention inputs of several layers on a GPU, in turn, so that none is still in the cache when it comes again."""

    def __init__(self, tokens: int, heads: int, key_heads: int, depth: int, count: int = 4) -> None:
        def draw(heads: int) -> Tensor:
            return torch.randn(1, heads, tokens, depth, device="cuda", dtype=torch.bfloat16)

        self.inputs = [(draw(heads), draw(key_heads), draw(key_heads)) for _ in range(count)]
        self.lse = [attention_with_lse(*layer)[1].contiguous() for layer in self.inputs]

    def forward(self, step: int) -> None:
        q, k, v = self.inputs[step % len(self.inputs)]
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def statistics(self, step: int) -> AttentionStatistics:
        (q, k, _), lse = self.inputs[step % len(self.inputs)], self.lse[step % len(self.inputs)]
        return attention_statistics(q, k, lse, BANDED)

    def both(self, step: int) -> None:
        self.forward(step)
        self.statistics(step)


def queue(call: Callable[[int], object], calls: int = 16) -> float:
    """Microseconds per call, by events, of calls that are given to the GPU one after the other."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for step in range(calls):
        call(step)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e3 / calls


def host(layers: Layers, calls: int = 64) -> float:
    """Microseconds of Python per call, while the GPU still has other work and nobody waits for it."""
    for step in range(32):
        layers.forward(step)
    start = time.perf_counter()
    for step in range(calls):
        layers.statistics(step)
    took = (time.perf_counter() - start) * 1e6 / calls
    torch.cuda.synchronize()
    return took


def check_gpu(layers: Layers, length: int = 2048) -> float:
    """The largest relative error on a part of the first layer, against maps in float64 there."""
    (q, k, _), part = layers.inputs[0], slice(0, length)
    found = layers.statistics(0)
    keys = k[:, :, part].double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    with torch.device("cuda"):
        expected = Maps(length)(q[:, :, part].double(), keys, BANDED)
    # Keys whose horizon ends within the part.
    whole = slice(0, length - HIGH)
    return check(
        AttentionStatistics(waad=found.waad[..., part], fai=found.fai[..., whole]),
        AttentionStatistics(waad=expected.waad, fai=expected.fai[..., whole]),
    )


def measure_gpu(
    tokens: int = 8192, heads: int = 32, key_heads: int = 8, depth: int = 128, rounds: int = 15
) -> dict[str, Any]:
    """WAAD and FAI against the same layers' SDPA forward in bfloat16: in queues of their own, and as what they add."""
    layers = Layers(tokens, heads, key_heads, depth)
    error = check_gpu(layers)
    calls = {"SDPA forward": layers.forward, "ours": layers.statistics, "SDPA forward, then ours": layers.both}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(rounds + 3):
        for name, call in calls.items():
            took = queue(call)
            if repeat >= 3:
                times[name].append(took)
    forward, ours, both = (statistics.median(values) for values in times.values())
    alone, added = ours / forward, both / forward - 1
    return {
        "tokens": tokens, "heads": heads, "key heads": key_heads, "head dimension": depth, "dtype": "bfloat16",
        "us per layer": {name: spread(values) for name, values in times.items()},
        "host us per call": spread([host(layers) for _ in range(7)]),
        "share of an SDPA forward": round(alone, 4), "share that is added to a forward": round(added, 4),
        "target": GPU_TARGET, "reached": max(alone, added) <= GPU_TARGET, "largest relative difference": error,
    }  # fmt: skip


def measure_cpu(tokens: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(2)
    found = {"long": measure(tokens, repeats), "short": measure(1024, 4 * repeats)}
    reached = found["long"]["WAAD + FAI"]["maps / ours"] >= TARGET
    return {**found, "target: maps / ours": TARGET, "reached": reached}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.device == "cuda":
        save_gpu("attention_stats", measure_gpu())
    else:
        save("attention_stats", measure_cpu(options.tokens, options.repeats))
