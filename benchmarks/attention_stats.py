"""Attention statistics without the map, against eager maps: time, and the largest tensor that is made.

Rival: the map by softmax in fp32, kept whole, from which the same numbers are summed: what code does that asks a model
for `output_attentions`. Ours is timed with the log-sum-exp given, as the forward pass of the model gives it, and with
the fused attention that computes it. All are timed in turn, in one run, since the speed of the machine drifts.

Correct first: every statistic is compared with the rival's before anything is timed.

    python benchmarks/attention_stats.py [--tokens 4096] [--repeats 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))
from _common import save, spread, timed

from coterie.attention.stats import AttentionStatistics, StatisticsRequest, attention_statistics, attention_with_lse

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


def measure_gpu(tokens: int = 8192, heads: int = 32, key_heads: int = 8, depth: int = 128) -> dict[str, Any]:
    """WAAD and FAI against the same layer's SDPA forward, by events, in bfloat16."""
    q = torch.randn(1, heads, tokens, depth, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, key_heads, tokens, depth, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    _, lse = attention_with_lse(q, k, v)
    part = slice(0, 1024)
    short = attention_statistics(q[:, :, part], k[:, :, part], lse[:, :, part].contiguous(), BANDED)
    keys = k[:, :, part].float().cpu().repeat_interleave(heads // key_heads, 1)
    error = check(
        AttentionStatistics(waad=short.waad.cpu(), fai=short.fai.cpu()),
        Maps(1024)(q[:, :, part].float().cpu(), keys, BANDED),
    )
    calls = {
        "ours": lambda: attention_statistics(q, k, lse, BANDED),
        "SDPA forward": lambda: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(60):
        for name, call in calls.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if repeat >= 10:
                times[name].append(begin.elapsed_time(end))
    share = statistics.median(times["ours"]) / statistics.median(times["SDPA forward"])
    return {
        "device": torch.cuda.get_device_name(), "tokens": tokens, "heads": heads, "key heads": key_heads,
        "head dimension": depth, "dtype": "bfloat16", "ms": {name: spread(values) for name, values in times.items()},
        "share of an SDPA forward": round(share, 4), "target": GPU_TARGET, "reached": share <= GPU_TARGET,
        "largest relative difference": error,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    found = {"long": measure(options.tokens, options.repeats), "short": measure(1024, 4 * options.repeats)}
    found["target: maps / ours"] = TARGET
    found["reached"] = found["long"]["WAAD + FAI"]["maps / ours"] >= TARGET
    if torch.cuda.is_available():
        found["gpu"] = measure_gpu()
    save("attention_stats", found)
