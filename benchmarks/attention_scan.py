"""Linear attention by chunks against dense causal attention (SDPA): forward, and forward with backward, over lengths.

`scan` with a decay by head (Lightning Attention-2), and the two mechanisms that call it more than once or with wider
values: plain linear attention and Flow-Attention. All take turns in one run, since a machine's speed drifts; ratios are
of medians. Correct first: outputs and gradients of `scan` agree with the definition in float64.

On a GPU in bfloat16, calls one behind the other in a queue; where flash-linear-attention is installed, `scan` calls it,
and chunks of plain torch run beside it.

    python benchmarks/attention_scan.py [--device cpu|cuda] [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from _results import save, save_gpu, spread, timed
from attention_stats import queue

from coterie.attention.dispatch import VARIABLE
from coterie.attention.kernels.scan_naive import naive_scan
from coterie.attention.mechanisms.base import Context, Heads
from coterie.attention.mechanisms.linear import Flow, Lightning, Linear
from coterie.attention.scan import has_fla, scan

WIDTH = 64
LENGTHS = {"cpu": (2048, 4096, 8192), "cuda": (2048, 4096, 8192, 16384, 32768)}
HEADS = {"cpu": 8, "cuda": 16}
LIMITS = {"cpu": 1e-5, "cuda": 2e-2}
WARMING = 12
"""Processes that compile."""

Method = Callable[[Tensor, Tensor, Tensor], Tensor]


@contextmanager
def forced(backend: str) -> Iterator[None]:
    os.environ[VARIABLE] = backend
    yield
    del os.environ[VARIABLE]


def methods(heads: int, device: str) -> dict[str, Method]:
    """By name, all called with q, k and v."""
    modules = {
        name: mechanism.module(Heads(heads, heads, WIDTH, heads * WIDTH))
        for name, mechanism in {"lightning": Lightning(), "linear": Linear(), "flow": Flow()}.items()
    }
    found: dict[str, Method] = {
        name: lambda q, k, v, module=module: module(q, k, v, Context(causal=True)) for name, module in modules.items()
    }

    def in_chunks(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with forced("cpu"):
            return found["lightning"](q, k, v)

    dense = {"sdpa": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True)}
    beside = {"lightning, in chunks": in_chunks} if device == "cuda" and has_fla() else {}
    return {**dense, **found, **beside}


def inputs(tokens: int, device: str) -> list[Tensor]:
    """q, k, v and the gradient of the output."""
    draw = torch.Generator().manual_seed(tokens)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    shape = (1, HEADS[device], tokens, WIDTH)
    given = [torch.randn(shape, generator=draw).to(device, dtype) for _ in range(4)]
    return [*(x.requires_grad_() for x in given[:3]), given[3]]


def step(method: Method, given: list[Tensor]) -> tuple[Tensor, ...]:
    """Forward and backward."""
    o = method(*given[:3])
    return o, *torch.autograd.grad(o, given[:3], given[3])


def check(device: str, tokens: int = 1000) -> float:
    """The largest relative error of an output or gradient of `scan` with decay."""
    given = inputs(tokens, device)
    decay = -torch.logspace(-2, 0, HEADS[device], dtype=torch.float64, device=device)
    found = step(lambda q, k, v: scan(q, k, v, log_decay=decay.float())[0], given)
    state = torch.zeros(1, HEADS[device], WIDTH, WIDTH, dtype=torch.float64, device=device)
    wide = [x.detach().double().requires_grad_() for x in given]
    exact = step(lambda q, k, v: naive_scan(q, k, v, decay, None, state)[0], wide)
    error = max(
        float((x.detach().double() - y.detach()).norm() / y.detach().norm()) for x, y in zip(found, exact, strict=True)
    )
    assert error <= LIMITS[device], f"scan has the relative error {error:.1e}"
    return error


def milliseconds(work: Callable[[], object], device: str) -> float:
    return timed(work) if device == "cpu" else queue(lambda _: work(), calls=4) / 1e3


def measure(tokens: int, rounds: int, device: str) -> dict[str, Any]:
    given, rivals = inputs(tokens, device), methods(HEADS[device], device)
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "forward and backward": []} for name in rivals}
    for repeat in range(rounds + 1):
        for name, method in rivals.items():
            with torch.no_grad():
                forward = milliseconds(lambda method=method: method(*given[:3]), device)
            both = milliseconds(lambda method=method: step(method, given), device)
            if repeat:  # The first round compiles and warms up.
                times[name]["forward"].append(forward)
                times[name]["forward and backward"].append(both)
    medians = {name: {what: statistics.median(ms) for what, ms in rows.items()} for name, rows in times.items()}
    ratios = {
        name: {what: round(medians["sdpa"][what] / ms, 2) for what, ms in rows.items()}
        for name, rows in medians.items()
        if name != "sdpa"
    }
    print(tokens, ratios, file=sys.stderr, flush=True)
    ms = {name: {what: spread(values) for what, values in rows.items()} for name, rows in times.items()}
    return {"tokens": tokens, "ms": ms, "sdpa / ours": ratios}


def warm(turn: int) -> None:
    """Compile what flash-linear-attention chooses from, in an order of its own: the caches on disk are shared.

    Nothing is timed, since the processes share a GPU.
    """
    from triton.runtime.autotuner import Autotuner

    usual = Autotuner.prune_configs

    def turned(self: Any, arguments: Any) -> list[Any]:
        configs = usual(self, arguments)
        first = len(configs) * turn // WARMING
        return [*configs[first:], *configs[:first]]

    Autotuner.prune_configs = turned
    Autotuner.do_bench = property(lambda self: lambda call, quantiles: (call(), [1.0] * len(quantiles))[1])
    check("cuda")
    given = inputs(LENGTHS["cuda"][0], "cuda")
    for method in methods(HEADS["cuda"], "cuda").values():
        step(method, given)


def result(device: str, rounds: int) -> dict[str, Any]:
    if device == "cuda" and has_fla():
        with ProcessPoolExecutor(WARMING, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(warm, range(WARMING)))
    return {
        "heads": HEADS[device], "width": WIDTH, "dtype": "float32" if device == "cpu" else "bfloat16",
        "fla": device == "cuda" and has_fla(), "largest relative error": check(device),
        "rows": [measure(tokens, rounds, device) for tokens in LENGTHS[device]],
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        save_gpu("attention_scan", result("cuda", options.rounds))
    else:
        save("attention_scan", {"threads": options.threads, **result("cpu", options.rounds)})
