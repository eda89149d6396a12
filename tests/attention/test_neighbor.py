"""Every test here holds for every form of the kernel: `COTERIE_ATTENTION` says which one runs, numba by default.

`test_neighbor_triton.py` runs this file again under Triton's interpreter, which is why sizes are small, and on a GPU
where there is one.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from coterie.attention.neighbor import neighbor_aggregate, neighbor_attention
from coterie.attention.topology import Topology

sys.path.insert(0, str(Path(__file__).parent))
import own_process

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    own_process.hasten_interpreter()
ON_GPU = os.environ.get("COTERIE_ATTENTION") == "triton" and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"
"""Where tensors are made."""
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
not_interpreted = pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter computes in float32 alone, slowly")
MINE = ("q", "distance", "bias", "grad_o", "grad_lse")
"""What each query has of its own."""
sizes = pytest.mark.parametrize(
    ("agents", "keys", "slots", "heads", "key_heads", "width"),
    [
        (1, 1, 1, 1, 1, 8),
        (3, 3, 2, 2, 1, 31),
        (63, 63, 16, 1, 1, 32),
        (63, 5, 3, 4, 2, 8),
        (7, 9, 64, 2, 2, 32),
        (3, 70, 33, 1, 1, 256),
    ],
)


class Case(NamedTuple):
    q: Tensor
    k: Tensor
    v: Tensor
    distance: Tensor
    slope: Tensor
    bias: Tensor
    index: Tensor
    grad_o: Tensor
    grad_lse: Tensor

    @property
    def topology(self) -> Topology:
        return Topology(self.index, self.k.shape[0])

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self[:6]


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    if ON_GPU and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    with torch.device(DEVICE) if ON_GPU else nullcontext():
        yield


@pytest.fixture(autouse=True)
def poisoned_allocations() -> Iterator[None]:
    """What is allocated and not written reads as NaN."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def case(
    agents: int, keys: int, slots: int, heads: int, key_heads: int, width: int, dtype: torch.dtype = torch.float32
) -> Case:
    """Random neighbours, some slots empty, and of the first of several agents all."""
    generator = torch.Generator(DEVICE).manual_seed(agents + 1000 * slots)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    index = torch.randint(0, keys, (agents, slots), generator=generator)
    if agents > 1:
        index[torch.rand(agents, slots, generator=generator) < 0.2] = -1
        index[0] = -1
    q, k, v = normal(agents, heads, width), normal(keys, key_heads, width), normal(keys, key_heads, width)
    tensors = [x.to(dtype) for x in (q, k, v)] + [normal(agents, slots).abs(), normal(heads).abs()]
    bias, grad_o = normal(agents, slots, heads), normal(agents, heads, width).to(dtype)
    grad_lse = normal(agents, heads).double() if dtype == torch.float64 else normal(agents, heads)
    return Case(*tensors, bias, index, grad_o, grad_lse)


def by_formula(q: Tensor, k: Tensor, v: Tensor, distance: Tensor, slope: Tensor, bias: Tensor, index: Tensor):
    """One query after the other, as the formula says."""
    share, outputs, sums = q.shape[1] // k.shape[1], [], []
    for i in range(q.shape[0]):
        slots = [j for j in range(index.shape[1]) if index[i, j] >= 0]
        if not slots:
            outputs.append(torch.zeros_like(q[i]))
            sums.append(torch.full_like(q[i, :, 0], -torch.inf))
            continue
        rows = index[i, slots]
        keys, values = (x[rows].repeat_interleave(share, 1) for x in (k, v))
        s = (q[i] * keys).sum(2) * q.shape[2] ** -0.5 - slope * distance[i, slots, None] + bias[i, slots]
        outputs.append((s.softmax(0)[:, :, None] * values).sum(0))
        sums.append(s.logsumexp(0))
    return torch.stack(outputs), torch.stack(sums)


def gradients(result: tuple[Tensor, Tensor], inputs: tuple[Tensor, ...], grad_o: Tensor, grad_lse: Tensor):
    """Of a loss that reads o and lse."""
    o, lse = result
    loss = (o * grad_o.to(o.dtype)).sum() + (lse * grad_lse.to(lse.dtype)).masked_fill(lse == -torch.inf, 0).sum()
    return torch.autograd.grad(loss, inputs, allow_unused=True)


