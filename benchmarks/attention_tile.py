"""Attention over lists of tiles against dense attention, FlexAttention and biases in memory: forward and backward.

Correct first: outputs, lse and gradients of small odd cases agree with the formula in float64, on the device that is
timed, and every timed mask is compared with the rival's output. Ratios are of medians of calls that take turns.

On a GPU (`--device cuda`), in bfloat16: a sliding window against dense causal SDPA and compiled FlexAttention, a
low-rank bias against SDPA with that bias in memory, and lists of blocks as in Native Sparse Attention against dense
causal SDPA. `--sweep` times sizes of tiles, warps and stages, too. Kernels are compiled by many processes beforehand.

    python benchmarks/attention_tile.py [--device cpu|cuda] [--sweep] [--rounds 5]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))
from _results import save, save_gpu, timed

from coterie.attention import blocks
from coterie.attention.attend import attend
from coterie.attention.blocks import tile_lists
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Blocks, Causal, Hops, Listed, Mask, Neighborhood, Segments, Window
from coterie.attention.naive import naive_attention
from coterie.attention.spec import Spec

_HEAD_START = 20_000_000
"""Cycles for which the GPU waits, so that what the host needs for its calls is not in their times."""
BLOCK, CHOSEN = 64, 16
"""Of Native Sparse Attention: keys of a block, and blocks of a query."""
TARGETS = {
    "window": {"dense causal SDPA": 8.0, "FlexAttention": 1.0},
    "low rank": {"SDPA with the bias in memory": 1.5},
    "selection": {"dense causal SDPA": 1.0},
    "cpu": {"dense SDPA": 1.0},
}


class Case(NamedTuple):
    """Sizes of one call, and its mask."""

    kind: str
    tokens: int
    heads: int
    key_heads: int
    width: int
    dtype: str = "bfloat16"
    mask: Mask | None = None
    rank: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}, T={self.tokens}, H={self.heads}/{self.key_heads}, D={self.width}, {self.dtype}"


class Inputs(NamedTuple):
    """Of one call."""

    floats: list[Tensor]
    """q, k, v, and factors if there are any."""
    spec: Spec
    data: Data

    def ours(self, return_lse: bool = False) -> Any:
        data = self.data
        if self.spec.rank:
            data = replace(data, query_factors=self.floats[3], key_factors=self.floats[4])
        o, lse = attend(*self.floats[:3], self.spec, data, return_lse=True)
        return (o, lse) if return_lse else o


def inputs(case: Case, device: str) -> Inputs:
    draw = torch.Generator(device).manual_seed(0)
    shapes = [(case.heads, case.width), (case.key_heads, case.width), (case.key_heads, case.width)]
    dtype = getattr(torch, case.dtype)
    floats = [torch.randn(1, h, case.tokens, d, generator=draw, device=device).to(dtype) for h, d in shapes]
    if case.rank:
        floats += [torch.randn(1, case.heads, case.tokens, case.rank, generator=draw, device=device) for _ in range(2)]
    at = torch.arange(case.tokens, device=device)
    data = Data(
        Tokens(segment=torch.where(at < case.tokens - 9, at // 70, -1)),
        blocks=choose_blocks(case, draw) if case.kind == "selection" else None,
        hops=(at[:, None] - at).abs() // 5 - 1 if case.mask == Hops(9) else None,
    )
    return Inputs([x.requires_grad_() for x in floats], Spec(case.mask, rank=case.rank), data)


def choose_blocks(case: Case, draw: torch.Generator) -> Tensor:
    """The first block, a query's own and the one before, and others at random, none of which lies ahead."""
    count = -(-case.tokens // BLOCK)
    own = torch.arange(case.tokens, device=draw.device) // BLOCK
    score = torch.rand(1, case.key_heads, case.tokens, count, generator=draw, device=draw.device)
    at = torch.arange(count, device=draw.device)
    forced = (at == 0) | (at == own[:, None]) | (at == own[:, None] - 1)
    score = torch.where(forced, 2.0, score).masked_fill(at > own[:, None], -1.0)
    found = score.topk(min(CHOSEN, count), -1)
    return found.indices.masked_fill(found.values < 0, -1)


SMALL = [
    Case("window", 333, 4, 2, 64, dtype, mask, rank)
    for dtype, mask, rank in (
        ("bfloat16", Window(50, 0), 0), ("float16", Window((9, None, 70, 3), 5), 0), ("float32", Window(50, 0), 0),
        ("bfloat16", Segments() & Causal(), 8), ("float32", Segments() & Causal(), 3), ("bfloat16", Hops(9), 0),
        ("bfloat16", Neighborhood((9, 37), (3, 8)), 0), ("bfloat16", None, 8),
    )
] + [
    Case("window", 200, 2, 2, 128, "bfloat16", Window(50, 0)),
    Case("window", 200, 2, 2, 128, "float32", Window(50, 0)),
    Case("window", 200, 2, 1, 40, "bfloat16", Blocks(48)),
    Case("window", 200, 1, 1, 256, "bfloat16", Window(50, 0)),
    Case("selection", 1300, 16, 1, 128, "bfloat16", Listed(BLOCK) & Causal()),
    Case("selection", 1301, 8, 2, 64, "bfloat16", Listed(BLOCK) & Causal()),
    Case("selection", 1301, 6, 2, 64, "float32", Listed(BLOCK) & Causal()),
    Case("selection", 1301, 2, 2, 64, "bfloat16", Listed(BLOCK), 4),
]  # fmt: skip


def check(case: Case, device: str) -> dict[str, Any]:
    """Relative errors, the largest of each tensor, against the formula in float64. Raises AssertionError."""
    given = inputs(case, device)
    o, lse = given.ours(return_lse=True)
    exact = Inputs([x.detach().double().requires_grad_() for x in given.floats], given.spec, given.data)
    q, k, v, *factors = exact.floats
    allowed = given.spec.allowed(given.spec.read(*given.floats[:2], given.data))
    bias = factors[0] @ factors[1].mT if factors else None
    expected, expected_lse = naive_attention(q, k, v, allowed=allowed, bias=bias)
    draw = torch.Generator(device).manual_seed(1)
    weights, more = (torch.randn(x.shape, generator=draw, device=device).double() for x in (o, lse))
    some = expected_lse.isfinite()
    ((o.double() * weights).sum() + (lse.double() * more)[some].sum()).backward()
    ((expected * weights).sum() + (expected_lse * more)[some].sum()).backward()
    pairs = [("o", o, expected), ("lse", lse[some], expected_lse[some])]
    pairs += [
        (f"gradient {i}", x.grad, y.grad) for i, (x, y) in enumerate(zip(given.floats, exact.floats, strict=True))
    ]
    errors = {name: float((x.double() - y).norm() / y.norm().clamp(min=1e-9)) for name, x, y in pairs}
    limit = {"float32": 2e-5, "float16": 3e-3, "bfloat16": 1.5e-2}[case.dtype]
    assert torch.equal(lse.isfinite(), some), case.name
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    assert not wrong, f"{case.name}, {case.mask}: {wrong}"
    return {"case": f"{case.name}, {case.mask}, R={case.rank}", "largest error": max(errors.values())}


WINDOWS = [
    Case("window", 32768, 16, 16, 64, mask=Window(1023, 0)),
    Case("window", 32768, 8, 8, 128, mask=Window(1023, 0)),
]
LOW_RANK = [Case("low rank", 8192, 16, 16, 64, rank=8)]
SELECTIONS = [
    Case("selection", tokens, heads, key_heads, 128, mask=Listed(BLOCK) & Causal())
    for (heads, key_heads), tokens in itertools.product(((64, 4), (32, 4), (16, 4)), (8192, 16384, 32768))
]


class Method(NamedTuple):
    """What is called, and the tensors whose gradients its backward pass gives."""

    call: Callable[[], Tensor]
    floats: list[Tensor]


def rivals(case: Case, given: Inputs) -> dict[str, Method]:
    """Methods by name, ours first."""
    rows, factors = given.floats[:3], given.floats[3:]
    q, k, v = rows
    found = {"ours": Method(given.ours, given.floats)}
    if case.kind == "low rank":
        constant = given._replace(floats=[*rows, *(x.detach() for x in factors)])
        bias = (factors[0] @ factors[1].mT).detach().to(q.dtype)
        return {
            **found,
            "ours, constant factors": Method(constant.ours, rows),
            "SDPA with the bias in memory": Method(lambda: _sdpa(q, k, v, attn_mask=bias), rows),
        }
    found["dense causal SDPA"] = Method(lambda: _sdpa(q, k, v, is_causal=True, enable_gqa=True), rows)
    if case.kind == "window":
        found["FlexAttention"] = Method(flex_attention(case, given), rows)
    return found


def step(method: Method) -> tuple[Tensor, ...]:
    """Forward and backward."""
    o = method.call()
    return torch.autograd.grad(o, method.floats, torch.ones_like(o))


def _sdpa(q: Tensor, k: Tensor, v: Tensor, **how: Any) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, **how)


