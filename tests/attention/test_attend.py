"""`attend` against the oracle, for every feature of a spec."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from coterie.attention import dispatch
from coterie.attention.attend import attend
from coterie.attention.data import Data, Tokens
from coterie.attention.dispatch import VARIABLE
from coterie.attention.masks import Causal, Hops, Segments, Window
from coterie.attention.naive import naive_attention
from coterie.attention.spec import EdgeBias, Spec
from coterie.attention.topology import Topology

LIMITS = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
BACKENDS = (None, "naive", "cpu")
IN_MEMORY = ("edge bias", "edge bias by neighbor", "everything")
"""Features that no tiles are passed over for."""

MakeCase = Callable[..., Any]


@pytest.fixture(autouse=True)
def poisoned_allocations() -> Iterator[None]:
    """What is allocated and not written reads as NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=BACKENDS, ids=["chosen", "naive", "tiles"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "cpu" and request.node.callspec.params.get("feature") in IN_MEMORY:
        pytest.skip("there is no such form")
    if request.param:
        monkeypatch.setenv(VARIABLE, request.param)
    else:
        monkeypatch.delenv(VARIABLE, raising=False)


def oracle(case: Any) -> tuple[Tensor, Tensor]:
    """The formula in float64, from dense masks and biases."""
    exact = case.put(**{name: x.double() for name, x in case.floats.items()})
    spec, data = exact.spec, exact.data
    read = spec.read(exact.q, exact.k, data)
    scale = exact.q.shape[-1] ** -0.5 if spec.scale is None else spec.scale
    return naive_attention(
        exact.q, exact.k, exact.v, allowed=spec.allowed(read), bias=spec.bias(read), head_map=spec.head_map,
        sink=data.sink, gate=data.gate, scale=scale / data.temperature[..., None] if spec.temperature else scale,
    )  # fmt: skip


def run(case: Any, **tensors: Tensor) -> Tensor:
    case = case.put(**tensors)
    return attend(case.q, case.k, case.v, case.spec, case.data)


def tracked(case: Any) -> dict[str, Tensor]:
    return {name: x.detach().clone().requires_grad_() for name, x in case.floats.items()}


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 3, 150])
def test_tiles_give_what_the_formula_says(
    make_case: MakeCase, feature: str, tokens: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if feature not in IN_MEMORY:
        monkeypatch.setenv(VARIABLE, "cpu")
        assert_is_formula(make_case(feature, tokens, dtype), dtype)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("tokens", [1, 3, 63])
def test_outputs_and_gradients_are_those_of_the_formula(
    make_case: MakeCase, feature: str, tokens: int, dtype: torch.dtype
) -> None:
    assert_is_formula(make_case(feature, tokens, dtype), dtype)


@pytest.mark.parametrize(("feature", "form"), [
    ("causal", "attend runs as sdpa: plain dense attention"),
    ("window by head", "attend runs as cpu: tiles that hold nothing are passed over"),
    ("roles", "attend runs as cpu: tiles that hold nothing are passed over"),
    ("sink", "attend runs as cpu"),
    ("neighbors", "neighbor runs as"),
])  # fmt: skip
def test_a_thousand_tokens_agree_with_the_formula_in_each_form(
    make_case: MakeCase, feature: str, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch._log_once.cache_clear()
    caplog.set_level(logging.INFO, dispatch.__name__)
    case = make_case(feature, 1000, torch.float32)
    v = torch.cat([case.v, case.v[..., :2]], -1)
    assert_is_formula(replace(case, q=case.q[:1], k=case.k[:1], v=v[:1], data=_of_first(case.data)), torch.float32)
    assert caplog.messages[0].startswith(form)


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("feature", ["causal", "window by head", "sink"])
def test_rows_may_be_wide(make_case: MakeCase, feature: str, dtype: torch.dtype) -> None:
    case, draw = make_case(feature, 9, dtype), torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(*x.shape[:3], 256, generator=draw).to(dtype) for x in (case.q, case.k, case.v))
    assert_is_formula(replace(case, q=q, k=k, v=v), dtype)


def assert_is_formula(case: Any, dtype: torch.dtype) -> None:
    given, exact = tracked(case), tracked(case.put(**{name: x.double() for name, x in case.floats.items()}))
    o, (expected, _) = run(case, **given), oracle(case.put(**exact))
    weights = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (o * weights.to(dtype)).sum().backward()
    (expected * weights).sum().backward()
    assert o.dtype == dtype
    assert (o.double() - expected).norm() <= LIMITS[dtype] * expected.norm()
    for name, x in given.items():
        difference, size = (x.grad.double() - exact[name].grad).norm(), exact[name].grad.norm()
        # Where rows have one key, gradients are 0, and rounding has nothing to be small beside.
        assert difference <= LIMITS[dtype] * (size if size > 1e-1 else weights.norm()), name


@pytest.mark.usefixtures("backend")
def test_gradcheck_for_every_feature(make_case: MakeCase, feature: str) -> None:
    case = make_case(feature, 3)
    names = list(case.floats)
    inputs = list(tracked(case).values())
    assert torch.autograd.gradcheck(lambda *x: run(case, **dict(zip(names, x, strict=True))), inputs, fast_mode=True)


@pytest.mark.usefixtures("backend")
def test_the_log_sum_exp_is_that_of_the_formula(make_case: MakeCase, feature: str) -> None:
    case = make_case(feature)
    o, lse = attend(case.q, case.k, case.v, case.spec, case.data, return_lse=True)
    expected, expected_lse = oracle(case)
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(lse, expected_lse)


@pytest.mark.usefixtures("backend")
def test_gradcheck_through_the_log_sum_exp(make_case: MakeCase, feature: str) -> None:
    case = make_case(feature, 3)
    names = list(case.floats)

    def lse(*inputs: Tensor) -> Tensor:
        return _with_lse(case.put(**dict(zip(names, inputs, strict=True))))[1].clamp(min=-1e3)

    assert torch.autograd.gradcheck(lse, list(tracked(case).values()), fast_mode=True)


def _of_first(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x[:1] if x.shape[0] == 2 else x
    return (
        replace(x, **{f.name: _of_first(getattr(x, f.name)) for f in fields(x)}) if isinstance(x, Tokens | Data) else x
    )


def test_a_sequence_does_not_depend_on_its_neighbours_in_the_batch(make_case: MakeCase, feature: str) -> None:
    case = make_case(feature)
    alone = attend(*(x[:1] for x in (case.q, case.k, case.v)), case.spec, _of_first(case.data))
    torch.testing.assert_close(alone, run(case)[:1])


def test_the_order_of_tokens_does_not_matter_where_positions_are_given(make_case: MakeCase) -> None:
    case = make_case("dense", 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    spec = Spec((Causal() & Segments()) | Hops(1), key_bias=True, edge_bias=EdgeBias())
    terms = {"key_bias": torch.randn(4, 6).double(), "slope": torch.rand(4), "distance": torch.rand(6, 6).double()}
    data = replace(case.data, **terms)
    moved = Data(
        Tokens(position=order, segment=data.queries.segment[:, order]), hops=data.hops[:, order][:, :, order],
        key_bias=terms["key_bias"][:, order], slope=terms["slope"], distance=terms["distance"][order][:, order],
    )  # fmt: skip
    q, k, v = (x[:, :, order] for x in (case.q, case.k, case.v))
    torch.testing.assert_close(attend(q, k, v, spec, moved), attend(case.q, case.k, case.v, spec, data)[:, :, order])


@pytest.mark.usefixtures("backend")
def test_padding_may_hold_anything(make_case: MakeCase) -> None:
    case = make_case("dense", 4)
    padded = [torch.cat([x, torch.full_like(x[:, :, :3], torch.nan)], 2) for x in (case.q, case.k, case.v)]
    q, k, v = (x.requires_grad_() for x in padded)
    data = Data(Tokens(segment=torch.tensor([0, 0, 1, 1, -1, -1, -1])))
    o = attend(q, k, v, Spec(Segments() & Causal()), data)
    shorter = Data(Tokens(segment=torch.tensor([0, 0, 1, 1])))
    torch.testing.assert_close(o[:, :, :4], attend(case.q, case.k, case.v, Spec(Segments() & Causal()), shorter))
    o.sum().backward()
    assert not o[:, :, 4:].any() and all(x.grad.isfinite().all() for x in (q, k, v))


def test_strides_do_not_matter(make_case: MakeCase, feature: str) -> None:
    case = make_case(feature)
    strided = {name: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for name, x in case.floats.items()}
    strided |= {name: case.floats[name].transpose(1, 2).contiguous().transpose(1, 2) for name in ("q", "k", "v")}
    torch.testing.assert_close(run(case, **strided), run(case))


def test_biases_stay_exact_under_autocast(make_case: MakeCase) -> None:
    case = make_case("everything", 9, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = run(case)
    torch.testing.assert_close(o.double(), oracle(case)[0], atol=1e-5, rtol=1e-5)


def test_queries_may_be_fewer_than_keys(make_case: MakeCase) -> None:
    case = make_case("dense", 6)
    data = Data(Tokens(position=torch.tensor([4, 5])), Tokens())
    o = attend(case.q[:, :, 4:], case.k, case.v, Spec(Causal()), data)
    torch.testing.assert_close(o, attend(case.q, case.k, case.v, Spec(Causal()))[:, :, 4:])


def test_the_log_says_what_ran_and_why(make_case: MakeCase, caplog: pytest.LogCaptureFixture) -> None:
    dispatch._log_once.cache_clear()
    caplog.set_level(logging.INFO, dispatch.__name__)
    for feature in ("causal", "window", "sink"):
        run(make_case(feature))
    assert caplog.messages == [
        "attend runs as sdpa: plain dense attention",
        "attend runs as sdpa: mask and bias are small, or no tiles can have them: they are materialised",
        "attend runs as naive: mask and bias are small, or no tiles can have them: they are materialised; "
        "not sdpa: it has no sinks",
    ]


def test_forcing_sdpa_where_it_cannot_is_an_error(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sdpa")
    with pytest.raises(ValueError, match="COTERIE_ATTENTION=sdpa cannot serve attend: it has no sinks"):
        run(make_case("sink"))


def test_sdpa_may_be_forced_on_lists_too(make_case: MakeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("neighbors", 9)
    case = case.put(v=torch.cat([case.v, case.v[..., :2]], -1))
    listed = run(case)
    monkeypatch.setenv(VARIABLE, "sdpa")
    torch.testing.assert_close(run(case), listed)


def nan_at_one(x: Tensor) -> Tensor:
    return x.clone().index_fill(-1, torch.tensor([0]), torch.nan)


@pytest.mark.parametrize("shape", ["0 5 5", "2 0 5", "2 5 0", "2 0 0"])
@pytest.mark.parametrize("feature", ["dense", "causal", "sink", "neighbors"])
def test_nothing_to_attend_from_or_to_gives_zeros(make_case: MakeCase, feature: str, shape: str) -> None:
    batch, queries, keys = map(int, shape.split())
    case = make_case(feature)
    q, k, v = (x[:batch, :, :size] for x, size in ((case.q, queries), (case.k, keys), (case.v, keys)))
    data = replace(case.data, neighbors=torch.full((queries, 3), -1))
    o, lse = attend(q, k, v, case.spec, data, return_lse=True)
    assert o.shape == (batch, 4, queries, 6) and lse.shape == (batch, 4, queries)
    assert not o.any() or keys
    assert torch.equal(attend(q, k, v, case.spec, data), o)


WRONG = {
    r"q has shape \[2, 4, 5, 0\], expected D of at": ("dense", lambda c: {"q": c.q[..., :0], "k": c.k[..., :0]}),
    r"q has shape \[2, 0, 5, 8\], expected Hq of at": ("neighbors", lambda c: {"q": c.q[:, :0]}),
    "q has shape": ("dense", lambda c: {"q": c.q[0]}),
    "k has shape .* with B=2, D=8": ("dense", lambda c: {"k": c.k[..., :5]}),
    "v has shape .* with B=2, Hk=2, M=5": ("dense", lambda c: {"v": c.v[:, :, :3]}),
    "q is int64, expected float32": ("dense", lambda c: {"q": c.q.long()}),
    "k is float32, expected float64": ("dense", lambda c: {"k": c.k.float()}),
    "v is on meta, but q is on cpu": ("dense", lambda c: {"v": c.v.to("meta")}),
    "q has 3 heads, which 2 heads of k cannot share": ("dense", lambda c: {"q": c.q[:, :3]}),
    "Spec.head_map is .* expected 3 heads": ("head map", lambda c: {"q": c.q[:, :3]}),
    "Window.left has 4 values, but q has 2 heads": ("window by head", lambda c: {"q": c.q[:, :2]}),
    "key_bias is missing": ("key bias", lambda c: {"key_bias": None}),
    "sink is given, but the spec does not name it": ("dense", lambda c: {"sink": torch.zeros(4)}),
    "key_bias holds values that are not finite": ("key bias", lambda c: {"key_bias": nan_at_one(c.data.key_bias)}),
    r"f\(distance\) holds values that": ("edge bias", lambda c: {"distance": nan_at_one(c.data.distance)}),
    "slope holds values that are not finite": ("edge bias", lambda c: {"slope": nan_at_one(c.data.slope)}),
    "key_factors holds values that are not": ("low rank", lambda c: {"key_factors": nan_at_one(c.data.key_factors)}),
    "sink has shape .* does not broadcast": ("sink", lambda c: {"sink": torch.zeros(3)}),
    "gate has shape .* does not broadcast": ("gate", lambda c: {"gate": torch.zeros(7)}),
    "hops is float64, expected int64": ("hops", lambda c: {"hops": c.data.hops.double()}),
    "hops has shape": ("hops", lambda c: {"hops": c.data.hops[:, :3]}),
    "neighbors holds 5, expected -1 <= value < 5": ("neighbors", lambda c: {"neighbors": torch.full((5, 1), 5)}),
    "neighbors holds -2, expected": ("neighbors", lambda c: {"neighbors": torch.full((5, 1), -2)}),
    "neighbors holds a key twice": ("neighbors", lambda c: {"neighbors": torch.ones(5, 2, dtype=torch.long)}),
    "queries.segment is missing": ("segments", lambda c: {"queries": Tokens()}),
    "keys.segment has shape": ("segments", lambda c: {"keys": Tokens(segment=torch.zeros(3, dtype=torch.long))}),
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_tensor_is_named(make_case: MakeCase, message: str) -> None:
    feature, change = WRONG[message]
    case = make_case(feature)
    with pytest.raises(ValueError, match=message):
        run(case, **change(case))


def test_empty_slots_may_hold_any_distance(make_case: MakeCase) -> None:
    case = make_case("edge bias by neighbor")
    distance = case.data.distance.masked_fill(case.data.neighbors < 0, torch.nan)
    assert torch.equal(run(case, distance=distance), run(case))


def test_lists_may_be_shared_by_the_batch(make_case: MakeCase) -> None:
    case = make_case("neighbors")
    one = case.data.neighbors[0]
    assert torch.equal(run(case, neighbors=one), run(case, neighbors=one.expand(2, -1, -1)))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", ["neighbors", "edge bias by neighbor"])
def test_lists_alone_are_left_to_the_neighbor_kernel(
    make_case: MakeCase, caplog: pytest.LogCaptureFixture, name: str, batch: int
) -> None:
    dispatch._log_once.cache_clear()
    caplog.set_level(logging.INFO, dispatch.__name__)
    case = make_case(name, 9)
    case = case.put(v=torch.cat([case.v, case.v[..., :2]], -1))
    case = (
        case if batch == 2 else replace(case.put(v=case.v[:1]), q=case.q[:1], k=case.k[:1], data=_of_first(case.data))
    )
    given, exact = tracked(case), tracked(case)
    (o, lse), (expected, expected_lse) = _with_lse(case.put(**given)), oracle(case.put(**exact))
    torch.testing.assert_close(o, expected)
    torch.testing.assert_close(lse, expected_lse)
    for x, y in ((o, given), (expected, exact)):
        x.square().sum().backward()
        assert all(tensor.grad is not None for tensor in y.values())
    for tensor, name in zip(given.values(), exact, strict=True):
        torch.testing.assert_close(tensor.grad, exact[name].grad)
    assert [m for m in caplog.messages if m.startswith("neighbor runs as")] == caplog.messages


def test_a_topology_stands_for_its_lists(make_case: MakeCase) -> None:
    case = make_case("neighbors", 9)
    lists = case.data.neighbors[0]
    assert torch.equal(run(case, neighbors=Topology(lists)), run(case, neighbors=lists))
    square = case.put(q=case.q[:1], k=case.k[:1], v=case.v[:1, ..., [0, 1, 2, 3, 4, 5, 0, 1]])
    assert torch.equal(run(square, neighbors=Topology(lists)), run(square, neighbors=lists))


def _with_lse(case: Any) -> tuple[Tensor, Tensor]:
    return attend(case.q, case.k, case.v, case.spec, case.data, return_lse=True)


@pytest.mark.parametrize(("width", "rank", "why"), [(8, 22, "22 factors"), (80, 1, "D is 80")])
def test_a_bias_that_does_not_fit_tiles_of_triton_is_refused_by_them(
    monkeypatch: pytest.MonkeyPatch, width: int, rank: int, why: str
) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    q, factors = torch.zeros(1, 1, 3, width), torch.zeros(3, rank)
    with pytest.raises(ValueError, match=why):
        attend(q, q, q, Spec(rank=rank), Data(query_factors=factors, key_factors=factors))


def test_it_stands_in_what_is_compiled() -> None:
    """Dynamo cannot make specs anew, so it goes around."""
    q, k, v = torch.randn(3, 1, 2, 9, 4, generator=torch.Generator().manual_seed(0))
    spec, data = Spec(Window(2, 0)), Data()

    def twice(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return 2 * attend(q + 1, k, v, spec, data)

    compiled = torch.compile(twice, backend="eager")
    torch.testing.assert_close(compiled(q, k, v), twice(q, k, v))