def attend(given: Case, inputs: tuple[Tensor, ...], allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    q, k, v, distance, slope, bias = inputs
    return neighbor_attention(q, k, v, given.topology, distance=distance, slope=slope, bias=bias, allowed=allowed)


def assert_near(name: str, found: Tensor, expected: Tensor, limit: float) -> None:
    assert torch.equal(found.isinf(), expected.isinf()), name
    found, expected = found.detach().double().nan_to_num(neginf=0), expected.detach().double().nan_to_num(neginf=0)
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-3))
    assert error <= limit, f"{name}: relative error {error:.1e}"


def leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.detach().clone().requires_grad_() for x in tensors)


def assert_agrees(given: Case, limit: float) -> None:
    ours, exact = leaves(given.inputs), leaves(tuple(x.double() for x in given.inputs))
    found, expected = attend(given, ours), by_formula(*exact, given.index)
    assert found[0].dtype == given.v.dtype
    assert_near("o", found[0], expected[0], limit)
    assert_near("lse", found[1], expected[1], limit)
    got = gradients(found, ours, given.grad_o, given.grad_lse)
    wanted = gradients(expected, exact, given.grad_o, given.grad_lse)
    for name, x, y in zip(Case._fields, got, wanted, strict=False):
        # A sum of terms of either sign, from outputs that were rounded: 2.2e-2 off on an H100, missing the limit.
        is_coarse = ON_GPU and name == "slope" and given.v.dtype == torch.bfloat16
        assert_near(f"gradient of {name}", x, y, 3e-2 if is_coarse else limit)


@sizes
def test_outputs_and_all_gradients_are_the_formulas(agents, keys, slots, heads, key_heads, width):
    assert_agrees(case(agents, keys, slots, heads, key_heads, width), LIMITS[torch.float32])


@not_interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(63, 63, 16, 1, 1, 32), (63, 5, 3, 4, 2, 8), (3, 70, 33, 1, 1, 256)])
def test_half_precision_is_as_near_as_it_may_be(shape, dtype):
    assert_agrees(case(*shape, dtype=dtype), LIMITS[dtype])


@pytest.mark.parametrize(("heads", "key_heads", "width"), [(1, 1, 32), (4, 2, 8)])
def test_a_graph_without_empty_slots_agrees_too(heads, key_heads, width):
    given = case(63, 63, 16, heads, key_heads, width)
    assert_agrees(given._replace(index=given.index.clamp_min(0)), LIMITS[torch.float32])


@not_interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [31, 32])
def test_nor_does_half_precision_need_empty_slots_or_even_rows(width, dtype):
    given = case(63, 63, 16, 1, 1, width, dtype=dtype)
    assert_agrees(given._replace(index=given.index.clamp_min(0)), LIMITS[dtype])


@not_interpreted
def test_a_thousand_agents_agree_with_the_formula():
    assert_agrees(case(1000, 1000, 16, 4, 4, 8), LIMITS[torch.float32])


