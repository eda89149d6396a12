"""The Triton form of tiles: against the naive form under Triton's interpreter, and compiled for a GPU that need not be.

Both need a process of their own: the interpreter replaces kernels when they are imported. All interpreted cases share
one, since each would import torch and Triton anew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import own_process

pytest.importorskip("triton")

INTERPRETED = """
import torch
from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.masks import Blocks, Causal, Hops, Listed, Segments, Window
from coterie.attention.spec import Spec

torch.use_deterministic_algorithms(True)  # fresh memory holds NaN


def compare(
    spec, tokens, heads=2, shared=1, width=16, values=16, keys=None, limit=1e-5, half=False, fixed=(), **fields
):
    draw = torch.Generator().manual_seed(tokens)
    keys = keys or tokens

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    rows = [normal(1, tokens, heads, width).transpose(1, 2), normal(1, shared, keys, width)]
    floats = dict(zip("qkv", [*rows, normal(1, shared, keys, values)]))
    if half:
        floats = {name: x.half() for name, x in floats.items()}
    if spec.rank:
        floats |= {"query_factors": normal(1, heads, tokens, spec.rank), "key_factors": normal(heads, keys, spec.rank)}
    if spec.key_bias:
        floats["key_bias"] = normal(1, 1, keys)
    if spec.sink:
        floats["sink"] = normal(heads)

    def run(backend, **floats):
        os.environ["COTERIE_ATTENTION"] = backend
        floats = {name: x.detach().requires_grad_(name not in fixed) for name, x in floats.items()}
        data = Data(**fields, **{name: x for name, x in floats.items() if name not in "qkv"})
        o, lse = attend(floats["q"], floats["k"], floats["v"], spec, data, return_lse=True)
        draw = torch.Generator().manual_seed(1)
        weights, more = (torch.randn(x.shape, generator=draw).double() for x in (o, lse))
        some = lse.isfinite()
        ((o.double() * weights).sum() + (lse.double() * more)[some].sum()).backward()
        grads = {name: x.grad for name, x in floats.items() if x.requires_grad}
        return {"o": o.detach(), "lse": lse.detach()[some], **grads}

    expected = run("naive", **{name: x.double() for name, x in floats.items()})
    for name, x in run("triton", **floats).items():
        error = float((x.double() - expected[name]).norm() / expected[name].norm().clamp(min=1e-3))
        assert error <= limit, (name, error)

"""

CASES = {
    "one token": "compare(Spec(Causal(), key_bias=True), 1)",
    "a window, heads that share keys, other widths": "compare(Spec(Window(20, 3)), 70, width=24, values=40)",
    "full tiles and others, more keys than queries": "compare(Spec(Window(None, 70)), 40, keys=150, shared=2)",
    "windows by head, a sink": "compare(Spec(Window((3, None), 0), sink=True), 66)",
    "segments with padding and a low-rank bias": """
segment = torch.tensor([[0] * 30 + [1] * 25 + [-1] * 15])
compare(Spec(Segments() & Causal(), rank=3, key_bias=True), 70, queries=Tokens(segment=segment))
""",
    "factors that do not learn": """
compare(Spec(Causal(), rank=2), 70, fixed=("query_factors", "key_factors"))
""",
    "factors of which one side learns": 'compare(Spec(Causal(), rank=2), 40, fixed=("query_factors",))',
    "hops": """
hops = torch.randint(-1, 9, (65, 65), generator=torch.Generator().manual_seed(0))
compare(Spec(Hops(2)), 65, hops=hops)
""",
    "a list for each query": """
blocks = torch.randint(-1, 3, (1, 1, 8, 2), generator=torch.Generator().manual_seed(0))
compare(Spec(Listed(64) & Window(None, 90)), 8, heads=3, keys=150, blocks=blocks)
""",
    "lists by head of few queries, with factors": """
blocks = torch.randint(-1, 2, (1, 2, 5, 1), generator=torch.Generator().manual_seed(1))
compare(Spec(Listed(32, rows=2), rank=2), 9, keys=64, blocks=blocks)
""",
    "a block that all queries list, and a negative scale": """
blocks = torch.tensor([[0, 3], [0, 2], [0, 1], [3, 0], [0, -1], [2, 0]])[None, None]
compare(Spec(Listed(64), scale=-0.3), 6, heads=2, keys=250, blocks=blocks)
""",
    "a list for 32 queries": """
blocks = torch.randint(-1, 2, (1, 1, 2, 1), generator=torch.Generator().manual_seed(2))
compare(Spec(Listed(64, rows=32)), 50, keys=128, blocks=blocks)
""",
    "half precision": "compare(Spec(Blocks(48, halo=2)), 70, limit=3e-3, half=True)",
    "padding is not read": """
os.environ["COTERIE_ATTENTION"] = "triton"
segment = torch.tensor([0] * 40 + [-1] * 30)
q, k, v = (torch.randn(1, 1, 70, 16, generator=torch.Generator().manual_seed(i)) for i in range(3))
found = []
for poison in (0.0, torch.nan):
    x = [y.clone().index_fill(2, torch.arange(40, 70), poison).requires_grad_() for y in (q, k, v)]
    o = attend(*x, Spec(Segments()), Data(Tokens(segment=segment)))
    o.sum().backward()
    found.append([o, *(y.grad for y in x)])
assert all(torch.equal(x, y) for x, y in zip(*found))
""",
}

COMPILED = """
from coterie.attention.kernels import tile_triton
from coterie.attention.kernels.compilation import compile_kernel

for name, (kernel, types, constants, options) in tile_triton.signatures(DTYPE, WIDTH, RANK, ROWS, SHARED).items():
    usage = compile_kernel(kernel, types, constants, aligned=tile_triton.STRIDES, **options)
    print(name, usage)
    assert usage.stack <= 512, (name, usage)  # Four warps that spill a little are quicker than eight that do not.
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
    ("dtype", "width", "rank", "rows", "shared"),
    [
        ("bf16", 64, 0, 128, 1),
        pytest.param("bf16", 128, 0, 128, 1, marks=pytest.mark.slow),
        pytest.param("bf16", 128, 0, 1, 16, marks=pytest.mark.slow),
        pytest.param("bf16", 64, 8, 128, 1, marks=pytest.mark.slow),
    ],
)
def test_it_compiles_for_hopper_with_few_spills(dtype: str, width: int, rank: int, rows: int, shared: int) -> None:
    values = {"DTYPE": repr(dtype), "WIDTH": str(width), "RANK": str(rank), "ROWS": str(rows), "SHARED": str(shared)}
    code = COMPILED
    for name, value in values.items():
        code = code.replace(name, value)
    assert "keys" in own_process.run(code)
