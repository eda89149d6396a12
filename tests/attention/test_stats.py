"""Statistics against float64 maps, written out from the definitions.

`test_stats_triton.py` runs this file again on a GPU where there is one, with Triton's form in place of PyTorch's.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coterie.attention.dispatch import VARIABLE
from coterie.attention.kernels import stats_torch
from coterie.attention.layout import lay_out
from coterie.attention.naive import naive_attention
from coterie.attention.stats import (
    AttentionStatistics,
    StatisticsRequest,
    attention_statistics,
    attention_with_lse,
)

EVERYTHING = StatisticsRequest(span=True, entropy=True, sink=2, waad=10, received=True, fai=(10, 100), mass=3)
ON_GPU = os.environ.get(VARIABLE) == "triton" and os.environ.get("TRITON_INTERPRET") != "1"
DEVICE = "cuda" if ON_GPU else "cpu"

"""Where tensors are made."""
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
of_the_cpu = pytest.mark.skipif(ON_GPU, reason="is about the CPU, or about checks that know no device")


def tensors(
    tokens: int,
    *,
    heads: int = 4,
    key_heads: int = 2,
    dim: int = 16,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(DEVICE).manual_seed(tokens)
    q = torch.randn(batch, heads, tokens, dim, generator=generator)
    k = torch.randn(batch, key_heads, tokens, dim, generator=generator)
    return (2 * q).to(dtype), (2 * k).to(dtype)


def labels_of(tokens: int, batch: int = 1) -> Tensor:
    return (torch.arange(tokens) * 4 // max(tokens, 1)).expand(batch, -1).clone() - 1


def expected(
    q: Tensor,
    k: Tensor,
    which: StatisticsRequest,
    *,
    segments: Tensor | None = None,
    queries: Tensor | None = None,
    labels: Tensor | None = None,
    scale: float | None = None,
    causal: bool = True,
) -> dict[str, Tensor]:
    """By the words of each definition, from one head's float64 map after the other."""
    batch, heads, tokens, dim = q.shape
    found: dict[str, list[Tensor]] = {}
    for b, h in itertools.product(range(batch), range(heads)):
        number = torch.zeros(tokens) if segments is None else segments[b]
        # A number that comes again is another sequence.
        segment = torch.cat([torch.zeros(1), (number[1:] != number[:-1]).cumsum(0)]).masked_fill(number < 0, -1)
        allowed = (segment[:, None] == segment) & (segment >= 0)
        if causal:
            allowed = allowed.tril()
        logits = q[b, h].double() @ k[b, h * k.shape[1] // heads].double().T * (dim**-0.5 if scale is None else scale)
        a = logits.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
        if queries is not None:
            allowed = allowed & queries[b][:, None]
            a = a * queries[b][:, None]
        t, s = torch.arange(tokens)[:, None], torch.arange(tokens)
        rank = ((segment[:, None] == segment).tril()).sum(-1) - 1  # place in its own sequence
        low, high = which.fai or (0, 0)
        horizon = allowed & (t - s >= low) & (t - s <= (tokens if high is None else high))
        label = torch.full((tokens,), -1) if labels is None else labels[b]
        one_hot = (label[:, None] == torch.arange(which.mass)).double()
        values = {
            "span": (a * (t - s).abs()).sum(1),
            "entropy": -(a * a.log()).nansum(1),
            "sink": (a * (rank < which.sink)).sum(1),
            "waad": (a * (t - s).abs().clamp(max=which.waad)).sum(1),
            "received": ((a * allowed).sum(0) / allowed.sum(0)).nan_to_num(),
            "fai": ((a * horizon).sum(0) / horizon.sum(0)).nan_to_num(),
            "mass": one_hot.T @ a @ one_hot,
        }
        for name in values:
            found.setdefault(name, []).append(values[name])
    return {
        name: torch.stack(each).unflatten(0, (batch, heads)) for name, each in found.items() if getattr(which, name)
    }


def assert_agree(found: AttentionStatistics, wanted: dict[str, Tensor], limit: float) -> None:
    for name, values in wanted.items():
        result = getattr(found, name)
        assert result.dtype == torch.float32
        # A row statistic that is 0 throughout is known to the rounding of the log-sum-exp and no better.
        error = (result - values).abs().max() / values.abs().max().clamp(min=1.0 if name in ROWS else 1e-30)
        # The window less a sum, of products of TensorFloat-32: 2.3e-5 off on an H100 where it is nearly 0.
        is_coarse = ON_GPU and name == "waad" and values.abs().max() < 2
        assert error <= (max(limit, 5e-5) if is_coarse else limit), f"{name} is off by {error:.1e}"


def check(q: Tensor, k: Tensor, which: StatisticsRequest, limit: float | None = None, **options: Any) -> None:
    causal, scale, segments = (options.get(name) for name in ("causal", "scale", "segments"))
    _, lse = attention_with_lse(q, k, k, segments=segments, scale=scale, causal=causal is not False)
    found = attention_statistics(q, k, lse, which, **options)
    assert_agree(found, expected(q, k, which, **options), LIMITS[q.dtype] if limit is None else limit)


ROWS = ("span", "entropy", "sink", "waad")


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:
    if ON_GPU and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    with torch.device(DEVICE) if ON_GPU else nullcontext():
        yield


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Fresh memory holds NaN."""
    torch.use_deterministic_algorithms(True, warn_only=ON_GPU)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


def packed() -> Tensor:
    """Two sequences and padding at the end; padding first, one token, then the number 0 again, which is another one."""
    first = [0] * 90 + [1] * 70 + [-1] * 40
    return torch.tensor([first, [-1] * 20 + [5] + [0] * 79 + [5] * 100])


@pytest.mark.parametrize("tokens", [1, 3, 63, 200])
@pytest.mark.parametrize("causal", [True, False])
def test_every_statistic_agrees_with_its_definition(tokens: int, causal: bool) -> None:
    check(*tensors(tokens), EVERYTHING, labels=labels_of(tokens), causal=causal)


@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("dim", [8, 24, 128, 256])
def test_heads_of_any_width_agree(dim: int, dtype: torch.dtype) -> None:
    if ON_GPU and dtype == torch.float32 and dim > 128:
        pytest.skip("such heads do not fit into a multiprocessor")
    check(*tensors(63, dim=dim, dtype=dtype), EVERYTHING, labels=labels_of(63))


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_it_agrees_over_several_tiles_in_every_dtype(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_torch, "TILE", 2 * stats_torch.ROWS * 100)
    q, k = tensors(1000, heads=2, key_heads=1, dtype=dtype)
    check(q, k, EVERYTHING, labels=labels_of(1000))


def test_far_keys_of_full_attention_lie_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_torch, "TILE", 2 * stats_torch.ROWS * 100)
    check(*tensors(500, heads=2), EVERYTHING, labels=labels_of(500), causal=False)


@pytest.mark.parametrize("causal", [True, False])
def test_sequences_of_a_packed_batch_see_themselves_alone(causal: bool) -> None:
    segments, labels = packed(), labels_of(200, batch=2)
    check(*tensors(200, batch=2), EVERYTHING, segments=segments, labels=labels, causal=causal)


def test_only_queries_are_counted() -> None:
    queries = torch.rand(2, 200, generator=torch.Generator(DEVICE).manual_seed(0)) < 0.5
    queries[:, :70] = False
    options = {"queries": queries, "segments": packed(), "labels": labels_of(200, batch=2)}
    check(*tensors(200, batch=2), EVERYTHING, **options)


@pytest.mark.parametrize(
    "fields", [{"span": True}, {"entropy": True}, {"sink": 1}, {"waad": 1}, {"waad": 300}, {"received": True},
               {"fai": (0, 0)}, {"fai": (7, 7)}, {"fai": (10, None)}, {"fai": (0, None)}, {"fai": (150, 180)},
               {"fai": (500, 600)}, {"mass": 3}],
)  # fmt: skip
def test_each_statistic_can_be_had_alone(fields: dict[str, Any]) -> None:
    which = StatisticsRequest(**fields)
    q, k = tensors(200)
    check(q, k, which, labels=labels_of(200) if which.mass else None)
    found = attention_statistics(q, k, None, which, labels=labels_of(200) if which.mass else None)
    names = {"span", "entropy", "sink", "waad", "received", "fai", "mass"}
    assert {name for name in names if getattr(found, name) is not None} == set(fields)


def test_key_heads_are_shared_as_if_they_were_repeated() -> None:
    q, k = tensors(100, heads=6, key_heads=2)
    shared = attention_statistics(q, k, None, StatisticsRequest(span=True, received=True))
    apart = attention_statistics(q, k.repeat_interleave(3, 1), None, StatisticsRequest(span=True, received=True))
    torch.testing.assert_close(shared.span, apart.span)
    torch.testing.assert_close(shared.received, apart.received)


def test_counts_say_how_many_queries_a_mean_is_of() -> None:
    which = StatisticsRequest(received=True, fai=(2, 3), mass=2)
    segments, labels = torch.tensor([[0, 0, 0, 0, 1, 1, -1]]), torch.tensor([[0, 0, 1, 1, 1, -1, 0]])
    found = attention_statistics(*tensors(7), None, which, segments=segments, labels=labels)
    assert found.received_queries.tolist() == [[4, 3, 2, 1, 2, 1, 0]]
    assert found.fai_queries.tolist() == [[2, 1, 0, 0, 0, 0, 0]]
    assert found.mass_queries.tolist() == [[2, 3]]


def test_a_layout_made_once_serves_every_layer() -> None:
    marks = {"segments": packed(), "labels": labels_of(200, batch=2), "queries": torch.arange(400).view(2, 200) % 3 > 0}
    layout = lay_out(tensors(200, batch=2)[0], **marks)
    for seed in (1, 2):
        q, k = (x.roll(seed, 1) for x in tensors(200, batch=2))
        once, again = (attention_statistics(q, k, None, EVERYTHING, **x) for x in ({"layout": layout}, marks))
        for name in ("span", "entropy", "sink", "waad", "received", "fai", "mass", "fai_queries", "mass_queries"):
            assert torch.equal(getattr(once, name), getattr(again, name)), name


def test_a_layout_of_another_batch_is_refused() -> None:
    q, k = tensors(9)
    with pytest.raises(ValueError, match="layout is of a batch of shape"):
        attention_statistics(q, k, None, StatisticsRequest(span=True), layout=lay_out(q[:, :, 1:]))
    with pytest.raises(ValueError, match="layout takes the place of"):
        attention_statistics(q, k, None, EVERYTHING, layout=lay_out(q), labels=labels_of(9))


def test_counts_made_under_inference_mode_serve_training_too() -> None:
    q, k = tensors(61)
    which = StatisticsRequest(fai=(1, 5))
    with torch.inference_mode():
        attention_statistics(q, k, None, which)
    weight = torch.ones(1, 61, requires_grad=True)
    (weight * attention_statistics(q, k, None, which).fai_queries).sum().backward()
    assert weight.grad.sum() > 0


def test_uniform_attention_has_closed_forms() -> None:
    q = torch.zeros(1, 1, 300, 8)
    found = attention_statistics(q, q, None, StatisticsRequest(span=True, entropy=True, sink=1))
    t = torch.arange(300.0)
    torch.testing.assert_close(found.span[0, 0], t / 2)
    torch.testing.assert_close(found.entropy[0, 0], (t + 1).log(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sink[0, 0], 1 / (t + 1))


def test_head_means_are_over_queries() -> None:
    q, k = tensors(200, batch=2)
    found = attention_statistics(q, k, None, StatisticsRequest(span=True), segments=packed())
    valid = (packed() >= 0)[:, None].expand(-1, 4, -1)
    wanted = torch.stack([found.span[:, h][valid[:, h]].mean() for h in range(4)])
    torch.testing.assert_close(found.head_means()["span"], wanted)


def test_padding_and_other_sequences_change_no_bit() -> None:
    q, k = tensors(90)
    alone = attention_statistics(q, k, None, EVERYTHING, labels=labels_of(90))
    more_q, more_k = tensors(200, batch=2)
    more_q[0, :, 50:140], more_k[0, :, 50:140] = q[0], k[0]
    segments = torch.full((2, 200), -1)
    segments[0, 50:140], segments[0, 140:], segments[1] = 3, 4, 3
    labels = labels_of(200, batch=2)
    labels[0, 50:140] = labels_of(90)[0]
    among = attention_statistics(more_q, more_k, None, EVERYTHING, segments=segments, labels=labels)
    for name in ("span", "entropy", "sink", "waad", "received", "fai"):
        mine, wanted = getattr(among, name)[0, :, 50:140], getattr(alone, name)[0]
        # On a GPU tiles begin at other tokens of the sequence there, and sums are taken in another order.
        torch.testing.assert_close(mine, wanted, rtol=ON_GPU * 1e-5, atol=ON_GPU * 1e-5, msg=name)


def test_what_padding_holds_is_not_read(poisoned: None) -> None:
    q, k = tensors(200, batch=2)
    segments, labels = packed(), labels_of(200, batch=2)
    clean = attention_statistics(q, k, None, EVERYTHING, segments=segments, labels=labels)
    for tensor in (q, k):
        tensor.masked_fill_((segments < 0)[:, None, :, None], torch.nan)
    _, lse = attention_with_lse(q, k, k, segments=segments)
    found = attention_statistics(q, k, lse.nan_to_num(neginf=torch.nan), EVERYTHING, segments=segments, labels=labels)
    for name in ("span", "entropy", "sink", "waad", "received", "fai", "mass"):
        assert torch.equal(getattr(found, name), getattr(clean, name)), name
    assert not found.span.masked_select((segments < 0)[:, None]).any()


def test_strided_inputs_are_read_as_they_are() -> None:
    q, k = tensors(100)
    apart = [torch.randn(1, 100, x.shape[1], 40)[..., ::2].transpose(1, 2)[..., :16].copy_(x) for x in (q, k)]
    wanted = attention_statistics(q, k, None, StatisticsRequest(span=True, fai=(1, 5)))
    found = attention_statistics(apart[0], apart[1], None, StatisticsRequest(span=True, fai=(1, 5)))
    torch.testing.assert_close(found.span, wanted.span)
    torch.testing.assert_close(found.fai, wanted.fai)


class Largest(TorchDispatchMode):
    """Remembers the most numbers that an operation's result held in memory."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def largest(tokens: int) -> int:
    q, k = tensors(tokens, heads=2, key_heads=1)
    with Largest() as mode:
        attention_statistics(q, k, None, EVERYTHING, labels=labels_of(tokens))
    return mode.numbers


def test_memory_grows_with_the_tokens_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats_torch, "TILE", 1 << 15)
    short, long = largest(500), largest(2000)
    assert long <= 4 * short
    assert long < 2000 * 2000 // 20