@not_interpreted
def test_gradients_are_those_of_finite_differences(monkeypatch):
    monkeypatch.delenv("COTERIE_ATTENTION", raising=False)  # Triton's form has no float64
    given = case(5, 4, 3, 2, 1, 8, dtype=torch.float64)

    def compute(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        o, lse = attend(given, inputs)
        return o, lse[1:]  # the first agent has no neighbours, and -inf has no finite differences

    assert torch.autograd.gradcheck(compute, leaves(tuple(x.double() for x in given.inputs)))


@pytest.mark.parametrize(("agents", "keys", "slots", "heads", "key_heads", "width"), [
    (1, 1, 1, 1, 1, 8),
    pytest.param(3, 3, 2, 2, 1, 31, marks=pytest.mark.slow),  # widths that the form with scores has as well, and each
    (63, 63, 16, 1, 1, 32),
    (63, 5, 3, 4, 2, 8),
    (7, 9, 64, 2, 2, 32),
    pytest.param(3, 70, 33, 1, 1, 256, marks=pytest.mark.slow),  # of which is compiled anew for logits
])  # fmt: skip
def test_ready_made_logits_take_the_place_of_scores(agents, keys, slots, heads, key_heads, width):
    given = case(agents, keys, slots, heads, key_heads, width)
    (v, logits), exact = leaves((given.v, given.bias)), leaves((given.v.double(), given.bias.double()))
    found = neighbor_aggregate(logits, v, given.topology)
    none = torch.zeros(agents, heads, width).double(), torch.zeros(keys, key_heads, width).double()
    expected = by_formula(*none, exact[0], given.distance, torch.zeros(heads), exact[1], given.index)
    assert_near("o", found[0], expected[0], 1e-5)
    got = gradients(found, (v, logits), given.grad_o, given.grad_lse)
    wanted = gradients(expected, exact, given.grad_o, given.grad_lse)
    for x, y in zip(got, wanted, strict=True):
        assert_near("gradient", x, y, 1e-5)


def test_an_agent_without_neighbours_gets_zeros_and_gives_zero_gradients():
    given = case(3, 3, 2, 2, 1, 31)
    inputs = leaves(given.inputs)
    o, lse = attend(given, inputs)
    assert (o[0] == 0).all()
    assert (lse[0] == -torch.inf).all()
    grad_q, *_, grad_bias = torch.autograd.grad((o.sum() + lse[0].sum()), inputs)
    assert (grad_q[0] == 0).all()
    assert (grad_bias[0] == 0).all()


def test_what_is_not_allowed_is_as_if_it_were_not_there():
    given = case(63, 63, 16, 1, 1, 32)
    allowed = torch.rand(given.index.shape, generator=torch.Generator(DEVICE).manual_seed(1)) < 0.6
    less = given._replace(index=given.index.masked_fill(~allowed, -1))
    some, without = leaves(given.inputs), leaves(given.inputs)
    first, second = attend(given, some, allowed), attend(less, without)
    assert torch.equal(first[0], second[0])
    for x, y in zip(gradients(first, some, *given[7:]), gradients(second, without, *given[7:]), strict=True):
        assert_near("gradient", x, y, 1e-6)  # incoming edges are counted otherwise, and summed in other groups


def test_what_idle_agents_hold_reaches_no_gradient():
    given = case(63, 63, 16, 1, 1, 32)
    allowed = torch.ones(63, 16, dtype=torch.bool)
    allowed[5] = False
    inputs, odd = leaves(given.inputs), leaves((given.q.index_fill(0, torch.tensor([5]), torch.nan), *given.inputs[1:]))
    grad_o = given.grad_o.index_fill(0, torch.tensor([5]), torch.nan)
    expected = torch.autograd.grad(attend(given, inputs, allowed)[0], inputs, given.grad_o)
    for name, x, y in zip(Case._fields, torch.autograd.grad(attend(given, odd, allowed)[0], odd, grad_o), expected,
                          strict=False):  # fmt: skip
        assert torch.equal(x, y), name


def test_a_bias_may_be_as_low_as_a_mask():
    given = case(7, 9, 64, 2, 2, 32)
    low = leaves((*given.inputs[:5], torch.full_like(given.bias, -1e35)))
    assert_near("o", attend(given, low)[0], by_formula(*(x.double() for x in low), given.index)[0], 1e-5)


def test_empty_slots_are_not_read():
    given = case(63, 63, 16, 1, 1, 32)
    empty = given.index < 0
    odd = given._replace(distance=given.distance.masked_fill(empty, torch.inf))
    odd = odd._replace(bias=given.bias.masked_fill(empty[:, :, None], torch.nan))
    assert torch.equal(attend(odd, odd.inputs)[0], attend(given, given.inputs)[0])


def test_a_nan_is_passed_on_to_who_reads_it_and_to_nobody_else():
    given = case(63, 63, 16, 1, 1, 32)
    for name in ("q", "v"):
        tensor = getattr(given, name).clone()
        tensor[5] = torch.nan
        o, lse = attend(given, given._replace(**{name: tensor}).inputs)
        readers = torch.arange(63) == 5 if name == "q" else (given.index == 5).any(1)
        assert torch.equal(o.isnan().any(2)[:, 0], readers)
        assert torch.equal(lse.isnan()[:, 0], readers & (name == "q"))


@not_interpreted
def test_a_compiled_function_may_call_it():
    given = case(63, 63, 16, 1, 1, 32)
    topology = given.topology
    found = torch.compile(lambda q: neighbor_attention(q * 2, given.k, given.v, topology)[0] + 1, backend="eager")(
        given.q
    )
    assert torch.equal(found, neighbor_attention(given.q * 2, given.k, given.v, topology)[0] + 1)


def test_strided_inputs_give_the_same_as_contiguous_ones():
    given = case(63, 63, 16, 1, 1, 32)
    strided = leaves(tuple(torch.stack([x, x], -1)[..., 0] for x in given.inputs))
    views = tuple(torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for x in strided)
    inputs = leaves(given.inputs)
    assert not views[0].is_contiguous()
    found, expected = attend(given, views), attend(given, inputs)
    assert torch.equal(found[0], expected[0])
    pairs = zip(gradients(found, strided, *given[7:]), gradients(expected, inputs, *given[7:]), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=not_interpreted)])