def flex_attention(case: Case, given: Inputs) -> Callable[[], Tensor]:
    """The window as FlexAttention, compiled; its block mask is made beforehand."""
    from torch.nn.attention import flex_attention as flex

    assert isinstance(case.mask, Window) and isinstance(case.mask.left, int)
    left, q = case.mask.left, given.floats[0]
    made = flex.create_block_mask(
        lambda b, h, i, j: (j <= i) & (i - j <= left), None, None, case.tokens, case.tokens, q.device
    )
    compiled = torch.compile(flex.flex_attention, dynamic=False)
    return lambda: compiled(*given.floats[:3], block_mask=made)  # type: ignore[no-any-return]


def queued(work: Callable[[], object], calls: int) -> float:
    """Milliseconds per call of calls that are given to the GPU one after the other while it does something else."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_HEAD_START)
    first.record()
    for _ in range(calls):
        work()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / calls


def race(methods: dict[str, Method], rounds: int, device: str) -> dict[str, Any]:
    """Medians in ms by pass and method, and ratios to ours."""
    times: dict[str, dict[str, list[float]]] = {what: {name: [] for name in methods} for what in ("forward", "both")}
    clock = queued if device == "cuda" else (lambda work, calls: timed(work))
    for turn in range(rounds + 1):
        for name, method in methods.items():
            with torch.no_grad():
                forward = clock(method.call, 4)
            both = clock(functools.partial(step, method), 4)
            if turn:
                times["forward"][name].append(forward)
                times["both"][name].append(both)
    medians = {what: {n: round(statistics.median(ms), 3) for n, ms in rows.items()} for what, rows in times.items()}
    ratios = {
        what: {name: round(ms / row["ours"], 2) for name, ms in row.items() if name != "ours"}
        for what, row in medians.items()
    }
    return {"ms": medians, "rival / ours": ratios}


def lists_ms(given: Inputs, device: str) -> float:
    """What it takes to make the lists of tiles."""
    fields = given.spec.read(*given.floats[:2], given.data)

    def make() -> None:
        blocks._kept.clear()
        tile_lists(given.spec.mask, fields)

    make()
    return round(min(timed(make, device) for _ in range(3)), 3)


def measure(case: Case, rounds: int, device: str) -> dict[str, Any]:
    """One case against its rivals."""
    given = inputs(case, device)
    methods = rivals(case, given)
    agree(case, given)
    found = race(methods, rounds, device)
    ratios, targets = found["rival / ours"], TARGETS[case.kind]
    reached = {name: {what: row[name] >= target for what, row in ratios.items()} for name, target in targets.items()}
    row = {"case": case.name, **found, "lists, ms": lists_ms(given, device), "targets": targets, "reached": reached}
    print(row["case"], row["ms"], row["rival / ours"], row["lists, ms"], file=sys.stderr, flush=True)
    return row


def agree(case: Case, given: Inputs) -> None:
    """Ours equals the formula at some queries in the middle and at the end, in all heads."""
    with torch.no_grad():
        o = given.ours()
        rows = torch.tensor([5, case.tokens // 2 + 3, case.tokens - 1], device=o.device)
        q, k, v, *factors = (x.float() for x in given.floats)
        q = q[:, :, rows]
        position = Tokens(position=rows), Tokens()
        data = replace(given.data, queries=position[0], keys=position[1])
        if given.data.blocks is not None:
            data = replace(data, blocks=given.data.blocks[:, :, rows])
        spec = replace(given.spec, rank=0)
        allowed = spec.allowed(spec.read(q, k, data))
        bias = factors[0][:, :, rows] @ factors[1].mT if factors else None
        expected, _ = naive_attention(q, k, v, allowed=allowed, bias=bias)
        error = float((o[:, :, rows].float() - expected).norm() / expected.norm())
        assert error < (1e-4 if case.dtype == "float32" else 2e-2), f"{case.name}: {error}"


SHAPES = {
    "forward": [
        (128, 4, 3),
        (128, 4, 3, 168),
        (128, 4, 2),
        (128, 8, 3),
        (128, 8, 3, 128),
        (128, 8, 2, 128),
        (64, 4, 2),
        (64, 4, 3),
        (64, 4, 3, 168),
        (64, 4, 2, 128),
    ],
    "queries": [(64, 4, 2), (64, 4, 3), (64, 4, 2, 168), (64, 4, 2, 128), (128, 8, 2), (128, 8, 2, 128), (128, 4, 2)],
    "keys": [(32, 4, 3), (32, 4, 2), (32, 4, 2, 168), (64, 4, 2), (64, 4, 3), (64, 4, 2, 168), (128, 4, 2)],
}
NARROW = {
    "forward": [(16, 1, 2), (16, 1, 3), (16, 1, 4), (16, 2, 2), (16, 2, 3), (16, 2, 3, 128)],
    "queries": [(16, 1, 2), (16, 1, 3), (16, 2, 2), (16, 2, 1), (16, 2, 3), (16, 4, 2)],
    "keys": [(32, 4, 2), (32, 4, 3), (64, 4, 2), (64, 4, 1), (64, 8, 2), (128, 8, 1)],
}
"""STEP, warps, stages, and registers at most, to be tried."""
SWEPT = [*WINDOWS, *LOW_RANK, SELECTIONS[0]]
Trial = tuple[Case, str, tuple[int, ...]]


def trials() -> Iterator[Trial]:
    for case in SWEPT:
        for kernel, shapes in (NARROW if case.kind == "selection" else SHAPES).items():
            for shape in shapes:
                yield case, kernel, shape


def try_shape(trial: Trial, device: str = "cuda") -> float:
    """Milliseconds of a kernel in another shape; infinity where it does not fit."""
    from coterie.attention.kernels import tile_triton

    case, kernel, (size, warps, stages, *registers) = trial
    usual = tile_triton._shape

    def shape(name: str, *sizes: Any) -> tuple[dict[str, Any], dict[str, int]]:
        constants, options = usual(name, *sizes)
        if name == kernel:
            more = {"maxnreg": registers[0]} if registers else {}
            return {**constants, "STEP": size}, {"num_warps": warps, "num_stages": stages, **more}
        return constants, options

    tile_triton._shape = shape
    try:
        return _kernel_ms(case, kernel, device)
    except Exception as error:
        print(trial, error, file=sys.stderr)
        return float("inf")
    finally:
        tile_triton._shape = usual


@functools.lru_cache(maxsize=1)
def _swept(case: Case, device: str) -> Inputs:
    return inputs(case, device)


def _kernel_ms(case: Case, kernel: str, device: str) -> float:
    """Of the forward pass, or of the part of the backward pass that a kernel is."""
    from coterie.attention.kernels import tile_triton
    from coterie.attention.kernels.tile_torch import Terms

    given = _swept(case, device)
    q, k, v, *factors = (x.detach() for x in given.floats)
    tiles = tile_lists(given.spec.mask, given.spec.read(q, k, given.data))
    terms = Terms(q, k, *(factors or (None, None)), case.width**-0.5)
    launch = tile_triton._Launch(terms, v, tiles, learns=bool(factors))
    o, lse = launch.forward()
    grad, zeros = torch.ones_like(o), torch.zeros_like(lse)
    work = {
        "forward": launch.forward,
        "queries": lambda: launch.by_query(o, lse, grad, zeros, zeros.clone()),
        "keys": lambda: launch.by_key(lse, grad, zeros),
    }[kernel]
    work()
    return round(min(queued(work, 4) for _ in range(3)), 4)


def warm(task: Any) -> str:
    """Compile what a case needs, in a process of its own; the main one finds it in the caches."""
    try:
        if isinstance(task, Case) and task in SMALL:
            check(task, "cuda")
        elif isinstance(task, Case):
            given = inputs(task, "cuda")
            for method in rivals(task, given).values():
                step(method)
        else:
            try_shape(task)
    except Exception as error:
        return f"{task}: {error!r}"
    return ""


def on_gpu(rounds: int, sweep: bool) -> dict[str, Any]:
    """The GPU's part of the result."""
    start = time.perf_counter()
    cases = [*WINDOWS, *LOW_RANK, *SELECTIONS]
    shortest = [case for case in cases if case.tokens == 8192 or case.kind == "window"]
    tasks: list[Any] = [*shortest, *SMALL, *(trials() if sweep else ())]
    with ProcessPoolExecutor(14, multiprocessing.get_context("spawn")) as pool:
        for failure in pool.map(warm, tasks):
            if failure:
                print("FAILED", failure[:2000], file=sys.stderr, flush=True)
    print(f"compiled in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    checks, rows = [], []
    failures: list[str] = []
    for found, measured, work in ((checks, SMALL, check), (rows, cases, functools.partial(measure, rounds=rounds))):
        for case in measured:
            try:
                found.append(work(case, device="cuda"))
            except (AssertionError, RuntimeError) as error:
                failures.append(f"{case}: {error!r}"[:1000])
                print("FAILED", failures[-1], file=sys.stderr, flush=True)
        print(f"{len(found)} of {len(measured)} at {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"rows": rows, "checks": checks, "failures": failures}
    if sweep:
        shapes: dict[str, dict[str, float]] = {}
        for trial in trials():
            case, kernel, shape = trial
            shapes.setdefault(f"{case.name}, {kernel}", {})[str(shape)] = try_shape(trial)
        for name, times in shapes.items():
            print(name, sorted(times.items(), key=lambda item: item[1]), file=sys.stderr, flush=True)
        result["shapes, ms"] = shapes
    print(f"done at {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return result


CPU = [
    Case("cpu", 8192, 8, 8, 64, "float32", mask)
    for mask in (Window(511, 0), Window(1023, 0), Neighborhood((64, 128), (16, 16)), Blocks(512))
] + [Case("selection", 8192, 8, 2, 64, "float32", Listed(BLOCK) & Causal())]  # fmt: skip


def on_cpu(rounds: int, threads: int) -> dict[str, Any]:
    """The CPU's part of the result: against dense SDPA, causal where the mask is."""
    torch.set_num_threads(threads)
    rows = []
    for case in CPU:
        given = inputs(case, "cpu")
        causal = not isinstance(case.mask, Neighborhood | Blocks)
        dense = functools.partial(_sdpa, *given.floats, is_causal=causal, enable_gqa=True)
        methods = {"ours": Method(given.ours, given.floats), "dense SDPA": Method(dense, given.floats)}
        agree(case, given)
        row = {"case": case.name, "mask": str(case.mask), **race(methods, rounds, "cpu")}
        row["lists, ms"] = lists_ms(given, "cpu")
        row["reached"] = {what: ratio["dense SDPA"] >= 1 for what, ratio in row["rival / ours"].items()}
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return {"rival": "dense SDPA", "threads": threads, "targets": TARGETS["cpu"], "rows": rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.device == "cuda":
        save_gpu("attention_tile", on_gpu(options.rounds, options.sweep))
    else:
        save("attention_tile", on_cpu(options.rounds, options.threads))