def test_the_naive_form_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "naive")
    check(*tensors(200, batch=2), EVERYTHING, segments=packed(), labels=labels_of(200, batch=2))


def test_attention_with_lse_is_attention() -> None:
    q, k = tensors(200, batch=2)
    v = torch.randn(2, 2, 200, 24)
    o, lse = attention_with_lse(q, k, v, segments=packed())
    allowed = (packed()[:, None, :, None] == packed()[:, None, None]).tril() & (packed() >= 0)[:, None, :, None]
    allowed[1, :, :100] &= torch.arange(200) < 100  # the number 5 once more is another sequence
    allowed[1, :, 100:] &= torch.arange(200) >= 100
    wanted, wanted_lse = naive_attention(q, k, v, allowed=allowed)
    torch.testing.assert_close(o, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(lse, wanted_lse, atol=1e-5, rtol=1e-5)


@of_the_cpu
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"k": torch.zeros(1, 2, 9, 16).half()}, "k is float16, expected float32"),
        ({"v": torch.zeros(1, 2, 9, 16).double()}, "v is float64, expected float32"),
        ({"q": torch.zeros(1, 4, 9, 16).long()}, "q is int64"),
        ({"v": torch.zeros(1, 2, 8, 16)}, "v has shape"),
        ({"segments": torch.zeros(1, 9)}, "segments is float32"),
    ],
)
def test_a_wrong_tensor_of_attention_with_lse_is_named(changed: dict[str, Any], named: str) -> None:
    q, k = tensors(9)
    with pytest.raises(ValueError, match=named):
        attention_with_lse(**{"q": q, "k": k, "v": k, **changed})