def test_tensors_may_begin_at_any_address(dtype):
    given = case(7, 9, 4, 1, 1, 32, dtype=dtype)
    moved = tuple(torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x) for x in given.inputs)
    expected = attend(given, given.inputs)
    assert all(torch.equal(x, y) for x, y in zip(attend(given, moved), expected, strict=True))


def test_renumbered_agents_get_the_same_outputs():
    given = case(63, 63, 16, 1, 1, 32)
    order = torch.randperm(63, generator=torch.Generator(DEVICE).manual_seed(2))
    q, k, v, distance, slope, bias = given.inputs
    moved = neighbor_attention(
        q[order], k[order], v[order], given.topology.permute(order), distance=distance[order], slope=slope,
        bias=bias[order],
    )  # fmt: skip
    o, lse = attend(given, given.inputs)
    assert torch.equal(moved[0], o[order])
    assert torch.equal(moved[1], lse[order])


def test_other_agents_do_not_change_a_result():
    given = case(63, 63, 16, 1, 1, 32)
    few = given._replace(q=given.q[:7], distance=given.distance[:7], bias=given.bias[:7], index=given.index[:7])
    assert torch.equal(attend(few, few.inputs)[0], attend(given, given.inputs)[0][:7])


@pytest.mark.xfail(ON_GPU, reason="the forms with and without masks round gradients differently there")
def test_an_agent_without_neighbours_changes_nobodys_bits():
    """Even though a graph without empty slots is computed without masks."""
    given = case(63, 63, 16, 1, 1, 32)
    full = given._replace(index=given.index.clamp_min(0))
    more = given._replace(index=torch.cat([full.index, torch.full((1, 16), -1)]))
    more = more._replace(**{name: torch.cat([getattr(given, name), getattr(given, name)[:1]]) for name in MINE})
    alone, joined = leaves(full.inputs), leaves(more.inputs)
    first, second = attend(full, alone), attend(more, joined)
    assert torch.equal(first[0], second[0][:63])
    pairs = zip(gradients(first, alone, *full[7:]), gradients(second, joined, *more[7:]), strict=True)
    assert all(torch.equal(x, y[: len(x)]) for x, y in list(pairs)[:3])


