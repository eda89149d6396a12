"""The Triton form: against the naive form under Triton's interpreter, and compiled for a GPU that need not be there.

Both need a process of their own: the interpreter replaces kernels when they are imported. All interpreted cases share
one, since each would import torch and Triton anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import own_process

pytest.importorskip("triton")

INTERPRETED = """
import torch
from coterie.attention.statistics_request import StatisticsRequest
from coterie.attention.stats import attention_statistics, attention_with_lse

torch.use_deterministic_algorithms(True)  # fresh memory holds NaN
EVERYTHING = StatisticsRequest(span=True, entropy=True, sink=2, waad=10, received=True, fai=(3, 20), mass=3)
BAND = StatisticsRequest(sink=1, waad=10, fai=(10, 50))
ENDLESS = StatisticsRequest(fai=(10, None), received=False, entropy=True)
ROWS = ("span", "entropy", "sink", "waad")
NAMES = (*ROWS, "received", "fai", "mass")


def compare(q, k, which, **options):
    import os
    segments, causal = options.get("segments"), options.get("causal", True)
    _, lse = attention_with_lse(q, k, k, segments=segments, causal=causal)
    found = {}
    for backend in ("triton", "naive"):
        os.environ["COTERIE_ATTENTION"] = backend
        found[backend] = attention_statistics(q, k, lse, which, **options)
    for name in NAMES:
        mine, other = (getattr(found[backend], name) for backend in ("triton", "naive"))
        assert (mine is None) == (other is None), name
        if mine is not None:
            error = float((mine - other).abs().max() / other.abs().max().clamp(min=1.0 if name in ROWS else 1e-2))
            assert error <= ERROR, (name, error, which, options.keys())


def tensors(tokens, heads=2, key_heads=1, dim=16, batch=1, dtype=torch.float32):
    draw = torch.Generator().manual_seed(tokens)
    return [torch.randn(batch, h, tokens, dim, generator=draw).mul_(2).to(dtype) for h in (heads, key_heads)]


def labels(tokens, batch=1):
    return (torch.arange(tokens) * 4 // tokens - 1).expand(batch, -1)

"""

CASES = {
    "sizes": """
ERROR = 1e-5
for tokens in (1, 3, 63, 130):
    compare(*tensors(tokens), EVERYTHING, labels=labels(tokens))
    compare(*tensors(tokens), BAND)
""",
    "more labels than one launch sums": """
ERROR = 1e-5
many = StatisticsRequest(mass=150)
compare(*tensors(200), many, labels=(torch.arange(200) * 150 // 200).expand(1, -1) - (torch.arange(200) % 7 == 0).int())
""",
    "full attention": """
ERROR = 1e-5
compare(*tensors(130), EVERYTHING, labels=labels(130), causal=False)
compare(*tensors(130), BAND, causal=False)
""",
    "packed, padded, part of the tokens counted, shared keys, strided": """
ERROR = 1e-5
segments = torch.tensor([[0] * 70 + [1] * 30 + [-1] * 40, [-1] * 10 + [0] * 1 + [7] * 129])
counted = torch.rand(2, 140, generator=torch.Generator().manual_seed(0)) < 0.5
q, k = tensors(140, heads=4, key_heads=2, dim=24, batch=2)
for tensor in (q, k):
    tensor.masked_fill_((segments < 0)[:, None, :, None], torch.nan)
clean = [x.nan_to_num() for x in (q, k)]
strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in clean]
for which in (EVERYTHING, BAND, ENDLESS):
    marks = {"labels": labels(140, 2)} if which.mass else {}
    compare(*strided, which, segments=segments, queries=counted, **marks)
""",
    "sequences that end long before the batch does": """
segments = torch.tensor([[0] * 100 + [1] * 270 + [-1] * 130])
for causal in (True, False):
    for which in (StatisticsRequest(received=True, waad=40), ENDLESS):
        compare(*tensors(500), which, segments=segments, causal=causal)
""",
    "padding is not read": """
import os
segments = torch.tensor([[0] * 70 + [-1] * 30])
q, k = tensors(100)
os.environ["COTERIE_ATTENTION"] = "triton"
clean = attention_statistics(q, k, None, BAND, segments=segments)
q[:, :, 70:], k[:, :, 70:] = torch.nan, torch.nan
_, lse = attention_with_lse(q, k, k, segments=segments)
found = attention_statistics(q, k, lse.nan_to_num(neginf=torch.nan), BAND, segments=segments)
for name in ("sink", "waad", "fai"):
    assert torch.equal(getattr(found, name), getattr(clean, name)), name
""",
    "half precision": """
ERROR = 2e-3
compare(*tensors(100, dtype=torch.float16), EVERYTHING, labels=labels(100))
""",
    "bfloat16, with which the interpreter is not trusted": """
try:
    compare(*tensors(3, dtype=torch.bfloat16), BAND)
except ValueError as error:
    assert "bfloat16" in str(error)
else:
    raise AssertionError
""",
}

COMPILED = """
from coterie.attention.kernels import stats_triton
from coterie.attention.kernels.compilation import compile_kernel

for name, (kernel, types, constants, options) in stats_triton.signatures(DTYPE, DEPTH).items():
    usage = compile_kernel(kernel, types, constants, aligned=stats_triton.STRIDES, **options)
    print(name, usage)
    assert usage.stack == 0 and usage.registers <= 255, (name, usage)
    assert usage.shared <= 227 * 1024, (name, usage)
"""


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    """By case what went wrong."""
    return own_process.interpret(INTERPRETED, CASES)


@pytest.mark.parametrize("case", CASES)
def test_interpreted_it_agrees_with_the_naive_form(failures: dict[str, str], case: str) -> None:
    assert not failures.get(case)


@pytest.mark.parametrize(
    ("dtype", "depth"), [("bf16", 128), ("fp32", 64), pytest.param("fp32", 128, marks=pytest.mark.slow)]
)
def test_it_compiles_for_hopper_without_spills(dtype: str, depth: int) -> None:
    assert "stats WAAD and FAI" in own_process.run(COMPILED.replace("DTYPE", repr(dtype)).replace("DEPTH", str(depth)))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_every_property_of_the_statistics_holds_on_a_gpu_in_all_dtypes() -> None:
    tests = str(Path(__file__).with_name("test_stats.py"))
    environment = {**os.environ, "COTERIE_ATTENTION": "triton", "TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