@of_the_cpu
def test_attention_with_lse_keeps_float64_in_packed_sequences_too() -> None:
    q, k = (x.double() for x in tensors(20))
    _, lse = attention_with_lse(q, k, k, segments=torch.ones(1, 20).long())
    assert torch.equal(lse, attention_with_lse(q, k, k)[1])


@of_the_cpu
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"q": torch.randn(1, 4, 9)}, "q has shape"),
        ({"q": torch.randn(1, 4, 0, 16)}, "q has shape"),
        ({"q": torch.randn(1, 4, 9, 16).double()}, "q is float64"),
        ({"q": torch.randn(1, 3, 9, 16)}, "k has 2 heads"),
        ({"k": torch.randn(1, 2, 8, 16)}, "k has shape"),
        ({"k": torch.randn(1, 2, 9, 16).half()}, "k is float16"),
        ({"lse": torch.randn(1, 4, 8)}, "lse has shape"),
        ({"lse": torch.randn(1, 4, 9).half()}, "lse is float16"),
        ({"lse": torch.full((1, 4, 9), 50.0)}, "lse is not the natural log"),
        ({"segments": torch.zeros(1, 9)}, "segments is float32"),
        ({"segments": torch.zeros(9, dtype=torch.int64)}, "segments has shape"),
        ({"queries": torch.zeros(1, 9, dtype=torch.int64)}, "queries is int64"),
        ({"queries": torch.zeros(1, 9, dtype=torch.bool, device="meta")}, "queries is on meta"),
        ({"labels": torch.full((1, 9), 2)}, "labels holds 2"),
        ({"labels": None}, "labels and mass"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "labels has shape"),
    ],
)
def test_a_wrong_tensor_is_named(changed: dict[str, Any], named: str) -> None:
    q, k = tensors(9)
    arguments = {"q": q, "k": k, "lse": None, "labels": torch.zeros(1, 9, dtype=torch.int64), **changed}
    with pytest.raises(ValueError, match=named):
        attention_statistics(which=StatisticsRequest(mass=2), **arguments)


@pytest.mark.parametrize(
    "fields",
    [
        {"waad": -1},
        {"sink": -1},
        {"mass": -2},
        {"waad": True},
        {"sink": 1.5},
        {"fai": (-1, 3)},
        {"fai": (5, 4)},
        {"fai": (1.5, 3)},
        {"fai": (0, True)},
        {"fai": (1,)},
        {"fai": 3},
    ],
)
def test_a_parameter_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        StatisticsRequest(**fields)