def test_two_backward_passes_give_the_same_bits():
    given = case(63, 5, 3, 4, 2, 8)
    inputs = leaves(given.inputs)
    first, second = (gradients(attend(given, inputs), inputs, *given[7:]) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@not_interpreted
def test_the_number_of_threads_changes_no_bit():
    given = case(9000, 9000, 16, 1, 1, 32)
    threads, results = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        inputs = leaves(given.inputs)
        results.append(gradients(attend(given, inputs), inputs, *given[7:]))
    torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


def test_terms_that_are_not_given_are_not_needed():
    given = case(63, 63, 16, 1, 1, 32)
    nothing = given._replace(distance=torch.zeros(63, 16), bias=torch.zeros(63, 16, 1))
    o, lse = neighbor_attention(given.q, given.k, given.v, given.topology)
    expected = by_formula(*(x.double() for x in nothing.inputs), given.index)
    assert_near("o", o, expected[0], 1e-5)
    assert_near("lse", lse, expected[1], 1e-5)


@pytest.mark.parametrize(("agents", "slots"), [(0, 4), (4, 0)])
def test_nothing_to_attend_to_is_no_error(agents, slots, monkeypatch):
    monkeypatch.delenv("COTERIE_ATTENTION", raising=False)
    rows = torch.ones(agents, 1, 8, requires_grad=True)
    o, lse = neighbor_attention(rows, rows, rows, Topology(torch.zeros(agents, slots, dtype=torch.int32)))
    assert (o == 0).all()
    assert (lse == -torch.inf).all()


def test_more_queries_than_a_grid_axis_holds():
    given = case(70_000 if not INTERPRETED else 200, 3, 1, 1, 1, 8)
    o, _ = neighbor_attention(given.q, given.k, given.v, given.topology)
    present = given.index[:, 0] >= 0
    assert torch.equal(o[present], given.v[given.index[present, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(62, 1, 32)}, "q has shape"),
        ({"q": torch.zeros(63, 1, 0), "k": torch.zeros(63, 1, 0)}, r"q has shape \[63, 1, 0\], expected D of at"),
        ({"q": torch.zeros(63, 0, 32)}, r"q has shape \[63, 0, 32\], expected H of at least 1"),
        ({"k": torch.zeros(63, 1, 31)}, "k has shape"),
        ({"v": torch.zeros(63, 1, 32).double()}, "v is float64"),
        ({"k": torch.zeros(63, 1, 32).long()}, "k is int64"),
        ({"v": torch.zeros(63, 1, 32, device="meta")}, "on meta"),
        ({"distance": torch.full((63, 16), torch.nan)}, "distance holds values that are not finite"),
        ({"distance": torch.zeros(63, 15)}, "distance has shape"),
        ({"distance": None}, "distance and slope go together"),
        ({"slope": torch.tensor([torch.inf])}, "slope holds values that are not finite"),
        ({"bias": torch.zeros(63, 16)}, "bias has shape"),
        ({"bias": torch.full((63, 16, 1), torch.inf)}, "bias holds values that are not finite"),
        ({"allowed": torch.ones(63, 16)}, "allowed is float32, expected bool"),
    ],
)
def test_a_wrong_tensor_is_named(change, message):
    given = case(63, 63, 16, 1, 1, 32)
    change = {name: x if x is None or x.is_meta else x.to(DEVICE) for name, x in change.items()}
    arguments = {name: getattr(given, name) for name in ("q", "k", "v", "distance", "slope", "bias")} | change
    q, k, v = (arguments.pop(name) for name in "qkv")
    with pytest.raises(ValueError, match=message):
        neighbor_attention(q, k, v, given.topology, **arguments)


def test_terms_that_are_changed_in_place_are_looked_at_again():
    given = case(63, 63, 16, 1, 1, 32)
    attend(given, given.inputs)
    given.distance[1:] = torch.inf
    with pytest.raises(ValueError, match="distance holds values that are not finite"):
        attend(given, given.inputs)


def test_ready_made_logits_need_a_head():
    topology = Topology(torch.zeros(3, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"logits has shape \[3, 2, 0\], expected H of at least 1"):
        neighbor_aggregate(torch.zeros(3, 2, 0), torch.zeros(3, 2, 8), topology)


def test_key_heads_must_divide_query_heads():
    rows = torch.zeros(3, 2, 8)
    with pytest.raises(ValueError, match="2 heads, which do not divide the 3"):
        neighbor_attention(torch.zeros(3, 3, 8), rows, rows, Topology(torch.zeros(3, 2, dtype=torch.int32)))


@not_interpreted
@sizes
def test_the_plain_torch_form_agrees_too(agents, keys, slots, heads, key_heads, width, monkeypatch):
    monkeypatch.setenv("COTERIE_ATTENTION", "naive")
    assert_agrees(case(agents, keys, slots, heads, key_heads, width), LIMITS[torch.float32])


@not_interpreted
def test_rows_too_wide_for_registers_still_work(monkeypatch):
    monkeypatch.delenv("COTERIE_ATTENTION", raising=False)
    assert_agrees(case(3, 3, 2, 1, 1, 300), LIMITS[torch.float32])


def test_the_form_that_is_tested_is_the_one_that_runs(caplog):
    importlib.import_module("coterie.attention.dispatch")._log_once.cache_clear()
    with caplog.at_level("INFO"):
        given = case(3, 3, 2, 2, 1, 31)
        attend(given, given.inputs)
    assert f"neighbor runs as {os.environ.get('COTERIE_ATTENTION', 'cpu')}" in caplog.text
